//! `healthcheck`.

use crate::{
    HealthTest, Healthcheck,
    decode::Decoder,
    schema::{self, Care},
    yaml::{Node, Value},
};

/// Reads a service's `healthcheck`.
pub(crate) fn healthcheck(decoder: &mut Decoder<'_>, node: &Node) -> Option<Healthcheck> {
    let entries = decoder.entries(node)?;
    schema::check(entries, schema::HEALTHCHECK, "`healthcheck`", Care::Effects, decoder.report);
    let disabled =
        node.get("disable").and_then(|node| decoder.flag(node)).is_some_and(|disable| disable.value);
    let test = node.get("test").and_then(|node| test(decoder, node));
    let mut duration =
        |name: &str| node.get(name).and_then(|node| decoder.duration(node)).map(|duration| duration.value);
    let (interval, timeout) = (duration("interval"), duration("timeout"));
    let (start_period, start_interval) = (duration("start_period"), duration("start_interval"));
    let retries = node.get("retries").and_then(|node| decoder.number(node)).map(|retries| retries.value);
    Some(Healthcheck {
        span: node.span,
        test: if disabled { Some(HealthTest::Disabled) } else { test },
        interval,
        timeout,
        retries,
        start_period,
        start_interval,
    })
}

fn test(decoder: &mut Decoder<'_>, node: &Node) -> Option<HealthTest> {
    let Value::Sequence(_) = &node.value else {
        return decoder.text(node).map(|line| HealthTest::Shell(line.value));
    };
    let mut words = decoder.texts(node).into_iter().map(|word| word.value);
    match words.next().as_deref() {
        Some("NONE") => return Some(HealthTest::Disabled),
        Some("CMD") => {
            let argv: Vec<String> = words.collect();
            if !argv.is_empty() {
                return Some(HealthTest::Command(argv));
            }
        }
        Some("CMD-SHELL") => {
            if let (Some(line), None) = (words.next(), words.next()) {
                return Some(HealthTest::Shell(line));
            }
        }
        _ => {}
    }
    decoder.invalid(
        node.span,
        "`test` as a list begins with NONE, CMD or CMD-SHELL, and what is run follows",
        "write [\"CMD\", \"curl\", \"-f\", \"http://localhost:5000/\"] or [\"CMD-SHELL\", \"one line\"]",
    );
    None
}
