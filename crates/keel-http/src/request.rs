//! The head of a request.
//!
//! [`RequestHead::parse`] is called again each time more bytes have come; it goes on at the line where it stopped. It
//! refuses every framing that two servers could read differently (RFC 9112 §6.3, §11.2).

use crate::{
    Field, Fields, Name, Progress, Range, Version,
    connection::{self, ConnectionOptions},
    host,
    line::{self, Line, Writer},
};

pub use crate::line::Underscores;

/// How large a head may be, in bytes (`client_header_buffer_size`, `large_client_header_buffers`, `max_headers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest line, line end included.
    pub line_bytes_max: usize,
    /// The whole head.
    pub head_bytes_max: usize,
    /// Fields.
    pub fields_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: 8 << 10, head_bytes_max: 33 << 10, fields_max: 1000 }
    }
}

/// How tolerant reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How large a head may be.
    pub limits: Limits,
    /// Whether a field with an invalid name is dropped (`ignore_invalid_headers on`) or passed on.
    pub drop_odd_fields: bool,
    /// Whether `_` is a letter of a name.
    pub underscores: Underscores,
}

impl Default for Rules {
    fn default() -> Self {
        Self { limits: Limits::default(), drop_odd_fields: true, underscores: Underscores::Invalid }
    }
}

/// Why a request is refused. Its text is nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a method: often TLS on a plain port.
    #[error("client sent invalid method")]
    Method,
    /// The request line is none.
    #[error("client sent invalid request")]
    Line,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("client sent invalid version")]
    Version,
    /// A line without a version, whose answer would be a body without a head: HTTP/0.9.
    #[error("client sent HTTP/0.9 request")]
    Version09,
    /// The request line is longer than allowed.
    #[error("client sent too long URI")]
    LineTooLong,
    /// A field line is longer than allowed.
    #[error("client sent too long header line")]
    FieldTooLong,
    /// The head is longer than allowed.
    #[error("client sent too large request")]
    HeadTooLarge,
    /// There are more fields than allowed.
    #[error("client sent too many header lines")]
    TooManyFields,
    /// A field line is none.
    #[error("client sent invalid header line")]
    Field,
    /// A field came twice that may come once.
    #[error("client sent duplicate header line")]
    Duplicate,
    /// An absolute form that names another host than `Host`.
    #[error("client sent different hosts in request line and \"Host\" header")]
    TwoHosts,
    /// A field that says where a request goes or comes from, named in `Connection` to have it taken out.
    #[error("client sent \"Connection\" header that names a field of routing")]
    ConnectionOption,
    /// A handshake of WebSocket that isn't whole (RFC 6455 §4.2.1).
    #[error("client sent WebSocket handshake without \"Sec-WebSocket-Key\" header")]
    WebSocketKey,
    /// HTTP/1.1 without `Host`, or HTTP/2 without that and `:authority`.
    #[error("client sent HTTP/1.1 request without \"Host\" header")]
    NoHost,
    /// `Content-Length` is no number.
    #[error("client sent invalid \"Content-Length\" header")]
    ContentLength,
    /// Both ways of saying where the body ends.
    #[error("client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")]
    TwoFramings,
    /// HTTP/1.0 has no transfer codings.
    #[error("client sent HTTP/1.0 request with \"Transfer-Encoding\" header")]
    TransferEncoding10,
    /// A coding other than `chunked`.
    #[error("client sent unknown \"Transfer-Encoding\"")]
    TransferEncoding,
    /// CONNECT is for forward proxies.
    #[error("client sent CONNECT method")]
    Connect,
    /// TRACE shows a client's fields to scripts.
    #[error("client sent TRACE method")]
    Trace,
}

impl RequestError {
    /// The status to answer with; nginx's own 494 stands for 400 with another text.
    pub fn status(self) -> u16 {
        match self {
            RequestError::LineTooLong => 414,
            RequestError::FieldTooLong | RequestError::HeadTooLarge | RequestError::TooManyFields => 494,
            RequestError::Version => 505,
            RequestError::TransferEncoding => 501,
            RequestError::Connect | RequestError::Trace => 405,
            _ => 400,
        }
    }
}

/// How a request's body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    #[default]
    None,
    /// After so many bytes, at least one.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// Where a stream of HTTP/2 ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With the request's head.
    WithHead,
    /// Behind it: a body follows, if only an empty one.
    Later,
}

