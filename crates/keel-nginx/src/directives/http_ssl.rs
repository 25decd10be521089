//! ngx_http_ssl_module: TLS with clients.
//!
//! Certificates and keys are read here, with the file: what is wrong with them is found when it is checked, and the data
//! plane needs no right to read them.

use std::time::UNIX_EPOCH;

use keel_diag::{Diagnostic, Span};
use keel_model::{
    ByteSize, CertifiedPair, Der, Layer, Own, Secret, ServerId, SessionCacheZone, SslLayer, SslSettings,
    TlsVersions, VerifyClient,
};
use keel_tls::{Certificate, KeyError, PairError};

use crate::{
    arguments::{flag, keyword, keywords, number32, seconds, size},
    ast::{Directive, Word},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
    value,
    variables::has_variables,
};

/// The code of what is said about a certificate that has expired.
pub const EXPIRED: &str = "nginx::expired-certificate";

/// The code of what is said about a file that can't be read.
const MISSING: &str = "nginx::missing-certificate";

/// The code of what is said about a file that holds something else.
const BAD: &str = "nginx::bad-certificate";

/// The smallest zone: nginx gives it eight pages of memory.
const ZONE_BYTES_MIN: u64 = 8 * 4096;

/// Sessions of a cache that says no number, as with OpenSSL.
const BUILTIN_SESSIONS: u64 = 20_480;

/// Bytes that a session takes, about.
const SESSION_BYTES: u64 = 512;

/// Sizes of files with keys of tickets.
const TICKET_KEY_BYTES: [usize; 2] = [48, 80];

/// What one block says.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    layer: SslLayer,
    /// `ssl_certificate`, in the file's order.
    certificates: Option<Vec<Word>>,
    /// `ssl_certificate_key`, likewise.
    keys: Option<Vec<Word>>,
    /// `ssl_password_file`.
    passwords: Option<Vec<Secret>>,
    /// `ssl_session_ticket_key`.
    ticket_keys: Option<Vec<Word>>,
    /// `ssl_client_certificate`.
    client_roots: Option<Word>,
    /// `ssl_trusted_certificate`.
    trusted_roots: Option<Word>,
    /// `ssl_crl`.
    revoked: Option<Word>,
    /// `ssl_stapling`.
    stapling: Option<bool>,
    /// `ssl_stapling_file`.
    stapled: Option<Word>,
    /// `ssl`: where it is switched on, if it is.
    on: Option<Option<Span>>,
}

impl Settings {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.layer.inherit(&outer.layer);
        self.certificates.inherit(&outer.certificates);
        self.keys.inherit(&outer.keys);
        self.passwords.inherit(&outer.passwords);
        self.ticket_keys.inherit(&outer.ticket_keys);
        self.client_roots.inherit(&outer.client_roots);
        self.trusted_roots.inherit(&outer.trusted_roots);
        self.revoked.inherit(&outer.revoked);
        self.stapling.inherit(&outer.stapling);
        self.stapled.inherit(&outer.stapled);
        self.on.inherit(&outer.on);
    }

    fn has_certificate(&self) -> bool {
        self.certificates.is_some()
    }

    fn rejects(&self) -> bool {
        self.layer.reject_handshake == Some(true)
    }
}

