//! Peers that come, go, close and lie: nothing is lost, nothing is sent twice.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use keel_model::*;
use support::{Client, DEADLINE, DataPlane, ScriptedPeer, balance};

fn set(peers: &[std::net::SocketAddr], starting: bool) -> PeerSet {
    let peers = peers.iter().map(|peer| Peer::new(Address::Tcp(*peer), peer.to_string())).collect();
    PeerSet { peers, starting, managed: true }
}

/// A peer that closes each connection a moment after its last response, as gunicorn and Node do with idle ones; counts
/// what it has received.
fn closing_peer(idle: Duration) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received: Arc<AtomicUsize> = Arc::default();
    let count = received.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, count) = (stream.unwrap(), count.clone());
            thread::spawn(move || serve_until_idle(stream, idle, &count));
        }
    });
    (address, received)
}

fn serve_until_idle(stream: TcpStream, idle: Duration, count: &AtomicUsize) {
    stream.set_read_timeout(Some(idle)).unwrap();
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line) {
                Ok(read) if read > 0 => {}
                _ => return,
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        count.fetch_add(1, SeqCst);
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// A peer that closes with the request in its kernel's queue answers with a reset, which proves nothing: such a POST
/// fails. In every other case it is answered; in none is it received twice.
#[test]
fn posts_on_connections_that_the_peer_closes_just_then_are_never_doubled() {
    const ROUNDS: u64 = 60;
    let idle = Duration::from_millis(20);
    let (address, received) = closing_peer(idle);
    let plane = DataPlane::start(|plan| balance(plan, &[address]));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let mut client = plane.client();
            thread::spawn(move || {
                let mut answered = 0;
                for round in 0..ROUNDS {
                    // Around the moment at which the peer gives up.
                    let shift = Duration::from_micros((round * 37 + thread * 91) % 1200);
                    thread::sleep(idle + shift - Duration::from_micros(600));
                    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
                    match client.response(true).status {
                        200 => answered += 1,
                        status => assert_eq!(status, 502, "round {round}"),
                    }
                }
                answered
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let sent = 8 * ROUNDS as usize;
    let received = received.load(SeqCst);
    assert!((answered..=sent).contains(&received), "{sent} sent, {received} received, {answered} answered");
    assert!(answered * 10 >= sent * 9, "only {answered} of {sent} answered");
}

#[test]
fn a_post_that_was_read_is_not_sent_again() {
    let peer = ScriptedPeer::start(|request| {
        // The second request on a connection is read and then the connection is reset or closed.
        let first = !request.head.contains("/again");
        first.then(|| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    assert_eq!(client.get("/").status, 200);
    client.send("POST /again HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response(true).status, 502);
    let posts = peer.requests().iter().filter(|seen| seen.head.starts_with("POST")).count();
    assert_eq!(posts, 1);
}

#[test]
fn a_connection_with_unasked_bytes_is_not_used_again() {
    let peer = ScriptedPeer::start(|_| {
        Some(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
                .to_vec(),
        )
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(peer.connections.load(SeqCst), 5);
}

/// A peer that answers when `together` requests are there; gives how many connections were opened, and are open.
fn peer_of_crowds(together: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (opened, open): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let (count, stays) = (opened.clone(), open.clone());
    let crowd = Arc::new(Barrier::new(together));
    thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, SeqCst);
            stays.fetch_add(1, SeqCst);
            let (mut stream, stays, crowd) = (BufReader::new(stream.unwrap()), stays.clone(), crowd.clone());
            thread::spawn(move || {
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if std::mem::take(&mut line) == "\r\n" {
                        crowd.wait();
                        stream
                            .get_mut()
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .unwrap();
                    }
                }
                stays.fetch_sub(1, SeqCst);
            });
        }
    });
    (address, opened, open)
}

#[test]
fn of_a_crowd_s_connections_as_many_stay_as_are_to_be_kept() {
    const CROWD: usize = 4;
    const KEPT: usize = 2;
    let (peer, opened, open) = peer_of_crowds(CROWD);
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer]);
        plan.upstreams[0].keepalive.connections = KEPT as u32;
    });
    let mut clients: Vec<_> = (0..CROWD).map(|_| plane.client()).collect();
    for rounds in 1..=2 {
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        clients.iter_mut().for_each(|client| assert_eq!(client.response(true).text(), "ok"));
        let deadline = Instant::now() + DEADLINE;
        while open.load(SeqCst) > KEPT {
            assert!(Instant::now() < deadline, "{} connections stay", open.load(SeqCst));
            thread::sleep(Duration::from_millis(1));
        }
        // Those that stayed have been used again.
        assert_eq!(opened.load(SeqCst), CROWD + (rounds - 1) * (CROWD - KEPT));
    }
    assert_eq!(open.load(SeqCst), KEPT);
}