/// What is requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Path and query as they came, the part before the path left out of an absolute form, and a fragment: `$request_uri`.
    pub raw: Range,
    /// The path as it came; empty in an absolute form that has none.
    pub path: Range,
    /// What follows the `?`.
    pub query: Option<Range>,
    /// The scheme of an absolute form.
    pub scheme: Option<Range>,
    /// Host and port of an absolute form.
    pub authority: Option<Range>,
    /// Whether the path must be decoded or normalised ([`crate::uri::normalise`]).
    pub complex: bool,
}

/// The head of a request. Reused from one to the next.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The request line without its end: `$request`.
    pub line: Range,
    /// The method.
    pub method: Range,
    /// What is requested.
    pub target: Target,
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields,
    /// How the body ends.
    pub body: RequestBody,
    /// What `Connection` says.
    pub connection: ConnectionOptions,
    /// How many fields were dropped for their names.
    pub odd_fields: u32,
    /// The first of them, for the log.
    pub odd_field: Option<Range>,
    next: usize,
    stage: Stage,
    /// The version that the connection speaks.
    speaks: Version,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Start,
    Fields,
}

impl RequestHead {
    /// Forgets the request and keeps the room for the next.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Reads the whole head of an HTTP/2 request that has been written as lines, its `:authority` as `Host`. `ends` says
    /// whether the request has no body.
    ///
    /// # Errors
    /// What makes the request one to refuse.
    pub fn parse_http2(
        &mut self,
        bytes: &[u8],
        rules: &Rules,
        ends: StreamEnd,
    ) -> Result<usize, RequestError> {
        self.speaks = Version::Http2;
        let Progress::Complete(end) = self.parse(bytes, rules)? else { return Err(RequestError::Line) };
        if self.version != Version::Http2 || self.target.scheme.is_some() {
            return Err(RequestError::Line);
        }
        self.body = match (self.body, ends) {
            (RequestBody::Length(_), StreamEnd::WithHead) => return Err(RequestError::ContentLength),
            (_, StreamEnd::WithHead) => RequestBody::None,
            (RequestBody::None, StreamEnd::Later) if !self.fields.has(Name::ContentLength) => {
                RequestBody::Chunked
            }
            (body, StreamEnd::Later) => body,
        };
        Ok(end)
    }

    /// Reads on in `bytes`, which begin where they did at the last call and may have grown.
    ///
    /// # Errors
    /// What makes the request one to refuse. Nothing more may then be read from its connection.
    #[inline(never)]
    pub fn parse(&mut self, bytes: &[u8], rules: &Rules) -> Result<Progress, RequestError> {
        if self.stage == Stage::Start && !self.parse_line(bytes, &rules.limits)? {
            return Ok(Progress::Partial);
        }
        loop {
            let start = self.next;
            let Some((line, next)) = line::field(bytes, start, Writer::Client(rules.underscores)) else {
                let pending = bytes.len().saturating_sub(start);
                if pending >= rules.limits.line_bytes_max {
                    return Err(RequestError::FieldTooLong);
                }
                if bytes.len() >= rules.limits.head_bytes_max {
                    return Err(RequestError::HeadTooLarge);
                }
                return Ok(Progress::Partial);
            };
            if next - start > rules.limits.line_bytes_max {
                return Err(RequestError::FieldTooLong);
            }
            if next > rules.limits.head_bytes_max {
                return Err(RequestError::HeadTooLarge);
            }
            self.next = next;
            match line {
                Line::End => {
                    self.finish(bytes)?;
                    return Ok(Progress::Complete(next));
                }
                Line::Odd(field) if rules.drop_odd_fields => {
                    self.odd_fields += 1;
                    self.odd_field.get_or_insert(Range::new(field.name.start(), field.value.end()));
                }
                Line::Field(field) | Line::Odd(field) => {
                    if self.fields.len() >= rules.limits.fields_max {
                        return Err(RequestError::TooManyFields);
                    }
                    if ONCE.contains(field.known) && self.fields.has(field.known) {
                        return Err(RequestError::Duplicate);
                    }
                    self.fields.push(field);
                }
                Line::Malformed => return Err(RequestError::Field),
            }
        }
    }

