use proptest::prelude::*;

use super::*;

fn read(text: &[u8]) -> Result<(RequestHead, Progress), RequestError> {
    let mut head = RequestHead::default();
    let progress = head.parse(text, &Rules::default())?;
    Ok((head, progress))
}

#[track_caller]
fn refused(text: &str, expect: RequestError) {
    match read(text.as_bytes()) {
        Err(error) => assert_eq!(error, expect, "{text:?}"),
        Ok((_, progress)) => panic!("{text:?} was taken: {progress:?}"),
    }
}

#[track_caller]
fn taken(text: &str) -> RequestHead {
    match read(text.as_bytes()) {
        Ok((head, Progress::Complete(length))) => {
            assert_eq!(length, text.len(), "{text:?}");
            head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn reads_a_request() {
    let text = "GET /a/b?c=d HTTP/1.1\r\nHost: example.org\r\nX-Y:\t z \r\nEmpty:\r\n\r\n";
    let head = taken(text);
    let bytes = text.as_bytes();
    assert_eq!(head.method.of(bytes), b"GET");
    assert_eq!(head.target.raw.of(bytes), b"/a/b?c=d");
    assert_eq!(head.target.path.of(bytes), b"/a/b");
    assert_eq!(head.target.query.map(|query| query.of(bytes)), Some(b"c=d".as_slice()));
    assert_eq!(head.line.of(bytes), b"GET /a/b?c=d HTTP/1.1");
    assert!(!head.target.complex && head.wants_keep_alive());
    let fields: Vec<_> = head.fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes))).collect();
    let expect: [(&[u8], &[u8]); 3] = [(b"Host", b"example.org"), (b"X-Y", b"z"), (b"Empty", b"")];
    assert_eq!(fields, expect);
    assert_eq!(head.body, RequestBody::None);
}

#[test]
fn reads_targets() {
    let check = |target: &str, raw: &str, path: &str, query: Option<&str>, complex: bool| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = taken(&text);
        let show = |range: Range| String::from_utf8_lossy(range.of(text.as_bytes())).into_owned();
        assert_eq!(show(head.target.raw), raw, "{target}");
        assert_eq!(show(head.target.path), path, "{target}");
        assert_eq!(head.target.query.map(show).as_deref(), query, "{target}");
        assert_eq!(head.target.complex, complex, "{target}");
    };
    check("/", "/", "/", None, false);
    check("/a?", "/a?", "/a", Some(""), false);
    check("/a?b=<c>`", "/a?b=<c>`", "/a", Some("b=<c>`"), false);
    check("/a?b?c", "/a?b?c", "/a", Some("b?c"), false);
    check("//a", "//a", "//a", None, true);
    check("/a/.b", "/a/.b", "/a/.b", None, true);
    check("/a%20b", "/a%20b", "/a%20b", None, true);
    check("http://h:80/a?b", "/a?b", "/a", Some("b"), false);
    check("/é", "/é", "/é", None, false);
    check("/a?b=`", "/a?b=`", "/a", Some("b=`"), false);
    check("http://h", "/", "/", None, false);
}

#[test]
fn what_is_too_much_in_a_target_is_cut_off_in_http_1_0_alone() {
    for (target, raw, path, query) in [
        ("/a#/../b", "/a", "/a", None),
        ("/a?b#c", "/a?b", "/a", Some("b")),
        ("/a#b?c", "/a", "/a", None),
        ("http://h?b#c", "?b", "", Some("b")),
        ("http://h#c", "/", "/", None),
        ("http://h:/", "/", "/", None),
    ] {
        refused(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), RequestError::Line);
        let text = format!("GET {target} HTTP/1.0\r\n\r\n");
        let head = taken(&text);
        let show = |range: Range| String::from_utf8_lossy(range.of(text.as_bytes())).into_owned();
        assert_eq!((show(head.target.raw), show(head.target.path)), (raw.into(), path.into()), "{target}");
        assert_eq!(head.target.query.map(show).as_deref(), query, "{target}");
    }
}

#[test]
fn an_absolute_form_names_the_host_that_the_field_names() {
    for (target, host, same) in [
        ("http://h/", "h", true),
        ("http://H:80/", "h", true),
        ("http://h/", "h.:80", true),
        ("https://h/", "h:443", true),
        ("http://h/", "i", false),
        ("http://h:81/", "h", false),
        ("https://h/", "h:80", false),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(read(text.as_bytes()).is_ok(), same, "{target} {host}");
        assert!(read(text.replace("/1.1", "/1.0").as_bytes()).is_ok(), "{target} {host}");
    }
}