#[test]
fn a_location_s_own_connections_are_not_used_by_another() {
    for (local, expected) in [(true, [0, 1, 0, 1]), (false, [0, 0, 0, 0])] {
        let peer = ScriptedPeer::saying("yes");
        let adjust = |plan: &mut Plan| {
            balance(plan, &[peer.address]);
            plan.upstreams[0].keepalive.local = local;
            let mut location = plan.servers[0].locations[0].clone();
            location.matcher = LocationMatcher::Prefix("/other".into());
            plan.servers[0].locations.push(location);
        };
        let mut plane = DataPlane::start(adjust);
        let mut client = plane.client();
        for path in ["/", "/other", "/"] {
            client.get(path);
        }
        // A reload changes nothing of it, even if another server comes before this one.
        plane.load(|plan| {
            adjust(plan);
            let mut other = plan.servers[0].clone();
            other.names = vec![ServerName::Exact("other".into())];
            plan.servers.insert(0, other);
            plan.listeners[0].servers = vec![ServerId(0), ServerId(1)];
            plan.listeners[0].default_server = ServerId(1);
        });
        client.get("/other");
        let connections: Vec<_> = peer.requests().iter().map(|request| request.connection).collect();
        assert_eq!(connections, expected, "local: {local}");
    }
}

#[test]
fn a_peer_that_leaves_is_drained_and_its_idle_connections_close() {
    let (started, finish) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begun, may_end) = (started.clone(), finish.clone());
    let slow = ScriptedPeer::start(move |request| {
        if request.head.contains("/slow") {
            begun.store(true, SeqCst);
            while !may_end.load(SeqCst) {
                thread::yield_now();
            }
        }
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec())
    });
    let other = ScriptedPeer::saying("other");
    let mut plane = DataPlane::start(|plan| balance(plan, &[slow.address]));
    let mut waiting = plane.client();
    waiting.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    while !started.load(SeqCst) {
        thread::yield_now();
    }
    plane.order(&Order::Peers { upstream: UpstreamName("u".into()), set: set(&[other.address], false) });
    // Orders are carried out one after the other: once this one is answered, the peers have been replaced.
    plane.status();
    let mut client = plane.client();
    assert_eq!(client.get("/").text(), "other");
    finish.store(true, SeqCst);
    assert_eq!(waiting.response(true).text(), "slow");
    match plane.report() {
        Report::Drained { upstream, peer } => {
            assert_eq!((upstream.0.as_str(), peer.address), ("u", Address::Tcp(slow.address)));
        }
        other => panic!("{other:?}"),
    }
}

/// More than the budget of retries allows; the word of the death comes after the connections have broken.
#[test]
fn all_that_was_in_flight_at_an_instance_that_died_goes_elsewhere() {
    assert!((0..5).any(|_| all_go_elsewhere().is_some()), "the word of the death always came too late");
}

