//! ngx_http_v2_module: HTTP/2 with clients.

use crate::{
    arguments::{flag, number32, size},
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "http2",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether clients may speak HTTP/2: without TLS those that begin with it, as the address's default server says. \
              A client that sends, within a second, more than 100 resets, 100 pings, 50 frames of settings, 100 empty \
              frames of data or 20 frames that continue a head is disconnected.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.http2, flag);
        }),
    },
    Row {
        name: "http2_max_concurrent_streams",
        syntax: "number",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("128"),
        doc: "How many requests a connection may have at once.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.http2_max_concurrent_streams, number32);
        }),
    },
    Row {
        name: "http2_body_preread_size",
        syntax: "size",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("64k"),
        doc: "How much of a request's body a client may send before that is read, and then ahead of it: \
            an upload is no faster than this for each round trip. Less than 16k counts as 16k.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.http2_body_preread_size, size);
        }),
    },
];
