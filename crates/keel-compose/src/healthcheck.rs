//! `healthcheck`.

use std::time::Duration;

use keel_diag::{Diagnostic, Span};

use crate::{
    decode::Decoder,
    schema::{self, Care},
    yaml::{Node, Value},
};

/// `healthcheck`, of a Compose file or a Dockerfile. What is not given is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// Where it stands.
    pub span: Span,
    /// What is run.
    pub test: Option<HealthTest>,
    /// `interval`.
    pub interval: Option<Duration>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `retries`.
    pub retries: Option<u32>,
    /// `start_period`.
    pub start_period: Option<Duration>,
    /// `start_interval`.
    pub start_interval: Option<Duration>,
}

/// `healthcheck.test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthTest {
    /// `NONE`, or `disable: true`: the image's healthcheck is off.
    Disabled,
    /// `CMD`: a program and its arguments.
    Command(Vec<String>),
    /// `CMD-SHELL`, or a single text: a line for `sh -c`.
    Shell(String),
}

impl HealthTest {
    /// What is run, the shell's line as `sh -c`; `None` where it is off.
    pub fn argv(&self) -> Option<Vec<String>> {
        match self {
            Self::Disabled => None,
            Self::Command(argv) => Some(argv.clone()),
            Self::Shell(line) => Some(vec!["/bin/sh".into(), "-c".into(), line.clone()]),
        }
    }
}

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
        // An empty list says nothing: the image's own stays.
        None => return None,
        Some("NONE") => return Some(HealthTest::Disabled),
        Some("CMD") => {
            let argv: Vec<String> = words.collect();
            if !argv.is_empty() {
                return Some(HealthTest::Command(argv));
            }
        }
        Some("CMD-SHELL") => {
            let line = words.next();
            let more: Vec<String> = words.collect();
            match line {
                Some(line) if more.is_empty() => return Some(HealthTest::Shell(line)),
                Some(line) => return Some(shell_with_arguments(decoder, node, line, more)),
                None => {}
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

/// The engine hands all words after CMD-SHELL to the shell, of which the first is the line.
fn shell_with_arguments(
    decoder: &mut Decoder<'_>,
    node: &Node,
    line: String,
    arguments: Vec<String>,
) -> HealthTest {
    let message = format!("the healthcheck runs `{line}` alone");
    decoder.report.push(
        Diagnostic::warning("compose::healthcheck", message)
            .at(node.span, "words after the first are $0, $1 and so on of the shell")
            .help("write one line after CMD-SHELL, or CMD and words"),
    );
    let shell = ["/bin/sh", "-c"].map(str::to_owned).into_iter();
    HealthTest::Command(shell.chain([line]).chain(arguments).collect())
}
