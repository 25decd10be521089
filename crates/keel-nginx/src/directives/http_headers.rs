//! ngx_http_headers_module: fields added to responses.

use keel_diag::Span;
use keel_model::{AddHeader, Expires, HeadersScope, Template};

use crate::{
    arguments::keyword,
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
};

/// What one block sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    add: Vec<AddHeader>,
    add_trailers: Vec<AddHeader>,
    inherit_headers: Option<Inherit>,
    inherit_trailers: Option<Inherit>,
    expires: Option<Expires>,
}

/// `add_header_inherit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inherit {
    /// The outer block's fields where none are set here.
    On,
    /// None.
    Off,
    /// The outer block's after those set here.
    Merge,
}

impl Slot {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        if self.expires.is_none() {
            self.expires.clone_from(&outer.expires);
        }
        self.inherit_headers = self.inherit_headers.or(outer.inherit_headers);
        self.inherit_trailers = self.inherit_trailers.or(outer.inherit_trailers);
        inherit_fields(&mut self.add, &outer.add, self.inherit_headers);
        inherit_fields(&mut self.add_trailers, &outer.add_trailers, self.inherit_trailers);
    }

    /// Gives the model's form.
    pub(crate) fn lower(&self) -> HeadersScope {
        HeadersScope {
            add: self.add.clone(),
            add_trailers: self.add_trailers.clone(),
            expires: self.expires.clone().unwrap_or_default(),
        }
    }
}

fn inherit_fields(fields: &mut Vec<AddHeader>, outer: &[AddHeader], how: Option<Inherit>) {
    let takes = match how.unwrap_or(Inherit::On) {
        Inherit::On => fields.is_empty(),
        Inherit::Off => false,
        Inherit::Merge => true,
    };
    if takes {
        fields.extend_from_slice(outer);
    }
}

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "add_header",
        syntax: "name value [always]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(2, 3),
        default: None,
        doc: "Adds a field to responses with status 200, 201, 204, 206, 301, 302, 303, 304, 307 or 308, with `always` \
              to all. An empty value adds nothing. A block with any `add_header` inherits none, unless \
              `add_header_inherit` says otherwise.",
        set: Setter::Simple(|reader, directive| {
            if let Some(field) = field(reader, directive) {
                reader.frame.scope.headers.add.push(field);
            }
        }),
    },
    Row {
        name: "add_trailer",
        syntax: "name value [always]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(2, 3),
        default: None,
        doc: "Adds a field after the body of responses with the statuses of `add_header`.",
        set: Setter::Simple(|reader, directive| {
            if let Some(field) = field(reader, directive) {
                reader.frame.scope.headers.add_trailers.push(field);
            }
        }),
    },
    Row {
        name: "add_header_inherit",
        syntax: "on | off | merge",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether the outer block's `add_header` hold where none are set (`on`), never (`off`), or beside those \
              set here (`merge`).",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.headers.inherit_headers, inherit_kind);
        }),
    },
    Row {
        name: "add_trailer_inherit",
        syntax: "on | off | merge",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "As `add_header_inherit`, for `add_trailer`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.headers.inherit_trailers, inherit_kind);
        }),
    },
    Row {
        name: "expires",
        syntax: "[modified] time | epoch | max | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 2),
        default: Some("off"),
        doc: "Sets `Expires` and `Cache-Control`: a time from now or from the file's modification, `@15h30m` for a \
              time of day, `epoch` and negative times for no caching, `max` for ten years.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.headers.expires, expires);
        }),
    },
];

fn inherit_kind(reader: &mut Reader<'_>, directive: &Directive) -> Option<Inherit> {
    keyword(reader, directive, &[("on", Inherit::On), ("off", Inherit::Off), ("merge", Inherit::Merge)])
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
