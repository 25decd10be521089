//! Fields behind the body.

mod support;

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance};

/// Sends a request and gives everything that comes until the connection ends.
fn exchange(plane: &DataPlane, head: &str) -> String {
    let mut client = plane.client();
    client.send(format!("{head}Host: h\r\nConnection: close\r\n\r\n"));
    let mut text = String::new();
    match std::io::Read::read_to_string(&mut client.stream, &mut text) {
        Ok(_) => text,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn trailers_pass_and_are_added_where_the_client_can_read_them() {
    let peer = ScriptedPeer::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        Some(format!("{head}2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n").into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.proxy.pass_trailers = true;
        let value = Template::variable(Variable::Status);
        scope.headers.add_trailers.push(AddHeader { name: "X-Status".into(), value, always: false });
    });
    let text = exchange(&plane, "GET / HTTP/1.1\r\n");
    assert!(text.ends_with("2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Status: 200\r\n\r\n"), "{text}");
    let text = exchange(&plane, "GET / HTTP/1.0\r\n");
    assert!(text.ends_with("\r\n\r\nhi"), "{text}");
}
