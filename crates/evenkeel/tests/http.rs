//! HTTP/1 through the real binary, as clients and peers on the wire see it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keel_testkit::{Binary, Client, Peer, PeerBehaviour, Running, free_port, get, wait_until};
use rustix::process::Signal;

type Outcome = anyhow::Result<()>;

struct Setup {
    balancer: Running,
    address: SocketAddr,
}

/// Serves with these directives in `http`; `PORT` in them stands for a port of its own.
fn serve(http: &str) -> anyhow::Result<Setup> {
    let port = free_port()?;
    let http = http.replace("PORT", &format!("127.0.0.1:{port}"));
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel"))
        .serve(&format!("events {{}}\nhttp {{\naccess_log off;\n{http}\n}}\n"))?;
    Ok(Setup { balancer, address: ([127, 0, 0, 1], port).into() })
}

/// Serves one peer, with these directives in its location.
fn serve_peer(peer: &Peer, location: &str) -> anyhow::Result<Setup> {
    let address = peer.address();
    serve(&format!("server {{ listen PORT; location / {{ proxy_pass http://{address}; {location} }} }}"))
}

/// A peer that answers with the head and the body that it got.
fn echo() -> anyhow::Result<Peer> {
    Ok(Peer::scripted(|connection, requests| {
        loop {
            let (head, body) = request(connection)?;
            requests.fetch_add(1, Ordering::Relaxed);
            let text = format!("{head}\r\n\r\n{}", String::from_utf8_lossy(&body));
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))?;
        }
    })?)
}

/// Reads a request with its body.
fn request(connection: &mut Client) -> anyhow::Result<(String, Vec<u8>)> {
    let head = connection.head()?;
    let body = match length(&head) {
        _ if head.contains("Transfer-Encoding: chunked") => connection.chunks()?,
        Some(length) => connection.take(length)?,
        None => Vec::new(),
    };
    Ok((head, body))
}

fn length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Outcome {
    let peer = echo()?;
    let setup = serve_peer(&peer, "")?;
    let mut client = Client::connect(setup.address)?;
    let all: String = (0..30)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"),
            _ => format!(
                "POST /{n} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.send(all)?;
    for n in 0..30 {
        let response = client.response()?;
        assert_eq!(response.status, 200);
        let text = response.text();
        assert!(text.contains(&format!(" /{n} HTTP/1.1\r\n")), "{n}: {text}");
        assert_eq!(text.ends_with("\r\n\r\nabc"), n % 3 != 0, "{n}: {text}");
    }
    Ok(())
}

#[test]
fn a_client_that_expects_100_is_told_to_go_on_once() -> Outcome {
    let peer = echo()?;
    for buffering in ["", "proxy_request_buffering off;"] {
        let setup = serve_peer(&peer, buffering)?;
        let mut client = Client::connect(setup.address)?;
        for _ in 0..2 {
            client
                .send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")?;
            assert_eq!(client.response()?.status, 100);
            client.send("hello")?;
            let response = client.response()?;
            assert_eq!(response.status, 200);
            assert!(response.text().ends_with("hello"), "{}", response.text());
            assert!(!response.text().contains("Expect"), "it concerns this hop: {}", response.text());
        }
    }
    Ok(())
}

#[test]
fn chunks_pass_both_ways_and_trailers_end_here() -> Outcome {
    let peer = Peer::scripted(|connection, _| {
        loop {
            let (head, body) = request(connection)?;
            assert!(!head.contains("X-Request-Trailer"));
            let mut answer =
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n".to_vec();
            for piece in body.chunks(1000) {
                answer.extend(format!("{:X};extension=\"a\"\r\n", piece.len()).bytes());
                answer.extend(piece);
                answer.extend(b"\r\n");
            }
            answer.extend(b"000\r\nX-T: 1\r\n\r\n");
            connection.send(answer)?;
        }
    })?;
    let body: String = (0..40_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    for buffering in ["", "proxy_request_buffering off; proxy_buffering off;"] {
        let setup = serve_peer(&peer, buffering)?;
        let mut client = Client::connect(setup.address)?;
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for piece in body.as_bytes().chunks(7777) {
                client.send(format!("{:x}\r\n", piece.len()))?;
                client.send(piece)?;
                client.send("\r\n")?;
            }
            client.send("0\r\nX-Request-Trailer: 1\r\n\r\n")?;
            let response = client.response_without_body()?;
            assert_eq!(response.field("Transfer-Encoding"), Some("chunked"));
            assert_eq!(client.chunks()?, body.as_bytes());
            let answer = client.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
            assert_eq!((answer.status, answer.body.len()), (200, 0));
        }
        let mut client = Client::connect(setup.address)?;
        client.send(
            "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Request-Trailer: 1\r\n\r\n",
        )?;
        let rest = String::from_utf8(client.rest()?)?;
        assert!(rest.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "{rest:?}");
    }
    Ok(())
}

#[test]
fn head_204_and_304_have_no_body_and_keep_the_connection() -> Outcome {
    let peer = Peer::scripted(|connection, _| {
        loop {
            let (head, _) = request(connection)?;
            connection.send(match head.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            })?;
            if !head.starts_with("HEAD ") && head.contains(" /200 ") {
                connection.send("content")?;
            }
        }
    })?;
    let setup = serve_peer(&peer, "")?;
    let mut client = Client::connect(setup.address)?;
    for _ in 0..3 {
        for (request, status, length) in [
            ("HEAD /200", 200, Some("7")),
            ("GET /204", 204, None),
            ("GET /304", 304, Some("7")),
            ("HEAD /304", 304, Some("7")),
        ] {
            client.send(format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
            let response = client.response_without_body()?;
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.field("Content-Length"), length, "{request}");
            assert_eq!(response.field("Transfer-Encoding"), None, "{request}");
        }
        assert_eq!(client.request("GET /200 HTTP/1.1\r\nHost: test\r\n\r\n")?.text(), "content");
    }
    assert_eq!(peer.connections(), 1);
    Ok(())
}