    /// Reads the request line; false if it isn't whole.
    fn parse_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, RequestError> {
        // "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line
        // (CRLF) received prior to the request-line" (RFC 9112 §2.2); nginx ignores any number.
        loop {
            match bytes.get(self.next..).unwrap_or_default() {
                [b'\r', b'\n', ..] => self.next += 2,
                [b'\n', ..] => self.next += 1,
                [b'\r'] => return Ok(false),
                [b'\r', ..] => return Err(RequestError::Method),
                _ => break,
            }
            if self.next > limits.head_bytes_max {
                return Err(RequestError::HeadTooLarge);
            }
        }
        let start = self.next;
        let Some((end, next)) = line::end_of_line(bytes, start) else {
            let pending = bytes.get(start..).unwrap_or_default();
            if pending.iter().take_while(|byte| **byte != b' ').any(|byte| !is_method(*byte)) {
                return Err(RequestError::Method);
            }
            if pending.len() >= limits.line_bytes_max {
                return Err(RequestError::LineTooLong);
            }
            return Ok(false);
        };
        self.line = Range::new(start, end);
        self.next = next;
        self.stage = Stage::Fields;
        if next - start > limits.line_bytes_max {
            return Err(RequestError::LineTooLong);
        }
        let line = self.line.of(bytes);
        let method = line.iter().take_while(|byte| is_method(**byte)).count();
        if method == 0 || line.get(method) != Some(&b' ') {
            return Err(RequestError::Method);
        }
        self.method = Range::new(start, start + method);
        // One space each: "recipients of an invalid request-line SHOULD respond with [..] 400" (RFC 9112 §3).
        let target_start = method + 1;
        let rest = line.get(target_start..).unwrap_or_default();
        let target_length = line::find(b' ', rest).unwrap_or(rest.len());
        let version_start = target_start + target_length + 1;
        if self.method.of(bytes) == b"CONNECT" {
            let target = rest.get(..target_length).unwrap_or_default();
            return Err(if is_authority(target) { RequestError::Connect } else { RequestError::Line });
        }
        let (target, form) =
            parse_target(rest.get(..target_length).unwrap_or_default(), start + target_start)?;
        self.target = target;
        self.version = match line.get(version_start..).unwrap_or_default() {
            b"HTTP/2.0" if self.speaks == Version::Http2 => Version::Http2,
            text => parse_version(text)?,
        };
        // In HTTP/1.0 what is too much is cut off, as nginx does, before anything is decided by it.
        if form == Form::Tolerated && self.version != Version::Http10 {
            return Err(RequestError::Line);
        }
        match self.method.of(bytes) {
            // The beginning of HTTP/2.
            b"PRI" => return Err(RequestError::Method),
            b"TRACK" => return Err(RequestError::Trace),
            _ => {}
        }
        Ok(true)
    }

    /// Draws the conclusions from all fields together.
    fn finish(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        if self.version != Version::Http10 && !self.fields.has(Name::Host) {
            return Err(RequestError::NoHost);
        }
        if self.fields.first(Name::Host).is_some_and(|field| has_tab_around(bytes, field)) {
            return Err(RequestError::Field);
        }
        for field in self.fields.all(Name::Connection) {
            self.connection.read(field.value.of(bytes));
        }
        if self.connection.names_fields && self.names_routing(bytes) {
            return Err(RequestError::ConnectionOption);
        }
        if self.connection.upgrade && self.lacks_websocket_key(bytes) {
            return Err(RequestError::WebSocketKey);
        }
        if let Some(authority) = self.target.authority
            && self.version == Version::Http11
            && self.is_other_host(bytes, authority)
        {
            return Err(RequestError::TwoHosts);
        }
        let length = match self.fields.first(Name::ContentLength) {
            Some(field) if has_tab_around(bytes, field) => return Err(RequestError::ContentLength),
            Some(field) => {
                Some(connection::content_length(field.value.of(bytes)).ok_or(RequestError::ContentLength)?)
            }
            None => None,
        };
        self.body = match (self.fields.first(Name::TransferEncoding), length) {
            (Some(_), _) if self.version == Version::Http10 => return Err(RequestError::TransferEncoding10),
            (Some(_), _) if self.version == Version::Http2 => return Err(RequestError::TransferEncoding),
            (Some(field), _)
                if !field.value.of(bytes).eq_ignore_ascii_case(b"chunked")
                    || has_tab_around(bytes, field) =>
            {
                return Err(RequestError::TransferEncoding);
            }
            (Some(_), Some(_)) => return Err(RequestError::TwoFramings),
            (Some(_), None) => RequestBody::Chunked,
            (None, None | Some(0)) => RequestBody::None,
            (None, Some(length)) => RequestBody::Length(length),
        };
        if self.method.of(bytes) == b"TRACE" {
            return Err(RequestError::Trace);
        }
        Ok(())
    }

