//! Responses that break off or make no sense, and peers that don't answer.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use keel_model::*;
use support::{DataPlane, balance};

/// A peer that answers every connection's first request with these bytes and closes.
fn peer(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            // The end comes with the last byte.
            rustix::net::sockopt::set_tcp_cork(&stream, true).unwrap();
            let _ = stream.write_all(answer);
        }
    });
    address
}

/// Gives the status and how much of a body came, whole or not.
fn get(answer: &'static [u8]) -> (u16, Vec<u8>) {
    let address = peer(answer);
    let plane = DataPlane::start(|plan| balance(plan, &[address]));
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    client.stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.get(9..12).unwrap_or("0").parse().unwrap(), body.as_bytes().to_vec())
}

#[test]
fn what_is_broken_before_anything_was_sent_is_502() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5",
        b"",
    ] {
        assert_eq!(get(answer).0, 502, "{}", answer.escape_ascii());
    }
}

#[test]
fn what_breaks_off_within_its_body_is_passed_on_as_far_as_it_came() {
    let (status, body) = get(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello");
    assert_eq!((status, body), (200, b"hello".to_vec()));
    let (status, body) = get(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more");
    assert_eq!((status, body), (200, b"hello".to_vec()));
}

/// Asks a balancer of a peer that answers with these bytes and one that answers in good order.
fn ask_both(answer: &'static [u8], method: &str) -> String {
    let addresses = [peer(answer), peer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")];
    let plane = DataPlane::start(|plan| balance(plan, &addresses));
    let mut client = plane.client();
    client.send(format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    let mut text = String::new();
    client.stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_breaks_off_before_anything_was_sent_is_asked_for_elsewhere() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
    ] {
        let text = ask_both(answer, "GET");
        assert!(
            text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nwhole"),
            "{}: {text}",
            answer.escape_ascii()
        );
        let text = ask_both(answer, "POST");
        assert!(!text.contains("whole"), "{}: {text}", answer.escape_ascii());
    }
}

#[test]
fn a_peer_that_is_down_is_no_peer_to_try() {
    // They accept, and never answer.
    let silent = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let addresses: Vec<SocketAddr> = silent.iter().map(|silent| silent.local_addr().unwrap()).collect();
    let plane = DataPlane::start(|plan| {
        balance(plan, &[addresses[0], addresses[1], SocketAddr::from(([127, 0, 0, 1], 9))]);
        plan.upstreams[0].peers.peers[2].down = true;
        plan.servers[0].locations[0].scope.proxy.upstream.read_timeout = Duration::from_millis(50);
    });
    assert_eq!(plane.client().get("/").status, 504);
}

#[test]
fn a_disk_that_takes_nothing_is_not_the_peer_s_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
            let _ = stream.write_all(&vec![b'a'; 50_000_000]);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (log, not_a_folder) = (folder.path().join("error.log"), folder.path().join("file"));
    std::fs::write(&not_a_folder, b"").unwrap();
    let plane = DataPlane::start(|plan| {
        balance(plan, &[address]);
        plan.process.error_logs =
            vec![ErrorLog { destination: ErrorDestination::File(log.clone()), level: LogLevel::Error }];
        plan.servers[0].locations[0].scope.proxy.upstream.temp_path = not_a_folder.join("below");
    });
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    // The client reads nothing, so that the response must wait in a file, and learns that the connection ends.
    let deadline = std::time::Instant::now() + support::DEADLINE;
    let text = loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if !text.is_empty() {
            break text;
        }
        assert!(std::time::Instant::now() < deadline, "nothing was logged");
        thread::yield_now();
    };
    assert!(text.contains("a temporary file for the response failed"), "{text}");
    assert!(!text.contains("prematurely"), "{text}");
}
