//! ngx_http_userid_module: cookies that tell clients apart.

use keel_model::{UseridExpires, UseridFlag, UseridMode, Variable};

use crate::{
    arguments::{keyword, number32, text},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "userid",
        syntax: "on | v1 | log | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether a client that has no cookie gets one that tells it apart (`on`, or of version 1 with `v1`), and cookies that \
              it has are known (`log`). `$uid_got` and `$uid_set` are the cookie that came and the one that is sent; \
              `$uid_reset`, where a `map` or `set` defines it, asks for a new one.",
        set: Setter::Simple(mode),
    },
    Row {
        name: "userid_name",
        syntax: "name",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("uid"),
        doc: "The cookie's name.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.userid.name, text);
        }),
    },
    Row {
        name: "userid_domain",
        syntax: "name | none",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("none"),
        doc: "The cookie's domain.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.userid.domain, unless_none);
        }),
    },
    Row {
        name: "userid_path",
        syntax: "path",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("/"),
        doc: "The cookie's path.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.userid.path, text);
        }),
    },
    Row {
        name: "userid_expires",
        syntax: "time | max | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "How long browsers keep the cookie; `off` for their session, `max` until the end of 2037.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.userid.expires, expires);
        }),
    },
    Row {
        name: "userid_p3p",
        syntax: "string | none",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("none"),
        doc: "The field `P3P` that goes with the cookie.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.userid.p3p, unless_none);
        }),
    },
    Row {
        name: "userid_mark",
        syntax: "letter | digit | = | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "A mark of the cookie: one that has another is sent again.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.userid.mark, mark);
        }),
    },
    Row {
        name: "userid_service",
        syntax: "number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "What the cookie begins with; else the server's address, or 0 in version 1.",
        set: Setter::Simple(|reader, directive| {
            let read = |reader: &mut Reader<'_>, directive: &Directive| number32(reader, directive).map(Some);
            reader.once(directive, |frame| &mut frame.scope.userid.service, read);
        }),
    },
    Row {
        name: "userid_flags",
        syntax: "off | secure | httponly | samesite=strict | samesite=lax | samesite=none ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 3),
        default: Some("off"),
        doc: "Attributes of the cookie.",
        set: Setter::Simple(flags),
    },
];

fn mode(reader: &mut Reader<'_>, directive: &Directive) {
    reader.once(
        directive,
        |frame| &mut frame.scope.userid.mode,
        |reader, directive| {
            let choices = [
                ("off", UseridMode::Off),
                ("log", UseridMode::Log),
                ("v1", UseridMode::V1),
                ("on", UseridMode::On),
            ];
            keyword(reader, directive, &choices)
        },
    );
    let is_sent = matches!(reader.frame.scope.userid.mode, Some(UseridMode::V1 | UseridMode::On));
    if is_sent && reader.http.names.blocks.contains("uid_reset") {
        let reset: Variable = reader.http.names.define("uid_reset");
        reader.frame.scope.userid.reset = Some(Some(reset));
    }
}

fn unless_none(_: &mut Reader<'_>, directive: &Directive) -> Option<Option<String>> {
    let text = directive.arg(0);
    Some(Some(text.to_owned()).filter(|text| !text.is_empty() && text != "none"))
}

fn expires(reader: &mut Reader<'_>, directive: &Directive) -> Option<UseridExpires> {
    let word = directive.args.first()?;
    match word.text.as_str() {
        "max" => Some(UseridExpires::Max),
        "off" => Some(UseridExpires::Off),
        text => match value::time(text, Resolution::Seconds) {
            Some(time) => Some(UseridExpires::After(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))),
            None => {
                reader.invalid(directive, word, "invalid value".to_owned(), "`max`, `off` or a time");
                None
            }
        },
    }
}

fn mark(reader: &mut Reader<'_>, directive: &Directive) -> Option<Option<u8>> {
    let word = directive.args.first()?;
    match word.text.as_bytes() {
        b"off" => Some(None),
        [mark] if mark.is_ascii_alphanumeric() || *mark == b'=' => Some(Some(*mark)),
        _ => {
            let nginx = "value must be \"off\" or a single letter, digit or \"=\"".to_owned();
            reader.invalid(directive, word, nginx, "`off`, a letter, a digit or `=`");
            None
        }
    }
}

fn flags(reader: &mut Reader<'_>, directive: &Directive) {
    let choices = [
        ("off", None),
        ("secure", Some(UseridFlag::Secure)),
        ("httponly", Some(UseridFlag::Httponly)),
        ("samesite=strict", Some(UseridFlag::SamesiteStrict)),
        ("samesite=lax", Some(UseridFlag::SamesiteLax)),
        ("samesite=none", Some(UseridFlag::SamesiteNone)),
    ];
    let words = crate::arguments::keywords(reader, directive, &choices);
    let flags = reader.frame.scope.userid.flags.get_or_insert_default();
    for flag in words.into_iter().flatten() {
        if !flags.contains(&flag) {
            flags.push(flag);
        }
    }
    flags.sort_unstable();
}
