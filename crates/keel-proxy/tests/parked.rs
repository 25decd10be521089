//! Connections that idle for seconds give up their tasks, which no client notices.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use keel_model::*;
use support::{Client, DEADLINE, DataPlane, ScriptedPeer, balance};

/// Longer than it takes until a connection is parked.
const PARKED: Duration = Duration::from_millis(2300);

fn plane(peer: &ScriptedPeer, adjust: impl FnOnce(&mut Plan)) -> DataPlane {
    DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        adjust(plan);
    })
}

/// Clients that have got an answer and idle.
fn idle(plane: &DataPlane, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| {
        let mut client = plane.client();
        assert_eq!(client.get("/").text(), "yes");
        client
    });
    clients.collect()
}

/// Waits until the plane has this many clients.
#[track_caller]
fn wait_active(plane: &mut DataPlane, count: u64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let active = plane.status().active;
        if active == count {
            return;
        }
        assert!(Instant::now() < deadline, "{active} clients instead of {count}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Counts the descriptors that any epoll instance of this process watches as parked connections are: level-triggered, for
/// what comes and for its end.
fn watched_as_parked() -> usize {
    let folder = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = folder.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let parked = |line: &&str| line.starts_with("tfd:") && line.contains("events:     2019 ");
    texts.map(|text| text.lines().filter(parked).count()).sum()
}

#[test]
fn a_parked_client_is_served_and_parked_again() {
    let peer = ScriptedPeer::saying("yes");
    let mut plane = plane(&peer, |_| {});
    let mut clients = idle(&plane, 50);
    clients.extend((0..10).map(|_| plane.client()));
    for round in 0..3 {
        thread::sleep(PARKED);
        assert!(watched_as_parked() >= 60, "in round {round}");
        for client in &mut clients {
            client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!((client.response(true).text(), client.response(true).text()), ("yes", "yes"));
        }
    }
    assert_eq!(plane.status().active, 60);
    thread::sleep(PARKED);
    // One that ends its side behind a request gets the response, one that says nothing more is forgotten.
    clients[0].send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    clients[0].stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(clients[0].response(true).text(), "yes");
    clients.clear();
    wait_active(&mut plane, 0);
}

#[test]
fn time_outs_hold_for_parked_clients() {
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer, |plan| {
        plan.servers[0].client.header_timeout = Duration::from_secs(5);
        plan.servers[0].locations[0].scope.core.keepalive_timeout = Duration::from_secs(3);
    });
    let start = Instant::now();
    let (mut kept, mut silent) = (idle(&plane, 1), plane.client());
    kept[0].expect_end();
    let took = start.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&took), "{took:?}");
    silent.expect_end();
    let took = start.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

#[test]
fn parked_clients_make_room_but_those_that_are_to_be_kept() {
    let peer = ScriptedPeer::saying("yes");
    let mut plane = plane(&peer, |plan| {
        plan.process.worker_connections = 64;
        let mut kept = plan.servers[0].locations[0].clone();
        kept.matcher = LocationMatcher::Prefix("/kept".into());
        kept.scope.core.keepalive_min_timeout = Duration::from_secs(60);
        plan.servers[0].locations.push(kept);
    });
    let mut kept = [plane.client(), plane.client()];
    assert_eq!(kept[0].get("/kept").text(), "yes");
    let mut clients = idle(&plane, 40);
    thread::sleep(PARKED);
    assert_eq!(kept[1].get("/kept").text(), "yes");
    clients.extend(idle(&plane, 80));
    let is_open = |client: &mut Client| {
        client.stream.get_mut().set_nonblocking(true).unwrap();
        client.stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(!is_open(&mut clients[0]) && !is_open(&mut clients[40]) && is_open(&mut clients[119]));
    assert!(kept.iter_mut().all(is_open), "keepalive_min_timeout holds, with a task and without");
    assert!(plane.status().active <= 64);
}

#[test]
fn parked_clients_linger_when_the_worker_quits() {
    let peer = ScriptedPeer::saying("yes");
    let mut plane = plane(&peer, |plan| {
        let mut kept = plan.servers[0].locations[0].clone();
        kept.matcher = LocationMatcher::Prefix("/kept".into());
        kept.scope.core.keepalive_min_timeout = Duration::from_secs(6);
        plan.servers[0].locations.push(kept);
    });
    let (mut clients, mut kept) = (idle(&plane, 3), plane.client());
    let asked = Instant::now();
    assert_eq!(kept.get("/kept").text(), "yes");
    thread::sleep(PARKED);
    plane.order(&Order::Quit);
    let start = Instant::now();
    thread::sleep(Duration::from_millis(300));
    let late = clients[0].get("/");
    assert_eq!((late.text(), late.field("connection")), ("yes", Some("close")));
    clients[1].expect_end();
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(2)).contains(&took), "{took:?}");
    clients[2].expect_end();
    kept.expect_end();
    assert!(asked.elapsed() >= Duration::from_millis(5900), "keepalive_min_timeout holds");
    plane.expect_end();
}

