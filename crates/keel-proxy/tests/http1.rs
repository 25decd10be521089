//! HTTP/1 through the data plane: framing, keep-alive, routing, limits.

mod support;

use keel_model::*;
use support::{Client, DataPlane, ScriptedPeer, balance, proxy_location, unlogged};

#[test]
fn balances_in_turn_over_kept_connections() {
    let peers = [ScriptedPeer::saying("one"), ScriptedPeer::saying("two"), ScriptedPeer::saying("three")];
    let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let plane = DataPlane::start(|plan| balance(plan, &addresses));
    let mut client = plane.client();
    let answers: Vec<String> = (0..6).map(|_| client.get("/").text().to_owned()).collect();
    assert_eq!(answers, ["one", "two", "three", "one", "two", "three"]);
    for peer in &peers {
        let seen = peer.requests();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|request| request.connection == 0), "a new connection for each request");
        assert_eq!(seen[0].head, "GET / HTTP/1.1\r\nHost: u\r\n");
    }
}

#[test]
fn a_response_of_unknown_length_ends_with_the_connection_where_chunks_are_off() {
    let peer = ScriptedPeer::start(|_| {
        Some(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].scope.core.chunked_transfer_encoding = false;
    });
    let mut client = plane.client();
    let got = client.get("/");
    assert_eq!((got.status, got.text()), (200, "hello"));
    assert_eq!((got.field("transfer-encoding"), got.field("connection")), (None, Some("close")));
    client.expect_end();
}

#[test]
fn passes_bodies_in_both_framings_both_ways() {
    let echo = ScriptedPeer::start(|request| {
        let chunked = request.head.contains("/chunked");
        let body = &request.body;
        Some(if chunked {
            let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in body.chunks(7) {
                out.extend(format!("{:x}\r\n", piece.len()).bytes());
                out.extend(piece);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\nX-Trailer: y\r\n\r\n");
            out
        } else {
            let mut out = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            out.extend(body);
            out
        })
    });
    for streams in [false, true] {
        let plane = DataPlane::start(|plan| {
            balance(plan, &[echo.address]);
            plan.servers[0].locations[0].scope.proxy.upstream.request_buffering = !streams;
        });
        let mut client = plane.client();
        for size in [0, 1, 5000, 20_000, 300_000] {
            let body: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
            for path in ["/length", "/chunked"] {
                let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n");
                client.send([head.as_bytes(), &body].concat());
                let response = client.response(true);
                assert_eq!((response.status, response.body == body), (200, true), "{size} {path}");
                let mut text =
                    format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
                if size > 0 {
                    text.push_str(&format!("{size:x};ext\r\n{}\r\n", String::from_utf8_lossy(&body)));
                }
                text.push_str("0\r\n\r\n");
                client.send(text);
                let response = client.response(true);
                assert_eq!((response.status, response.body == body), (200, true), "{size} {path} chunked");
            }
        }
    }
}

#[test]
fn refuses_ambiguous_requests_and_closes() {
    let peer = ScriptedPeer::saying("no");
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\rb\r\n",
        "Host: other\r\n",
    ] {
        let mut client = plane.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\nhello"));
        let response = client.response(true);
        assert_eq!(response.status, 400, "{fields:?}");
        assert_eq!(response.field("connection"), Some("close"));
        client.expect_end();
    }
    let mut client = plane.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response(true).status, 400);
    client.expect_end();
    assert_eq!(peer.requests().len(), 0);
}

#[test]
fn answers_pipelined_requests_in_order() {
    let peer = ScriptedPeer::start(|request| {
        let path = request.head.split(' ').nth(1).unwrap().to_owned();
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).into_bytes())
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    let requests: String = (0..20).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.send(requests);
    for at in 0..20 {
        assert_eq!(client.response(true).text(), format!("/{at}"));
    }
}