/// `None` when this machine was too slow: requests wait for a second.
fn all_go_elsewhere() -> Option<()> {
    const CLIENTS: usize = 400;
    let dying = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = ScriptedPeer::saying("other");
    let (dying_s, mut held) = (dying.local_addr().unwrap(), Vec::new());
    let mut plane = DataPlane::start(|plan| {
        balance(plan, &[]);
        plan.upstreams[0].peers = set(&[dying_s, other.address], false);
    });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| plane.client()).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    while held.len() < CLIENTS / 2 {
        let mut stream = dying.accept().unwrap().0;
        stream.read_exact(&mut [0; 16]).unwrap();
        held.push(stream);
    }
    let broke = Instant::now();
    let too_late = || broke.elapsed() >= Duration::from_secs(1);
    drop((dying, held));
    while plane.status().queued == 0 {
        (!too_late()).then_some(())?;
    }
    plane.order(&Order::Peers { upstream: UpstreamName("u".into()), set: set(&[other.address], false) });
    // Once this is answered the order has been carried out.
    plane.status();
    (!too_late()).then_some(())?;
    for client in &mut clients {
        let response = client.response(true);
        assert_eq!((response.status, response.text()), (200, "other"));
    }
    Some(())
}

#[test]
fn requests_wait_for_an_instance_that_is_being_started() {
    let peer = ScriptedPeer::saying("here");
    let mut plane = DataPlane::start(|plan| {
        balance(plan, &[]);
        plan.upstreams[0].peers = set(&[], true);
    });
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let deadline = Instant::now() + DEADLINE;
    while plane.status().queued == 0 {
        assert!(Instant::now() < deadline, "the request doesn't wait");
    }
    plane.order(&Order::Peers { upstream: UpstreamName("u".into()), set: set(&[peer.address], false) });
    assert_eq!(client.response(true).text(), "here");
    assert_eq!(plane.status().queued, 0);
    plane.order(&Order::Peers { upstream: UpstreamName("u".into()), set: set(&[], false) });
    let deadline = Instant::now() + DEADLINE;
    loop {
        let response = client.get("/");
        if response.status == 503 {
            assert_eq!(response.field("retry-after"), Some("5"));
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

/// Word of deaths is awaited for a second only, which a busy machine may spend elsewhere: one round of ten must do.
#[test]
fn requests_wait_for_word_of_peers_that_all_failed() {
    assert!((0..10).any(|_| both_wait_for_word().is_some()));
}

/// The first request fails at both peers, the second meets them excluded; both must wait until another is there.
fn both_wait_for_word() -> Option<()> {
    let gone =
        [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|held| held.local_addr().unwrap());
    let peer = ScriptedPeer::saying("here");
    let mut plane = DataPlane::start(|plan| {
        balance(plan, &[]);
        plan.upstreams[0].peers = set(&gone, false);
    });
    let mut clients = [plane.client(), plane.client()];
    for (client, waiting) in clients.iter_mut().zip(1..) {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let deadline = Instant::now() + Duration::from_secs(1);
        while plane.status().queued < waiting {
            (Instant::now() < deadline).then_some(())?;
        }
        assert!(plane.status().peers.iter().all(|peer| peer.excluded));
    }
    plane.order(&Order::Peers { upstream: UpstreamName("u".into()), set: set(&[peer.address], false) });
    let answers = clients.map(|mut client| client.response(true));
    answers.iter().all(|answer| answer.status == 200 && answer.text() == "here").then_some(())
}

#[test]
fn a_kept_connection_that_was_closed_is_no_failure_of_its_peer() {
    let peer = ScriptedPeer::start(|request| {
        let closes = request.connection == 0 && request.head.contains("/again");
        (!closes).then(|| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let mut plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/again").status, 200);
    assert_eq!(peer.connections.load(SeqCst), 2);
    assert_eq!(plane.status().peers[0].failures, 0);
}

#[test]
fn a_peer_that_cannot_be_connected_to_again_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(stream.read(&mut request).unwrap() > 0);
        drop(listener);
    });
    let mut plane = DataPlane::start(|plan| balance(plan, &[address]));
    let mut client = plane.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/again").status, 502);
    peer.join().unwrap();
    assert_eq!(plane.status().peers[0].failures, 1);
}

#[test]
fn a_hundred_reloads_lose_nothing() {
    let peers = [ScriptedPeer::saying("x"), ScriptedPeer::saying("x")];
    let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let mut plane = DataPlane::start(|plan| balance(plan, &addresses));
    let stop = Arc::new(AtomicBool::new(false));
    let posts: Arc<Mutex<usize>> = Arc::default();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (stop, posts, address) = (stop.clone(), posts.clone(), plane.address);
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(SeqCst) {
                    assert_eq!(client.get("/").status, 200);
                    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
                    assert_eq!(client.response(true).status, 200);
                    *posts.lock().unwrap() += 1;
                }
            })
        })
        .collect();
    for _ in 0..100 {
        plane.load(|plan| balance(plan, &addresses));
    }
    stop.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let received =
        |peer: &ScriptedPeer| peer.requests().iter().filter(|seen| seen.head.starts_with("POST")).count();
    assert_eq!(peers.iter().map(received).sum::<usize>(), *posts.lock().unwrap());
}

