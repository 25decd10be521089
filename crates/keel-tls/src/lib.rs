//! Certificates, keys, and the names of what TLS offers.
//!
//! Who reads configurations and who serves connections both need this: what is wrong with a certificate is said when a
//! file is read, and the data plane makes of the same bytes what it answers with. Nothing here reads a file, a socket or a
//! clock. OpenSSL's names are known here alone; the rest of the program has the numbers of IANA's registries.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod certificate;
mod ciphers;
mod groups;
mod pair;
mod pem_file;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{Certificate, Unreadable};
pub use ciphers::{CipherChoice, choose_ciphers, cipher_name};
pub use groups::{GroupChoice, choose_groups, group_name};
pub use pair::{PairError, certified_key};
pub use pem_file::{KeyError, NoCertificates, read_certificates, read_key, read_lists};
pub use verify::{Purpose, Trust, Untrusted, has_signed, raw_subject, signature_schemes, verify};

/// The source of cryptography with these suites of TLS 1.2, which come behind all of TLS 1.3, and groups; no groups are the
/// library's own. Numbers that it doesn't have count for nothing.
pub fn provider(ciphers: &[u16], groups: &[u16]) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let all = std::mem::take(&mut provider.cipher_suites);
    let is_tls13 = |suite: &&rustls::SupportedCipherSuite| suite.tls13().is_some();
    let wanted = |number: &u16| all.iter().find(|suite| u16::from(suite.suite()) == *number).copied();
    provider.cipher_suites =
        all.iter().filter(is_tls13).copied().chain(ciphers.iter().filter_map(wanted)).collect();
    if !groups.is_empty() {
        let wanted = |number: &u16| groups::find(*number);
        provider.kx_groups = groups.iter().filter_map(wanted).collect();
    }
    Arc::new(provider)
}
