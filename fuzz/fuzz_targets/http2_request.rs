//! A request of HTTP/2 as the lines that a peer of HTTP/1 reads: what it reads is what was meant.

#![no_main]

use http::{HeaderName, HeaderValue, Request};
use keel_http::{Limits, RequestHead, Rules, StreamEnd, Underscores};
use keel_proxy::fuzz::lines_of_http2;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, Vec<(&str, &[u8])>)| {
    let (method, authority, path, fields) = input;
    let mut request = Request::builder().method(method).uri(format!("http://{authority}{path}"));
    for (name, value) in &fields {
        let name = HeaderName::from_lowercase(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) else { continue };
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return };
    let (parts, ()) = request.into_parts();
    let Some(lines) = lines_of_http2(&parts) else { return };

    // One head and nothing behind it, however it is read.
    let text = lines.as_slice();
    assert!(text.ends_with(b"\r\n\r\n"));
    assert_eq!(text.windows(4).filter(|bytes| bytes == b"\r\n\r\n").count(), 1);
    assert!(!text.contains(&0));
    let (ends, returns) = (count(text, b'\n'), count(text, b'\r'));
    assert_eq!(ends, returns);
    let rules = Rules {
        limits: Limits { line_bytes_max: 4096, head_bytes_max: 8192, fields_max: 50 },
        drop_odd_fields: true,
        underscores: Underscores::Invalid,
    };
    let mut head = RequestHead::default();
    if let Ok(end) = head.parse_http2(text, &rules, StreamEnd::Later) {
        assert_eq!(end, text.len());
        assert!(head.fields.len() + 2 <= ends);
        assert_eq!(head.method.of(text), parts.method.as_str().as_bytes());
    }
});

fn count(text: &[u8], wanted: u8) -> usize {
    text.iter().filter(|byte| **byte == wanted).count()
}
