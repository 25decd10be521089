//! ngx_http_ssl_module: TLS with clients. The contents of files are in it, not their paths: the data plane reads none.

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Der, Own, Secret, settings::settings};

settings! {
    /// How a server speaks TLS with clients.
    pub struct SslSettings, set by SslLayer {
        /// `ssl_certificate` and `ssl_certificate_key`: one for each kind of key.
        certificates: Vec<CertifiedPair> = Vec::new(), as Own<Vec<CertifiedPair>>;
        /// `ssl_protocols`.
        protocols: TlsVersions = TlsVersions::default();
        /// `ssl_ciphers`: suites of TLS 1.2 by IANA's numbers, the preferred one first.
        ciphers: Vec<u16> = default_ciphers();
        /// `ssl_ecdh_curve`: groups by IANA's numbers, the preferred one first; empty for the library's own.
        groups: Vec<u16> = Vec::new();
        /// `ssl_prefer_server_ciphers`.
        prefer_server_ciphers: bool = false;
        /// `ssl_reject_handshake`.
        reject_handshake: bool = false;
        /// `ssl_buffer_size`: the largest record that is sent.
        buffer_size: ByteSize = ByteSize::kib(16);
    }
}

/// Suites of TLS 1.2 in the order of OpenSSL's `HIGH`: AES-256-GCM, ChaCha20-Poly1305, AES-128-GCM, each with ECDSA first.
fn default_ciphers() -> Vec<u16> {
    vec![0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc02b, 0xc02f]
}

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsVersions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self { tls12: true, tls13: true }
    }
}

/// A certificate with those that lead to its root, and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedPair {
    /// The certificate, then those that certify it.
    pub chain: Vec<Der>,
    /// The private key, PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret,
}
