//! How a server speaks TLS: its settings made ready.

use std::sync::Arc;

use keel_model::{SslSettings, TlsVersions};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::error::CompileError;

/// Bytes of a record's header, which rustls counts as part of a fragment.
const RECORD_HEADER_BYTES: usize = 5;

/// The largest fragment of a record (RFC 8446 §5.1).
const FRAGMENT_BYTES_MAX: usize = 16 << 10;

/// The smallest that rustls makes.
const FRAGMENT_BYTES_MIN: usize = 32;

/// What clients are offered by ALPN, the preferred one first.
const PROTOCOLS: [&[u8]; 4] = [HTTP2, b"http/1.1", b"http/1.0", b"http/0.9"];

/// HTTP/2's name in ALPN (RFC 9113 §3.2).
pub(crate) const HTTP2: &[u8] = b"h2";

/// Whether clients are offered HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http2 {
    Offered,
    Unspoken,
}

struct Configs {
    with_http2: Arc<ServerConfig>,
    without: Arc<ServerConfig>,
}

/// How a server speaks TLS.
pub(crate) struct ServerTls {
    configs: Option<Configs>,
    /// Whether clients that mean this server are turned away (`ssl_reject_handshake`).
    pub(crate) rejects: bool,
}

impl ServerTls {
    pub(super) fn compile(settings: &SslSettings) -> Result<Self, CompileError> {
        let rejects = settings.reject_handshake;
        if settings.certificates.is_empty() {
            return Ok(Self { configs: None, rejects });
        }
        let pairs = settings.certificates.iter().map(keel_tls::certified_key);
        let resolver = Resolver { pairs: pairs.collect::<Result<_, _>>()? };
        let provider = keel_tls::provider(&settings.ciphers, &settings.groups);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(settings.protocols))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.ignore_client_order = settings.prefer_server_ciphers;
        let fragment = settings.buffer_size.as_usize().clamp(FRAGMENT_BYTES_MIN, FRAGMENT_BYTES_MAX);
        config.max_fragment_size = Some(fragment + RECORD_HEADER_BYTES);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let with_http2 = Arc::new(config.clone());
        config.alpn_protocols.retain(|protocol| protocol != HTTP2);
        Ok(Self { configs: Some(Configs { with_http2, without: Arc::new(config) }), rejects })
    }

    /// What sessions are made with; `None` without a certificate.
    pub(crate) fn config(&self, http2: Http2) -> Option<Arc<ServerConfig>> {
        let configs = self.configs.as_ref()?;
        Some(match http2 {
            Http2::Offered => configs.with_http2.clone(),
            Http2::Unspoken => configs.without.clone(),
        })
    }
}

fn versions(wanted: TlsVersions) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(wanted.tls13, &TLS13), (wanted.tls12, &TLS12)];
    all.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, version)| version).collect()
}

/// Chooses among certificates with different kinds of keys.
#[derive(Debug)]
struct Resolver {
    pairs: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Resolver {
    /// Gives the certificate whose key can sign as the client likes best.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = self.pairs.as_slice() {
            return Some(only.clone());
        }
        let fits = |pair: &&Arc<CertifiedKey>, scheme| pair.key.choose_scheme(&[scheme]).is_some();
        let mut schemes = hello.signature_schemes().iter();
        schemes.find_map(|scheme| self.pairs.iter().find(|pair| fits(pair, *scheme))).cloned()
    }
}
