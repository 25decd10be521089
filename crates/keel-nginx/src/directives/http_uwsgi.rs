//! ngx_http_uwsgi_module. What every module has that asks peers is in `http_upstream_scope.rs`, what every module has that
//! asks gateways in `http_gateway.rs`.

use crate::{
    arguments::{buffers, byte, flag, msec, number32, size, temp_path},
    directives::{
        http_gateway::{self, Gateway, gateway_rows},
        http_upstream_scope::{buffering_rows, gateway_causes, ignored_fields, lower_name, peer_rows},
    },
    registry::{Arity, Contexts, Row, Setter},
};

/// The directives.
pub(crate) const ROWS: &[Row] = gateway_rows!(
    "uwsgi",
    uwsgi,
    Gateway::Uwsgi,
    "Where requests go, in the uwsgi protocol: an upstream, a Compose service with its port, an address or `unix:path`, with \
     `uwsgi://` in front or not. With variables it is looked up for each request.",
    Row {
        name: "uwsgi_modifier1",
        syntax: "number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "The first modifier of the protocol: which kind of application is meant.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.uwsgi.modifier1, byte)
        }),
    },
    Row {
        name: "uwsgi_modifier2",
        syntax: "number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "The second modifier of the protocol.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.uwsgi.modifier2, byte)
        }),
    },
    Row {
        name: "uwsgi_string",
        syntax: "text",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "A text that follows the parameters, as some modifiers want it.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.uwsgi.string,
                |_, directive| Some(directive.arg(0).to_owned()),
            )
        }),
    },
);

/// The directives of every module that asks peers.
pub(crate) const PEER_ROWS: &[Row] = peer_rows!("uwsgi", uwsgi, gateway_causes, "`X-Accel-...`");

/// The directives of every module that keeps bodies.
pub(crate) const BUFFERING_ROWS: &[Row] = buffering_rows!("uwsgi", uwsgi);