#[test]
fn reads_framing() {
    let body = |fields: &str| taken(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).body;
    assert_eq!(body(""), RequestBody::None);
    assert_eq!(body("Content-Length: 0\r\n"), RequestBody::None);
    assert_eq!(body("content-length: 12  \r\n"), RequestBody::Length(12));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), RequestBody::Chunked);
}

#[test]
fn refuses_ambiguous_framing() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    for (fields, expect) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", RequestError::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", RequestError::TwoFramings),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", RequestError::Duplicate),
        ("Content-Length: 5, 5\r\n", RequestError::ContentLength),
        ("Content-Length: +5\r\n", RequestError::ContentLength),
        ("Content-Length: \r\n", RequestError::ContentLength),
        ("Content-Length: 0x10\r\n", RequestError::ContentLength),
        ("Content-Length: 99999999999999999999\r\n", RequestError::ContentLength),
        ("Transfer-Encoding: gzip, chunked\r\n", RequestError::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", RequestError::Duplicate),
        ("Transfer-Encoding: \"chunked\"\r\n", RequestError::TransferEncoding),
        ("Transfer-Encoding : chunked\r\n", RequestError::Field),
        ("Host: i\r\n", RequestError::Duplicate),
        (" folded\r\n", RequestError::Field),
        ("A: b\r\n\tc\r\n", RequestError::Field),
        ("A: b\rc\r\n", RequestError::Field),
        ("A\r: b\r\n", RequestError::Field),
        ("A: b\0\r\n", RequestError::Field),
        ("Content-Length:\t5\r\n", RequestError::ContentLength),
        ("Content-Length: 5\t\r\n", RequestError::ContentLength),
        ("Content-Length: 5 \t\r\n", RequestError::ContentLength),
        ("Content-Length: 5\t \r\n", RequestError::ContentLength),
        ("Transfer-Encoding:\tchunked\r\n", RequestError::TransferEncoding),
        ("A: b\x01\r\n", RequestError::Field),
        ("A: b\x1b[31m\r\n", RequestError::Field),
        ("A: b\x7f\r\n", RequestError::Field),
        ("Connection: :path\r\n", RequestError::ConnectionOption),
        ("A@B: c\r\n", RequestError::Field),
        ("A(: c\r\n", RequestError::Field),
        ("Ä: c\r\n", RequestError::Field),
        ("Connection: close, Host\r\n", RequestError::ConnectionOption),
        ("Connection: x-forwarded-for\r\n", RequestError::ConnectionOption),
        ("Connection: Forwarded\r\n", RequestError::ConnectionOption),
        ("Connection: Upgrade\r\nUpgrade: WebSocket\r\n", RequestError::WebSocketKey),
        (": b\r\n", RequestError::Field),
        ("nocolon\r\n", RequestError::Field),
    ] {
        refused(&with(fields), expect);
    }
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::TransferEncoding10);
    refused("GET / HTTP/1.1\r\n\r\n", RequestError::NoHost);
    refused("GET / HTTP/1.1\r\nHost:\th\r\n\r\n", RequestError::Field);
    refused("GET / HTTP/1.1\r\nHost: h\t\r\n\r\n", RequestError::Field);
}

#[test]
fn refuses_what_is_no_request_line() {
    for (line, expect) in [
        ("get / HTTP/1.1", RequestError::Method),
        ("\x16\x03\x01", RequestError::Method),
        ("GET", RequestError::Method),
        ("GET  HTTP/1.1", RequestError::Line),
        ("GET a HTTP/1.1", RequestError::Line),
        ("OPTIONS * HTTP/1.1", RequestError::Line),
        ("PRI * HTTP/2.0", RequestError::Line),
        ("GET / HTTP/2.0", RequestError::Version),
        ("GET / HTTP/1.2", RequestError::Version),
        ("GET / HTTP/1.10", RequestError::Line),
        ("GET / HTTP/1.01", RequestError::Line),
        ("GET / HTTP/1.1 ", RequestError::Line),
        ("GET /  HTTP/1.1", RequestError::Line),
        ("GET  / HTTP/1.1", RequestError::Line),
        ("GET /<a> HTTP/1.1", RequestError::Line),
        ("GET /a`b HTTP/1.1", RequestError::Line),
        ("GET ftp://h/ HTTP/1.1", RequestError::Line),
        ("\rGET / HTTP/1.1", RequestError::Method),
        ("PRI / HTTP/1.1", RequestError::Method),
        ("GET / HTTP/1.", RequestError::Line),
        ("GET / HTTP/1.1x", RequestError::Line),
        ("GET / http/1.1", RequestError::Line),
        ("GET /a b HTTP/1.1", RequestError::Line),
        ("GET /\ta HTTP/1.1", RequestError::Line),
        ("GET /\r HTTP/1.1", RequestError::Line),
        ("POST /", RequestError::Version09),
        ("GET /", RequestError::Version09),
        ("GET / ", RequestError::Version09),
        ("CONNECT h:443 HTTP/1.1", RequestError::Connect),
        ("CONNECT h HTTP/1.1", RequestError::Line),
        ("CONNECT / HTTP/1.1", RequestError::Line),
    ] {
        refused(&format!("{line}\r\nHost: h\r\n\r\n"), expect);
    }
    refused("TRACK / HTTP/1.1\r\nHost: h\r\n\r\n", RequestError::Trace);
    refused("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", RequestError::Trace);
}

