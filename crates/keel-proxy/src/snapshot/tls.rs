//! How a server speaks TLS: its settings made ready.

use std::sync::{Arc, OnceLock};

use keel_model::{Secret, SslSettings, TlsVersions, VerifyClient};
use keel_tls::{Purpose, Trust, Untrusted};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, StoresServerSessions,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::{
    error::CompileError,
    sessions::{self, CachedSessions, SessionCache, Site, TicketKeys, Tickets},
    stores::Claims,
};

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
    /// Whose clients are trusted, where they are asked for a certificate.
    pub(crate) trust: Option<Arc<ClientTrust>>,
}

impl ServerTls {
    pub(super) fn compile(
        settings: &SslSettings,
        ticket_seed: &Secret,
        claims: &mut Claims<'_>,
    ) -> Result<Self, CompileError> {
        let rejects = settings.reject_handshake;
        let trust = ClientTrust::compile(settings);
        if settings.certificates.is_empty() {
            return Ok(Self { configs: None, rejects, trust });
        }
        let pairs = settings.certificates.iter().map(|pair| {
            let mut key = Arc::unwrap_or_clone(keel_tls::certified_key(pair)?);
            key.ocsp = settings.stapled.as_ref().map(|response| response.0.clone());
            Ok(Arc::new(key))
        });
        let resolver = Resolver { pairs: pairs.collect::<Result<_, CompileError>>()? };
        let provider = keel_tls::provider(&settings.ciphers, &settings.groups);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(settings.protocols))?;
        let builder = match &trust {
            Some(_) => builder.with_client_cert_verifier(Arc::new(Asking::new(settings))),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.ignore_client_order = settings.prefer_server_ciphers;
        let fragment = settings.buffer_size.as_usize().clamp(FRAGMENT_BYTES_MIN, FRAGMENT_BYTES_MAX);
        config.max_fragment_size = Some(fragment + RECORD_HEADER_BYTES);
        let site = site(settings);
        config.session_storage = session_storage(settings, site, claims);
        if settings.session_tickets {
            let keys = match settings.ticket_keys.as_slice() {
                [] => TicketKeys::Seed(ticket_seed.clone()),
                keys => TicketKeys::Fixed(keys.to_vec()),
            };
            config.ticketer = Arc::new(Tickets::new(keys, site, settings.session_timeout));
        }
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let with_http2 = Arc::new(config.clone());
        config.alpn_protocols.retain(|protocol| protocol != HTTP2);
        Ok(Self { configs: Some(Configs { with_http2, without: Arc::new(config) }), rejects, trust })
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

/// Tells the sessions of servers apart by what they show and by whom they trust.
fn site(settings: &SslSettings) -> Site {
    let shown = settings.certificates.iter().filter_map(|pair| pair.chain.first());
    let trusted = settings.client_roots.iter().chain(&settings.trusted_roots);
    sessions::site(shown.chain(trusted).map(|der| der.0.as_slice()))
}

fn session_storage(
    settings: &SslSettings,
    site: Site,
    claims: &mut Claims<'_>,
) -> Arc<dyn StoresServerSessions> {
    match &settings.session_cache {
        Some(zone) => {
            let cache: Arc<SessionCache> = claims.named(&zone.name, &zone.size.as_usize());
            Arc::new(CachedSessions::new(cache, site, settings.session_timeout))
        }
        None => Arc::new(NoServerSessionStorage {}),
    }
}

/// What keys of tickets are made of: the supervisor's, or without one this process's own.
pub(super) fn ticket_seed(given: &Secret) -> Secret {
    static OWN: OnceLock<Secret> = OnceLock::new();
    if given.reveal().is_empty() {
        return OWN.get_or_init(|| Secret::new(sessions::new_id().to_vec())).clone();
    }
    given.clone()
}

/// Whose clients a server trusts.
pub(crate) struct ClientTrust {
    pub(crate) wanted: VerifyClient,
    trust: Trust,
}

impl ClientTrust {
    fn compile(settings: &SslSettings) -> Option<Arc<Self>> {
        let wanted = settings.verify_client;
        let trust = Trust {
            certificates: settings.client_roots.iter().chain(&settings.trusted_roots).cloned().collect(),
            revoked: settings.revoked.clone(),
            depth: settings.verify_depth,
        };
        (wanted != VerifyClient::Off).then(|| Arc::new(Self { wanted, trust }))
    }

    /// Says what is wrong with a client's certificate, if it has one.
    pub(crate) fn doubt(&self, chain: &[CertificateDer<'_>], now: i64) -> Option<Untrusted> {
        let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        if chain.is_empty() {
            return None;
        }
        keel_tls::verify(&chain, &self.trust, Purpose::Client, now).err()
    }
}

/// Asks clients for a certificate. Whether it is trusted is looked at behind the handshake, as in nginx: one that isn't gets
/// an answer that says so.
#[derive(Debug)]
struct Asking {
    /// Whose certificates are trusted, for clients that have several.
    hints: Vec<DistinguishedName>,
}

impl Asking {
    fn new(settings: &SslSettings) -> Self {
        let mut subjects: Vec<Vec<u8>> = Vec::new();
        for subject in settings.client_roots.iter().filter_map(|der| keel_tls::raw_subject(&der.0)) {
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        Self { hints: subjects.iter().map(|subject| DistinguishedName::in_sequence(subject)).collect() }
    }

    fn check(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if keel_tls::has_signed(certificate, signed.scheme, message, signed.signature()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature))
        }
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        keel_tls::signature_schemes()
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
