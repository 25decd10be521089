//! Counts of servers and peers, and their text for Prometheus. nginx has none; NGINX Plus and Angie have directives of
//! these names.

use keel_model::Content;

use crate::{
    arguments::text,
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "prometheus",
        syntax: "",
        contexts: Contexts::LOCATION,
        arity: Arity::NONE,
        default: None,
        doc: "Answers requests to this location with what the data plane has counted, as text for Prometheus: connections; \
              requests, statuses, bytes and durations of each server and of each peer. Allow only those in who are to read \
              it. The control socket has the same at `/v1/metrics`, and the states of instances with it.",
        set: Setter::Simple(prometheus),
    },
    Row {
        name: "status_zone",
        syntax: "name",
        contexts: Contexts::SERVER_LOCATION.or(Contexts::LOCATION_IF),
        arity: Arity::ONE,
        default: None,
        doc: "The name under which the requests of this server or location are counted. Those of a server without one are \
              under its first `server_name`, those of a location without one are the server's alone. What has one name is \
              counted together.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.core.status_zone.0,
                |reader, directive| text(reader, directive).map(Some),
            )
        }),
    },
];

fn prometheus(reader: &mut Reader<'_>, directive: &Directive) {
    if reader.frame.scope.content.0.replace(Content::Prometheus).is_some() {
        reader.duplicate(directive);
    }
}
