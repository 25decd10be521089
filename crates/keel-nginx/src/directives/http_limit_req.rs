//! ngx_http_limit_req_module: how many requests may come in a time.

use keel_model::{LogLevel, RequestLimit};

use super::limit_zones::{self, Kind};
use crate::{
    arguments::{flag, keyword, status_of_error},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// What may be logged when a limit acts.
pub(super) const LOG_LEVELS: [(&str, LogLevel); 4] = [
    ("info", LogLevel::Info),
    ("notice", LogLevel::Notice),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
];

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "limit_req_zone",
        syntax: "key zone=name:size rate=number[r/s | r/m]",
        contexts: Contexts::HTTP,
        arity: Arity::Take(3, 3),
        default: None,
        doc: "Defines a zone, in which requests are counted by their key, and how many of one key may come in a second or in \
              a minute. Requests with an empty key aren't counted. All workers share the zone, a reload keeps it, and it \
              never takes more memory than its size: keys that have been quiet for longest are forgotten.",
        set: Setter::Simple(zone),
    },
    Row {
        name: "limit_req",
        syntax: "zone=name [burst=number] [nodelay | delay=number]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 3),
        default: None,
        doc: "Limits how fast requests of one key come. Up to `burst` may come early: beyond `delay`, of 0, they wait until it \
              is their time, with `nodelay` none does. Others are refused. With several limits a request must be within \
              all of them. A block with any `limit_req` inherits none.",
        set: Setter::Simple(limit),
    },
    Row {
        name: "limit_req_log_level",
        syntax: "info | notice | warn | error",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("error"),
        doc: "How refused requests are logged; those that wait are logged a level below.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.limit_req.log_level,
                |reader, directive| keyword(reader, directive, &LOG_LEVELS),
            );
        }),
    },
    Row {
        name: "limit_req_status",
        syntax: "code",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("503"),
        doc: "What refused requests are answered with, 400 to 599.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.limit_req.status, status_of_error);
        }),
    },
    Row {
        name: "limit_req_dry_run",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Lets limits count and log, and refuse and delay nothing. `$limit_req_status` says what they would have done.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.limit_req.dry_run, flag);
        }),
    },
];

fn zone(reader: &mut Reader<'_>, directive: &Directive) {
    let (mut named, mut has_zone, mut rate) = (None, false, 1000);
    for word in directive.args.iter().skip(1) {
        if let Some(text) = word.text.strip_prefix("zone=") {
            has_zone = true;
            named = limit_zones::size(reader, directive, word, text);
        } else if let Some(text) = word.text.strip_prefix("rate=") {
            match thousandths(text) {
                Some(found) => rate = found,
                None => {
                    let nginx = format!("invalid rate \"{}\"", word.text);
                    reader.invalid(directive, word, nginx, "a rate such as `rate=10r/s` or `rate=30r/m`");
                }
            }
        } else {
            let nginx = format!("invalid parameter \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`zone=name:size` or `rate=10r/s`");
        }
    }
    if !has_zone {
        reader.missing_parameter(directive, "zone");
    }
    limit_zones::define(reader, directive, Kind::Requests, named, rate);
}

/// Reads a rate, in thousandths of requests in a second.
fn thousandths(text: &str) -> Option<u64> {
    let (number, seconds) = match (text.strip_suffix("r/s"), text.strip_suffix("r/m")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => (text, 1),
    };
    let number = value::number(number).filter(|number| *number > 0)?;
    Some(number.saturating_mul(1000) / seconds)
}

fn limit(reader: &mut Reader<'_>, directive: &Directive) {
    let (mut zone, mut burst, mut delay) = (None, 0, Some(0));
    for word in &directive.args {
        let text = word.text.as_str();
        let number = |key: &str| {
            text.strip_prefix(key).map(|number| value::number(number).filter(|number| *number > 0))
        };
        if let Some(name) = text.strip_prefix("zone=") {
            zone = Some((name, word.span));
        } else if let Some(number) = number("burst=") {
            match number {
                Some(number) => burst = number,
                None => {
                    let nginx = format!("invalid burst value \"{text}\"");
                    reader.invalid(directive, word, nginx, "a number of requests, such as `burst=5`");
                }
            }
        } else if let Some(number) = number("delay=") {
            match number {
                Some(number) => delay = Some(number),
                None => {
                    let nginx = format!("invalid delay value \"{text}\"");
                    reader.invalid(directive, word, nginx, "a number of requests, such as `delay=5`");
                }
            }
        } else if text == "nodelay" {
            delay = None;
        } else {
            reader.invalid_parameter(directive, word, &["zone=", "burst=", "delay=", "nodelay"]);
        }
    }
    let Some((name, span)) = zone else { return reader.missing_parameter(directive, "zone") };
    let limits = reader.frame.scope.limit_req.limits.get_or_insert_default();
    if limits.iter().any(|known| known.zone.name == name) {
        return reader.duplicate(directive);
    }
    let zone = reader.http.limit_zones.name(Kind::Requests, name, span);
    limits.push(RequestLimit { zone, rate: 0, burst, delay });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text, expect| assert_eq!(thousandths(text), expect, "{text}");
        check("10r/s", Some(10_000));
        check("30r/m", Some(500));
        check("1r/m", Some(16));
        check("5", Some(5000));
        check("0r/s", None);
        check("r/s", None);
        check("1r/h", None);
    }
}