/// A pair that has been read, or couldn't be, and the places that name its halves.
pub(crate) struct Loaded {
    places: (Span, Span),
    pair: Option<CertifiedPair>,
}

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "ssl",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether every `listen` of the server speaks TLS. nginx before 1.25.1 has it; `listen ... ssl` is what to write, \
              and a warning says so.",
        set: Setter::Simple(on),
    },
    Row {
        name: "ssl_certificate",
        syntax: "file | data:text",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "The server's certificate in PEM, then those that certify it. Given again, with another kind of key, each \
              client gets what it can verify. It is read when the configuration is.",
        set: Setter::Simple(|reader, directive| {
            reader.frame.ssl.certificates.get_or_insert_default().extend(directive.args.first().cloned());
        }),
    },
    Row {
        name: "ssl_certificate_key",
        syntax: "file | data:text",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "The private key of each `ssl_certificate`, in the same order. It is read when the configuration is, and is \
              never shown.",
        set: Setter::Simple(|reader, directive| {
            reader.frame.ssl.keys.get_or_insert_default().extend(directive.args.first().cloned());
        }),
    },
    Row {
        name: "ssl_password_file",
        syntax: "file",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "Passwords of keys, one a line; each is tried. It must stand before the keys are needed, as in nginx.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.passwords, passwords);
        }),
    },
    Row {
        name: "ssl_protocols",
        syntax: "[SSLv2] [SSLv3] [TLSv1] [TLSv1.1] [TLSv1.2] [TLSv1.3]",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::AtLeast(1),
        default: Some("TLSv1.2 TLSv1.3"),
        doc: "Versions of TLS that are spoken. Those before 1.2 are broken and never are.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.protocols, protocols);
        }),
    },
    Row {
        name: "ssl_ciphers",
        syntax: "ciphers",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("HIGH:!aNULL:!MD5"),
        doc: "Suites of TLS 1.2 in OpenSSL's words. There are six: AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305, each \
              with ECDHE and an ECDSA or RSA key. What asks for another is named. Those of TLS 1.3 are all there.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.ciphers, ciphers);
        }),
    },
    Row {
        name: "ssl_ecdh_curve",
        syntax: "curves",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("auto"),
        doc: "Groups for the key exchange in OpenSSL's words: `X25519MLKEM768`, `X25519`, `prime256v1`, `secp384r1`, \
              `SecP256r1MLKEM768`. `auto` is the first four in this order.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.groups, curves);
        }),
    },
    Row {
        name: "ssl_prefer_server_ciphers",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether the server's order of suites counts instead of the client's.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.prefer_server_ciphers, flag);
        }),
    },
    Row {
        name: "ssl_reject_handshake",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Turns away clients that mean this server, during the handshake: for a default server, those whose host is \
              nobody's.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.reject_handshake, flag);
        }),
    },
    Row {
        name: "ssl_buffer_size",
        syntax: "size",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("16k"),
        doc: "The largest record that is sent. Smaller ones show a client the beginning of a response earlier, and cost \
              more.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.buffer_size, size);
        }),
    },
    Row {
        name: "ssl_session_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("5m"),
        doc: "How long a session may be resumed. Keys of tickets change as often.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.session_timeout, seconds);
        }),
    },
    Row {
        name: "ssl_session_tickets",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether clients keep their sessions in tickets. All workers read them, also after a reload and when the data \
              plane has been replaced.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.session_tickets, flag);
        }),
    },
    Row {
        name: "ssl_session_ticket_key",
        syntax: "file",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "48 or 80 random bytes that keys of tickets are made of, for several machines that share their clients. The \
              first makes tickets, the others only read them. The tickets are not those of OpenSSL.",
        set: Setter::Simple(|reader, directive| {
            reader.frame.ssl.ticket_keys.get_or_insert_default().extend(directive.args.first().cloned());
        }),
    },
    Row {
        name: "ssl_session_cache",
        syntax: "off | none | [builtin[:size]] [shared:name:size]",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::Take(1, 2),
        default: Some("none"),
        doc: "A cache of sessions, of all workers and kept over a reload, for clients without tickets. `builtin` is a shared \
              one, too.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.session_cache, session_cache);
        }),
    },
    Row {
        name: "ssl_verify_client",
        syntax: "on | off | optional | optional_no_ca",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether clients are asked for a certificate. A request without one that is needed is answered with 400 (496), \
              one with a certificate that isn't trusted with 400 (495).",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.ssl.layer.verify_client,
                |reader, directive| {
                    let choices = [
                        ("off", VerifyClient::Off),
                        ("on", VerifyClient::On),
                        ("optional", VerifyClient::Optional),
                        ("optional_no_ca", VerifyClient::OptionalNoCa),
                    ];
                    keyword(reader, directive, &choices)
                },
            );
        }),
    },
    Row {
        name: "ssl_verify_depth",
        syntax: "number",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("1"),
        doc: "Certificates between a client's and its root at most.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.layer.verify_depth, number32);
        }),
    },
    Row {
        name: "ssl_client_certificate",
        syntax: "file",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "Roots whose clients are trusted, in PEM. Clients are told their names.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.client_roots, first_word);
        }),
    },
    Row {
        name: "ssl_trusted_certificate",
        syntax: "file",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "More roots whose clients are trusted. Clients aren't told of them.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.trusted_roots, first_word);
        }),
    },
    Row {
        name: "ssl_crl",
        syntax: "file",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "Lists of revoked certificates of clients, in PEM: one of each authority.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.revoked, first_word);
        }),
    },
    Row {
        name: "ssl_stapling",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether clients get the authority's word on revocation with the certificate. It comes from \
              `ssl_stapling_file`; authorities are not asked.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.stapling, flag);
        }),
    },
    Row {
        name: "ssl_stapling_file",
        syntax: "file",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: None,
        doc: "The authority's word on revocation: an answer by OCSP, in DER.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.ssl.stapled, first_word);
        }),
    },
];