#[test]
fn a_parked_client_of_a_listener_that_is_gone_gets_one_more_response() {
    let peer = ScriptedPeer::saying("yes");
    let mut plane = plane(&peer, |_| {});
    let mut clients = idle(&plane, 2);
    thread::sleep(PARKED);
    plane.load(|plan| {
        plan.listeners.clear();
        plan.servers.clear();
    });
    let response = clients[0].get("/");
    assert_eq!((response.text(), response.field("connection")), ("yes", Some("close")));
    clients[0].expect_end();
}

/// Requests that come just when their connection is parked or has been: none may be lost.
#[test]
fn requests_that_meet_the_parking_are_answered() {
    const CLIENTS: usize = 400;
    const ROUNDS: usize = 4;
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer, |_| {});
    let answered = Arc::new(AtomicUsize::new(0));
    let address = plane.address;
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let answered = answered.clone();
            thread::spawn(move || {
                let mut clients: Vec<(Instant, TcpStream)> = (0..CLIENTS / 8)
                    .map(|_| (Instant::now(), TcpStream::connect(address).unwrap()))
                    .collect();
                for round in 0..ROUNDS {
                    // The pauses of all cover the second in which connections are parked, evenly.
                    for (at, (last, stream)) in clients.iter_mut().enumerate() {
                        let nth = (at * 8 + thread + round * 131) % CLIENTS;
                        let pause = Duration::from_millis(950) + Duration::from_micros(nth as u64 * 2750);
                        if round > 0 {
                            thread::sleep((*last + pause).saturating_duration_since(Instant::now()));
                        }
                        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                        stream.set_read_timeout(Some(DEADLINE)).unwrap();
                        let mut response = [0; 4096];
                        let mut length = 0;
                        while !response[..length].ends_with(b"\r\n\r\nyes") {
                            let read = stream.read(&mut response[length..]).unwrap();
                            assert!(read > 0, "closed in round {round}");
                            length += read;
                        }
                        *last = Instant::now();
                        answered.fetch_add(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((answered.load(SeqCst), peer.requests().len()), (CLIENTS * ROUNDS, CLIENTS * ROUNDS));
}

/// Gives the data plane's side of a client's connection: it lives in this process.
fn server_side(client: &Client) -> std::os::fd::OwnedFd {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = client.stream.get_ref().local_addr().unwrap();
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|number| pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()).ok())
        .find(|socket| {
            let peer = rustix::net::getpeername(socket).ok();
            peer.flatten().and_then(|peer| std::net::SocketAddr::try_from(peer).ok()) == Some(own)
        })
        .unwrap()
}

#[test]
fn tcp_nodelay_is_set_where_it_is_on_and_only_there() {
    let peer = ScriptedPeer::saying("yes");
    let plane = plane(&peer, |plan| {
        let mut off = plan.servers[0].locations[0].clone();
        off.matcher = LocationMatcher::Prefix("/off".into());
        off.scope.core.tcp_nodelay = false;
        plan.servers[0].locations.push(off);
    });
    let sets = |path: &str| {
        let mut client = plane.client();
        for _ in 0..3 {
            assert_eq!(client.get(path).text(), "yes");
        }
        rustix::net::sockopt::tcp_nodelay(server_side(&client)).unwrap()
    };
    assert!(sets("/on") && !sets("/off"));
}
