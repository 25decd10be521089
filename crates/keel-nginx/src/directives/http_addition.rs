//! ngx_http_addition_module: what is put before responses and behind them.

use crate::{
    arguments::{media_types, text},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "add_before_body",
        syntax: "uri",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "Puts the response to a subrequest of this URI before responses with status 200; none where it is empty.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.addition.before, uri);
        }),
    },
    Row {
        name: "add_after_body",
        syntax: "uri",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "As `add_before_body`, behind them.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.addition.after, uri);
        }),
    },
    Row {
        name: "addition_types",
        syntax: "mime-type ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some("text/html"),
        doc: "The media types of the responses that something is added to, besides `text/html`; `*` for all.",
        set: Setter::Simple(|reader, directive| {
            media_types(reader, directive, |frame| &mut frame.scope.addition.types);
        }),
    },
];

fn uri(reader: &mut Reader<'_>, directive: &Directive) -> Option<Option<String>> {
    text(reader, directive).map(|uri| Some(uri).filter(|uri| !uri.is_empty()))
}
