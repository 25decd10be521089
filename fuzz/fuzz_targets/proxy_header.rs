//! The PROXY protocol's header: the same whether it comes whole or byte by byte, bounded, and its values within it.

#![no_main]

use keel_http::{
    Progress,
    proxy_header::{Tlvs, V1_BYTES_MAX, V2_BYTES_MAX, parse},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let mut piecewise = Ok(Progress::Partial);
    for end in 0..=bytes.len() {
        piecewise = parse(&bytes[..end]).map(|(progress, _)| progress);
        if piecewise != Ok(Progress::Partial) {
            break;
        }
        assert!(end < V2_BYTES_MAX, "a header without end");
    }
    assert_eq!(whole.map(|(progress, _)| progress), piecewise);
    let Ok((Progress::Complete(end), header)) = whole else { return };
    let longest = if bytes[0] == b'P' { V1_BYTES_MAX } else { V2_BYTES_MAX };
    assert!(end <= bytes.len() && end <= longest);
    assert!(header.tlvs.as_bytes().len() <= end);
    assert!(header.addresses.is_some() || header.tlvs == Tlvs::default());
    for kind in 0..=u8::MAX {
        let found = [header.tlvs.get(kind), header.tlvs.ssl(kind)];
        assert!(found.into_iter().flatten().all(|value| value.len() < end));
    }
    header.tlvs.ssl_verify();
});