#[test]
fn a_response_may_come_before_the_body_is_read() -> Outcome {
    let peer = Peer::scripted(|connection, _| {
        connection.head()?;
        connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
        connection.end_sending()?;
        drop(connection.rest());
        Ok(())
    })?;
    let setup = serve_peer(&peer, "proxy_request_buffering off; client_max_body_size 0;")?;
    let mut client = Client::connect(setup.address)?;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\nfirst")?;
    let response = client.response()?;
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
    // Whatever the head promises, what is left of the body can't be told from a next request: it ends here.
    assert!(client.rest()?.is_empty());
    Ok(())
}

#[test]
fn a_client_that_goes_away_frees_its_peer() -> Outcome {
    let freed = Arc::new(AtomicBool::new(false));
    let told = freed.clone();
    let peer = Peer::scripted(move |connection, requests| {
        connection.head()?;
        requests.fetch_add(1, Ordering::Relaxed);
        // Nothing is answered; the connection ends or breaks when the balancer gives up.
        drop(connection.rest());
        told.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    let setup = serve_peer(&peer, "")?;
    let mut client = Client::connect(setup.address)?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    wait_until("the request is at its peer", || peer.requests() == 1)?;
    assert!(!freed.load(Ordering::Relaxed));
    drop(client);
    wait_until("the peer is freed", || freed.load(Ordering::Relaxed))
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() -> Outcome {
    let peer = Peer::start("app", PeerBehaviour::AnswerAfter(Duration::from_millis(100)))?;
    let setup = serve_peer(&peer, "")?;
    let mut client = Client::connect(setup.address)?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    client.end_sending()?;
    let response = client.response()?;
    assert_eq!((response.status, response.text().as_str()), (200, "app"));
    assert!(client.rest()?.is_empty());
    Ok(())
}

/// A peer that answers an upgrade and then sends back whatever comes, and says when its tunnel has ended.
fn upgrading_peer(ended: Arc<AtomicU64>) -> anyhow::Result<Peer> {
    Ok(Peer::scripted(move |connection, requests| {
        let head = connection.head()?;
        requests.fetch_add(1, Ordering::Relaxed);
        let asked =
            head.contains("Upgrade: websocket") && head.to_lowercase().contains("connection: upgrade");
        if !asked {
            return connection.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
        }
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: yes\r\n\r\n",
        )?;
        while let Ok(bytes) = connection.take(4) {
            connection.send(bytes)?;
        }
        ended.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })?)
}

const UPGRADE: &str = "\
map $http_upgrade $connection_upgrade { default upgrade; '' close; }
";

fn serve_upgrades(peer: &Peer) -> anyhow::Result<Setup> {
    let address = peer.address();
    serve(&format!(
        "{UPGRADE} server {{ listen PORT; location / {{ proxy_pass http://{address}; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }} }}"
    ))
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_tunnel_begins_after_101_and_carries_bytes_both_ways() -> Outcome {
    let ended = Arc::new(AtomicU64::new(0));
    let peer = upgrading_peer(ended.clone())?;
    let setup = serve_upgrades(&peer)?;
    let mut client = Client::connect(setup.address)?;
    // What follows the request at once belongs to the tunnel.
    client.send(format!("{ASK}ping"))?;
    let response = client.response()?;
    assert_eq!(response.status, 101);
    assert_eq!(response.field("Upgrade"), Some("websocket"));
    assert_eq!(response.field("Connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(response.field("Sec-WebSocket-Accept"), Some("yes"));
    assert_eq!(client.take(4)?, b"ping");
    for n in 0..100 {
        let word = format!("{n:04}");
        client.send(&word)?;
        assert_eq!(client.take(4)?, word.as_bytes());
    }
    drop(client);
    wait_until("the peer's side ends", || ended.load(Ordering::Relaxed) == 1)?;
    // Without the request's fields there is no tunnel, whatever follows.
    let refused = get(setup.address, "/")?;
    assert_eq!(refused.status, 426);
    Ok(())
}

#[test]
fn a_drain_leaves_tunnels_open_and_a_reload_moves_none() -> Outcome {
    let ended = Arc::new(AtomicU64::new(0));
    let peer = upgrading_peer(ended.clone())?;
    let mut setup = serve_upgrades(&peer)?;
    let mut client = Client::connect(setup.address)?;
    client.send(ASK)?;
    assert_eq!(client.response()?.status, 101);
    let other = Peer::start("other", PeerBehaviour::Answer)?;
    let port = setup.address.port();
    setup.balancer.write_configuration(&format!(
        "events {{}}\nworker_shutdown_timeout 300ms;\nhttp {{ access_log off; server {{ \
         listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; }} }} }}\n",
        other.address()
    ))?;
    setup.balancer.signal(Signal::HUP)?;
    wait_until("the reload holds", || get(setup.address, "/").is_ok_and(|answer| answer.text() == "other"))?;
    client.send("ping")?;
    assert_eq!(client.take(4)?, b"ping", "the tunnel outlives the reload");
    setup.balancer.signal(Signal::QUIT)?;
    wait_until("nobody listens any more", || Client::connect(setup.address).is_err())?;
    client.send("pong")?;
    assert_eq!(client.take(4)?, b"pong", "the tunnel outlives the beginning of the drain");
    assert!(setup.balancer.wait()?.success());
    wait_until("the peer's side ends", || ended.load(Ordering::Relaxed) == 1)
}

#[test]
fn a_client_of_http_1_0_gets_what_it_can_read() -> Outcome {
    let peer = Peer::scripted(|connection, _| {
        loop {
            request(connection)?;
            connection
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")?;
        }
    })?;
    let setup = serve_peer(&peer, "")?;
    let mut client = Client::connect(setup.address)?;
    let response = client.request("GET / HTTP/1.0\r\n\r\n")?;
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.field("Transfer-Encoding"), None);
    assert!(client.rest()?.is_empty(), "it is closed");

    let plain = Peer::start("app", PeerBehaviour::Answer)?;
    let setup = serve_peer(&plain, "")?;
    let mut client = Client::connect(setup.address)?;
    for _ in 0..2 {
        let response = client.request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
        assert_eq!((response.status, response.text().as_str()), (200, "app"));
        assert_eq!(response.field("Connection"), Some("keep-alive"));
    }
    assert!(client.request("GET / HTTP/1.0\r\n\r\n").is_ok() && client.rest()?.is_empty());
    Ok(())
}

/// What passes: enough that memory would show it.
const LARGE_BYTES: u64 = 200 << 20;

/// What the data plane may have held at most while they pass.
const HELD_KIB_MAX: u64 = 64 << 10;

#[test]
fn a_large_body_passes_in_little_memory_both_ways() -> Outcome {
    let peer = Peer::scripted(|connection, _| {
        loop {
            let head = connection.head()?;
            match length(&head) {
                Some(length) => {
                    connection.skip(length as u64)?;
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
                }
                None => {
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"))?;
                    send_large(connection)?;
                }
            }
        }
    })?;
    let setup = serve_peer(&peer, "proxy_request_buffering off; client_max_body_size 0;")?;
    let mut client = Client::connect(setup.address)?;
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"))?;
    send_large(&mut client)?;
    assert_eq!(client.response()?.status, 200);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    assert_eq!(client.response_without_body()?.status, 200);
    client.skip(LARGE_BYTES)?;
    let held = setup.balancer.children_peak_kib()?;
    assert!(held < HELD_KIB_MAX, "{held} KiB");
    Ok(())
}

fn send_large(connection: &mut Client) -> Outcome {
    let piece = vec![b'x'; 1 << 20];
    (0..LARGE_BYTES >> 20).try_for_each(|_| connection.send(&piece))
}

#[test]
fn a_client_that_does_not_read_holds_its_peer_back() -> Outcome {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let peer = Peer::scripted(move |connection, _| {
        connection.head()?;
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"))?;
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..LARGE_BYTES >> 16 {
            connection.send(&piece)?;
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let setup = serve_peer(&peer, "proxy_max_temp_file_size 0;")?;
    let mut client = Client::connect(setup.address)?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    assert_eq!(client.response_without_body()?.status, 200);
    // It stands still once every buffer on the way is full: no more comes for a while.
    let mut last = (0, Instant::now());
    wait_until("the peer is held back", || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_millis(300)
    })?;
    assert!(sent.load(Ordering::Relaxed) < LARGE_BYTES / 2, "{} bytes", last.0);
    client.skip(LARGE_BYTES)?;
    let held = setup.balancer.children_peak_kib()?;
    assert!(held < HELD_KIB_MAX, "{held} KiB");
    Ok(())
}

fn upstream(servers: &str, location: &str) -> anyhow::Result<Setup> {
    serve(&format!(
        "upstream app {{ {servers} }}\n\
         server {{ listen PORT; location / {{ proxy_pass http://app; {location} }} }}"
    ))
}

#[test]
fn a_peer_that_fails_is_left_out_until_fail_timeout() -> Outcome {
    let live = Peer::start("live", PeerBehaviour::Answer)?;
    let bad = Peer::start("bad", PeerBehaviour::Close)?;
    let setup = upstream(
        &format!("server {} max_fails=2 fail_timeout=1s; server {};", bad.address(), live.address()),
        "",
    )?;
    let ask = |count: usize| -> Outcome {
        for _ in 0..count {
            assert_eq!(get(setup.address, "/")?.text(), "live");
        }
        Ok(())
    };
    ask(20)?;
    assert_eq!(bad.requests(), 2, "after max_fails it gets nothing more");
    let failed = Instant::now();
    wait_until("it is tried again", || ask(1).is_ok() && bad.requests() > 2)?;
    let waited = failed.elapsed();
    assert!(waited > Duration::from_millis(500) && waited < Duration::from_millis(2500), "{waited:?}");
    Ok(())
}

#[test]
fn a_backup_serves_only_while_no_other_does() -> Outcome {
    let backup = Peer::start("backup", PeerBehaviour::Answer)?;
    let live = Peer::start("live", PeerBehaviour::Answer)?;
    let nobody = free_port()?;
    let setup = upstream(&format!("server {}; server {} backup;", live.address(), backup.address()), "")?;
    for _ in 0..5 {
        assert_eq!(get(setup.address, "/")?.text(), "live");
    }
    assert_eq!(backup.requests(), 0);
    let setup = upstream(
        &format!("server 127.0.0.1:{nobody} fail_timeout=60s; server {} backup;", backup.address()),
        "",
    )?;
    for _ in 0..5 {
        assert_eq!(get(setup.address, "/")?.text(), "backup");
    }
    let setup = upstream(&format!("server 127.0.0.1:{nobody};"), "")?;
    assert_eq!(get(setup.address, "/")?.status, 502);
    Ok(())
}

#[test]
fn max_conns_bounds_what_a_peer_has_at_once() -> Outcome {
    let release = Arc::new(AtomicBool::new(false));
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (script_release, script_now, script_most) = (release.clone(), now.clone(), most.clone());
    let small = Peer::scripted(move |connection, requests| {
        loop {
            connection.head()?;
            requests.fetch_add(1, Ordering::Relaxed);
            let held = script_now.fetch_add(1, Ordering::SeqCst) + 1;
            script_most.fetch_max(held, Ordering::SeqCst);
            wait_until("it is released", || script_release.load(Ordering::SeqCst))?;
            script_now.fetch_sub(1, Ordering::SeqCst);
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall")?;
        }
    })?;
    let other = Peer::start("other", PeerBehaviour::Answer)?;
    let setup =
        upstream(&format!("server {} max_conns=2; server {};", small.address(), other.address()), "")?;
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let address = setup.address;
            thread::spawn(move || get(address, "/").map(|response| response.text()))
        })
        .collect();
    wait_until("six are answered", || other.requests() >= 6)?;
    wait_until("two are held", || now.load(Ordering::SeqCst) == 2)?;
    release.store(true, Ordering::SeqCst);
    let mut answers = Vec::new();
    for thread in waiting {
        answers.push(thread.join().expect("asks")?);
    }
    answers.sort();
    assert_eq!(answers, [vec!["other"; 6], vec!["small"; 2]].concat());
    assert_eq!(most.load(Ordering::SeqCst), 2);
    // Released, it takes its turns again.
    for _ in 0..4 {
        get(setup.address, "/")?;
    }
    assert_eq!(small.requests(), 4);
    Ok(())
}

#[test]
fn error_pages_replace_what_failed() -> Outcome {
    let nobody = free_port()?;
    let setup = serve(&format!(
        "server {{\n\
             listen PORT;\n\
             root PREFIX/html;\n\
             error_page 502 503 /sorry.html;\n\
             error_page 404 =200 @missing;\n\
             location / {{ proxy_pass http://127.0.0.1:{nobody}; }}\n\
             location = /sorry.html {{ internal; }}\n\
             location /files/ {{ }}\n\
             location /moved {{ error_page 403 =302 http://other.test/; deny all; }}\n\
             location @missing {{ return 200 \"nothing at $uri\"; }}\n\
         }}"
    ))?;
    let html = setup.balancer.folder().join("html");
    std::fs::create_dir_all(&html)?;
    std::fs::write(html.join("sorry.html"), "sorry")?;
    let check = |path: &str, status: u16, body: &str| -> Outcome {
        let response = get(setup.address, path)?;
        assert_eq!(response.status, status, "{path}");
        assert!(response.text().starts_with(body), "{path}: {}", response.text());
        Ok(())
    };
    check("/", 502, "sorry")?;
    check("/files/none", 200, "nothing at /files/none")?;
    check("/sorry.html", 200, "nothing at /sorry.html")?;
    let moved = get(setup.address, "/moved")?;
    assert_eq!((moved.status, moved.field("Location")), (302, Some("http://other.test/")));
    Ok(())
}

#[test]
fn files_are_served_whole_in_part_and_not_at_all() -> Outcome {
    let setup = serve(
        "server {\n\
             listen PORT;\n\
             types { text/html html; image/png png; }\n\
             default_type application/octet-stream;\n\
             root PREFIX/html;\n\
             location /alias/ { alias PREFIX/html/deep/; }\n\
             location /try/ { try_files $uri /index.html =404; }\n\
         }",
    )?;
    let html = setup.balancer.folder().join("html");
    std::fs::create_dir_all(html.join("deep"))?;
    std::fs::write(html.join("index.html"), "index")?;
    std::fs::write(html.join("digits"), "0123456789")?;
    std::fs::write(html.join("deep/a.png"), "png")?;
    let mut client = Client::connect(setup.address)?;
    let mut ask = |path: &str, fields: &str| {
        client.request(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"))
    };
    let index = ask("/", "")?;
    assert_eq!((index.text().as_str(), index.field("Content-Type")), ("index", Some("text/html")));
    assert_eq!(index.field("Accept-Ranges"), Some("bytes"));
    let tag = index.field("ETag").unwrap_or_default().to_owned();
    let modified = index.field("Last-Modified").unwrap_or_default().to_owned();
    assert_eq!(ask("/", &format!("If-None-Match: {tag}\r\n"))?.status, 304);
    assert_eq!(ask("/", &format!("If-Modified-Since: {modified}\r\n"))?.status, 304);
    assert_eq!(ask("/", "If-None-Match: \"other\"\r\n")?.status, 200);
    assert_eq!(ask("/alias/a.png", "")?.field("Content-Type"), Some("image/png"));
    assert_eq!(ask("/try/none", "")?.text(), "index");
    assert_eq!(ask("/deep", "")?.status, 301);
    assert_eq!(ask("/deep/", "")?.status, 403);
    assert_eq!(ask("/none", "")?.status, 404);
    for (range, status, body, content_range) in [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=5-100", 206, "56789", Some("bytes 5-9/10")),
        ("bytes=0-0", 206, "0", Some("bytes 0-0/10")),
        ("lines=1-2", 200, "0123456789", None),
    ] {
        let part = ask("/digits", &format!("Range: {range}\r\n"))?;
        assert_eq!((part.status, part.text().as_str()), (status, body), "{range}");
        assert_eq!(part.field("Content-Range"), content_range, "{range}");
    }
    let beyond = ask("/digits", "Range: bytes=10-\r\n")?;
    assert_eq!((beyond.status, beyond.field("Content-Range")), (416, Some("bytes */10")));
    let two = ask("/digits", "Range: bytes=0-1,4-5\r\n")?;
    assert_eq!(two.status, 206);
    assert!(
        two.field("Content-Type").is_some_and(|kind| kind.starts_with("multipart/byteranges; boundary="))
    );
    assert!(two.text().contains("Content-Range: bytes 4-5/10\r\n\r\n45\r\n"), "{}", two.text());
    assert_eq!(ask("/digits", "Range: bytes=0-3\r\nIf-Range: \"other\"\r\n")?.status, 200);
    Ok(())
}

/// The data plane's processes, to be sent signals.
fn data_plane(balancer: &Running) -> anyhow::Result<Vec<rustix::process::Pid>> {
    let pids = balancer.children()?.into_iter();
    Ok(pids.filter_map(|pid| i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)).collect())
}

/// Stops a process, and waits until each of its threads stands still: the signal reaches one, which stops the others.
fn freeze(pid: rustix::process::Pid) -> anyhow::Result<()> {
    rustix::process::kill_process(pid, Signal::STOP)?;
    let threads = format!("/proc/{}/task", pid.as_raw_nonzero());
    let stands =
        |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
    let all_stand = || -> std::io::Result<bool> {
        let threads = std::fs::read_dir(&threads)?.collect::<std::io::Result<Vec<_>>>()?;
        let stats = threads.iter().map(|thread| std::fs::read_to_string(thread.path().join("stat")));
        Ok(stats.collect::<std::io::Result<Vec<_>>>()?.into_iter().all(stands))
    };
    wait_until("every thread stands still", || all_stand().unwrap_or(false))
}

/// Has more clients come than there is room for, while those that have idled for a time have requests.
fn crowd(idled: Duration) -> Outcome {
    const CONNECTIONS: usize = 60;
    let port = free_port()?;
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&format!(
        "events {{ worker_connections 64; }} http {{ access_log off;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }} }}"
    ))?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(address)?;
        assert_eq!(client.request("GET / HTTP/1.1\r\nHost: h\r\n\r\n")?.status, 200);
        idle.push(client);
    }
    thread::sleep(idled);
    // The data plane stands still while clients come and requests are sent.
    for pid in data_plane(&balancer)? {
        freeze(pid)?;
    }
    let _new = (0..CONNECTIONS).map(|_| Client::connect(address)).collect::<Result<Vec<_>, _>>()?;
    for client in &mut idle {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")?;
    }
    for pid in data_plane(&balancer)? {
        rustix::process::kill_process(pid, Signal::CONT)?;
    }
    for client in &mut idle {
        assert_eq!(client.response()?.status, 200);
    }
    Ok(())
}

#[test]
fn requests_that_come_as_their_connections_are_to_make_room_are_answered() -> Outcome {
    crowd(Duration::ZERO)
}

#[test]
fn requests_that_come_as_their_parked_connections_are_to_make_room_are_answered() -> Outcome {
    // So long that they have no task any more.
    crowd(Duration::from_millis(2300))
}

#[test]
fn clients_leave_descriptors_for_peers() -> Outcome {
    const FILES: usize = 160;
    let (peer, port) = (Peer::start("app1", PeerBehaviour::Answer)?, free_port()?);
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&format!(
        "worker_rlimit_nofile {FILES}; error_log PREFIX/error.log warn; events {{ worker_connections 4096; }} http {{ access_log off;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; }} }} }}",
        peer.address()
    ))?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut idle = Vec::new();
    for _ in 0..FILES {
        let mut client = Client::connect(address)?;
        assert_eq!(client.request("GET / HTTP/1.1\r\nHost: h\r\n\r\n")?.status, 200);
        idle.push(client);
        for pid in balancer.children()? {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            assert!(open < FILES * 3 / 4, "{open} descriptors are in use");
        }
    }
    let log = balancer.error_log();
    assert!(log.contains("descriptors are not enough, reusing connections"), "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
    Ok(())
}
