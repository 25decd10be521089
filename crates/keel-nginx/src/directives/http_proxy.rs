//! ngx_http_proxy_module: how requests go to peers and responses come back. `proxy_pass` itself and
//! `proxy_redirect` are in `http_proxy_pass.rs`, what every module has that asks peers in `http_upstream_scope.rs`.

use keel_model::{ProxyHttpVersion, ProxyRedirect};

use crate::{
    arguments::{buffers, flag, keyword, msec, number32, size, temp_path},
    ast::Directive,
    directives::{
        http_proxy_pass::{Pass, Redirects},
        http_upstream_scope::{FittingSizes, buffering_rows, causes, ignored_fields, lower_name, peer_rows},
    },
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// What one block says that is worked out when it is closed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `proxy_pass`; not inherited.
    pub(crate) pass: Option<Pass>,
    /// `proxy_redirect`.
    pub(crate) redirects: Redirects,
    /// Sizes that nothing acts on.
    pub(crate) sizes: FittingSizes,
}

impl Settings {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.redirects.inherit(&outer.redirects);
        self.sizes.inherit(&outer.sizes);
    }

    /// Gives the rules of `proxy_redirect`, of which the default follows from this block's `proxy_pass`.
    pub(crate) fn redirects(&self) -> Vec<ProxyRedirect> {
        self.redirects.lower(self.pass.as_ref())
    }
}

fn http_version(reader: &mut Reader<'_>, directive: &Directive) -> Option<ProxyHttpVersion> {
    let versions = [
        ("1.0", ProxyHttpVersion::Http10),
        ("1.1", ProxyHttpVersion::Http11),
        ("2", ProxyHttpVersion::Http2),
    ];
    keyword(reader, directive, &versions)
}

fn set_header(reader: &mut Reader<'_>, directive: &Directive) {
    let [name, value] = directive.args.as_slice() else {
        return;
    };
    if let (Some(name), Some(value)) = (reader.field_name(directive, name), reader.template(value)) {
        reader.frame.scope.proxy.set_headers.0.push((name, value));
    }
}

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "proxy_set_header",
        syntax: "field value",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: Some("Host $proxy_host"),
        doc: "Sets a field of the request to the peer; an empty value leaves it out, with a `*` at the end of the name all fields that begin so. A block with any inherits none. `Connection`, `Upgrade`, `Expect`, `TE` and `Keep-Alive` are left out unless set.",
        set: Setter::Simple(set_header),
    },
    Row {
        name: "proxy_http_version",
        syntax: "1.0 | 1.1 | 2",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1.1"),
        doc: "The version that peers are asked in. With `2` a connection carries as many requests at once as the peer bears, and a request that the peer refuses goes elsewhere.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.http_version, http_version)
        }),
    },
    Row {
        name: "proxy_method",
        syntax: "method",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "The method that peers are asked with, instead of the client's.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.method, Reader::template_arg)
        }),
    },
    Row {
        name: "proxy_set_body",
        syntax: "value",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "The body that peers get, instead of the client's.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.set_body, Reader::template_arg)
        }),
    },
    Row {
        name: "proxy_pass_trailers",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether trailers of responses are passed on.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.pass_trailers, flag)
        }),
    },
];

/// The directives of every module that asks peers.
pub(crate) const PEER_ROWS: &[Row] =
    peer_rows!("proxy", proxy, causes, "`Date`, `Server`, `X-Pad` and `X-Accel-...`");

/// The directives of every module that keeps bodies.
pub(crate) const BUFFERING_ROWS: &[Row] = buffering_rows!("proxy", proxy);
