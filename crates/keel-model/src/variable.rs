//! Variables: nginx's own, and those that the configuration defines.

use serde::{Deserialize, Serialize};

use crate::{Geo, Map, SplitClients};

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
    /// `h2` over TLS, `h2c` without, nothing where another version is spoken.
    Http2,
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
    /// `1` for Internet Explorer, else empty.
    Msie,
    /// `$http_name`: a request field, name in lower case with `-` as `_`.
    RequestHeader(String),
    /// `$cookie_name`.
    Cookie(String),
    // The response.
    SecureLink,
    SecureLinkExpires,
    Status,
    BytesSent,
    BodyBytesSent,
    GzipRatio,
    UidGot,
    UidSet,
    /// `$sent_http_name`.
    SentHeader(String),
    /// `$sent_trailer_name`.
    SentTrailer(String),
    // The connection and the process.
    Connection,
    ConnectionRequests,
    ConnectionTime,
    ConnectionsActive,
    ConnectionsReading,
    ConnectionsWriting,
    ConnectionsWaiting,
    Msec,
    TimeLocal,
    TimeIso8601,
    Pid,
    Pipe,
    Hostname,
    NginxVersion,
    LimitConnStatus,
    InvalidReferer,
    LimitRate,
    LimitReqStatus,
    TcpinfoRtt,
    TcpinfoRttvar,
    TcpinfoSndCwnd,
    TcpinfoRcvSpace,
    /// `$ssl_name`: of the client's TLS.
    Ssl(SslVariable),
    // The upstream side.
    ProxyHost,
    ProxyPort,
    ProxyAddXForwardedFor,
    FastCgiScriptName,
    FastCgiPathInfo,
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
    // Of the configuration.
    /// One that the configuration defines.
    Defined(VariableId),
    /// `$1` to `$9`: a group of the regular expression matched last.
    Capture(u8),
}

/// A value of a client's TLS, without the `ssl_` of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the nginx variable of the same name, in snake case")]
pub enum SslVariable {
    AlpnProtocol,
    Cipher,
    Ciphers,
    ClientCert,
    ClientEscapedCert,
    ClientFingerprint,
    ClientIDn,
    ClientIDnLegacy,
    ClientRawCert,
    ClientSDn,
    ClientSDnLegacy,
    ClientSerial,
    ClientVEnd,
    ClientVRemain,
    ClientVStart,
    ClientVerify,
    Curve,
    Curves,
    Protocol,
    ServerName,
    SessionId,
    SessionReused,
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

/// A variable that the configuration defines: its place in [`Plan::variables`](crate::Plan::variables), and the slot of
/// its value in each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VariableId(pub u32);

/// A variable that the configuration defines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinedVariable {
    /// Its name without `$`, in lower case.
    pub name: String,
    /// Where its value comes from while its slot is empty.
    pub source: VariableSource,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VariableSource {
    /// `map`: worked out when it is read first.
    Map(Map),
    /// `set`: empty until a `set` has been reached, which is warned of.
    Set,
    /// `set` of a name that begins as those of a family do, as `$http_name`: until then nginx's own value.
    Builtin(Variable),
    /// `geo`.
    Geo(Geo),
    /// `split_clients`.
    SplitClients(SplitClients),
    /// Only what is written into the slot: a group of this name, when a regular expression of a `location` or
    /// `server_name` matches. One that nothing writes never has a value, as `$ssl_cipher` without TLS.
    Written,
}