fn protocols(reader: &mut Reader<'_>, directive: &Directive) -> Option<TlsVersions> {
    const OLD: [(&str, u8); 4] = [("SSLv2", 0), ("SSLv3", 1), ("TLSv1", 2), ("TLSv1.1", 3)];
    let choices: Vec<(&str, u8)> = OLD.into_iter().chain([("TLSv1.2", 4), ("TLSv1.3", 5)]).collect();
    let values = keywords(reader, directive, &choices);
    for word in &directive.args {
        if OLD.iter().any(|(name, _)| name.eq_ignore_ascii_case(&word.text)) {
            reader.diagnostics.push(
                Diagnostic::warning("nginx::old-tls", format!("`{}` is never spoken", word.text))
                    .at(word.span, "clients that know nothing newer are turned away")
                    .once_per_run(),
            );
        }
    }
    let versions = TlsVersions { tls12: values.contains(&4), tls13: values.contains(&5) };
    if !versions.tls12 && !versions.tls13 && !values.is_empty() {
        reader.diagnostics.push(
            Diagnostic::error("nginx::old-tls", "no version of TLS is left that is spoken")
                .at(directive.span(), "all of these are broken")
                .help("write `ssl_protocols TLSv1.2 TLSv1.3;`"),
        );
        return None;
    }
    Some(versions)
}

fn ciphers(reader: &mut Reader<'_>, directive: &Directive) -> Option<Vec<u16>> {
    let word = directive.args.first()?;
    let choice = keel_tls::choose_ciphers(&word.text);
    if choice.suites.is_empty() {
        let nginx = format!("SSL_CTX_set_cipher_list(\"{}\") failed (SSL: no cipher match)", word.text);
        reader.diagnostics.push(
            Diagnostic::error("nginx::no-cipher", "none of these ciphers is there")
                .at(word.span, "clients with TLS 1.2 couldn't connect")
                .help("leave it out, or name one such as `ECDHE-RSA-AES128-GCM-SHA256`")
                .nginx(nginx),
        );
        return None;
    }
    name_missing(reader, word, "ciphers", &choice.missing);
    Some(choice.suites)
}

