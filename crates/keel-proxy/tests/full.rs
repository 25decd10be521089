//! A worker whose connections are all in use: those that idle longest make room.

mod support;

use std::io::Read;

use keel_model::*;
use support::{Client, DataPlane, ScriptedPeer, balance};

const CONNECTIONS: u32 = 64;

fn plane(peer: &ScriptedPeer) -> DataPlane {
    DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.process.worker_connections = CONNECTIONS;
        let mut own = plan.servers[0].locations[0].clone();
        own.matcher = LocationMatcher::Prefix("/own".into());
        own.rewrite = Return { status: 200, text: Some(Template::literal("ok")) }.into();
        plan.servers[0].locations.push(own);
    })
}

/// Says whether a client that idled has been closed.
fn is_closed(client: &mut Client) -> bool {
    client.stream.get_mut().set_nonblocking(true).is_ok() && matches!(client.stream.read(&mut [0]), Ok(0))
}

#[test]
fn clients_that_are_kept_alive_make_room_for_new_ones() {
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer);
    let mut idle: Vec<Client> = (0..100)
        .map(|at| {
            let mut client = plane.client();
            assert_eq!(client.get("/own").status, 200, "client {at}");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(plane.client().get("/own").status, 200);
        assert_eq!(plane.client().get("/").status, 200, "a peer's connection counts, too");
    }
    assert!(is_closed(&mut idle[0]), "the one that idles longest closes first");
    assert!(!is_closed(&mut idle[99]), "the one that idles shortest stays");
}

#[test]
fn clients_that_say_nothing_make_room_for_new_ones() {
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer);
    let _silent: Vec<Client> = (0..100).map(|_| plane.client()).collect();
    for _ in 0..20 {
        assert_eq!(plane.client().get("/own").status, 200);
    }
}

#[test]
fn half_heads_make_room_for_new_clients() {
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer);
    let mut half: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = plane.client();
            client.send("GET /own HTTP/1.1\r\nHost: h\r\n");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(plane.client().get("/own").status, 200);
        assert_eq!(plane.client().get("/").status, 200);
    }
    // The one that has waited shortest is still there.
    half[299].send("\r\n");
    assert_eq!(half[299].response(true).status, 200);
}

#[test]
fn clients_with_a_request_under_way_are_not_closed() {
    let (answer, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let peer = ScriptedPeer::start(move |_| {
        let _ = wait.lock().map(|wait| wait.recv());
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let plane = plane(&peer);
    // Each takes a connection to the peer besides its own.
    let mut busy: Vec<Client> = (0..CONNECTIONS / 2)
        .map(|_| {
            let mut client = plane.client();
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            client
        })
        .collect();
    let deadline = std::time::Instant::now() + support::DEADLINE;
    while peer.requests().len() < busy.len() {
        assert!(std::time::Instant::now() < deadline, "{} of them reached the peer", peer.requests().len());
        std::thread::yield_now();
    }
    plane.client().expect_end();
    drop(answer);
    for client in &mut busy {
        assert_eq!(client.response(true).status, 200);
    }
}

#[test]
fn clients_whose_answer_was_their_last_make_room_for_new_ones() {
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer);
    // Each has been refused, and what else it may send is read for a while.
    let _lingering: Vec<Client> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = plane.client();
            client.send("GET /own HTTP/1.1\r\n\r\n");
            assert_eq!(client.response(true).status, 400);
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(plane.client().get("/own").status, 200);
    }
}
