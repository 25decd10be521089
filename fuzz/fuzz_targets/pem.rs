//! Files with certificates and keys, any bytes: what is read of them can be looked at, and nothing panics.

#![no_main]

use keel_model::{CertifiedPair, Secret};
use keel_tls::{Certificate, certified_key, read_certificates, read_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let chain = read_certificates(input).unwrap_or_default();
    for der in &chain {
        let _ = Certificate::read(&der.0);
    }
    let Ok(key) = read_key(input, &[Secret::new(b"password".to_vec())]) else { return };
    assert!(!format!("{key:?}").contains("BEGIN"));
    let _ = certified_key(&CertifiedPair { chain, key });
});
