//! Virtual servers, locations and what each nginx module configures in them.
//!
//! A [`Scope`] is what holds in one location, inheritance already applied; each module has a slot of its own in it.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Buffers, ByteSize, Pattern, Template, UpstreamName};

/// A `server` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// Its names in the file's order; the first is `$server_name`.
    pub names: Vec<ServerName>,
    /// How connections and request heads are read here.
    pub client: ClientSettings,
    /// What holds outside every location.
    pub scope: Scope,
    /// What the `rewrite` phase of the server itself does (`return` at server level).
    pub rewrite: Rewrite,
    /// Its locations in the file's order.
    pub locations: Vec<Location>,
}

impl VirtualServer {
    /// Gives the text of `$server_name`.
    pub fn primary_name(&self) -> &str {
        match self.names.first() {
            Some(
                ServerName::Exact(name) | ServerName::WildcardHead(name) | ServerName::WildcardTail(name),
            ) => name,
            Some(ServerName::Dot(name)) => name,
            Some(ServerName::Regex(pattern)) => &pattern.source,
            None => "",
        }
    }
}

/// A name of `server_name`. Text is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerName {
    /// `example.org`, and `""`.
    Exact(String),
    /// `*.example.org`, as written.
    WildcardHead(String),
    /// `www.example.*`, as written.
    WildcardTail(String),
    /// `.example.org`, as written: the name itself and everything below it.
    Dot(String),
    /// `~^www\d+\.example\.org$`, without the tilde.
    Regex(Pattern),
}

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

/// A `location` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Which requests it takes.
    pub matcher: LocationMatcher,
    /// What holds in it.
    pub scope: Scope,
    /// What its `rewrite` phase does.
    pub rewrite: Rewrite,
    /// Locations inside it.
    pub locations: Vec<Location>,
}

/// The five kinds of location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocationMatcher {
    /// `location = /path`.
    Exact(String),
    /// `location /path`.
    Prefix(String),
    /// `location ^~ /path`: regular expressions are not tried.
    PrefixFinal(String),
    /// `location ~ expr` and `~*`.
    Regex(Pattern),
    /// `location @name`, with the `@`.
    Named(String),
}

/// What holds in one place of the configuration. One slot for each module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// ngx_http_core_module.
    pub core: CoreScope,
    /// ngx_http_access_module.
    pub access: AccessScope,
    /// ngx_http_headers_module.
    pub headers: HeadersScope,
    /// ngx_http_log_module.
    pub log: LogScope,
    /// ngx_http_index_module: `index`, default `index.html`; looked for in order.
    pub index: IndexScope,
    /// Who answers.
    pub content: Content,
    /// ngx_http_proxy_module, apart from `proxy_pass` itself.
    pub proxy: ProxyScope,
}

/// Who answers a request in this location.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Files below `root` or `alias`.
    #[default]
    Static,
    /// `proxy_pass`.
    Proxy(ProxyPass),
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

/// What the `rewrite` phase of a server or location does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// `return`.
    pub answer: Option<Return>,
}

/// `return`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The status, 444 included (close without a response).
    pub status: u16,
    /// A body, or for 301, 302, 303, 307 and 308 the location.
    pub text: Option<Template>,
}

/// `allow` and `deny`; the first that matches decides, none allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessScope {
    /// The rules in the file's order.
    pub rules: Vec<AccessRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Whom it concerns.
    pub clients: Clients,
    /// Allowed or denied.
    pub verdict: Verdict,
}

/// Whom an access rule concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clients {
    /// Everybody.
    All,
    /// Connections over a unix socket.
    Unix,
    /// A network in CIDR form.
    Network {
        /// Its address, host bits zero.
        address: IpAddr,
        /// Prefix length in bits.
        prefix: u8,
    },
}

/// The outcome of an access rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Goes on.
    Allow,
    /// 403.
    Deny,
}

/// `add_header`, `add_trailer`, `expires`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadersScope {
    /// Fields added to responses.
    pub add: Vec<AddHeader>,
    /// Fields added after the body.
    pub add_trailers: Vec<AddHeader>,
    /// `expires`.
    pub expires: Expires,
}

/// One `add_header`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddHeader {
    /// The field's name as written.
    pub name: String,
    /// Its value; an empty result adds nothing.
    pub value: Template,
    /// Whether it is added to every status (`always`) or to nginx's list only.
    pub always: bool,
}

/// `expires`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expires {
    /// Fields stay as they are.
    #[default]
    Off,
    /// 1970, `no-cache`.
    Epoch,
    /// 31 December 2037, ten years.
    Max,
    /// Seconds from now; negative for `no-cache`.
    Access(i64),
    /// Seconds from the file's modification.
    Modified(i64),
    /// Seconds since midnight (`@15h30m`).
    Daily(u32),
    /// One of the above, as text, from a variable.
    Variable(Template),
}

/// `access_log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogScope {
    /// Every log that a request here is written to. Empty for `off`.
    pub logs: Vec<AccessLog>,
}

/// One access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Where to; a template with variables opens files per request.
    pub destination: LogDestination,
    /// What a line holds.
    pub format: LogFormat,
    /// `buffer=`; `None` writes each line as soon as it can be.
    pub buffer: Option<ByteSize>,
    /// `flush=`: how long a line may wait in the buffer.
    pub flush: Option<Duration>,
    /// `if=`: nothing is logged when this is empty or `0`.
    pub condition: Option<Template>,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDestination {
    /// A file; relative paths have been made absolute with the prefix.
    File(Template),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// `log_format`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFormat {
    /// Its name; `combined` is built in.
    pub name: String,
    /// How values are escaped.
    pub escape: LogEscape,
    /// The line without its end.
    pub line: Template,
}

/// `escape=` of `log_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogEscape {
    /// `\xXX` for quotes, backslashes and control bytes; a missing value is `-`.
    #[default]
    Default,
    /// JSON strings; a missing value is empty.
    Json,
    /// As it is; a missing value is empty.
    None,
}

/// Severity of a log line, most severe first (`error_log`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "syslog's names")]
pub enum LogLevel {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// ngx_http_index_module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexScope {
    /// `index`: names tried in order.
    pub names: Vec<Template>,
}

impl Default for IndexScope {
    fn default() -> Self {
        Self { names: vec![Template::literal("index.html")] }
    }
}

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

/// `proxy_next_upstream`: what makes a request go to another peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextUpstream {
    /// Failures to connect, send or read. Part of the default.
    pub error: bool,
    /// Time-outs of the same. Part of the default.
    pub timeout: bool,
    /// An empty or malformed response.
    pub invalid_header: bool,
    /// Statuses: 403, 404, 429, 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Also requests that are not idempotent and have been sent.
    pub non_idempotent: bool,
    /// `proxy_next_upstream_tries`, the first attempt counted; 0 for as many as there are peers.
    pub tries: u32,
    /// `proxy_next_upstream_timeout` since the first attempt; zero for no limit.
    pub timeout_total: Duration,
}

impl Default for NextUpstream {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid_header: false,
            statuses: Vec::new(),
            non_idempotent: false,
            tries: 0,
            timeout_total: Duration::ZERO,
        }
    }
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
