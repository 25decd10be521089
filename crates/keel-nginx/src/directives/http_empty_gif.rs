//! ngx_http_empty_gif_module: a picture of nothing.

use keel_model::Content;

use crate::registry::{Arity, Contexts, Row, Setter};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "empty_gif",
    syntax: "",
    contexts: Contexts::LOCATION,
    arity: Arity::NONE,
    default: None,
    doc: "Answers with a transparent picture of one pixel.",
    set: Setter::Simple(|reader, _| reader.frame.scope.content.0 = Some(Content::EmptyGif)),
}];