    /// Says whether `Connection` names a field that tells where the request goes or where it comes from: a server behind
    /// would go without it, or take another's word for it.
    fn names_routing(&self, bytes: &[u8]) -> bool {
        let mut options =
            self.fields.all(Name::Connection).flat_map(|field| connection::tokens(field.value.of(bytes)));
        options.any(|option| {
            let starts = |prefix: &[u8]| {
                option.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            };
            [b"host".as_slice(), b"forwarded", b"x-real-ip"]
                .iter()
                .any(|name| option.eq_ignore_ascii_case(name))
                || starts(b"x-forwarded-")
                || option.contains(&b':')
        })
    }

    fn lacks_websocket_key(&self, bytes: &[u8]) -> bool {
        let mut protocols = self.fields.all(Name::Upgrade).map(|field| field.value.of(bytes));
        protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
            && self.fields.named(bytes, b"sec-websocket-key").next().is_none()
    }

    /// Says whether an absolute form and `Host` name different hosts or ports. Names that are none are refused elsewhere.
    fn is_other_host(&self, bytes: &[u8], authority: Range) -> bool {
        let Some(field) = self.fields.first(Name::Host) else { return false };
        let https = self.target.scheme.is_some_and(|scheme| scheme.of(bytes).eq_ignore_ascii_case(b"https"));
        let own = if https { 443 } else { 80 };
        let place = |text: &[u8]| {
            let mut name = Vec::new();
            let port = host::normalise(text, &mut name).ok()?;
            Some((name, port.unwrap_or(own)))
        };
        match (place(authority.of(bytes)), place(field.value.of(bytes))) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        }
    }

    /// Says whether the client is willing to send another request on this connection (RFC 9112 §9.3).
    pub fn wants_keep_alive(&self) -> bool {
        match self.version {
            Version::Http11 | Version::Http2 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }
}

/// Fields that nginx takes once only; two of them would be read differently by different servers.
const ONCE: crate::NameSet = crate::NameSet::EMPTY
    .with(Name::Host)
    .with(Name::ContentLength)
    .with(Name::TransferEncoding)
    .with(Name::ContentRange)
    .with(Name::Expect)
    .with(Name::Authorization)
    .with(Name::ProxyAuthorization)
    .with(Name::IfRange)
    .with(Name::IfMatch)
    .with(Name::IfNoneMatch)
    .with(Name::IfModifiedSince)
    .with(Name::IfUnmodifiedSince);

fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'_' || byte == b'-'
}

fn parse_version(text: &[u8]) -> Result<Version, RequestError> {
    match text {
        b"HTTP/1.1" => return Ok(Version::Http11),
        b"HTTP/1.0" => return Ok(Version::Http10),
        b"" => return Err(RequestError::Version09),
        _ => {}
    }
    let digits = text.strip_prefix(b"HTTP/").ok_or(RequestError::Line)?;
    let dot = memchr::memchr(b'.', digits).unwrap_or(digits.len());
    let (major, minor) = digits.split_at(dot);
    if !matches!(major.first(), Some(b'1'..=b'9')) || !major.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::Line);
    }
    if major != b"1" {
        return Err(RequestError::Version);
    }
    let minor = minor.strip_prefix(b".").ok_or(RequestError::Line)?;
    // One digit (RFC 9112 §2.3). Other proxies refuse the higher ones, though they would mean the same as 1.1.
    match minor {
        [b'0'..=b'9'] => Err(RequestError::Version),
        _ => Err(RequestError::Line),
    }
}

/// Says whether a tab stands before or behind a field's value: for nginx it is a part of it.
fn has_tab_around(bytes: &[u8], field: &Field) -> bool {
    let before = bytes.get(field.name.end() + 1..field.value.start()).unwrap_or_default();
    let behind = bytes.get(field.value.end()..).unwrap_or_default();
    before.contains(&b'\t') || behind.iter().find(|byte| **byte != b' ') == Some(&b'\t')
}

/// How a target is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As RFC 9112 §3.2 has it.
    Proper,
    /// With a fragment, a query behind a host without a path, or a colon without a port: refused by other proxies, borne
    /// by nginx.
    Tolerated,
}

