//! ngx_http_log_module: the access log.

use keel_diag::Diagnostic;
use keel_model::{AccessLog, LogDestination, LogEscape, LogFormat, Part, Template};

use super::syslog;
use crate::{
    ast::{Directive, Word},
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
    variables::has_variables,
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "log_format",
        syntax: "name [escape=default|json|none] string ...",
        contexts: Contexts::HTTP,
        arity: Arity::AtLeast(2),
        default: Some("combined \"...\""),
        doc: "Names a form of log line. Values are escaped so that a line stays one line; `combined` is built in.",
        set: Setter::Simple(log_format),
    },
    Row {
        name: "access_log",
        syntax: "path | syslog:server=address[,parameter=value] [format [buffer=size] [flush=time] [if=condition]] | off",
        contexts: Contexts::HTTP_ALL_IF.or(Contexts::LIMIT_EXCEPT),
        arity: Arity::AtLeast(1),
        default: Some("logs/access.log combined"),
        doc: "Writes a line for each request. Several logs may be given; a block with any inherits none. Nothing is \
              written where the condition is empty or `0`. Writing never makes a worker wait.",
        set: Setter::Simple(access_log),
    },
];

fn log_format(reader: &mut Reader<'_>, directive: &Directive) {
    let Some((name, words)) = directive.args.split_first() else {
        return;
    };
    if name.text == "combined" || reader.http.formats.iter().any(|format| format.name == name.text) {
        let nginx = format!("duplicate \"log_format\" name \"{}\"", name.text);
        let message = format!("a second `log_format` named `{}`", name.text);
        return reader.error("nginx::duplicate-log-format", message, name.span, nginx);
    }
    let (escape, words) = match words.split_first() {
        Some((first, rest)) if first.text.starts_with("escape=") => (escape(reader, directive, first), rest),
        _ => (LogEscape::Default, words),
    };
    let mut line = Template::default();
    for word in words {
        if let Some(template) = reader.template(word) {
            line = concatenate(line, template);
        }
    }
    reader.http.formats.push(LogFormat { name: name.text.clone(), escape, line });
}

fn escape(reader: &mut Reader<'_>, directive: &Directive, word: &Word) -> LogEscape {
    match word.text.strip_prefix("escape=").unwrap_or_default() {
        "json" => LogEscape::Json,
        "none" => LogEscape::None,
        "default" => LogEscape::Default,
        other => {
            let nginx = format!("unknown log format escaping \"{other}\"");
            reader.invalid(directive, word, nginx, "`escape=default`, `escape=json` or `escape=none`");
            LogEscape::Default
        }
    }
}

/// Puts one template behind another; two literals that meet become one.
fn concatenate(first: Template, second: Template) -> Template {
    let mut parts = first.parts;
    for part in second.parts {
        match (parts.last_mut(), part) {
            (Some(Part::Literal(before)), Part::Literal(text)) => before.push_str(&text),
            (_, part) => parts.push(part),
        }
    }
    Template { parts }
}

fn access_log(reader: &mut Reader<'_>, directive: &Directive) {
    let Some((destination, parameters)) = directive.args.split_first() else {
        return;
    };
    if destination.text == "off" {
        if let Some(extra) = parameters.first() {
            reader.invalid_parameter(directive, extra, &[]);
        }
        reader.frame.scope.log.logs.get_or_insert_default();
        return;
    }
    let format = match parameters.first() {
        None => Some(LogFormat::combined()),
        Some(word) => named_format(reader, word),
    };
    let target = self::destination(reader, directive, destination);
    let options = options(reader, directive, parameters.get(1..).unwrap_or_default());
    let logs = reader.frame.scope.log.logs.get_or_insert_default();
    if let (Some(format), Some(destination), Some(options)) = (format, target, options) {
        let Options { buffer, flush, condition } = options;
        logs.push(AccessLog { destination, format, buffer, flush, condition });
    }
}

