//! A request's head: the same whether it comes whole or byte by byte, and nothing in it that a peer could read another
//! way.

#![no_main]

use keel_http::{
    Fields, Limits, Name, Progress, Range, RequestBody, RequestHead, Rules, Underscores, Version, uri,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (drop_odd_fields, underscores, bytes) = input;
    let rules = Rules {
        limits: Limits { line_bytes_max: 512, head_bytes_max: 1024, fields_max: 20 },
        drop_odd_fields,
        underscores: if underscores { Underscores::Allowed } else { Underscores::Invalid },
    };
    let mut whole = RequestHead::default();
    let result = whole.parse(bytes, &rules);

    let mut pieces = RequestHead::default();
    let mut piecewise = Ok(Progress::Partial);
    for end in 0..=bytes.len() {
        piecewise = pieces.parse(&bytes[..end], &rules);
        if piecewise != Ok(Progress::Partial) {
            break;
        }
    }
    match (result, piecewise) {
        // Where both refuse, which limit was met first may differ with how much was there to see.
        (Err(_), Err(_)) => return,
        (one, other) => assert_eq!(one, other),
    }
    let Ok(Progress::Complete(end)) = result else { return };
    assert!(end <= bytes.len() && end <= rules.limits.head_bytes_max.max(rules.limits.line_bytes_max));
    assert_eq!((whole.body, whole.connection, whole.target), (pieces.body, pieces.connection, pieces.target));
    check_fields(&whole.fields, bytes, end, Fields::len(&pieces.fields));
    check_framing(&whole);

    let within = |range: Range| assert!(range.end() <= end && range.start() <= range.end());
    [whole.line, whole.method, whole.target.raw, whole.target.path].into_iter().for_each(within);
    let mut path = Vec::new();
    if uri::normalise(whole.target.path.of(bytes), uri::Slashes::Merge, &mut path).is_ok() {
        assert!(path.starts_with(b"/") && !path.contains(&0), "{path:?}");
        assert!(!path.split(|byte| *byte == b'/').any(|segment| segment == b".."), "{path:?}");
    }
});

fn check_fields(fields: &Fields, bytes: &[u8], end: usize, count: usize) {
    assert_eq!(fields.len(), count);
    for field in fields.iter() {
        assert!(field.name.end() <= field.value.start() && field.value.end() <= end);
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.is_empty() && !name.iter().any(|byte| b" \t\r\n:\0".contains(byte)), "{name:?}");
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "{value:?}");
    }
}

fn check_framing(head: &RequestHead) {
    let count = |name| head.fields.all(name).count();
    let (lengths, codings) = (count(Name::ContentLength), count(Name::TransferEncoding));
    assert!(lengths + codings <= 1, "ambiguous framing");
    assert_eq!(head.body == RequestBody::Chunked, codings == 1);
    assert!(count(Name::Host) <= 1);
    assert!(head.version != Version::Http11 || count(Name::Host) == 1);
}