fn curves(reader: &mut Reader<'_>, directive: &Directive) -> Option<Vec<u16>> {
    let word = directive.args.first()?;
    let choice = keel_tls::choose_groups(&word.text);
    let none_is_left = choice.groups.is_empty() && word.text != "auto";
    if none_is_left || !choice.unknown.is_empty() {
        let nginx = format!("SSL_CTX_set1_curves_list(\"{}\") failed", word.text);
        reader.invalid(directive, word, nginx, "curves such as `X25519:prime256v1:secp384r1`, or `auto`");
        return None;
    }
    name_missing(reader, word, "curves", &choice.missing);
    Some(choice.groups)
}

/// Names what was asked for and isn't there; the rest holds.
fn name_missing(reader: &mut Reader<'_>, word: &Word, what: &str, missing: &[String]) {
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
        reader.diagnostics.push(
            Diagnostic::warning(
                "nginx::missing-cipher",
                format!("these {what} are not there: {}", names.join(", ")),
            )
            .at(word.span, "the others are")
            .once_per_run(),
        );
    }
}

fn passwords(reader: &mut Reader<'_>, directive: &Directive) -> Option<Vec<Secret>> {
    let word = directive.args.first()?;
    let text = read(reader, word, "passwords")?;
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Some(lines.filter(|line| !line.is_empty()).map(|line| Secret::new(line.to_vec())).collect())
}

fn on(reader: &mut Reader<'_>, directive: &Directive) {
    let Some(is_on) = flag(reader, directive) else { return };
    let span = directive.span();
    if reader.frame.ssl.on.replace(is_on.then_some(span)).is_some() {
        return reader.duplicate(directive);
    }
    if !is_on {
        return;
    }
    let message = "nginx has no directive `ssl` any more";
    reader.diagnostics.push(
        Diagnostic::warning("nginx::old-directive", message)
            .at(span, "means every `listen` of the server")
            .help("write `listen ... ssl` instead"),
    );
}

/// Settles what a server says of TLS; nothing where it says nothing.
pub(crate) fn lower(reader: &mut Reader<'_>, server: &mut Frame) -> Option<Box<SslSettings>> {
    if let Some(Some(span)) = server.ssl.on {
        server.server.listens.iter_mut().for_each(|listen| listen.ssl = listen.ssl.or(Some(span)));
    }
    let verify = server.ssl.layer.verify_client.unwrap_or(VerifyClient::Off);
    let has_context = server.ssl.has_certificate() || server.ssl.rejects();
    if !has_context && verify == VerifyClient::Off {
        return None;
    }
    let ssl = &mut server.ssl;
    ssl.layer.certificates = Own(Some(pairs(reader, ssl)));
    ssl.layer.ticket_keys = Own(ssl.ticket_keys.as_ref().map(|words| ticket_keys(reader, words)));
    if verify != VerifyClient::Off {
        ssl.layer.client_roots = Own(ssl.client_roots.as_ref().map(|word| roots(reader, word)));
        ssl.layer.trusted_roots = Own(ssl.trusted_roots.as_ref().map(|word| roots(reader, word)));
        ssl.layer.revoked = Own(ssl.revoked.as_ref().map(|word| revoked(reader, word)));
    }
    let has_roots = ssl.client_roots.is_some() || ssl.trusted_roots.is_some();
    if matches!(verify, VerifyClient::On | VerifyClient::Optional)
        && has_context
        && !has_roots
        && let Some(place) = server.opened
    {
        let nginx = "no ssl_client_certificate for ssl_verify_client";
        let message = "`ssl_verify_client` needs `ssl_client_certificate`: no client would be trusted";
        reader.error("nginx::no-roots", message, place, nginx);
    }
    let ssl = &mut server.ssl;
    if ssl.stapling == Some(true) {
        ssl.layer.stapled = Own(Some(stapled(reader, ssl.stapled.as_ref(), server.opened)));
    }
    Some(Box::new(ssl.layer.settle(SslSettings::default())))
}

fn first_word(_: &mut Reader<'_>, directive: &Directive) -> Option<Word> {
    directive.args.first().cloned()
}

