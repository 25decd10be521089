//! A response's head: the same whether it comes whole or byte by byte.

#![no_main]

use keel_http::{Name, Progress, ResponseFraming, ResponseHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = ResponseHead::default();
    let result = whole.parse(bytes);

    let mut pieces = ResponseHead::default();
    let mut piecewise = Ok(Progress::Partial);
    for end in 0..=bytes.len() {
        piecewise = pieces.parse(&bytes[..end]);
        if piecewise != Ok(Progress::Partial) {
            break;
        }
    }
    assert_eq!(result, piecewise);
    let Ok(Progress::Complete(end)) = result else { return };
    assert_eq!(
        (whole.status, whole.framing, whole.fields.len()),
        (pieces.status, pieces.framing, pieces.fields.len())
    );
    for field in whole.fields.iter() {
        assert!(field.value.end() <= end);
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.iter().chain(value).any(|byte| b"\r\n\0".contains(byte)), "{name:?}: {value:?}");
    }
    let has = |name| whole.fields.all(name).count();
    assert!(has(Name::ContentLength) + has(Name::TransferEncoding) <= 1, "ambiguous framing");
    assert_eq!(whole.framing == ResponseFraming::Chunked, has(Name::TransferEncoding) == 1);
});
