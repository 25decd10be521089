//! TLS with clients: handshakes, and that everything which works without it works with it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

use keel_model::*;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use support::{DEADLINE, DataPlane, ScriptedPeer, balance, plan, unlogged};

/// Longer than it takes until a connection is parked.
const PARKED: Duration = Duration::from_millis(2300);

/// Takes any certificate.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> CertifiedPair {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
    CertifiedPair { chain: vec![Der(certificate.der().to_vec())], key: Secret::new(key.serialize_der()) }
}

fn ecdsa() -> CertifiedPair {
    certificate(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn settings(certificates: Vec<CertifiedPair>) -> Option<Box<SslSettings>> {
    Some(Box::new(SslSettings { certificates, ..SslSettings::default() }))
}

/// Has the plan's listener speak TLS.
fn secure(plan: &mut Plan) {
    plan.listeners[0].tls = true;
    plan.servers[0].ssl = settings(vec![ecdsa()]);
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth()
}

fn connect_with(plane: &DataPlane, config: ClientConfig, name: &str) -> Result<Stream, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(plane.address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

fn connect(plane: &DataPlane) -> Stream {
    connect_with(plane, config(&[&TLS13, &TLS12]), "localhost").unwrap()
}

/// Sends a request and reads the response's head and as much of a body as it announces.
fn ask(stream: &mut Stream, request: &str) -> (String, Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn get(stream: &mut Stream, path: &str) -> String {
    let (_, body) = ask(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    String::from_utf8(body).unwrap()
}

/// A location that answers with the values of variables.
fn says(path: &str, variables: &[Variable]) -> Location {
    let mut parts = Vec::new();
    for variable in variables {
        parts.extend([Part::Variable(variable.clone()), Part::Literal(" ".into())]);
    }
    let text = Some(Template { parts });
    Location {
        matcher: LocationMatcher::Exact(path.into()),
        scope: unlogged(),
        rewrite: Return { status: 200, text }.into(),
        locations: Vec::new(),
    }
}

#[test]
fn both_versions_and_kinds_of_keys_are_spoken() {
    let plane = DataPlane::start(|plan| {
        secure(plan);
        plan.servers[0].ssl = settings(vec![ecdsa(), certificate(&rcgen::PKCS_RSA_SHA256)]);
        let variables = [
            Variable::Scheme,
            Variable::Https,
            Variable::Ssl(SslVariable::Protocol),
            Variable::Ssl(SslVariable::Cipher),
            Variable::Ssl(SslVariable::ServerName),
            Variable::Ssl(SslVariable::AlpnProtocol),
        ];
        plan.servers[0].locations.push(says("/", &variables));
    });
    let mut only_rsa = config(&[&TLS12]);
    only_rsa.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let mut rsa_suites = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    rsa_suites.alpn_protocols = only_rsa.alpn_protocols;
    let check = |config, expect: &str| {
        let mut stream = connect_with(&plane, config, "localhost").unwrap();
        assert_eq!(get(&mut stream, "/"), expect);
        assert_eq!(get(&mut stream, "/"), expect, "the connection is kept");
    };
    check(config(&[&TLS13]), "https on TLSv1.3 TLS_AES_256_GCM_SHA384 localhost  ");
    check(config(&[&TLS12]), "https on TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 localhost  ");
    check(rsa_suites, "https on TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384 localhost http/1.1 ");
    let mut unknown = config(&[&TLS13]);
    unknown.alpn_protocols = vec![b"unknown".to_vec()];
    assert!(connect_with(&plane, unknown, "localhost").is_err());
}

#[test]
fn the_host_that_is_meant_decides() {
    let (first, second) = (ecdsa(), ecdsa());
    let plane = DataPlane::start(|plan| {
        secure(plan);
        plan.servers[0].ssl = settings(vec![first.clone()]);
        let server = |name: &str, ssl| VirtualServer {
            names: vec![keel_model::ServerName::Exact(name.into())],
            ssl,
            ..plan.servers[0].clone()
        };
        let mut old = settings(vec![second.clone()]);
        if let Some(old) = &mut old {
            old.protocols = TlsVersions { tls12: true, tls13: false };
        }
        let mut rejecting = settings(Vec::new());
        if let Some(rejecting) = &mut rejecting {
            rejecting.reject_handshake = true;
        }
        let more = [server("second", old), server("bare", None), server("rejects", rejecting)];
        plan.servers.extend(more);
        plan.listeners[0].servers.extend([1, 2, 3].map(ServerId));
    });
    let got = |name: &str| {
        let stream = connect_with(&plane, config(&[&TLS13, &TLS12]), name).ok()?;
        let session = &stream.conn;
        let certificate = session.peer_certificates()?.first()?.to_vec();
        Some((certificate, session.protocol_version()? == rustls::ProtocolVersion::TLSv1_3))
    };
    let (first, second) = (first.chain[0].0.clone(), second.chain[0].0.clone());
    assert_eq!(got("localhost"), Some((first.clone(), true)));
    assert_eq!(got("second"), Some((second.clone(), false)));
    assert_eq!(got("SECOND"), Some((second, false)));
    // One without a certificate, and one that there isn't, have the default one's.
    assert_eq!(got("bare"), Some((first.clone(), true)));
    assert_eq!(got("nobody"), Some((first, true)));
    let error = connect_with(&plane, config(&[&TLS13]), "rejects").unwrap_err().to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
}

#[test]
fn large_bodies_pass_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|number| number.to_le_bytes()).take(3 << 20).collect();
    std::fs::write(folder.path().join("file"), &bytes).unwrap();
    let peer = ScriptedPeer::saying("yes");
    let plane = DataPlane::start(|plan| {
        secure(plan);
        plan.servers[0].scope.core.root = Root::Root(Template::literal(folder.path().to_str().unwrap()));
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].matcher = LocationMatcher::Exact("/peer".into());
        plan.servers[0].locations[0].scope.core.client_max_body_size = ByteSize(0);
    });
    for version in [&TLS12, &TLS13] {
        let mut stream = connect_with(&plane, config(&[version]), "localhost").unwrap();
        for _ in 0..2 {
            let (_, body) = ask(&mut stream, "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert!(body == bytes, "what comes is what lies there");
            stream
                .write_all(
                    format!("POST /peer HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", bytes.len())
                        .as_bytes(),
                )
                .unwrap();
            stream.write_all(&bytes).unwrap();
            let (_, body) = ask(&mut stream, "");
            assert_eq!(body, b"yes");
        }
    }
}

#[test]
fn sessions_are_resumed_on_every_worker_and_in_the_next_data_plane() {
    let pair = ecdsa();
    let adjust = |cache: Option<&str>, seed: &[u8]| {
        let mut ssl = settings(vec![pair.clone()]).unwrap();
        ssl.session_tickets = cache.is_none();
        ssl.session_cache = cache.map(|name| SessionCacheZone { name: name.into(), size: ByteSize::mib(1) });
        let seed = Secret::new(seed.to_vec());
        move |plan: &mut Plan| {
            secure(plan);
            plan.process.workers = 3;
            plan.servers[0].ssl = Some(ssl);
            plan.ticket_seed = seed;
            let variables = [SslVariable::SessionReused, SslVariable::SessionId].map(Variable::Ssl);
            plan.servers[0].locations.push(says("/", &variables));
        }
    };
    let tickets = [DataPlane::start(adjust(None, b"seed")), DataPlane::start(adjust(None, b"seed"))];
    let cached = DataPlane::start(adjust(Some("sessions"), b""));
    for version in [&TLS12, &TLS13] {
        let check = |planes: [&DataPlane; 2]| {
            let config = config(&[version]);
            let ask = |plane| get(&mut connect_with(plane, config.clone(), "localhost").unwrap(), "/");
            let first = ask(planes[0]);
            assert!(first.starts_with(". "), "{first}");
            for round in 0..6 {
                let again = ask(planes[round % 2]);
                assert_eq!(again, first.replace('.', "r"), "the session is the same one");
            }
        };
        check([&tickets[0], &tickets[1]]);
        check([&cached, &cached]);
    }
}

#[test]
fn certificates_of_clients_are_looked_at() {
    let (known, unknown) = (ecdsa(), ecdsa());
    let plane = DataPlane::start(|plan| {
        secure(plan);
        let mut ssl = settings(vec![ecdsa()]).unwrap();
        ssl.verify_client = VerifyClient::On;
        ssl.client_roots = known.chain.clone();
        plan.servers[0].ssl = Some(ssl.clone());
        let answer = |name: &str, ssl| VirtualServer {
            names: vec![keel_model::ServerName::Exact(name.into())],
            ssl,
            locations: vec![says(
                "/",
                &[Variable::Ssl(SslVariable::ClientVerify), Variable::Ssl(SslVariable::ClientSDn)],
            )],
            ..plan.servers[0].clone()
        };
        let mut any = ssl.clone();
        any.verify_client = VerifyClient::OptionalNoCa;
        plan.servers = vec![answer("localhost", Some(ssl)), answer("any", Some(any))];
        plan.listeners[0].servers.push(ServerId(1));
    });
    let ask = |pair: Option<&CertifiedPair>, name: &str, host: &str| {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate));
        let config = match pair {
            Some(pair) => {
                let chain = vec![CertificateDer::from(pair.chain[0].0.clone())];
                let key = pair.key.reveal().to_vec().try_into().unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let mut stream = connect_with(&plane, config, name).unwrap();
        let (head, body) = ask_host(&mut stream, host);
        (head, String::from_utf8(body).unwrap())
    };
    let dn = "SUCCESS CN=rcgen self signed cert ";
    assert_eq!(ask(Some(&known), "localhost", "localhost"), (200, dn.to_owned()));
    let (status, text) = ask(Some(&unknown), "localhost", "localhost");
    assert!(status == 400 && text.contains("The SSL certificate error"), "{text}");
    let (status, text) = ask(None, "localhost", "localhost");
    assert!(status == 400 && text.contains("No required SSL certificate was sent"), "{text}");
    let (status, text) = ask(Some(&unknown), "any", "any");
    assert!(status == 200 && text.starts_with("FAILED:self-signed certificate "), "{text}");
    assert_eq!(ask(Some(&unknown), "any", "localhost").0, 421);
}

/// Asks a host for `/`; gives the status and the body.
fn ask_host(stream: &mut Stream, host: &str) -> (u16, Vec<u8>) {
    let (head, body) = ask(stream, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

#[test]
fn plain_http_is_answered_and_refused() {
    let plane = DataPlane::start(secure);
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.response(true);
    assert_eq!(response.status, 400);
    assert!(response.text().contains("The plain HTTP request was sent to HTTPS port"), "{response:?}");
    client.expect_end();
    // What is neither is no reason to wait.
    let mut client = plane.client();
    client.send([0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9]);
    let mut alert = Vec::new();
    client.stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
}

#[test]
fn who_stalls_in_a_handshake_is_let_go() {
    let plane = DataPlane::start(|plan| {
        secure(plan);
        plan.servers[0].client.header_timeout = Duration::from_millis(100);
    });
    for begun in [&b"\x16"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
        let mut client = plane.client();
        client.send(begun);
        client.expect_end();
    }
}

#[test]
fn a_connection_idles_is_parked_and_ends_in_good_order() {
    let peer = ScriptedPeer::saying("yes");
    let mut plane = DataPlane::start(|plan| {
        secure(plan);
        balance(plan, &[peer.address]);
    });
    let mut streams: Vec<Stream> = (0..4).map(|_| connect(&plane)).collect();
    for _ in 0..2 {
        for stream in &mut streams {
            assert_eq!(get(stream, "/"), "yes");
        }
        thread::sleep(PARKED);
    }
    // Another certificate is for those that come from now on.
    plane.load(|plan| {
        secure(plan);
        balance(plan, &[peer.address]);
        plan.servers[0].scope.core.keepalive_timeout = Duration::ZERO;
    });
    for stream in &mut streams {
        assert_eq!(get(stream, "/"), "yes");
    }
    let mut last = streams.pop().unwrap();
    drop(streams);
    last.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    // An end without a word about it would be an error.
    last.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"yes"));
}

#[test]
fn a_plan_with_a_broken_pair_is_refused() {
    let mut plane = DataPlane::start(secure);
    let mut plan = plan(plane.address);
    plan.generation = 2;
    plan.servers[0].ssl = settings(vec![CertifiedPair { key: ecdsa().key, ..ecdsa() }]);
    let order =
        Order::Prepare { plan: Box::new(plan), sockets: Vec::new(), logs: Vec::new(), folders: Vec::new() };
    plane.order(&order);
    match plane.report() {
        Report::Refused { reason, .. } => {
            assert!(reason.contains("the key is not the certificate's"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}