fn session_cache(reader: &mut Reader<'_>, directive: &Directive) -> Option<Option<SessionCacheZone>> {
    let mut zone = None;
    for word in &directive.args {
        match cache(&word.text) {
            Some(found) => zone = found.or(zone),
            None => {
                let nginx = format!("invalid session cache \"{}\"", word.text);
                reader.invalid(directive, word, nginx, "`off`, `none`, `builtin` or `shared:name:size`");
                return None;
            }
        }
    }
    Some(zone)
}

/// Reads one word of `ssl_session_cache`; `None` where it is none.
fn cache(text: &str) -> Option<Option<SessionCacheZone>> {
    let builtin = |sessions: u64| SessionCacheZone {
        name: String::new(),
        size: ByteSize(sessions.saturating_mul(SESSION_BYTES)),
    };
    if matches!(text, "off" | "none") {
        return Some(None);
    }
    if text == "builtin" {
        return Some(Some(builtin(BUILTIN_SESSIONS)));
    }
    if let Some(number) = text.strip_prefix("builtin:") {
        return Some(Some(builtin(value::number(number)?)));
    }
    let (name, size) = text.strip_prefix("shared:")?.split_once(':').filter(|(name, _)| !name.is_empty())?;
    let size = value::size(size).filter(|size| size.0 >= ZONE_BYTES_MIN)?;
    Some(Some(SessionCacheZone { name: name.to_owned(), size }))
}

fn roots(reader: &mut Reader<'_>, word: &Word) -> Vec<Der> {
    read_chain(reader, word).unwrap_or_default()
}

fn revoked(reader: &mut Reader<'_>, word: &Word) -> Vec<Der> {
    let Some(text) = read(reader, word, "CRL") else { return Vec::new() };
    match keel_tls::read_lists(&text) {
        Ok(lists) => lists,
        Err(_) => refuse(reader, word, "CRL", "no list of revoked certificates is in it").unwrap_or_default(),
    }
}

fn ticket_keys(reader: &mut Reader<'_>, words: &[Word]) -> Vec<Secret> {
    let mut keys = Vec::new();
    for word in words {
        let Some(bytes) = read(reader, word, "session ticket key") else { continue };
        if TICKET_KEY_BYTES.contains(&bytes.len()) {
            keys.push(Secret::new(bytes));
        } else {
            refuse::<()>(reader, word, "session ticket key", "it must be 48 or 80 bytes");
        }
    }
    keys
}

fn stapled(reader: &mut Reader<'_>, word: Option<&Word>, place: Option<Span>) -> Option<Der> {
    let Some(word) = word else {
        let warning = Diagnostic::warning("nginx::no-stapling", "authorities are not asked about revocation");
        let said =
            place.map(|place| warning.at(place, "`ssl_stapling` has no effect without `ssl_stapling_file`"));
        reader.diagnostics.extend(said.map(Diagnostic::once_per_run));
        return None;
    };
    read(reader, word, "OCSP response").map(Der)
}

fn pairs(reader: &mut Reader<'_>, settings: &Settings) -> Vec<CertifiedPair> {
    let certificates = settings.certificates.as_deref().unwrap_or_default();
    let keys = settings.keys.as_deref().unwrap_or_default();
    if let (true, Some(word)) = (keys.len() < certificates.len(), certificates.last()) {
        let nginx = format!("no \"ssl_certificate_key\" is defined for certificate \"{}\"", word.text);
        reader.error("nginx::no-key", "this certificate has no `ssl_certificate_key`", word.span, nginx);
        return Vec::new();
    }
    let passwords = settings.passwords.as_deref().unwrap_or_default();
    let pairs = certificates.iter().zip(keys);
    pairs.filter_map(|(certificate, key)| load(reader, certificate, key, passwords)).collect()
}

