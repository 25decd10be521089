//! What follows a head on a connection to a peer, and from one, is what the head announces.

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};

/// A request's body that is itself a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())
}

#[test]
fn a_body_that_is_not_passed_does_not_follow_the_head() {
    let check = |adjust: fn(&mut ProxyScope), expect: &str| {
        let peer = ScriptedPeer::saying("hi");
        let plane = DataPlane::start(|plan| {
            balance(plan, &[peer.address]);
            let scope = &mut plan.servers[0].locations[0].scope.proxy;
            scope.upstream.request_buffering = false;
            adjust(scope);
            plan.upstreams[0].keepalive.connections = 8;
        });
        let mut client = plane.client();
        client.send(post("/"));
        assert_eq!(client.response(true).text(), "hi");
        assert_eq!(client.get("/next").text(), "hi");
        let lines: Vec<String> =
            peer.requests().iter().map(|request| request.head.lines().next().unwrap().to_owned()).collect();
        assert_eq!(lines, ["POST / HTTP/1.1", "GET /next HTTP/1.1"]);
        assert_eq!(String::from_utf8_lossy(&peer.requests()[0].body), expect);
    };
    check(|_| {}, HIDDEN);
    check(|scope| scope.upstream.pass_request_body = false, "");
    check(|scope| scope.set_body = Some(Template::literal("own")), "own");
}

#[test]
fn a_body_of_which_a_peer_had_a_part_goes_to_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let early = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"01234") {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "the request broke off");
            got.extend_from_slice(&piece[..count]);
        }
        stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").unwrap();
        // Until the other side is done with it.
        let _ = stream.read_to_end(&mut got);
    });
    let page = ScriptedPeer::saying("page");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[early]);
        balance(plan, &[page.address]);
        plan.upstreams[1].name = UpstreamName("page".into());
        plan.servers[0].locations[1] = proxy_location("/page", "page");
        for location in &mut plan.servers[0].locations {
            location.scope.proxy.upstream.request_buffering = false;
            location.scope.proxy.upstream.intercept_errors = true;
        }
        let uri = Template::literal("/page");
        plan.servers[0].locations[0].scope.core.error_pages =
            vec![ErrorPage { status: 404, response: ErrorPageStatus::Keep, uri }];
    });
    let mut client = plane.client();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234");
    let response = client.response(true);
    assert_eq!((response.status, response.text()), (404, "page"));
    assert_eq!(page.requests()[0].body, b"");
    client.send("56789");
    assert_eq!(client.get("/page").text(), "page");
}

#[test]
fn the_method_that_was_sent_says_whether_a_body_follows() {
    let peer = ScriptedPeer::start(|_| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()));
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].scope.proxy.method = Some(Template::literal("HEAD"));
    });
    let mut client = plane.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status, response.text()), (200, ""));
    }
}

#[test]
fn a_head_says_what_a_get_would_have_and_204_says_nothing() {
    let peer = ScriptedPeer::start(|request| {
        let body = if request.head.starts_with("HEAD") { "" } else { "0123456789" };
        let status = if request.head.contains("/missing ") { 404 } else { 200 };
        Some(format!("HTTP/1.1 {status} X\r\nContent-Length: 10\r\n\r\n{body}").into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.proxy.upstream.force_ranges = true;
        scope.proxy.upstream.intercept_errors = true;
        let uri = Template::literal("/page");
        scope.core.error_pages = vec![ErrorPage { status: 404, response: ErrorPageStatus::Fixed(204), uri }];
    });
    let mut client = plane.client();
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=2-4\r\n\r\n");
    let response = client.response(false);
    assert_eq!((response.status, response.field("content-length")), (206, Some("3")));
    client.send("GET /missing HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = client.response(false);
    assert_eq!((response.status, response.field("content-length")), (204, None));
    assert_eq!(client.get("/").text(), "0123456789");
}
