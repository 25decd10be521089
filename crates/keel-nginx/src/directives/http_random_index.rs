//! ngx_http_random_index_module: any file of a folder.

use crate::{
    arguments::flag,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "random_index",
    syntax: "on | off",
    contexts: Contexts::LOCATION,
    arity: Arity::ONE,
    default: Some("off"),
    doc: "Whether a folder is answered with any of its files, before an index file is looked for. Not in the files of a container \
          that isn't there.",
    set: Setter::Simple(|reader, directive| {
        reader.once(directive, |frame| &mut frame.scope.random_index, flag);
    }),
}];
