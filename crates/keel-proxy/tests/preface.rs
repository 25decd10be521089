//! What comes before the protocol, and whose address a request has.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use keel_model::*;
use support::{Client, DataPlane, ScriptedPeer, balance};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\n";

/// The same in version 2, with a TLV.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x01\xc0\0\x02\x02\0\x7b\x16\x2e\x01\0\x02h2";

/// Longer than it takes until a connection is parked.
const PARKED: Duration = Duration::from_millis(2300);

/// Answers with what is known of the client.
fn told() -> Return {
    let variables = [
        Variable::RemoteAddr,
        Variable::RemotePort,
        Variable::ProxyProtocolAddr,
        Variable::ProxyProtocolPort,
        Variable::ProxyProtocolServerAddr,
        Variable::ProxyProtocolServerPort,
        Variable::ProxyProtocolTlv(ProxyTlv::Kind(1)),
    ];
    let parts = variables.into_iter().flat_map(|value| [Part::Variable(value), Part::Literal(" ".into())]);
    Return { status: 200, text: Some(Template { parts: parts.collect() }) }
}

/// A plane whose listener asks for the header, and that believes it.
fn believing(plan: &mut Plan) {
    plan.listeners[0].proxy_protocol = true;
    let server = &mut plan.servers[0];
    let all = Clients::Network { address: [127, 0, 0, 0].into(), prefix: 8 };
    server.scope.real_ip =
        RealIpScope { from: vec![all], header: RealIpHeader::ProxyProtocol, ..RealIpScope::default() };
    server.rewrite = told().into();
}

fn begin(plane: &DataPlane, bytes: &[u8]) -> Client {
    let mut client = plane.client();
    client.stream.get_mut().set_nodelay(true).unwrap();
    client.send(bytes);
    client
}

#[test]
fn headers_come_in_pieces_and_requests_behind_them() {
    let plane = DataPlane::start(believing);
    let expect = "192.0.2.1 123 192.0.2.1 123 192.0.2.2 5678";
    for (header, tlv) in [(V1, ""), (V2, "h2")] {
        for cut in 0..=header.len() {
            let mut client = begin(&plane, &header[..cut]);
            thread::sleep(Duration::from_millis(3));
            client.send([&header[cut..], b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /"].concat());
            assert_eq!(client.response(true).text().trim_end(), format!("{expect} {tlv}").trim_end());
            client.send(" HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(client.response(true).text().trim_end(), format!("{expect} {tlv}").trim_end());
        }
        let mut client = plane.client();
        client.stream.get_mut().set_nodelay(true).unwrap();
        header.iter().for_each(|byte| client.send([*byte]));
        assert!(client.get("/").text().starts_with(expect));
    }
}

#[test]
fn headers_that_tell_of_nobody_leave_the_connections_address() {
    let plane = DataPlane::start(believing);
    let signature = &V2[..12];
    let unix = [signature, b"\x21\x31\0\xd8", &[b'/'; 216]].concat();
    let local = [signature, b"\x20\0\0\0"].concat();
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN 1 2 3 4\r\n".to_vec(), unix, local] {
        let mut client = begin(&plane, &header);
        let port = client.stream.get_ref().local_addr().unwrap().port();
        assert_eq!(client.get("/").text().trim_end(), format!("127.0.0.1 {port}"));
    }
}

#[test]
fn what_is_no_header_closes_the_connection() {
    let plane = DataPlane::start(believing);
    let signature = &V2[..12];
    let huge = [signature, b"\x21\x11\xff\xff", &[0; 8192]].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes(),
        b"PROXY TCP4 1.2.3.4\r\n".to_vec(),
        huge,
        [signature, b"\x21\x11\0\x04abcd"].concat(),
    ] {
        let mut client = begin(&plane, &bytes);
        let mut rest = Vec::new();
        // What was sent and never read makes the kernel reset the connection.
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
        assert_eq!(String::from_utf8_lossy(&rest), "", "{:?}", String::from_utf8_lossy(&bytes));
    }
    for header in [V1, V2] {
        let mut client = begin(&plane, &[header, header, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        assert_eq!(client.response(true).status, 400);
    }
}

#[test]
fn the_time_for_a_header_is_that_of_a_head() {
    let plane = DataPlane::start(|plan| {
        believing(plan);
        plan.servers[0].client.header_timeout = Duration::from_secs(3);
    });
    let start = Instant::now();
    let mut silent = plane.client();
    let mut half = begin(&plane, &V1[..20]);
    let mut slow = plane.client();
    for byte in &V1[..20] {
        slow.send([*byte]);
        thread::sleep(Duration::from_millis(100));
    }
    for client in [&mut silent, &mut half, &mut slow] {
        client.expect_end();
        let took = start.elapsed();
        assert!((Duration::from_millis(2900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
}

#[test]
fn headers_are_kept_while_a_connection_idles_and_over_reloads() {
    let mut plane = DataPlane::start(believing);
    let mut client = begin(&plane, V2);
    let (mut silent, mut late) = (plane.client(), plane.client());
    for round in 0..3 {
        for _ in 0..20 {
            assert!(client.get("/").text().starts_with("192.0.2.1 123 "), "in round {round}");
        }
        thread::sleep(PARKED);
        plane.load(believing);
    }
    assert!(client.get("/").text().ends_with(" h2 "));
    silent.send(V1);
    assert!(silent.get("/").text().starts_with("192.0.2.1 123 "));
    // The listener changes: a connection is what it was when it was accepted.
    plane.load(|plan| {
        believing(plan);
        plan.listeners[0].proxy_protocol = false;
    });
    assert!(client.get("/").text().starts_with("192.0.2.1 123 "));
    late.send(V1);
    assert!(late.get("/").text().starts_with("192.0.2.1 123 "));
    assert!(plane.client().get("/").text().starts_with("127.0.0.1 "));
    let mut refused = begin(&plane, V1);
    assert_eq!(refused.response(true).status, 400);
}

#[test]
fn each_request_has_the_address_that_it_tells() {
    let peer = ScriptedPeer::start(|request| {
        let told = request.head.lines().find(|line| line.starts_with("X-Forwarded-For")).unwrap();
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len()).into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let all = Clients::Network { address: [127, 0, 0, 0].into(), prefix: 8 };
        let location = &mut plan.servers[0].locations[0].scope;
        location.real_ip =
            RealIpScope { from: vec![all], header: RealIpHeader::ForwardedFor, recursive: true };
        location.access.rules = vec![AccessRule {
            clients: Clients::Network { address: [192, 0, 2, 66].into(), prefix: 32 },
            outcome: AccessOutcome::Deny,
        }];
        let set = &mut location.proxy.set_headers;
        set.push(("X-Forwarded-For".into(), Template::variable(Variable::ProxyAddXForwardedFor)));
    });
    let mut client = plane.client();
    let mut ask = |fields: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        let response = client.response(true);
        (response.status, response.text().to_owned())
    };
    let passed = |value: &str| (200, format!("X-Forwarded-For: {value}"));
    assert_eq!(ask("X-Forwarded-For: 192.0.2.1\r\n"), passed("192.0.2.1, 192.0.2.1"));
    assert_eq!(ask(""), passed("127.0.0.1"));
    let two = "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.2\r\n";
    assert_eq!(ask(two), passed("192.0.2.9, 192.0.2.1, 127.0.0.2, 192.0.2.1"));
    assert_eq!(ask("X-Forwarded-For: 192.0.2.66\r\n").0, 403);
    assert_eq!(ask("X-Forwarded-For: 192.0.2.66, x\r\n"), passed("192.0.2.66, x, 127.0.0.1"));
}