fn named_format(reader: &mut Reader<'_>, word: &Word) -> Option<LogFormat> {
    if word.text.eq_ignore_ascii_case("combined") {
        return Some(LogFormat::combined());
    }
    let format =
        reader.http.formats.iter().find(|format| format.name.eq_ignore_ascii_case(&word.text)).cloned();
    if format.is_none() {
        let name = &word.text;
        let mut found =
            Diagnostic::error("nginx::unknown-log-format", format!("unknown log format `{name}`"))
                .at(word.span, "no `log_format` before this has this name")
                .nginx(format!("unknown log format \"{name}\""));
        let names = reader.http.formats.iter().map(|format| format.name.as_str());
        if let Some(near) = keel_diag::suggest(name, names) {
            found = found.help(format!("did you mean `{near}`?"));
        } else if name.contains('=') {
            found = found.help(format!("a format's name stands before the parameters: `combined {name}`"));
        }
        reader.diagnostics.push(found);
    }
    format
}

fn destination(reader: &mut Reader<'_>, directive: &Directive, word: &Word) -> Option<LogDestination> {
    match word.text.as_str() {
        "/dev/stdout" | "/proc/self/fd/1" => Some(LogDestination::Stdout),
        "/dev/stderr" | "/proc/self/fd/2" => Some(LogDestination::Stderr),
        text if text.starts_with("syslog:") => {
            syslog::read(reader, directive, word).map(LogDestination::Syslog)
        }
        text => {
            let path = reader.absolute(text).to_string_lossy().into_owned();
            reader.template_text(&path, word).map(LogDestination::File)
        }
    }
}

struct Options {
    buffer: Option<keel_model::ByteSize>,
    flush: Option<std::time::Duration>,
    condition: Option<Template>,
}

fn options(reader: &mut Reader<'_>, directive: &Directive, words: &[Word]) -> Option<Options> {
    let mut options = Options { buffer: None, flush: None, condition: None };
    for word in words {
        let (key, text) = word.text.split_once('=').unwrap_or((&word.text, ""));
        match key {
            "buffer" => match value::size(text).filter(|size| size.0 > 0) {
                Some(size) => options.buffer = Some(size),
                None => {
                    let nginx = format!("invalid buffer size \"{text}\"");
                    reader.invalid(directive, word, nginx, "a size such as `buffer=32k`");
                }
            },
            "flush" => match value::time(text, Resolution::Milliseconds).filter(|time| !time.is_zero()) {
                Some(time) => options.flush = Some(time),
                None => {
                    let nginx = format!("invalid flush time \"{text}\"");
                    reader.invalid(directive, word, nginx, "a time such as `flush=5s`");
                }
            },
            "gzip" => reader.diagnostics.push(
                Diagnostic::warning("nginx::unsupported-log", "compressed access logs are not there yet")
                    .at(word.span, "lines are written as they are"),
            ),
            "if" => options.condition = Some(reader.template_text(text, word)?),
            _ => reader.invalid_parameter(directive, word, &["buffer", "flush", "gzip", "if"]),
        }
    }
    let path = directive.arg(0);
    if options.buffer.is_some() && path.starts_with("syslog:") {
        let nginx = "logs to syslog cannot be buffered";
        let message = "a log to syslog can't be buffered: each line is a message";
        reader.error("nginx::invalid-parameter", message, directive.span(), nginx);
    }
    if options.flush.is_some() && options.buffer.is_none() {
        let nginx = format!("no buffer is defined for access_log \"{path}\"");
        reader.error("nginx::invalid-parameter", "`flush` needs a `buffer`", directive.span(), nginx);
    }
    if options.buffer.is_some() && has_variables(path) {
        let nginx = "buffered logs cannot have variables in name";
        reader.error(
            "nginx::invalid-parameter",
            "a log with variables in its path can't be buffered",
            directive.span(),
            nginx,
        );
    }
    Some(options)
}