/// Reads a pair, once for all servers that inherit it.
fn load(
    reader: &mut Reader<'_>,
    certificate: &Word,
    key: &Word,
    passwords: &[Secret],
) -> Option<CertifiedPair> {
    let places = (certificate.span, key.span);
    if let Some(loaded) = reader.http.pairs.iter().find(|loaded| loaded.places == places) {
        return loaded.pair.clone();
    }
    let pair = read_pair(reader, certificate, key, passwords);
    reader.http.pairs.push(Loaded { places, pair: pair.clone() });
    pair
}

fn read_pair(
    reader: &mut Reader<'_>,
    certificate: &Word,
    key: &Word,
    passwords: &[Secret],
) -> Option<CertifiedPair> {
    let (chain, secret) = (read_chain(reader, certificate), read_key(reader, key, passwords));
    let pair = CertifiedPair { chain: chain?, key: secret? };
    let shown = shown(certificate);
    match keel_tls::certified_key(&pair) {
        Ok(_) => {}
        Err(PairError::Mismatch) => {
            let name = self::shown(key);
            let found =
                Diagnostic::error("nginx::wrong-pair", format!("the key `{name}` isn't that of `{shown}`"));
            let found = at(found, key, "of another certificate");
            reader.diagnostics.push(
                at(found, certificate, "the certificate")
                    .help("`openssl x509 -pubkey -noout -in CERTIFICATE` and `openssl pkey -pubout -in KEY` must agree")
                    .nginx(format!("SSL_CTX_use_PrivateKey(\"{name}\") failed (SSL: key values mismatch)")),
            );
            return None;
        }
        Err(error) => {
            let place = if error == PairError::Key { key } else { certificate };
            let nginx = format!("cannot load certificate \"{shown}\": {error}");
            let found = Diagnostic::error(BAD, error.to_string()).nginx(nginx);
            reader.diagnostics.push(at(found, place, ""));
            return None;
        }
    }
    check_validity(reader, certificate, &pair.chain);
    Some(pair)
}

fn check_validity(reader: &mut Reader<'_>, word: &Word, chain: &[Der]) {
    let Some(Ok(first)) = chain.first().map(|der| Certificate::read(&der.0)) else { return };
    let now = reader.files.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let shown = shown(word);
    let (message, label) = if first.valid_until() < now {
        (format!("the certificate `{shown}` has expired"), format!("since {}", first.valid_until_text()))
    } else if first.valid_from() > now {
        (format!("the certificate `{shown}` isn't valid yet"), format!("until {}", first.valid_from_text()))
    } else {
        return;
    };
    let nginx = format!("certificate \"{shown}\" is not valid: {label}");
    reader.diagnostics.push(
        Diagnostic::warning(EXPIRED, message)
            .at(word.span, label)
            .help("renew it: clients refuse to connect")
            .nginx(nginx),
    );
}

fn read_chain(reader: &mut Reader<'_>, word: &Word) -> Option<Vec<Der>> {
    let text = read(reader, word, "certificate")?;
    match keel_tls::read_certificates(&text) {
        Ok(chain) => Some(chain),
        Err(error) => refuse(reader, word, "certificate", &error.to_string()),
    }
}

fn read_key(reader: &mut Reader<'_>, word: &Word, passwords: &[Secret]) -> Option<Secret> {
    let text = read(reader, word, "certificate key")?;
    match keel_tls::read_key(&text, passwords) {
        Ok(key) => Some(key),
        Err(error) => {
            let found = refuse(reader, word, "certificate key", &error.to_string());
            let help = match error {
                KeyError::Encrypted => "name a file with its password: `ssl_password_file FILE;`",
                KeyError::WrongPassword => "one line of `ssl_password_file` must be its password",
                KeyError::OldEncryption => {
                    "encrypt it anew: `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`"
                }
                KeyError::Broken | KeyError::None => return found,
            };
            if let Some(last) = reader.diagnostics.pop() {
                reader.diagnostics.push(last.help(help));
            }
            found
        }
    }
}

