//! ngx_http_gunzip_module: responses that are compressed, for clients that don't understand them.

use crate::{
    arguments::{buffers, flag},
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "gunzip",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether responses with `Content-Encoding: gzip` are unpacked for clients that don't accept that.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.gunzip.enabled, flag);
        }),
    },
    Row {
        name: "gunzip_buffers",
        syntax: "number size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: None,
        doc: "Accepted; buffers are of a fixed size here.",
        set: Setter::Checked(|reader, directive| {
            buffers(reader, directive);
        }),
    },
];
