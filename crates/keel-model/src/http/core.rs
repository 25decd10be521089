//! ngx_http_core_module.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Buffers, ByteSize, Template};

/// How connections and request heads are read (`client_header_*`, `keepalive_*` act before a location is known and so
/// come from the default server until `Host` is read).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSettings {
    /// `client_header_timeout`, default 60 s.
    pub header_timeout: Duration,
    /// `client_header_buffer_size`, default 1k.
    pub header_buffer: ByteSize,
    /// `large_client_header_buffers`, default 4 8k.
    pub large_header_buffers: Buffers,
    /// `ignore_invalid_headers`, default on.
    pub ignore_invalid_headers: bool,
    /// `underscores_in_headers`, default off.
    pub underscores_in_headers: bool,
    /// `merge_slashes`, default on.
    pub merge_slashes: bool,
    /// `max_headers`: fields in a request head at most, default 1,000.
    pub headers_max: u32,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(60),
            header_buffer: ByteSize::kib(1),
            large_header_buffers: Buffers { count: 4, size: ByteSize::kib(8) },
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            merge_slashes: true,
            headers_max: 1000,
        }
    }
}

/// Settings of ngx_http_core_module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreScope {
    /// `root` or `alias`.
    pub root: Root,
    /// `internal`: only internal redirects get here.
    pub internal: bool,
    /// `types`: file ending in lower case to media type.
    pub types: Vec<(String, String)>,
    /// `default_type`, default `text/plain`.
    pub default_type: String,
    /// `client_max_body_size`, default 1m; 0 for no limit.
    pub client_max_body_size: ByteSize,
    /// `client_body_buffer_size`, default 16k.
    pub client_body_buffer_size: ByteSize,
    /// `client_body_timeout` between two reads, default 60 s.
    pub client_body_timeout: Duration,
    /// `client_body_temp_path`.
    pub client_body_temp_path: PathBuf,
    /// `send_timeout` between two writes, default 60 s.
    pub send_timeout: Duration,
    /// `keepalive_timeout`, default 75 s; zero closes after each response.
    pub keepalive_timeout: Duration,
    /// Second argument of `keepalive_timeout`: the `Keep-Alive` field's value.
    pub keepalive_header: Option<Duration>,
    /// `keepalive_requests`, default 1,000.
    pub keepalive_requests: u64,
    /// `keepalive_time`, default 1 h.
    pub keepalive_time: Duration,
    /// `keepalive_min_timeout`, default 0.
    pub keepalive_min_timeout: Duration,
    /// `keepalive_disable`, default msie6.
    pub keepalive_disable: KeepaliveDisable,
    /// `lingering_close`, default on.
    pub lingering_close: LingeringClose,
    /// `lingering_time`, default 30 s.
    pub lingering_time: Duration,
    /// `lingering_timeout`, default 5 s.
    pub lingering_timeout: Duration,
    /// `reset_timedout_connection`, default off.
    pub reset_timedout_connection: bool,
    /// `tcp_nodelay`, default on.
    pub tcp_nodelay: bool,
    /// `server_tokens`, default on.
    pub server_tokens: ServerTokens,
    /// `absolute_redirect`, default on.
    pub absolute_redirect: bool,
    /// `server_name_in_redirect`, default off.
    pub server_name_in_redirect: bool,
    /// `port_in_redirect`, default on.
    pub port_in_redirect: bool,
    /// `error_page`, in the file's order.
    pub error_pages: Vec<ErrorPage>,
    /// `recursive_error_pages`, default off.
    pub recursive_error_pages: bool,
    /// `try_files`.
    pub try_files: Option<TryFiles>,
    /// `etag`, default on.
    pub etag: bool,
    /// `if_modified_since`, default exact.
    pub if_modified_since: IfModifiedSince,
    /// `max_ranges`: byte ranges answered in one response; `None` for no limit.
    pub max_ranges: Option<u32>,
    /// `msie_padding`, default on.
    pub msie_padding: bool,
    /// `log_not_found`, default on.
    pub log_not_found: bool,
    /// `error_log` of this place, where it differs from the process's. Empty means the process's.
    pub error_logs: Vec<crate::ErrorLog>,
    /// `satisfy`, default all.
    pub satisfy_any: bool,
}

