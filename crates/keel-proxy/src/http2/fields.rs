//! Heads of HTTP/2 as lines of HTTP/1, which all else reads and writes, and back.
//!
//! A line can't be ended early from here: names and values of the crate `http` hold no CR, LF or NUL, and what is made of
//! lines goes through those types. Fields that belong to a connection are left out both ways (RFC 9113 §8.2.2).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};
use keel_http::RequestError;

/// Fields of the connection that have no name in the crate `http`.
const OF_CONNECTION: [&str; 2] = ["keep-alive", "proxy-connection"];

/// Writes a request's head as lines, `:authority` as `host`.
///
/// # Errors
/// When it is one to refuse.
pub(crate) fn write_request(parts: &http::request::Parts, out: &mut Vec<u8>) -> Result<(), RequestError> {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/2.0\r\n");
    if !path.starts_with('/') {
        out.extend_from_slice(b"\r\n");
        return Err(if parts.method == http::Method::CONNECT {
            RequestError::Connect
        } else {
            RequestError::Line
        });
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        write_line(b"host", authority, out);
    }
    write_map(&parts.headers, |name| *name == HOST && authority.is_some(), out);
    out.extend_from_slice(b"\r\n");
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Err(RequestError::Duplicate),
        (Some(authority), Some(host), None) if host.as_bytes() != authority => Err(RequestError::TwoHosts),
        _ => Ok(()),
    }
}

/// Writes fields as lines. Several lines of cookies become one (RFC 9113 §8.2.3).
fn write_map(map: &HeaderMap, leaves_out: impl Fn(&HeaderName) -> bool, out: &mut Vec<u8>) {
    for name in map.keys().filter(|name| !leaves_out(name)) {
        let values = map.get_all(name);
        if *name == COOKIE {
            let joined: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
            write_line(name.as_str().as_bytes(), &joined.join(&b"; "[..]), out);
            continue;
        }
        for value in &values {
            write_line(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
}

fn write_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes trailers as lines.
pub(crate) fn write_trailers(map: &HeaderMap, out: &mut Vec<u8>) {
    write_map(map, |_| false, out);
}

/// Writes a response's head as lines.
pub(crate) fn write_response(parts: &http::response::Parts, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/2.0 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    if let Some(reason) = parts.status.canonical_reason() {
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    write_map(&parts.headers, |_| false, out);
    out.extend_from_slice(b"\r\n");
}

/// Makes a request of a head that was written as lines; its `Host` becomes `:authority`. `None` where the crate `http` can't
/// hold its method, target or host.
pub(crate) fn request(head: &[u8]) -> Option<http::Request<()>> {
    let mut request = http::Request::new(());
    let (line, rest) = split_line(head);
    let mut words = line.split(|byte| *byte == b' ');
    *request.method_mut() = http::Method::from_bytes(words.next()?).ok()?;
    let mut fields = map(rest);
    let host = match fields.remove(HOST).filter(|host| !host.is_empty()) {
        Some(host) => Authority::try_from(host.as_bytes()).ok()?,
        None => Authority::from_static("localhost"),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host);
    parts.path_and_query = Some(target(words.next()?)?);
    *request.uri_mut() = http::Uri::from_parts(parts).ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

/// Makes a target of one that was written in a line: what the crate `http` refuses in it is escaped.
fn target(written: &[u8]) -> Option<PathAndQuery> {
    if let Ok(target) = PathAndQuery::try_from(written) {
        return Some(target);
    }
    let mut escaped = String::with_capacity(written.len());
    for byte in written {
        if byte.is_ascii_alphanumeric() || b"/?&=%:@!$'()*+,;-._~[]".contains(byte) {
            escaped.push(char::from(*byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    PathAndQuery::try_from(escaped).ok()
}

/// Makes a response of a head that was written as lines.
pub(crate) fn response(head: &[u8]) -> http::Response<()> {
    let mut response = http::Response::new(());
    let (line, rest) = split_line(head);
    let status = line.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = map(rest);
    response
}

/// Makes a map of fields that were written as lines, up to an empty line or the end.
pub(crate) fn map(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    let all = Bytes::copy_from_slice(lines);
    let mut rest: &[u8] = &all;
    loop {
        let (line, behind) = split_line(rest);
        rest = behind;
        let Some(colon) = memchr::memchr(b':', line) else { return map };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let Ok(name) = HeaderName::from_bytes(name) else { continue };
        if is_of_connection(&name, value) {
            continue;
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(all.slice_ref(value)) {
            // A head with too many fields to be sent has none of the rest.
            let _ = map.try_append(name, value);
        }
    }
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => {
            let line = bytes.get(..end).unwrap_or_default();
            (line.strip_suffix(b"\r").unwrap_or(line), bytes.get(end + 1..).unwrap_or_default())
        }
        None => (bytes, &[]),
    }
}

fn is_of_connection(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        CONNECTION | TRANSFER_ENCODING | UPGRADE => true,
        TE => !value.eq_ignore_ascii_case(b"trailers"),
        _ => OF_CONNECTION.contains(&name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(uri: &str, fields: &[(&str, &str)]) -> (String, Result<(), RequestError>) {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        let result = write_request(&parts, &mut out);
        (String::from_utf8(out).unwrap(), result)
    }

    #[test]
    fn a_request_becomes_lines() {
        let (text, result) =
            written("http://h:81/a?b", &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2")]);
        assert_eq!(text, "GET /a?b HTTP/2.0\r\nhost: h:81\r\ncookie: a=1; b=2\r\nx: 1\r\nx: 2\r\n\r\n");
        assert_eq!(result, Ok(()));
        let (text, result) = written("/", &[("host", "h")]);
        assert_eq!((text.as_str(), result), ("GET / HTTP/2.0\r\nhost: h\r\n\r\n", Ok(())));
    }

    #[test]
    fn lines_become_a_request() {
        let check = |line: &str, expect: &str| {
            let head = format!(
                "{line} HTTP/1.1\r\nHost: h:8\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n"
            );
            let request = request(head.as_bytes()).unwrap();
            assert_eq!(format!("{} {}", request.method(), request.uri()), expect);
            assert_eq!(request.headers().len(), 2);
        };
        check("GET /a?b=c", "GET http://h:8/a?b=c");
        check("PURGE /a<b>\u{e9}", "PURGE http://h:8/a%3Cb%3E%C3%A9");
    }

    #[test]
    fn what_can_t_be_a_request_is_none() {
        let is_some = |target: &str, host: &str| {
            request(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).is_some()
        };
        assert!(is_some("/a", "h"));
        assert!(is_some("/a", ""));
        assert!(!is_some("/a", "h h"));
        assert!(!is_some(&format!("/{}", "a".repeat(70_000)), "h"));
    }

    #[test]
    fn authority_and_host_agree() {
        let check =
            |hosts: &[(&str, &str)], expect| assert_eq!(written("http://h/", hosts).1, expect, "{hosts:?}");
        check(&[("host", "h")], Ok(()));
        check(&[("host", "other")], Err(RequestError::TwoHosts));
        check(&[("host", "h"), ("host", "h")], Err(RequestError::Duplicate));
    }

    #[test]
    fn lines_become_a_response_without_what_is_the_connection_s() {
        let head =
            b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n\
            Transfer-Encoding: chunked\r\nTE: gzip\r\nA: 1\r\nA:  2 \r\nOdd name: 3\r\nEmpty:\r\n\r\nbody: 1";
        let response = response(head);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let mut got: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        got.sort_unstable();
        assert_eq!(got, [("a", &b"1"[..]), ("a", b"2"), ("empty", b""), ("server", b"nginx")]);
    }
}
