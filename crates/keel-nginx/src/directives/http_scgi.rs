//! ngx_http_scgi_module. What every module has that asks peers is in `http_upstream_scope.rs`, what every module has that
//! asks gateways in `http_gateway.rs`.

use crate::{
    arguments::{buffers, flag, msec, number32, size, temp_path},
    directives::{
        http_gateway::{self, Gateway, gateway_rows},
        http_upstream_scope::{buffering_rows, gateway_causes, ignored_fields, lower_name, peer_rows},
    },
    registry::{Arity, Contexts, Row, Setter},
};

/// The directives.
pub(crate) const ROWS: &[Row] = gateway_rows!(
    "scgi",
    scgi,
    Gateway::Scgi,
    "Where requests go, in SCGI: an upstream, a Compose service with its port, an address or `unix:path`. With variables it \
     is looked up for each request.",
);

/// The directives of every module that asks peers.
pub(crate) const PEER_ROWS: &[Row] = peer_rows!("scgi", scgi, gateway_causes, "`Status` and `X-Accel-...`");

/// The directives of every module that keeps bodies.
pub(crate) const BUFFERING_ROWS: &[Row] = buffering_rows!("scgi", scgi);
