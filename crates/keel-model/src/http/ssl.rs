//! ngx_http_ssl_module: TLS with clients. The contents of files are in it, not their paths: the data plane reads none.

use std::time::Duration;

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
        /// `ssl_session_timeout`: how long a session may be resumed.
        session_timeout: Duration = Duration::from_secs(300);
        /// `ssl_session_tickets`.
        session_tickets: bool = true;
        /// `ssl_session_cache`.
        session_cache: Option<SessionCacheZone> = None;
        /// `ssl_session_ticket_key`: the first makes tickets. None for keys that change by themselves.
        ticket_keys: Vec<Secret> = Vec::new(), as Own<Vec<Secret>>;
        /// `ssl_verify_client`.
        verify_client: VerifyClient = VerifyClient::Off;
        /// `ssl_verify_depth`.
        verify_depth: u32 = 1;
        /// `ssl_client_certificate`: roots that are trusted and that clients are told of.
        client_roots: Vec<Der> = Vec::new(), as Own<Vec<Der>>;
        /// `ssl_trusted_certificate`: more roots.
        trusted_roots: Vec<Der> = Vec::new(), as Own<Vec<Der>>;
        /// `ssl_crl`.
        revoked: Vec<Der> = Vec::new(), as Own<Vec<Der>>;
        /// `ssl_stapling_file`, where `ssl_stapling` is on.
        stapled: Option<Der> = None, as Own<Option<Der>>;
    }
}

/// Suites of TLS 1.2 in the order of OpenSSL's `HIGH`: AES-256-GCM, ChaCha20-Poly1305, AES-128-GCM, each with ECDSA first.
fn default_ciphers() -> Vec<u16> {
    vec![0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc02b, 0xc02f]
}

/// A cache of sessions that workers share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCacheZone {
    /// Servers that name the same share it.
    pub name: String,
    /// How much it holds.
    pub size: ByteSize,
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerifyClient {
    /// Clients aren't asked for a certificate.
    Off,
    /// Requests without one that is trusted are refused.
    On,
    /// Requests with one that isn't trusted are refused.
    Optional,
    /// The same, but for those whose root isn't known.
    OptionalNoCa,
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
