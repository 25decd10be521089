//! ngx_http_gzip_static_module: files that lie there compressed.

use keel_model::GzipStatic;

use crate::{
    arguments::keyword,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "gzip_static",
    syntax: "on | off | always",
    contexts: Contexts::HTTP_ALL,
    arity: Arity::ONE,
    default: Some("off"),
    doc: "Whether `file.gz` is sent, where it is there, in the place of `file`: to clients that accept it by the rules of `gzip` \
          (`on`), or to all (`always`).",
    set: Setter::Simple(|reader, directive| {
        reader.once(
            directive,
            |frame| &mut frame.scope.gzip_static,
            |reader, directive| {
                let choices =
                    [("off", GzipStatic::Off), ("on", GzipStatic::On), ("always", GzipStatic::Always)];
                keyword(reader, directive, &choices)
            },
        );
    }),
}];
