//! Text with variables in it, parsed once at load.

use serde::{Deserialize, Serialize};

/// Text with variables, as in `proxy_set_header X-Real-IP $remote_addr`. An empty list of parts is the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Template {
    /// The pieces in order. Two literals never follow each other.
    pub parts: Vec<Part>,
}

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// Text that stands for itself.
    Literal(String),
    /// A value looked up per request.
    Variable(Variable),
}

impl Template {
    /// Makes a template without variables.
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::default() } else { Self { parts: vec![Part::Literal(text)] } }
    }

    /// Makes a template of one variable.
    pub fn variable(variable: Variable) -> Self {
        Self { parts: vec![Part::Variable(variable)] }
    }

    /// Gives the text if no variable stands in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// Where a map's result is found: an index into [`Plan::maps`](crate::Plan::maps).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MapId(pub u32);

/// A value that depends on the request. The names are nginx's (<https://nginx.org/en/docs/varindex.html>).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the nginx variable of the same name, in snake case")]
pub enum Variable {
    // The request.
    Request,
    RequestMethod,
    RequestUri,
    /// `$uri` and `$document_uri`: decoded, normalised, after internal redirects.
    Uri,
    /// `$args` and `$query_string`.
    Args,
    IsArgs,
    /// `$arg_name`.
    Arg(String),
    Scheme,
    Https,
    Host,
    ServerName,
    ServerAddr,
    ServerPort,
    ServerProtocol,
    RemoteAddr,
    RemotePort,
    RemoteUser,
    BinaryRemoteAddr,
    /// `$realip_remote_addr`: the connection's own address.
    RealipRemoteAddr,
    RealipRemotePort,
    ProxyProtocolAddr,
    ProxyProtocolPort,
    ProxyProtocolServerAddr,
    ProxyProtocolServerPort,
    /// `$proxy_protocol_tlv_name`.
    ProxyProtocolTlv(ProxyTlv),
    RequestId,
    RequestTime,
    RequestLength,
    RequestBody,
    RequestBodyFile,
    RequestCompletion,
    RequestFilename,
    RequestPort,
    IsRequestPort,
    DocumentRoot,
    RealpathRoot,
    ContentLength,
    ContentType,
    /// `$http_name`: a request field, name in lower case with `-` as `_`.
    RequestHeader(String),
    /// `$cookie_name`.
    Cookie(String),
    // The response.
    Status,
    BytesSent,
    BodyBytesSent,
    /// `$sent_http_name`.
    SentHeader(String),
    /// `$sent_trailer_name`.
    SentTrailer(String),
    // The connection and the process.
    Connection,
    ConnectionRequests,
    ConnectionTime,
    Msec,
    TimeLocal,
    TimeIso8601,
    Pid,
    Pipe,
    Hostname,
    NginxVersion,
    LimitRate,
    TcpinfoRtt,
    TcpinfoRttvar,
    TcpinfoSndCwnd,
    TcpinfoRcvSpace,
    // The upstream side.
    ProxyHost,
    ProxyPort,
    ProxyAddXForwardedFor,
    UpstreamAddr,
    UpstreamStatus,
    UpstreamConnectTime,
    UpstreamHeaderTime,
    UpstreamResponseTime,
    UpstreamResponseLength,
    UpstreamBytesReceived,
    UpstreamBytesSent,
    /// `$upstream_http_name`.
    UpstreamHeader(String),
    /// `$upstream_trailer_name`.
    UpstreamTrailer(String),
    /// `$upstream_cookie_name`.
    UpstreamCookie(String),
    /// `$upstream_last_addr`, `$upstream_last_server_name` and Evenkeel's own: the name of the instance that answered.
    UpstreamInstance,
    // Defined by the configuration.
    /// The result of a `map` block.
    Map(MapId),
    /// `$1` to `$9`: a group of the regular expression matched last.
    Capture(u8),
    /// A named group of a `location`, `server_name` or `map` regular expression, in lower case. A name that no group has
    /// is a variable that never has a value, as `$gzip_ratio` without gzip.
    NamedCapture(String),
}

/// A value that a header of version 2 of the PROXY protocol may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyTlv {
    /// The one of this type.
    Kind(u8),
    /// The one of this type among those about the client's TLS.
    Ssl(u8),
    /// What came of verifying the client's certificate, as a number.
    SslVerify,
}

/// A `map` block: one template in, one template out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// The variable's name without `$`.
    pub name: String,
    /// What is looked up.
    pub source: Template,
    /// Whether patterns are host names with a wildcard at either end (`hostnames`).
    pub hostnames: bool,
    /// Whether the result is computed anew at every use (`volatile`).
    pub volatile: bool,
    /// Exact and wildcard patterns in the file's order; matched without regard to case.
    pub entries: Vec<(String, Template)>,
    /// Regular expressions in the file's order, tried after `entries`.
    pub regexes: Vec<(Pattern, Template)>,
    /// The result where nothing matches.
    pub default: Template,
}

/// A regular expression, still as text. The configuration reader has compiled it once, so it is known to be valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pattern {
    /// The expression in the syntax of the `regex` crate or, for the other engine, of `fancy-regex`, to be matched on bytes and without Unicode classes, as nginx
    /// matches. Names of groups are in lower case.
    pub source: String,
    /// Whether letters match without regard to case (`~*`).
    pub ignore_case: bool,
    /// What matches it.
    pub engine: PatternEngine,
}

/// The engine that an expression needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PatternEngine {
    /// Time linear in the text.
    #[default]
    Linear,
    /// One that backtracks, so many steps at most: looking around, back references, atomic groups.
    Backtracking,
}
