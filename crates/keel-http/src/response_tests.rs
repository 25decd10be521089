use proptest::prelude::*;

use super::*;

fn read(text: &[u8]) -> Result<(ResponseHead, Progress), ResponseError> {
    let mut head = ResponseHead::default();
    let progress = head.parse(text)?;
    Ok((head, progress))
}

#[track_caller]
fn taken(text: &str) -> ResponseHead {
    match read(text.as_bytes()) {
        Ok((head, Progress::Complete(length))) => {
            assert_eq!(length, text.len(), "{text:?}");
            head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn reads_a_response() {
    let text = "HTTP/1.1 404 Not  Here\r\nContent-Length: 3\r\nX_y: z\r\n\r\n";
    let head = taken(text);
    assert_eq!(head.status, 404);
    assert_eq!(head.status_line.of(text.as_bytes()), b"404 Not  Here");
    assert_eq!(head.framing, ResponseFraming::Length(3));
    assert_eq!(head.fields.len(), 2);
    assert!(head.keeps_alive());
}

#[test]
fn reads_status_lines() {
    for (line, status) in [
        ("HTTP/1.1 200", 200),
        ("HTTP/1.0 204 ", 204),
        ("HTTP/1.1  403.1 IIS", 403),
        ("HTTP/2.0 200 OK", 200),
    ] {
        assert_eq!(taken(&format!("{line}\r\n\r\n")).status, status, "{line}");
    }
    for line in ["HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 OK", "HTTP 200", "ICY 200 OK", "HTTP/1.1 2x0", ""]
    {
        let text = format!("{line}\r\n\r\n");
        assert_eq!(read(text.as_bytes()).err(), Some(ResponseError::StatusLine), "{line}");
    }
    assert_eq!(read(b"bogus").err(), Some(ResponseError::StatusLine));
}

#[test]
fn refuses_ambiguous_framing() {
    for (fields, expect) in [
        ("Content-Length: x\r\n", ResponseError::ContentLength),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", ResponseError::Duplicate),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", ResponseError::TwoFramings),
        ("Transfer-Encoding: identity\r\n", ResponseError::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ResponseError::Duplicate),
        ("a b: c\r\n", ResponseError::Field),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(read(text.as_bytes()).err(), Some(expect), "{fields}");
    }
}

#[test]
fn of_repeated_fields_the_first_counts() {
    let text = "HTTP/1.1 200 OK\r\nExpires: a\r\nExpires: b\r\nSet-Cookie: c\r\nSet-Cookie: d\r\n\r\n";
    assert_eq!(taken(text).fields.len(), 3);
}

proptest! {
    #[test]
    fn splitting_changes_nothing(
        lines in proptest::collection::vec("[A-Za-z_:@ -]{0,8}:? ?[ -~\t]{0,8}(\r\n|\n|\r)", 0..6),
        line in "HTTP/1.[01] [0-9]{2,4} [A-Za-z ]{0,8}(\r\n|\n)",
    ) {
        let text = format!("{line}{}\r\n", lines.concat());
        let whole = ResponseHead::default().parse(text.as_bytes());
        for step in 1..4 {
            let mut head = ResponseHead::default();
            let mut outcome = Ok(Progress::Partial);
            let mut end = 0;
            while matches!(outcome, Ok(Progress::Partial)) && end < text.len() {
                end = (end + step).min(text.len());
                outcome = head.parse(&text.as_bytes()[..end]);
            }
            prop_assert_eq!(outcome, whole);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ResponseHead::default().parse(&bytes);
    }
}

fn gateway(text: &str, first: FirstLine) -> Result<ResponseHead, ResponseError> {
    for end in 0..text.len() {
        let mut head = ResponseHead::default();
        let cut = head.parse_gateway(text.get(..end).unwrap_or_default().as_bytes(), first)?;
        assert_eq!(cut, Progress::Partial, "{text:?} cut at {end}");
        assert_eq!(head.parse_gateway(text.as_bytes(), first)?, Progress::Complete(text.len()));
    }
    let mut head = ResponseHead::default();
    head.parse_gateway(text.as_bytes(), first)?;
    Ok(head)
}

#[test]
fn reads_heads_of_gateways() {
    let check = |text: &str, first, status: u16, line: &str| {
        let head = gateway(text, first).unwrap();
        assert_eq!((head.status, head.status_line.of(text.as_bytes())), (status, line.as_bytes()), "{text}");
    };
    check("A: b\n\n", FirstLine::Field, 200, "");
    check("Location: /x\r\n\r\n", FirstLine::Field, 302, "");
    check("Status: 404 No Page\nLocation: /x\n\n", FirstLine::Field, 404, "404 No Page");
    check("Status: 201\n\n", FirstLine::Field, 201, "");
    check("Status: 404\nStatus: 200 OK\n\n", FirstLine::Field, 404, "");
    check("\n", FirstLine::Field, 200, "");
    check("HTTP/1.1 500 No\r\nStatus: 200 OK\r\n\r\n", FirstLine::StatusOrField, 500, "500 No");
    check("Status: 403 No\r\n\r\n", FirstLine::StatusOrField, 403, "403 No");
    for status in ["", "20", "OK", "2000", "099 Low", "20x", "200x"] {
        let text = format!("Status: {status}\n\n");
        assert_eq!(gateway(&text, FirstLine::Field).err(), Some(ResponseError::Status), "{text}");
    }
    // A script writes it for itself; its gateway has another way of saying where the body ends.
    let head = gateway("Transfer-Encoding: chunked\nContent-Length: 3\n\n", FirstLine::Field).unwrap();
    assert_eq!(head.framing, ResponseFraming::Length(3));
    for text in ["Content-Length: 3\nContent-Length: 3\n\n", "Content-Length: x\n\n", "BAD\n\n", "a b: c\n\n"]
    {
        assert!(gateway(text, FirstLine::Field).is_err(), "{text}");
    }
}
