//! ngx_http_grpc_module: requests to peers that speak gRPC.

use crate::{
    arguments::{flag, msec, number32, size},
    ast::Directive,
    directives::{
        http_proxy_pass,
        http_upstream_scope::{causes, ignored_fields, lower_name, peer_rows},
    },
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The directives of this module alone.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "grpc_pass",
        syntax: "address",
        contexts: Contexts::LOCATION.or(Contexts::LOCATION_IF),
        arity: Arity::ONE,
        default: None,
        doc: "Where requests go, in HTTP/2: an upstream, a Compose service, an address or `unix:path`, with `grpc://` in \
              front or without. Bodies pass as they come, both ways, and so do trailers of responses. Each request is \
              balanced by itself, whatever connection it came on.",
        set: Setter::Simple(http_proxy_pass::grpc),
    },
    Row {
        name: "grpc_set_header",
        syntax: "field value",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: None,
        doc: "Sets a field of the request to the peer; an empty value leaves it out. A block with any inherits none. `Host`, \
              which becomes `:authority`, is the host of `grpc_pass` unless set.",
        set: Setter::Simple(set_header),
    },
];

/// The directives of every module that asks peers.
pub(crate) const PEER_ROWS: &[Row] =
    peer_rows!("grpc", grpc, causes, "`Date`, `Server`, `X-Pad` and `X-Accel-...`");

fn set_header(reader: &mut Reader<'_>, directive: &Directive) {
    let [name, value] = directive.args.as_slice() else {
        return;
    };
    if let (Some(name), Some(value)) = (reader.field_name(directive, name), reader.template(value)) {
        reader.frame.scope.grpc.set_headers.0.push((name, value));
    }
}
