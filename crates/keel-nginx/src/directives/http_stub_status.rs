//! ngx_http_stub_status_module: how many connections and requests there are.

use keel_model::Content;

use crate::registry::{Arity, Contexts, Row, Setter};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "stub_status",
    syntax: "[text]",
    contexts: Contexts::SERVER_LOCATION,
    arity: Arity::Take(0, 1),
    default: None,
    doc: "Answers with how many connections and requests of clients there are and have been, as nginx writes it. Connections that \
          were accepted count as handled. `$connections_active`, `$connections_reading`, `$connections_writing` and \
          `$connections_waiting` are the same numbers.",
    set: Setter::Simple(|reader, _| reader.frame.scope.content.0 = Some(Content::StubStatus)),
}];
