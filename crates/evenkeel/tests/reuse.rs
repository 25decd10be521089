//! The reuse race: a POST leaves on a kept connection just when its peer closes it for having been idle.
//!
//! The peer may have read such a request or not, and a reset doesn't tell. So the balancer must not get into the race:
//! nothing may fail, and nothing may arrive twice.

#![expect(clippy::expect_used, reason = "a test ends where it can't go on")]

use std::{
    net::SocketAddr,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use keel_testkit::{Binary, Client, Ledger, Peer, PeerBehaviour, free_port};
use tempfile::TempDir;

type Outcome = anyhow::Result<()>;

/// A connection sends so many POSTs, each a peer's idle time after the answer before.
const ROUNDS: usize = 5;

fn configuration(workers: usize, port: u16, peers: &[Peer], upstream: &str) -> String {
    let servers: String =
        peers.iter().map(|peer| format!("server {} max_fails=0;\n", peer.address())).collect();
    format!(
        "worker_processes {workers};\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
             access_log off;\n\
             upstream app {{ {servers} {upstream} }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }}\n\
         }}\n"
    )
}

/// One client: POSTs at just the peer's idle time, up to 5 ms sooner or later. Gives what went wrong.
fn post_at_idle(address: SocketAddr, number: usize, idle: Duration, start: &Barrier) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut client = Client::connect(address);
    start.wait();
    for round in 0..ROUNDS {
        let post = format!("POST /{number}-{round} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
        let answer = client.and_then(|mut open| open.request(post).map(|response| (response.status, open)));
        let answered = Instant::now();
        client = match answer {
            Ok((200, open)) => Ok(open),
            Ok((status, open)) => {
                wrong.push(format!("/{number}-{round}: status {status}"));
                Ok(open)
            }
            Err(error) => {
                wrong.push(format!("/{number}-{round}: {error:#}"));
                Client::connect(address)
            }
        };
        if round + 1 < ROUNDS {
            // The offsets of all connections cover the 10 ms around the idle time evenly.
            let offset = Duration::from_micros(((number * 7919 + round * 3571) % 10_000) as u64);
            let until = answered + idle + offset - Duration::from_millis(5);
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
    wrong
}

/// Runs the race with peers that close after `idle`; an answer of theirs has these fields besides its length.
fn race(connections: usize, idle: Duration, upstream: &str) -> Outcome {
    let folder = TempDir::new()?;
    let ledger = Ledger::new(folder.path().join("ledger"));
    let peers: Vec<Peer> = (1..=3)
        .map(|n| {
            Peer::with_ledger(&format!("app{n}"), PeerBehaviour::CloseWhenIdle(idle), Some(ledger.path()))
        })
        .collect::<Result<_, _>>()?;
    let port = free_port()?;
    let _balancer =
        Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&configuration(2, port, &peers, upstream))?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let start = Arc::new(Barrier::new(connections));
    let threads: Vec<_> = (0..connections)
        .map(|number| {
            let start = start.clone();
            thread::spawn(move || post_at_idle(address, number, idle, &start))
        })
        .collect();
    let wrong: Vec<String> =
        threads.into_iter().flat_map(|thread| thread.join().expect("a client doesn't panic")).collect();
    assert_eq!(wrong, [] as [&str; 0], "{} of {}", wrong.len(), connections * ROUNDS);
    assert_eq!(ledger.doubled()?, []);
    let received: u64 = peers.iter().map(Peer::requests).sum();
    assert_eq!(received, (connections * ROUNDS) as u64);
    Ok(())
}

#[test]
fn posts_at_just_the_idle_time_of_their_peers_are_neither_lost_nor_doubled() -> Outcome {
    race(300, Duration::from_millis(900), "keepalive 512;")
}

#[test]
fn nor_with_few_kept_connections_and_a_short_idle_time() -> Outcome {
    race(60, Duration::from_millis(300), "keepalive 64;")
}

/// What a peer bears is not assumed: a POST waits for another connection to have shown it.
#[test]
fn a_post_takes_a_long_idle_connection_once_another_has_borne_more() -> Outcome {
    let peers = [Peer::start("app", PeerBehaviour::Answer)?];
    let port = free_port()?;
    let _balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&configuration(1, port, &peers, ""))?;
    let mut client = Client::connect(([127, 0, 0, 1], port))?;
    let pause = Duration::from_millis(200);
    for (connections, what) in [
        (1, "the first"),
        (2, "nothing is known yet"),
        (2, "the first connection has borne twice as much"),
        (2, "and so on"),
    ] {
        let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(client.request(post)?.status, 200);
        assert_eq!(peers.first().map(Peer::connections), Some(connections), "{what}");
        thread::sleep(pause);
    }
    // What may be repeated needs no proof.
    assert_eq!(client.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?.status, 200);
    assert_eq!(peers.first().map(Peer::connections), Some(2));
    Ok(())
}
