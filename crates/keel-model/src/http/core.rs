//! ngx_http_core_module.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::Scope;
use crate::{Buffers, ByteSize, ErrorLog, Own, Resolver, SizeValue, Template, settings::settings};

settings! {
    /// How connections and request heads are read (`client_header_*`, `keepalive_*` act before a location is known and so
    /// come from the default server until `Host` is read).
    pub struct ClientSettings, set by ClientLayer {
        /// `client_header_timeout`.
        header_timeout: Duration = Duration::from_secs(60);
        /// `client_header_buffer_size`.
        header_buffer: ByteSize = ByteSize::kib(1);
        /// `large_client_header_buffers`.
        large_header_buffers: Buffers = Buffers { count: 4, size: ByteSize::kib(8) };
        /// `ignore_invalid_headers`.
        ignore_invalid_headers: bool = true;
        /// `underscores_in_headers`.
        underscores_in_headers: bool = false;
        /// `merge_slashes`.
        merge_slashes: bool = true;
        /// `max_headers`: fields in a request head at most.
        headers_max: u32 = 1000;
        /// `http2`.
        http2: bool = false;
        /// `http2_max_concurrent_streams`.
        http2_max_concurrent_streams: u32 = 128;
        /// `http2_body_preread_size`.
        http2_body_preread_size: ByteSize = ByteSize::kib(64);
    }
}

settings! {
    /// Settings of ngx_http_core_module.
    pub struct CoreScope, set by CoreLayer {
        /// `root` or `alias`.
        root: Root = Root::Root(Template::literal("html"));
        /// `internal`: only internal redirects get here.
        internal: bool = false;
        /// `types`: file ending in lower case to media type.
        types: Vec<(String, String)> = default_types();
        /// `default_type`.
        default_type: String = "text/plain".into();
        /// `client_max_body_size`; 0 for no limit.
        client_max_body_size: ByteSize = ByteSize::mib(1);
        /// `client_body_buffer_size`.
        client_body_buffer_size: ByteSize = ByteSize::kib(16);
        /// `client_body_timeout` between two reads.
        client_body_timeout: Duration = Duration::from_secs(60);
        /// `client_body_temp_path`.
        client_body_temp_path: PathBuf = PathBuf::from("client_body_temp");
        /// `limit_rate`, in bytes a second; 0 for none.
        limit_rate: SizeValue = SizeValue::ZERO;
        /// `limit_rate_after`: what of a response is sent before.
        limit_rate_after: SizeValue = SizeValue::ZERO;
        /// `send_timeout` between two writes.
        send_timeout: Duration = Duration::from_secs(60);
        /// `keepalive_timeout`; zero closes after each response.
        keepalive_timeout: Duration = Duration::from_secs(75);
        /// Second argument of `keepalive_timeout`: the `Keep-Alive` field's value.
        keepalive_header: Option<Duration> = None;
        /// `keepalive_requests`.
        keepalive_requests: u64 = 1000;
        /// `keepalive_time`.
        keepalive_time: Duration = Duration::from_secs(3600);
        /// `keepalive_min_timeout`.
        keepalive_min_timeout: Duration = Duration::ZERO;
        /// `keepalive_disable`.
        keepalive_disable: KeepaliveDisable = KeepaliveDisable { msie6: true, safari: false };
        /// `lingering_close`.
        lingering_close: LingeringClose = LingeringClose::On;
        /// `lingering_time`.
        lingering_time: Duration = Duration::from_secs(30);
        /// `lingering_timeout`.
        lingering_timeout: Duration = Duration::from_secs(5);
        /// `reset_timedout_connection`.
        reset_timedout_connection: bool = false;
        /// `tcp_nodelay`.
        tcp_nodelay: bool = true;
        /// `server_tokens`.
        server_tokens: ServerTokens = ServerTokens::On;
        /// `absolute_redirect`.
        absolute_redirect: bool = true;
        /// `server_name_in_redirect`.
        server_name_in_redirect: bool = false;
        /// `port_in_redirect`.
        port_in_redirect: bool = true;
        /// `error_page`, in the file's order.
        error_pages: Vec<ErrorPage> = Vec::new();
        /// `recursive_error_pages`.
        recursive_error_pages: bool = false;
        /// `try_files`.
        try_files: Option<TryFiles> = None, as Own<Option<TryFiles>>;
        /// The name under which requests are counted.
        status_zone: Option<String> = None, as Own<Option<String>>;
        /// `chunked_transfer_encoding`.
        chunked_transfer_encoding: bool = true;
        /// `etag`.
        etag: bool = true;
        /// `if_modified_since`.
        if_modified_since: IfModifiedSince = IfModifiedSince::Exact;
        /// `max_ranges`: byte ranges answered in one response; `None` for no limit.
        max_ranges: Option<u32> = None;
        /// `msie_padding`.
        msie_padding: bool = true;
        /// `msie_refresh`.
        msie_refresh: bool = false;
        /// `post_action`: the path or named location that a request goes to once it has been answered.
        post_action: Option<String> = None;
        /// `log_not_found`.
        log_not_found: bool = true;
        /// `error_log` of this place, where it differs from the process's. Empty means the process's.
        error_logs: Vec<ErrorLog> = Vec::new();
        /// `satisfy`.
        satisfy_any: bool = false;
        /// `limit_except`.
        limit_except: Option<Box<LimitExcept>> = None, as Own<Option<Box<LimitExcept>>>;
        /// `auth_delay`: how long an answer of 401 waits.
        auth_delay: Duration = Duration::ZERO;
        /// `log_subrequest`.
        log_subrequest: bool = false;
        /// `resolver` and `resolver_timeout`, where names that only requests show are resolved.
        resolver: Option<Resolver> = None, as Own<Option<Resolver>>;
    }
}

fn default_types() -> Vec<(String, String)> {
    let pairs = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];
    pairs.map(|(ending, media)| (ending.to_owned(), media.to_owned())).to_vec()
}

/// Where files are. Relative paths have been made absolute with the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// `root`: the whole URI is appended.
    Root(Template),
    /// `alias`: what follows the location's own prefix is appended.
    Alias(Template),
}

/// `limit_except`: what holds in a location for requests with other methods than these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExcept {
    /// The methods that aren't concerned, in upper case; `GET` stands for `HEAD`, too.
    pub methods: Vec<String>,
    /// What holds for the others.
    pub scope: Scope,
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
