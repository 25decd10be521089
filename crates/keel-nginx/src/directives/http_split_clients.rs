//! ngx_http_split_clients_module: requests divided into parts by a hash.

use keel_model::{SplitClients, SplitPart, VariableSource};

use crate::{
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// Hundredths of a percent in all.
const WHOLE: u32 = 10_000;

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "split_clients",
    syntax: "string $variable { percentage value; ... }",
    contexts: Contexts::HTTP,
    arity: Arity::TWO,
    default: None,
    doc: "Defines a variable by a hash of a text (MurmurHash2, as in nginx, so that a client stays in its part): lines of a \
          percentage with two digits behind the point at most and a value; `*` takes what is left.",
    set: Setter::Block(split),
}];

fn split(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let [key, name] = directive.args.as_slice() else { return };
    let key = reader.template(key);
    let defined = reader.defined_name(directive, name);
    let mut sum = 0;
    let mut below = 0;
    let mut parts = Vec::new();
    for line in block {
        let Some((share, value)) = part(reader, line) else { continue };
        sum = share.map_or(WHOLE, |share| sum + share);
        if sum > WHOLE {
            let message = "the parts come to more than 100 %";
            let nginx = "percent total is greater than 100%";
            return reader.error("nginx::invalid-value", message, line.span(), nginx);
        }
        // Whatever completes the whole takes all that is left, for shares don't come out even.
        let share = share.filter(|_| sum < WHOLE);
        let limit = share.map(|share| {
            let hashes = u64::from(share) * u64::from(u32::MAX) / u64::from(WHOLE);
            below += u32::try_from(hashes).unwrap_or(u32::MAX);
            below
        });
        parts.push(SplitPart { below: limit, value });
    }
    if let (Some(key), Some(defined)) = (key, defined) {
        let split = SplitClients { key, parts };
        reader.http.names.define_as(&defined, VariableSource::SplitClients(split));
    }
}

/// Reads a line: a share in hundredths of a percent, `None` for what is left, and its value.
fn part(reader: &mut Reader<'_>, line: &Directive) -> Option<(Option<u32>, String)> {
    let [value] = line.args.as_slice() else {
        let message = "a line of `split_clients` has a percentage and a value";
        let nginx = format!("invalid percent value \"{}\"", line.name.text);
        reader.error("nginx::invalid-number-of-arguments", message, line.span(), nginx);
        return None;
    };
    let text = line.name.text.as_str();
    if text == "*" {
        return Some((None, value.text.clone()));
    }
    let share = text.strip_suffix('%').and_then(hundredths).filter(|share| *share > 0);
    if share.is_none() {
        let nginx = format!("invalid percent value \"{text}\"");
        reader.invalid(line, &line.name, nginx, "a percentage such as `0.5%`, or `*`");
    }
    Some((Some(share?), value.text.clone()))
}

fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 2 {
        return None;
    }
    format!("{whole}{fraction:0<2}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let check = |text: &str, expect: Option<u32>| assert_eq!(hundredths(text), expect, "{text}");
        check("0.5", Some(50));
        check("51.2", Some(5120));
        check("7", Some(700));
        check(".05", Some(5));
        check("100", Some(10_000));
        check("0.123", None);
        check("a", None);
        check("", None);
        check("-1", None);
    }
}