/// Says that a file doesn't hold what it should, once for all servers that inherit it.
fn refuse<T>(reader: &mut Reader<'_>, word: &Word, what: &str, why: &str) -> Option<T> {
    if is_said(reader, word) {
        return None;
    }
    let shown = shown(word);
    let nginx = format!("cannot load {what} \"{shown}\": {why}");
    let found = Diagnostic::error(BAD, format!("the {what} `{shown}` can't be used: {why}")).nginx(nginx);
    reader.diagnostics.push(at(found, word, ""));
    None
}

/// Adds the place that a word stands in, unless it is the key itself: messages show the lines of their places.
fn at(found: Diagnostic, word: &Word, label: &str) -> Diagnostic {
    if word.text.starts_with("data:") { found } else { found.at(word.span, label) }
}

/// Whether something is said of a file already.
fn is_said(reader: &Reader<'_>, word: &Word) -> bool {
    let of_file = |found: &&Diagnostic| matches!(found.code, BAD | MISSING);
    reader
        .diagnostics
        .iter()
        .filter(of_file)
        .any(|found| found.labels.iter().any(|label| label.span == word.span))
}

/// Reads the file that a word names, or what it holds itself.
fn read(reader: &mut Reader<'_>, word: &Word, what: &str) -> Option<Vec<u8>> {
    if has_variables(&word.text) {
        reader.diagnostics.push(
            Diagnostic::error(
                "nginx::unsupported-directive",
                format!("a {what} with variables is not supported yet"),
            )
            .at(word.span, "it is read when the configuration is"),
        );
        return None;
    }
    if let Some(text) = word.text.strip_prefix("data:") {
        return Some(text.as_bytes().to_vec());
    }
    if word.text.starts_with("engine:") || word.text.starts_with("store:") {
        reader.diagnostics.push(
            Diagnostic::error(
                "nginx::unsupported-directive",
                "keys in engines and stores of OpenSSL can't be used",
            )
            .at(word.span, "")
            .help("give the key in a file"),
        );
        return None;
    }
    let path = reader.conf_folder.join(&word.text);
    match reader.files.read(&path) {
        Ok(text) => Some(text),
        Err(_) if is_said(reader, word) => None,
        Err(error) => {
            let path = reader.files.shown(&path);
            let nginx = format!(
                "cannot load {what} \"{}\": BIO_new_file() failed (SSL: {error}: calling fopen({}, r))",
                path.display(),
                path.display()
            );
            reader.diagnostics.push(
                Diagnostic::error(MISSING, format!("the {what} `{}` can't be read", word.text))
                    .at(word.span, format!("{}: {error}", path.display()))
                    .help("put it there, or name another file")
                    .nginx(nginx),
            );
            None
        }
    }
}

/// How a certificate or key is called in messages. What stands in the configuration itself may be secret.
fn shown(word: &Word) -> &str {
    if word.text.starts_with("data:") { "data:..." } else { &word.text }
}

/// Checks that who connects to a listener with TLS finds a certificate.
pub(crate) fn check_listener(
    reader: &mut Reader<'_>,
    span: Span,
    default: ServerId,
    ids: &[ServerId],
    servers: &[Frame],
) {
    let of = |id: &ServerId| servers.get(id.0 as usize);
    let Some(first) = of(&default) else { return };
    if first.ssl.has_certificate() {
        return;
    }
    let lacking = if first.ssl.rejects() {
        ids.iter().filter_map(of).find(|server| !server.ssl.has_certificate() && !server.ssl.rejects())
    } else {
        Some(first)
    };
    let Some(place) = lacking.map(|server| server.opened.unwrap_or(span)) else { return };
    reader.diagnostics.push(
        Diagnostic::error("nginx::no-certificate", "this server has no certificate")
            .at(span, "TLS needs one")
            .at(place, "`ssl_certificate` and `ssl_certificate_key` are missing here")
            .nginx("no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive"),
    );
}