#[test]
fn takes_every_connection_that_waits() {
    let peer = ScriptedPeer::saying("yes");
    for (workers, waiting) in [(1, 1), (1, 3), (1, 5), (1, 50), (2, 50)] {
        let mut plane = DataPlane::listening();
        let mut clients: Vec<_> = (0..waiting).map(|_| plane.client()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        plane.load(|plan| {
            balance(plan, &[peer.address]);
            plan.process.workers = workers;
        });
        for client in &mut clients {
            assert_eq!(client.response(true).text(), "yes", "{waiting} waiting for {workers}");
        }
        // And whoever comes later.
        assert_eq!(plane.client().get("/").text(), "yes");
    }
}

#[test]
fn a_client_that_reads_late_gets_everything_and_is_heard_meanwhile() {
    const SIZE: usize = 48 << 20;
    let peer = ScriptedPeer::start(|request| {
        let size = if request.head.contains("/large") { SIZE } else { 2 };
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        response.resize(response.len() + size, b'x');
        Some(response)
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    for _ in 0..2 {
        client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
        // The data plane has filled what the kernel holds, and waits.
        std::thread::sleep(std::time::Duration::from_millis(200));
        client.send("GET /small HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(client.response(true).body == vec![b'x'; SIZE], "the large body came otherwise");
        assert_eq!(client.response(true).text(), "xx");
    }
}

#[test]
fn speaks_http_1_0() {
    let peer = ScriptedPeer::start(|_| {
        Some(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec())
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response(true);
    assert_eq!((response.text(), response.field("transfer-encoding")), ("hi", None));
    assert_eq!(response.field("connection"), Some("close"));
}

#[test]
fn has_no_body_where_there_must_be_none() {
    let peer = ScriptedPeer::start(|request| {
        Some(if request.head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()
        } else if request.head.contains("/204") {
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n".to_vec()
        })
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.response(false).field("content-length"), Some("5"));
        assert_eq!(client.get("/204").field("content-length"), None);
        assert_eq!(client.get("/304").field("etag"), Some("\"x\""));
    }
    assert_eq!(peer.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn drops_fields_of_one_connection_and_keeps_the_rest_as_they_came() {
    let peer = ScriptedPeer::start(|_| {
        let head = "HTTP/1.1 200 Fine\r\nConnection: x-private\r\nX-Private: 1\r\nkeep-ME: a\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n";
        Some(head.as_bytes().to_vec())
    });
    let plane = DataPlane::start(|plan| balance(plan, &[peer.address]));
    let mut client = plane.client();
    client.send(
        "GET / HTTP/1.1\r\nhost: h\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nuser-AGENT: b\r\n\r\n",
    );
    let response = client.response(true);
    assert!(response.head.starts_with("HTTP/1.1 200 Fine\r\n"));
    assert_eq!((response.field("x-private"), response.field("keep-alive")), (None, None));
    assert!(response.head.contains("keep-ME: a\r\n"));
    assert_eq!(peer.requests()[0].head, "GET / HTTP/1.1\r\nHost: u\r\nuser-AGENT: b\r\n");
}

#[test]
fn expressions_that_look_around_are_matched_and_bounded() {
    let location = |source: &str, text| Location {
        matcher: LocationMatcher::Regex(Pattern {
            source: source.into(),
            ignore_case: false,
            engine: PatternEngine::Backtracking,
        }),
        scope: unlogged(),
        rewrite: Return { status: 200, text: Some(text) }.into(),
        locations: Vec::new(),
    };
    let peer = ScriptedPeer::saying("peer");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.variables.push(DefinedVariable { name: "name".into(), source: VariableSource::Written });
        plan.servers[0].locations.extend([
            location(r"/\.(?!well-known).*", Template::literal("hidden")),
            location(r"^/(?!x)(?P<name>[^/]+)/\1$", Template::variable(Variable::Defined(VariableId(0)))),
            location(r"^/run/(?:a|a)*(?!c)b$", Template::literal("run")),
        ]);
    });
    let mut client = plane.client();
    for (path, status, text) in [
        ("/.git/config", 200, "hidden"),
        ("/.%ff", 200, "hidden"),
        ("/.well-known/acme", 200, "peer"),
        ("/twice/twice", 200, "twice"),
        ("/x/x", 200, "peer"),
        ("/run/ab", 200, "run"),
    ] {
        let response = client.get(path);
        assert_eq!((response.status, response.text()), (status, text), "{path}");
    }
    let runs_away = format!("/run/{}c", "a".repeat(60));
    assert_eq!(client.get(&runs_away).status, 500, "as with PCRE's match limit");
    assert_eq!(plane.client().get("/run/ab").status, 200);
}

#[test]
fn a_redirect_whose_expression_runs_away_goes_to_the_next_rule() {
    let location = format!("http://u/run/{}c", "a".repeat(60));
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let peer = ScriptedPeer::start(move |_| Some(answer.clone().into_bytes()));
    let runs_away = || ProxyRedirect::Regex {
        from: Pattern {
            source: r"/run/(?:a|a)*(?!c)b$".into(),
            ignore_case: false,
            engine: PatternEngine::Backtracking,
        },
        to: Template::literal("http://matched/"),
    };
    let second =
        ProxyRedirect::Prefix { from: Template::literal("http://u/"), to: Template::literal("http://v/") };
    let redirected_to = |rules: Vec<ProxyRedirect>| {
        let plane = DataPlane::start(|plan| {
            balance(plan, &[peer.address]);
            plan.servers[0].locations[0].scope.proxy.redirects = rules;
        });
        plane.client().get("/").field("location").map(str::to_owned)
    };
    // As in nginx where PCRE's match limit is reached: the rule doesn't match.
    assert_eq!(redirected_to(vec![runs_away()]).as_deref(), Some(location.as_str()));
    let expect = location.replace("http://u/", "http://v/");
    assert_eq!(redirected_to(vec![runs_away(), second]).as_deref(), Some(expect.as_str()));
}

#[test]
fn finds_locations_as_nginx() {
    let peer = ScriptedPeer::saying("peer");
    let location = |matcher, status| Location {
        matcher,
        scope: unlogged(),
        rewrite: Return { status, text: None }.into(),
        locations: Vec::new(),
    };
    let regex = |source: &str| {
        LocationMatcher::Regex(Pattern {
            source: source.into(),
            ignore_case: false,
            engine: PatternEngine::Linear,
        })
    };
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations.extend([
            location(LocationMatcher::Exact("/exact".into()), 401),
            location(LocationMatcher::Prefix("/pre".into()), 402),
            location(LocationMatcher::Prefix("/prefix".into()), 403),
            location(LocationMatcher::PrefixFinal("/final".into()), 404),
            location(regex(r"\.php$"), 405),
            location(regex("^/x"), 406),
        ]);
        plan.servers[0].locations.push(proxy_location("/dir/", "u"));
    });
    let mut client = plane.client();
    for (path, status) in [
        ("/", 200),
        ("/exact", 401),
        ("/exact/more", 200),
        ("/prex", 402),
        ("/prefix/a", 403),
        ("/prefix/a.php", 405),
        ("/final/a.php", 404),
        ("/x.php", 405),
        ("/xy", 406),
        ("/dir", 301),
        ("/dir/", 200),
        ("//pr%65fix/./a", 403),
    ] {
        let response = client.get(path);
        assert_eq!(response.status, status, "{path}");
        if status == 301 {
            let port = plane.address.port();
            assert_eq!(response.field("location"), Some(format!("http://localhost:{port}/dir/").as_str()));
        }
    }
}

#[test]
fn tries_the_next_peer_only_when_that_is_safe() {
    let bad = ScriptedPeer::start(|_| None);
    let good = ScriptedPeer::saying("good");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[bad.address, good.address]);
        plan.upstreams[0].peers.peers.iter_mut().for_each(|peer| peer.max_fails = 0);
    });
    let mut client = plane.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "good");
    }
    let tried = bad.requests().len();
    assert!(tried > 0);
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
    let mut statuses: Vec<u16> = (0..4)
        .map(|_| {
            client.send(post);
            client.response(true).status
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
    let posts =
        |peer: &ScriptedPeer| peer.requests().iter().filter(|seen| seen.head.starts_with("POST")).count();
    assert_eq!((posts(&bad), posts(&good)), (2, 2), "each was sent once");
}

#[test]
fn tells_the_client_to_go_on_and_tunnels_after_101() {
    let peer = ScriptedPeer::start(|request| {
        if request.head.contains("Upgrade: echo") {
            Some(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello"
                    .to_vec(),
            )
        } else {
            Some(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
        }
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.proxy.set_headers.extend([
            ("Upgrade".into(), Template::variable(Variable::RequestHeader("upgrade".into()))),
            ("Connection".into(), Template::literal("upgrade")),
        ]);
    });
    let mut client = plane.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.response(false).status, 100);
    client.send("hi");
    assert_eq!(client.response(true).status, 200);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let response = client.response(true);
    assert_eq!((response.status, response.field("upgrade")), (101, Some("echo")));
    let mut bytes = [0; 5];
    std::io::Read::read_exact(&mut client.stream, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
}

#[test]
fn a_reload_keeps_connections() {
    let (one, two) = (ScriptedPeer::saying("one"), ScriptedPeer::saying("two"));
    let mut plane = DataPlane::start(|plan| balance(plan, &[one.address]));
    let mut client = plane.client();
    assert_eq!(client.get("/").text(), "one");
    plane.load(|plan| balance(plan, &[two.address]));
    assert_eq!(client.get("/").text(), "two");
    let status = plane.status();
    assert_eq!((status.generation, status.accepted, status.requests), (2, 1, 2));
    let mut other = Client::connect(plane.address);
    assert_eq!(other.get("/").text(), "two");
}
