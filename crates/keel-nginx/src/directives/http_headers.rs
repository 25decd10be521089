//! ngx_http_headers_module: fields added to responses.

use keel_diag::Span;
use keel_model::{AddHeader, Expires, InheritFields, Template};

use crate::{
    arguments::keyword,
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "add_header",
        syntax: "name value [always]",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::Take(2, 3),
        default: None,
        doc: "Adds a field to responses with status 200, 201, 204, 206, 301, 302, 303, 304, 307 or 308, with `always` \
              to all. An empty value adds nothing. A block with any `add_header` inherits none, unless \
              `add_header_inherit` says otherwise.",
        set: Setter::Simple(|reader, directive| {
            if let Some(field) = field(reader, directive) {
                reader.frame.scope.headers.add.fields.push(field);
            }
        }),
    },
    Row {
        name: "add_trailer",
        syntax: "name value [always]",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::Take(2, 3),
        default: None,
        doc: "Adds a field after the body of responses with the statuses of `add_header`.",
        set: Setter::Simple(|reader, directive| {
            if let Some(field) = field(reader, directive) {
                reader.frame.scope.headers.add_trailers.fields.push(field);
            }
        }),
    },
    Row {
        name: "add_header_inherit",
        syntax: "on | off | merge",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether the outer block's `add_header` hold where none are set (`on`), never (`off`), or beside those \
              set here (`merge`).",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.headers.add.inherit, inherit_kind);
        }),
    },
    Row {
        name: "add_trailer_inherit",
        syntax: "on | off | merge",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "As `add_header_inherit`, for `add_trailer`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.headers.add_trailers.inherit, inherit_kind);
        }),
    },
    Row {
        name: "expires",
        syntax: "[modified] time | epoch | max | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::Take(1, 2),
        default: Some("off"),
        doc: "Sets `Expires` and `Cache-Control`: a time from now or from the file's modification, `@15h30m` for a \
              time of day, `epoch` and negative times for no caching, `max` for ten years.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.headers.expires, expires);
        }),
    },
];

fn inherit_kind(reader: &mut Reader<'_>, directive: &Directive) -> Option<InheritFields> {
    keyword(
        reader,
        directive,
        &[("on", InheritFields::On), ("off", InheritFields::Off), ("merge", InheritFields::Merge)],
    )
}

fn field(reader: &mut Reader<'_>, directive: &Directive) -> Option<AddHeader> {
    let [name, value, rest @ ..] = directive.args.as_slice() else {
        return None;
    };
    let name = reader.field_name(directive, name);
    let value = reader.template(value);
    let always = match rest.first() {
        None => false,
        Some(word) if word.text == "always" => true,
        Some(word) => {
            reader.invalid_parameter(directive, word, &["always"]);
            return None;
        }
    };
    Some(AddHeader { name: name?, value: value?, always })
}

fn expires(reader: &mut Reader<'_>, directive: &Directive) -> Option<Expires> {
    let span = directive.span();
    let (modified, word) = match directive.args.as_slice() {
        [word] => (false, word),
        [modified, word] if modified.text == "modified" => (true, word),
        _ => return refuse_expires(reader, span, "invalid value"),
    };
    let template = reader.template(word)?;
    let Some(text) = template.as_literal() else {
        return Some(Expires::Variable(prefix_modified(template, modified)));
    };
    match text {
        "epoch" if !modified => return Some(Expires::Epoch),
        "max" if !modified => return Some(Expires::Max),
        "off" if !modified => return Some(Expires::Off),
        _ => {}
    }
    if text.starts_with('@') && modified {
        return refuse_expires(reader, span, "daily time cannot be used with \"modified\" parameter");
    }
    let digits = text.trim_start_matches(['@', '+', '-']);
    let seconds =
        value::time(digits, Resolution::Seconds).and_then(|time| i64::try_from(time.as_secs()).ok());
    let Some(seconds) = seconds.filter(|_| text.len() - digits.len() <= 1) else {
        return refuse_expires(reader, span, "invalid value");
    };
    match text.as_bytes().first() {
        Some(b'@') => match u32::try_from(seconds) {
            Ok(daily) if daily <= 24 * 60 * 60 => Some(Expires::Daily(daily)),
            _ => refuse_expires(reader, span, "daily time value must be less than 24 hours"),
        },
        Some(b'-') if modified => Some(Expires::Modified(-seconds)),
        Some(b'-') => Some(Expires::Access(-seconds)),
        _ if modified => Some(Expires::Modified(seconds)),
        _ => Some(Expires::Access(seconds)),
    }
}

/// A text from a variable keeps the word `modified` in front, as it would stand in the file.
fn prefix_modified(template: Template, modified: bool) -> Template {
    if !modified {
        return template;
    }
    let mut parts = Template::literal("modified ").parts;
    match template.parts.split_first() {
        Some((keel_model::Part::Literal(text), rest)) => {
            parts = Template::literal(format!("modified {text}")).parts;
            parts.extend_from_slice(rest);
        }
        _ => parts.extend(template.parts),
    }
    Template { parts }
}

fn refuse_expires(reader: &mut Reader<'_>, span: Span, what: &str) -> Option<Expires> {
    reader.error(
        "nginx::invalid-value",
        format!("`expires`: {what}"),
        span,
        format!("\"expires\" directive {what}"),
    );
    None
}
