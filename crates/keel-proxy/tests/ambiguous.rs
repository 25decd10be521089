//! Requests that servers read differently: what any of nginx, HAProxy, Envoy and Pingora refuses is refused here, with the
//! exceptions that `docs/reference/requests.md` gives reasons for, and what is taken is passed on in one form.
//!
//! The four were run on these very bytes with default settings: nginx 1.31.5, HAProxy 2.6.12, Envoy 1.40.0, Pingora 0.8.1.

mod support;

use std::io::Read;

use keel_model::{Template, Variable};
use support::{DataPlane, ScriptedPeer, balance};

/// One request.
struct Row {
    what: &'static str,
    request: &'static [u8],
    /// Which of the others answer it with an error of their own: n(ginx), h(aproxy), e(nvoy), p(ingora).
    refused_by: &'static str,
    outcome: Outcome,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is answered with this status, and the connection closes.
    Refused(u16),
    /// The peer sees these bytes.
    Forwarded(&'static [u8]),
}

use Outcome::{Forwarded, Refused};

/// Taken although one of the others refuses it; the last three for one reason.
const EXCEPTIONS: [&str; 6] = [
    "line: HTTP/1.0",
    "method: unknown",
    "target: absolute form",
    "target: less-than in query",
    "target: non-ASCII",
    "target: quote in query",
];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // framing
    Row { what: "framing: plain length", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "framing: length before coding", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "framing: coding before length", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "framing: zero length and coding", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "framing: two equal lengths", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", refused_by: "nep", outcome: Refused(400) },
    Row { what: "framing: two lengths", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: list of equal lengths", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", refused_by: "nep", outcome: Refused(400) },
    Row { what: "framing: list of lengths", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 6\r\n\r\nhello", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: length +5", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "framing: length empty", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: length beyond 64 bits", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\nhello", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: length 2^63", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\nhello", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: length with HT", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\t5\r\n\r\nhello", refused_by: "n", outcome: Refused(400) },
    Row { what: "framing: length with space and HT behind", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5 \t\r\n\r\nhello", refused_by: "n", outcome: Refused(400) },
    Row { what: "framing: coding with space and HT behind", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "n", outcome: Refused(501) },
    Row { what: "framing: length with VT", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \x0b5\r\n\r\nhello", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: space before colon in length", request: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: coding identity", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", refused_by: "nhep", outcome: Refused(501) },
    Row { what: "framing: coding gzip, chunked", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(501) },
    Row { what: "framing: coding chunked, identity", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(501) },
    Row { what: "framing: coding identity, chunked", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(501) },
    Row { what: "framing: coding chunked twice", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "framing: coding chunked, chunked", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(501) },
    Row { what: "framing: coding and identity apart", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: coding with comma", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ,chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(501) },
    Row { what: "framing: coding comma behind", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nep", outcome: Refused(501) },
    Row { what: "framing: coding with HT", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "n", outcome: Refused(501) },
    Row { what: "framing: coding empty", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", refused_by: "nhep", outcome: Refused(501) },
    Row { what: "framing: coding space before colon", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "framing: coding folded", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "framing: coding in HTTP/1.0", request: b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "nep", outcome: Refused(400) },
    // chunks
    Row { what: "chunks: size 0x5", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: size +5", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: size with space before", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: size with space behind", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "chunks: size 20 zeros", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000005\r\nhello\r\n0\r\n\r\n", refused_by: "p", outcome: Refused(400) },
    Row { what: "chunks: size beyond 64 bits", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: size empty", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "chunks: size LF end", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", refused_by: "nep", outcome: Refused(400) },
    Row { what: "chunks: data LF end", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "chunks: data without end", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: last LF", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n", refused_by: "nep", outcome: Refused(400) },
    Row { what: "chunks: extension", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "chunks: extension quoted", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "chunks: extension with LF", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "chunks: extension with CR", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: extension with space before", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 ;a\r\nhello\r\n0\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "chunks: CR in size", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\r\nhello\r\n0\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "chunks: trailer", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: a\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "chunks: trailer Content-Length", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "chunks: trailer folded", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: a\r\n b\r\n\r\n", refused_by: "", outcome: Refused(400) },
    Row { what: "chunks: trailer without colon", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T\r\n\r\n", refused_by: "he", outcome: Refused(400) },
    Row { what: "chunks: trailer with space before colon", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T : a\r\n\r\n", refused_by: "e", outcome: Refused(400) },
    Row { what: "chunks: trailer bare CR", request: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: a\rb\r\n\r\n", refused_by: "nhp", outcome: Refused(400) },
    // fields
    Row { what: "fields: folded", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "fields: first line folded", request: b"GET / HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "fields: LF ends", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\nX: a\r\n\r\n") },
    Row { what: "fields: all LF ends", request: b"GET / HTTP/1.1\nHost: h\n\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "fields: bare CR in value", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", refused_by: "nhp", outcome: Refused(400) },
    Row { what: "fields: bare CR at line end", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\n", refused_by: "hp", outcome: Refused(400) },
    Row { what: "fields: bare CR in name", request: b"GET / HTTP/1.1\r\nHost: h\r\nX\rY: a\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "fields: NUL in value", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", refused_by: "nep", outcome: Refused(400) },
    Row { what: "fields: NUL in name", request: b"GET / HTTP/1.1\r\nHost: h\r\nX\x00: a\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "fields: control in value", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", refused_by: "ep", outcome: Refused(400) },
    Row { what: "fields: DEL in value", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", refused_by: "ep", outcome: Refused(400) },
    Row { what: "fields: ESC in value", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x1bb\r\n\r\n", refused_by: "ep", outcome: Refused(400) },
    Row { what: "fields: non-ASCII value", request: b"GET / HTTP/1.1\r\nHost: h\r\nX: \xc3\xa9\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\nX: \xc3\xa9\r\n\r\n") },
    Row { what: "fields: non-ASCII name", request: b"GET / HTTP/1.1\r\nHost: h\r\nX\xc3: a\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "fields: space in name", request: b"GET / HTTP/1.1\r\nHost: h\r\nX Y: a\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "fields: space before colon", request: b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "fields: empty name", request: b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "fields: no colon", request: b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "fields: name with (", request: b"GET / HTTP/1.1\r\nHost: h\r\nX(: a\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "fields: name with @", request: b"GET / HTTP/1.1\r\nHost: h\r\nX@Y: a\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "fields: name with _", request: b"GET / HTTP/1.1\r\nHost: h\r\nX_Y: a\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    // host
    Row { what: "host: none in 1.1", request: b"GET / HTTP/1.1\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: empty", request: b"GET / HTTP/1.1\r\nHost:\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: two equal", request: b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: two", request: b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", refused_by: "nh", outcome: Refused(400) },
    Row { what: "host: with path", request: b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: with userinfo", request: b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: port letters", request: b"GET / HTTP/1.1\r\nHost: h:a\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: two ports", request: b"GET / HTTP/1.1\r\nHost: h:80:81\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: space inside", request: b"GET / HTTP/1.1\r\nHost: h i\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: HT inside", request: b"GET / HTTP/1.1\r\nHost: h\ti\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: NUL inside", request: b"GET / HTTP/1.1\r\nHost: h\x00i\r\n\r\n", refused_by: "nep", outcome: Refused(400) },
    Row { what: "host: backslash", request: b"GET / HTTP/1.1\r\nHost: h\\i\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: hash", request: b"GET / HTTP/1.1\r\nHost: h#x\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: less-than", request: b"GET / HTTP/1.1\r\nHost: <h>\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: non-ASCII", request: b"GET / HTTP/1.1\r\nHost: h\xc3\xa9\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "host: two dots", request: b"GET / HTTP/1.1\r\nHost: h..i\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: IPv6 open", request: b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: IPv6 text behind", request: b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: space before colon", request: b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "host: space and tab behind", request: b"GET / HTTP/1.1\r\nHost: h \t\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: folded", request: b"GET / HTTP/1.1\r\nHost:\r\n h\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "host: only a dot", request: b"GET / HTTP/1.1\r\nHost: .\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "host: tab before", request: b"GET / HTTP/1.1\r\nHost:\th\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    // target
    Row { what: "target: absolute form", request: b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "p", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "target: absolute, other host", request: b"GET http://i/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "hp", outcome: Refused(400) },
    Row { what: "target: absolute, no Host", request: b"GET http://h/ HTTP/1.1\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "target: absolute, empty host", request: b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nep", outcome: Refused(400) },
    Row { what: "target: absolute, userinfo", request: b"GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "target: absolute, ftp", request: b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ep", outcome: Refused(400) },
    Row { what: "target: absolute, port letters", request: b"GET http://h:a/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "target: absolute, query only", request: b"GET http://h?x HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "target: absolute, other port than Host", request: b"GET http://h:81/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "hp", outcome: Refused(400) },
    Row { what: "target: asterisk GET", request: b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "target: asterisk OPTIONS", request: b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "target: no slash", request: b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "target: fragment", request: b"GET /x#y HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "he", outcome: Refused(400) },
    Row { what: "target: fragment dots", request: b"GET /x#/../adm HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "he", outcome: Refused(400) },
    Row { what: "target: fragment in query", request: b"GET /x?y#z HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "he", outcome: Refused(400) },
    Row { what: "target: space inside", request: b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "target: HT inside", request: b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "target: NUL inside", request: b"GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "target: DEL inside", request: b"GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "target: CR inside", request: b"GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhe", outcome: Refused(400) },
    Row { what: "target: non-ASCII", request: b"GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "he", outcome: Forwarded(b"GET /%C3%A9 HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "target: backslash", request: b"GET /a\\b HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET /a\\b HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "target: less-than", request: b"GET /<a> HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "p", outcome: Refused(400) },
    Row { what: "target: backtick", request: b"GET /a`b HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "p", outcome: Refused(400) },
    Row { what: "target: percent broken", request: b"GET /a%zz HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "target: percent dots", request: b"GET /%2e%2e/x HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "target: dots beyond root", request: b"GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "target: dots with parameter", request: b"GET /a/..;/b HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET /a/..;/b HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "target: empty", request: b"GET  HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "target: absolute, port empty", request: b"GET http://h:/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ep", outcome: Refused(400) },
    Row { what: "target: quote in query", request: b"GET /?a=\"b\" HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "p", outcome: Forwarded(b"GET /?a=%22b%22 HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "target: less-than in query", request: b"GET /?a=<b> HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "p", outcome: Forwarded(b"GET /?a=%3Cb%3E HTTP/1.1\r\nHost: u\r\n\r\n") },
    // line
    Row { what: "line: HTTP/0.9", request: b"GET /\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: no method", request: b"/ HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: HTTP/1.0", request: b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", refused_by: "e", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "line: HTTP/1.2", request: b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", refused_by: "ep", outcome: Refused(505) },
    Row { what: "line: HTTP/1.10", request: b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "line: HTTP/1.01", request: b"GET / HTTP/1.01\r\nHost: h\r\n\r\n", refused_by: "hep", outcome: Refused(400) },
    Row { what: "line: HTTP/2.0", request: b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", refused_by: "nep", outcome: Refused(505) },
    Row { what: "line: HTTP/0.9 named", request: b"GET / HTTP/0.9\r\nHost: h\r\n\r\n", refused_by: "nep", outcome: Refused(400) },
    Row { what: "line: HTTP/1", request: b"GET / HTTP/1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: http/1.1", request: b"GET / http/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: HTTP/1.1x", request: b"GET / HTTP/1.1x\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: ICY/1.1", request: b"GET / ICY/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: two spaces before target", request: b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "p", outcome: Refused(400) },
    Row { what: "line: two spaces before version", request: b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "", outcome: Refused(400) },
    Row { what: "line: space behind version", request: b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", refused_by: "hp", outcome: Refused(400) },
    Row { what: "line: HT behind version", request: b"GET / HTTP/1.1\t\r\nHost: h\r\n\r\n", refused_by: "nhp", outcome: Refused(400) },
    Row { what: "line: space first", request: b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "line: HT for space", request: b"GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "np", outcome: Refused(400) },
    Row { what: "line: CR behind version", request: b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", refused_by: "nhp", outcome: Refused(400) },
    Row { what: "line: LF end", request: b"GET / HTTP/1.1\nX: y\r\nHost: h\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\nX: y\r\n\r\n") },
    Row { what: "line: empty line first", request: b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "line: CR first", request: b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "hp", outcome: Refused(400) },
    Row { what: "line: NUL first", request: b"\x00GET / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    // method
    Row { what: "method: lower case", request: b"get / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "method: unknown", request: b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "e", outcome: Forwarded(b"FOO / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "method: with digit", request: b"G3T / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "ne", outcome: Refused(400) },
    Row { what: "method: with (", request: b"GET( / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "method: with NUL", request: b"GET\x00 / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "method: non-ASCII", request: b"G\xc3T / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "method: CONNECT authority", request: b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nep", outcome: Refused(405) },
    Row { what: "method: CONNECT path", request: b"CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    Row { what: "method: TRACE", request: b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "n", outcome: Refused(405) },
    Row { what: "method: TRACK", request: b"TRACK / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "e", outcome: Refused(405) },
    Row { what: "method: PRI", request: b"PRI / HTTP/1.1\r\nHost: h\r\n\r\n", refused_by: "he", outcome: Refused(400) },
    Row { what: "method: HTTP/2 preface", request: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused_by: "nhep", outcome: Refused(400) },
    // connection
    Row { what: "connection: naming Host", request: b"GET / HTTP/1.1\r\nHost: h\r\nConnection: host\r\n\r\n", refused_by: "e", outcome: Refused(400) },
    Row { what: "connection: naming Transfer-Encoding", request: b"POST / HTTP/1.1\r\nHost: h\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused_by: "", outcome: Forwarded(b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 5\r\n\r\nhello") },
    Row { what: "connection: naming :path", request: b"GET / HTTP/1.1\r\nHost: h\r\nConnection: :path\r\n\r\n", refused_by: "e", outcome: Refused(400) },
    Row { what: "connection: naming X-Forwarded-For", request: b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x-forwarded-for\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", refused_by: "e", outcome: Refused(400) },
    Row { what: "connection: naming X", request: b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x\r\nX: y\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "connection: Upgrade websocket", request: b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", refused_by: "he", outcome: Refused(400) },
    Row { what: "connection: TE trailers", request: b"GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
    Row { what: "connection: two Expect", request: b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", refused_by: "n", outcome: Refused(400) },
    Row { what: "connection: two Authorization", request: b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", refused_by: "n", outcome: Refused(400) },
    Row { what: "connection: Trailer Content-Length", request: b"GET / HTTP/1.1\r\nHost: h\r\nTrailer: Content-Length\r\n\r\n", refused_by: "", outcome: Forwarded(b"GET / HTTP/1.1\r\nHost: u\r\n\r\n") },
];

#[test]
fn what_others_refuse_is_refused() {
    let mut exceptions: Vec<&str> = ROWS
        .iter()
        .filter(|row| !row.refused_by.is_empty() && matches!(row.outcome, Forwarded(_)))
        .map(|row| row.what)
        .collect();
    exceptions.sort_unstable();
    assert_eq!(exceptions, EXCEPTIONS);
}

#[test]
fn each_request_is_refused_or_passed_on_in_one_form() {
    let peer = ScriptedPeer::saying("peer");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let set = &mut plan.servers[0].locations[0].scope.proxy.set_headers;
        *set = vec![("Host".into(), Template::variable(Variable::ProxyHost))];
    });
    let mut wrong = Vec::new();
    for row in ROWS {
        let before = peer.requests().len();
        let mut client = plane.client();
        client.send(row.request);
        client.stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.stream.read_to_end(&mut answer).unwrap();
        let status: u16 = std::str::from_utf8(answer.get(9..12).unwrap_or(b"0")).unwrap().parse().unwrap();
        let seen = peer.requests();
        let passed = seen.get(before).map(|seen| [seen.head.as_bytes(), b"\r\n", &seen.body].concat());
        let is_right = match (&row.outcome, &passed) {
            (Refused(expect), None) => status == *expect && closes(&answer),
            (Forwarded(expect), Some(passed)) => {
                status == 200 && passed == expect && seen.len() == before + 1
            }
            _ => false,
        };
        if !is_right {
            let passed = passed.map(|passed| passed.escape_ascii().to_string());
            wrong.push(format!("{}: {status} {passed:?}", row.what));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn closes(answer: &[u8]) -> bool {
    String::from_utf8_lossy(answer).contains("\r\nConnection: close\r\n")
}