/// Reads origin-form and absolute-form (RFC 9112 §3.2); the others are for forward proxies.
///
/// A fragment is left out: it isn't sent, and what a peer would make of it is not what was decided by here.
fn parse_target(target: &[u8], at: usize) -> Result<(Target, Form), RequestError> {
    const REFUSED: u8 = 1;
    const FRAGMENT: u8 = 2;
    const REFUSED_IN_PATH: u8 = 4;
    let found = target.iter().fold(0_u8, |found, byte| {
        let refused = if *byte < 0x20 || *byte == 0x7f { REFUSED } else { 0 };
        let fragment = if *byte == b'#' { FRAGMENT } else { 0 };
        found | refused | fragment | if is_refused_in_path(*byte) { REFUSED_IN_PATH } else { 0 }
    });
    let in_path = || target.iter().take_while(|byte| **byte != b'?').any(|byte| is_refused_in_path(*byte));
    if found & REFUSED != 0 || (found & REFUSED_IN_PATH != 0 && in_path()) {
        return Err(RequestError::Line);
    }
    let mut form = Form::Proper;
    let mut target = target;
    if found & FRAGMENT != 0 {
        form = Form::Tolerated;
        target = target.get(..line::find(b'#', target).unwrap_or(target.len())).unwrap_or_default();
    }
    let mut parsed = Target::default();
    let mut path_start = 0;
    if target.first() != Some(&b'/') {
        let scheme = target.iter().take_while(|byte| is_scheme(**byte)).count();
        let authority = scheme + 3;
        let letter = target.first().is_some_and(u8::is_ascii_alphabetic);
        if !letter || target.get(scheme..authority) != Some(b"://") {
            return Err(RequestError::Line);
        }
        let name = target.get(..scheme).unwrap_or_default();
        if !name.eq_ignore_ascii_case(b"http") && !name.eq_ignore_ascii_case(b"https") {
            return Err(RequestError::Line);
        }
        let rest = target.get(authority..).unwrap_or_default();
        path_start = authority + memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        if path_start == authority {
            return Err(RequestError::Line);
        }
        // A port that is announced and missing.
        if target.get(path_start - 1) == Some(&b':') {
            form = Form::Tolerated;
        }
        parsed.scheme = Some(Range::new(at, at + scheme));
        parsed.authority = Some(Range::new(at + authority, at + path_start));
        if path_start == target.len() {
            // No path: the `/` of `://` stands for it.
            let slash = at + scheme + 1;
            parsed.raw = Range::new(slash, slash + 1);
            parsed.path = parsed.raw;
            return Ok((parsed, form));
        }
        if target.get(path_start) == Some(&b'?') {
            form = Form::Tolerated;
        }
    }
    let rest = target.get(path_start..).unwrap_or_default();
    let Path { length, complex } = scan_path(rest);
    let (path, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
    let at = at + path_start;
    parsed.raw = Range::new(at, at + rest.len());
    parsed.path = Range::new(at, at + path.len());
    if behind.first() == Some(&b'?') {
        parsed.query = Some(Range::new(at + length + 1, at + length + behind.len()));
    }
    parsed.complex = complex;
    Ok((parsed, form))
}

/// Says whether a byte is refused in a path, where clients escape it, and taken in a query, where some don't.
fn is_refused_in_path(byte: u8) -> bool {
    matches!(byte, b'<' | b'>' | b'`')
}

struct Path {
    /// Up to the query.
    length: usize,
    /// Whether it must be decoded (`%`), or `//` or `/.` stands in it, or it is empty.
    complex: bool,
}

fn scan_path(target: &[u8]) -> Path {
    let mut complex = target.is_empty();
    let mut before = 0;
    for (at, byte) in target.iter().enumerate() {
        match byte {
            b'%' => complex = true,
            b'/' | b'.' => complex |= before == b'/',
            b'?' => return Path { length: at, complex: complex || at == 0 },
            _ => {}
        }
        before = *byte;
    }
    Path { length: target.len(), complex }
}

/// Says whether it is `host:port`, which CONNECT takes (RFC 9112 §3.2.3).
fn is_authority(target: &[u8]) -> bool {
    matches!(crate::host::normalise(target, &mut Vec::new()), Ok(Some(_)))
}

fn is_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