#[test]
fn quitting_finishes_what_is_in_flight_and_closes_what_idles() {
    let (started, finish) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begun, may_end) = (started.clone(), finish.clone());
    let peer = ScriptedPeer::start(move |request| {
        if request.head.contains("/slow") {
            begun.store(true, SeqCst);
            while !may_end.load(SeqCst) {
                thread::yield_now();
            }
        }
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let mut plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let (mut idle, mut busy) = (plane.client(), plane.client());
    assert_eq!(idle.get("/").status, 200);
    busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    while !started.load(SeqCst) {
        thread::yield_now();
    }
    plane.order(&Order::Quit);
    idle.expect_end();
    finish.store(true, SeqCst);
    let response = busy.response(true);
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert_eq!(response.field("connection"), Some("close"));
    busy.expect_end();
    plane.expect_end();
}

#[test]
fn first_attempts_are_exactly_even_over_four_workers() {
    let peers: Vec<_> = (0..3).map(|_| ScriptedPeer::saying("x")).collect();
    let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let plane = DataPlane::start(|plan| {
        balance(plan, &addresses);
        plan.process.workers = 4;
    });
    let threads: Vec<_> = (0..6)
        .map(|at| {
            let address = plane.address;
            thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..50 {
                    if at % 2 == 0 {
                        client = Client::connect(address);
                    }
                    assert_eq!(client.get("/").status, 200);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for peer in &peers {
        assert_eq!(peer.requests().len(), 100);
    }
}

/// Gives the address of a peer that neither accepts nor refuses: its queue is full, as if its host were gone. What is
/// returned with it keeps it so.
fn silent_peer() -> (std::net::SocketAddr, (socket2::Socket, Vec<TcpStream>)) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    (address, (listener, queued))
}

#[test]
fn a_request_that_is_connecting_goes_elsewhere_when_its_peer_leaves() {
    let (silent, _kept) = silent_peer();
    let peer = ScriptedPeer::saying("ok");
    let mut plane = DataPlane::start(|plan| balance(plan, &[silent]));
    let name = UpstreamName("u".into());
    let mut client = plane.client();
    // A POST: nothing of it has left, so that it may go elsewhere.
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi");
    let began = Instant::now();
    let in_flight = |status: DataPlaneStatus| status.peers.iter().map(|peer| peer.in_flight).sum::<u32>();
    while in_flight(plane.status()) == 0 {
        assert!(began.elapsed() < DEADLINE, "it is never sent to the peer");
    }
    plane.order(&Order::Peers { upstream: name, set: set(&[peer.address], false) });
    let response = client.response(true);
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert!(began.elapsed() < DEADLINE / 2, "not after a time-out");
}
