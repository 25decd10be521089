//! ngx_http_proxy_module: `proxy_pass` and its settings.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Buffers, ByteSize, NextUpstream, Pattern, Template, UpstreamName};

/// `proxy_pass`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyPass {
    /// Where requests go.
    pub target: ProxyTarget,
    /// `$proxy_host`: host and, unless it is the scheme's own, port as written. With [`ProxyTarget::Evaluated`] the same
    /// template, of which only that counts.
    pub host: Template,
    /// `$proxy_port`.
    pub port: String,
    /// The URI part, which replaces the location's prefix, or with [`ProxyTarget::Evaluated`] the whole URI; `None`
    /// passes the client's URI on unchanged.
    pub uri: Option<Template>,
}

/// Where `proxy_pass` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyTarget {
    /// A known upstream.
    Upstream(UpstreamName),
    /// `proxy_pass http://$name...`: after evaluation the name of an upstream, or an address (`host:port`,
    /// `unix:/path`). A scheme and a URI that are written in the directive are not in it; those that variables bring
    /// are, as in `http://host:port/uri`, and such a URI replaces the whole.
    Evaluated(Template),
}

/// Settings of ngx_http_proxy_module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyScope {
    /// `proxy_http_version`, default 1.1.
    pub http_version: ProxyHttpVersion,
    /// `proxy_method`.
    pub method: Option<Template>,
    /// `proxy_set_header`, the defaults for Host and Connection included where they are not overridden. A value that
    /// is the empty text removes the field.
    pub set_headers: Vec<(String, Template)>,
    /// `proxy_set_body`.
    pub set_body: Option<Template>,
    /// `proxy_pass_request_headers`, default on.
    pub pass_request_headers: bool,
    /// `proxy_pass_request_body`, default on.
    pub pass_request_body: bool,
    /// `proxy_connect_timeout`, default 60 s.
    pub connect_timeout: Duration,
    /// `proxy_send_timeout` between two writes, default 60 s.
    pub send_timeout: Duration,
    /// `proxy_read_timeout` between two reads, default 60 s.
    pub read_timeout: Duration,
    /// `proxy_next_upstream` and its limits.
    pub next_upstream: NextUpstream,
    /// `proxy_buffering`, default on.
    pub buffering: bool,
    /// `proxy_buffer_size`, default 4k: the most a response head may take.
    pub buffer_size: ByteSize,
    /// `proxy_buffers`, default 8 4k.
    pub buffers: Buffers,
    /// `proxy_busy_buffers_size`, default 8k.
    pub busy_buffers_size: ByteSize,
    /// `proxy_max_temp_file_size`, default 1024m; 0 keeps responses out of files.
    pub max_temp_file_size: ByteSize,
    /// `proxy_temp_file_write_size`, default 8k.
    pub temp_file_write_size: ByteSize,
    /// `proxy_temp_path`.
    pub temp_path: PathBuf,
    /// `proxy_request_buffering`, default on.
    pub request_buffering: bool,
    /// `proxy_redirect`.
    pub redirects: Vec<ProxyRedirect>,
    /// Response fields kept from clients: nginx's own list, `proxy_hide_header`, less `proxy_pass_header`. Lower case.
    pub hide_headers: Vec<String>,
    /// Response fields whose effect on the proxy is ignored (`proxy_ignore_headers`). Lower case.
    pub ignore_headers: Vec<String>,
    /// `proxy_intercept_errors`, default off.
    pub intercept_errors: bool,
    /// `proxy_ignore_client_abort`, default off.
    pub ignore_client_abort: bool,
    /// `proxy_socket_keepalive`, default off.
    pub socket_keepalive: bool,
    /// `proxy_pass_trailers`, default off.
    pub pass_trailers: bool,
}

impl Default for ProxyScope {
    fn default() -> Self {
        Self {
            http_version: ProxyHttpVersion::Http11,
            method: None,
            set_headers: Vec::new(),
            set_body: None,
            pass_request_headers: true,
            pass_request_body: true,
            connect_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(60),
            next_upstream: NextUpstream::default(),
            buffering: true,
            buffer_size: ByteSize::kib(4),
            buffers: Buffers { count: 8, size: ByteSize::kib(4) },
            busy_buffers_size: ByteSize::kib(8),
            max_temp_file_size: ByteSize::mib(1024),
            temp_file_write_size: ByteSize::kib(8),
            temp_path: PathBuf::from("proxy_temp"),
            request_buffering: true,
            redirects: Vec::new(),
            hide_headers: Vec::new(),
            ignore_headers: Vec::new(),
            intercept_errors: false,
            ignore_client_abort: false,
            socket_keepalive: false,
            pass_trailers: false,
        }
    }
}

/// `proxy_http_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyHttpVersion {
    /// HTTP/1.0, which closes after each response unless the operator sets `Connection`.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// One rule of `proxy_redirect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyRedirect {
    /// A prefix and what replaces it.
    Prefix {
        /// What `Location` or `Refresh` begins with.
        from: Template,
        /// What replaces it.
        to: Template,
    },
    /// A regular expression and what replaces the whole.
    Regex {
        /// What `Location` or `Refresh` matches.
        from: Pattern,
        /// What replaces it; may use captures.
        to: Template,
    },
}