impl Default for CoreScope {
    fn default() -> Self {
        Self {
            root: Root::Root(Template::literal("html")),
            internal: false,
            types: Vec::new(),
            default_type: "text/plain".into(),
            client_max_body_size: ByteSize::mib(1),
            client_body_buffer_size: ByteSize::kib(16),
            client_body_timeout: Duration::from_secs(60),
            client_body_temp_path: PathBuf::from("client_body_temp"),
            send_timeout: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(75),
            keepalive_header: None,
            keepalive_requests: 1000,
            keepalive_time: Duration::from_secs(3600),
            keepalive_min_timeout: Duration::ZERO,
            keepalive_disable: KeepaliveDisable { msie6: true, safari: false },
            lingering_close: LingeringClose::On,
            lingering_time: Duration::from_secs(30),
            lingering_timeout: Duration::from_secs(5),
            reset_timedout_connection: false,
            tcp_nodelay: true,
            server_tokens: ServerTokens::On,
            absolute_redirect: true,
            server_name_in_redirect: false,
            port_in_redirect: true,
            error_pages: Vec::new(),
            recursive_error_pages: false,
            try_files: None,
            etag: true,
            if_modified_since: IfModifiedSince::Exact,
            max_ranges: None,
            msie_padding: true,
            log_not_found: true,
            error_logs: Vec::new(),
            satisfy_any: false,
        }
    }
}

/// Where files are. Relative paths have been made absolute with the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// `root`: the whole URI is appended.
    Root(Template),
    /// `alias`: what follows the location's own prefix is appended.
    Alias(Template),
}

/// Browsers whose connections aren't kept (`keepalive_disable`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepaliveDisable {
    /// Old Internet Explorers, after a POST.
    pub msie6: bool,
    /// Safari on a Mac.
    pub safari: bool,
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LingeringClose {
    /// Never.
    Off,
    /// When the client may still be sending.
    On,
    /// After every closing response.
    Always,
}

/// `server_tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerTokens {
    /// The product's name only.
    Off,
    /// Name and version.
    On,
    /// Name, version and build.
    Build,
    /// A text of the operator's own; empty leaves the field out.
    Text(Template),
}

/// `if_modified_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IfModifiedSince {
    /// The field is ignored.
    Off,
    /// 304 only on the exact time.
    Exact,
    /// 304 when not modified since.
    Before,
}

/// One `error_page` directive for one status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPage {
    /// The status that it replaces, 300 to 599.
    pub status: u16,
    /// The status sent instead: as it was, a fixed one, or the page's own (`=`).
    pub response: ErrorPageStatus,
    /// A URI, a named location, or an absolute URL (redirect).
    pub uri: Template,
}

/// What status a page of `error_page` is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorPageStatus {
    /// The original one.
    Keep,
    /// `=200` and the like.
    Fixed(u16),
    /// `=`: whatever the page's own handler answers.
    FromPage,
}

/// `try_files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryFiles {
    /// Paths checked in order.
    pub candidates: Vec<TryFile>,
    /// What happens when none exists.
    pub fallback: TryFilesFallback,
}

/// A path that `try_files` looks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryFile {
    /// The path, without the final `/` that asks for a folder.
    pub path: Template,
    /// What must be there. The argument as written says it, not the value of its variables: `$uri` never means a
    /// folder, even where the URI ends in `/`.
    pub kind: FileKind,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Anything but a folder.
    File,
    /// A folder.
    Folder,
}

/// The last argument of `try_files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryFilesFallback {
    /// An internal redirect to a URI or named location.
    Uri(Template),
    /// `=404` and the like.
    Status(u16),
}