#[test]
fn refuses_noise_before_a_line_end_comes() {
    refused("\x16\x03\x01", RequestError::Method);
    assert!(matches!(read(b"GE"), Ok((_, Progress::Partial))));
}

#[test]
fn drops_fields_with_odd_names() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nX_Y: 1\r\nX.Y: 2\r\nZ: 3\r\n\r\n";
    let head = taken(text);
    assert_eq!((head.fields.len(), head.odd_fields), (2, 2));
    let rules = Rules { drop_odd_fields: false, ..Rules::default() };
    let mut head = RequestHead::default();
    assert!(matches!(head.parse(text.as_bytes(), &rules), Ok(Progress::Complete(_))));
    assert_eq!(head.fields.len(), 4);
}

#[test]
fn keep_alive_follows_version_and_connection() {
    let check = |version: &str, connection: &str, expect: bool| {
        let head = taken(&format!("GET / HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n"));
        assert_eq!(head.wants_keep_alive(), expect, "{version} {connection}");
    };
    check("1.1", "", true);
    check("1.1", "Close", false);
    check("1.0", "", false);
    check("1.0", "keep-alive", true);
    check("1.0", "keep-alive, close", false);
    check("1.1", "x", true);
}

#[test]
fn limits_hold_before_the_line_ends() {
    let rules = Rules {
        limits: Limits { line_bytes_max: 40, head_bytes_max: 100, fields_max: 3 },
        ..Rules::default()
    };
    let check = |text: String, expect: RequestError| {
        let got = RequestHead::default().parse(text.as_bytes(), &rules);
        assert_eq!(got, Err(expect), "{text}");
    };
    check(format!("GET /{}", "a".repeat(40)), RequestError::LineTooLong);
    check(format!("GET /{} HTTP/1.1\r\n", "a".repeat(40)), RequestError::LineTooLong);
    check(format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(40)), RequestError::FieldTooLong);
    check(format!("GET / HTTP/1.1\r\nA: {}\r\n", "b".repeat(40)), RequestError::FieldTooLong);
    check(format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(4)), RequestError::TooManyFields);
    check(
        format!("GET / HTTP/1.1\r\n{}", format!("A: {}\r\n", "b".repeat(30)).repeat(3)),
        RequestError::HeadTooLarge,
    );
}

proptest! {
    /// However the bytes are cut, the outcome is the same.
    #[test]
    fn splitting_changes_nothing(
        lines in proptest::collection::vec("[A-Za-z_:@ -]{0,8}:? ?[ -~\t]{0,8}(\r\n|\n|\r)", 0..6),
        line in "(GET|POST|get) (/[a-z/.%?#]{0,8}|http://[a-z]{0,3}(/[a-z]?)?) HTTP/1.[0-2](\r\n|\n)",
    ) {
        let text = format!("{line}Host: h\r\n{}\r\n", lines.concat());
        let whole = RequestHead::default().parse(text.as_bytes(), &Rules::default());
        for step in 1..4 {
            let mut head = RequestHead::default();
            let mut outcome = Ok(Progress::Partial);
            let mut end = 0;
            while matches!(outcome, Ok(Progress::Partial)) && end < text.len() {
                end = (end + step).min(text.len());
                outcome = head.parse(&text.as_bytes()[..end], &Rules::default());
            }
            prop_assert_eq!(outcome, whole);
        }
    }

    /// Nothing that can come from a network makes it panic.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = RequestHead::default().parse(&bytes, &Rules::default());
    }
}
