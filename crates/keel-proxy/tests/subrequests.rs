//! `auth_request` and `mirror`: what peers and clients see of them.

mod support;

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    sync::{Arc, mpsc},
    time::Instant,
};

use keel_model::*;
use support::{DEADLINE, DataPlane, ScriptedPeer, balance, proxy_location};

/// Adds an upstream of that name with one peer, and a location that passes to it.
fn passed(plan: &mut Plan, path: &str, name: &str, peer: &ScriptedPeer) {
    balance(plan, &[peer.address]);
    plan.servers[0].locations.pop();
    plan.upstreams.iter_mut().rev().take(1).for_each(|upstream| upstream.name = UpstreamName(name.into()));
    plan.servers[0].locations.push(proxy_location(path, name));
}

/// A server whose `/` goes to `app` once `/asked` at `asked` lets it.
fn guarded(app: &ScriptedPeer, asked: &ScriptedPeer, adjust: impl FnOnce(&mut Plan)) -> DataPlane {
    DataPlane::start(|plan| {
        passed(plan, "/", "app", app);
        passed(plan, "/asked", "asked", asked);
        plan.servers[0].locations[0].scope.auth_request.path = Some("/asked".into());
        adjust(plan);
    })
}

#[test]
fn a_peer_decides_who_may_pass() {
    let app = ScriptedPeer::saying("in");
    let asked = ScriptedPeer::start(|request| {
        let status = request.head.lines().find_map(|line| line.strip_prefix("X-Want: ")).unwrap_or("204 No");
        let fields = "WWW-Authenticate: Basic realm=a\r\nWWW-Authenticate: Other\r\nContent-Length: 0";
        Some(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n").into_bytes())
    });
    let plane = guarded(&app, &asked, |_| {});
    let ask = |want: &str| {
        let mut client = plane.client();
        let body = "Content-Length: 4\r\n\r\nbody";
        client.send(format!("POST /x?y=z HTTP/1.1\r\nHost: localhost\r\nX-Want: {want}\r\n{body}"));
        client.response(true)
    };
    assert_eq!(ask("200 OK").text(), "in");
    let refused = ask("401 No");
    assert_eq!(refused.status, 401);
    let challenges = refused.head.lines().filter(|line| line.starts_with("WWW-Authenticate: ")).count();
    assert_eq!(challenges, 2, "{}", refused.head);
    assert_eq!(ask("403 No").status, 403);
    assert_eq!(ask("404 No").status, 500);
    assert_eq!(ask("500 No").status, 500);
    let heads: Vec<String> = asked.requests().iter().map(|request| request.head.clone()).collect();
    assert!(heads.iter().all(|head| head.starts_with("GET /asked HTTP/1.1\r\n")), "{heads:?}");
    assert!(asked.requests().iter().all(|request| request.body.is_empty()));
    let got: Vec<Vec<u8>> = app.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(got, [b"body"]);
}

#[test]
fn what_was_answered_sets_variables_that_last_over_redirects() {
    let app = ScriptedPeer::start(|_| Some(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let asked = ScriptedPeer::start(|_| {
        Some(b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let plane = guarded(&app, &asked, |plan| {
        plan.variables.push(DefinedVariable { name: "user".into(), source: VariableSource::Written });
        let scope = &mut plan.servers[0].locations[0].scope;
        let user = Template::variable(Variable::UpstreamHeader("x_user".into()));
        scope.auth_request.set =
            vec![(Variable::Defined(VariableId(0)), user), (Variable::Args, Template::literal("a=b"))];
        scope.proxy.upstream.intercept_errors = true;
        let uri = Template::literal("@found");
        scope.core.error_pages = vec![ErrorPage { status: 404, response: ErrorPageStatus::Fixed(200), uri }];
        let mut found = proxy_location("@found", "app");
        found.matcher = LocationMatcher::Named("@found".into());
        found.scope.content = Content::Static;
        let text = Template::variable(Variable::Defined(VariableId(0)));
        found.rewrite = Return { status: 200, text: Some(text) }.into();
        plan.servers[0].locations.push(found);
    });
    let response = plane.client().get("/x?old");
    assert_eq!((response.status, response.text()), (200, "ann"));
    assert!(app.requests()[0].head.starts_with("GET /x?a=b HTTP/1.1\r\n"), "{:?}", app.requests());
}

#[test]
fn satisfy_any_lets_in_whom_either_lets() {
    let app = ScriptedPeer::saying("in");
    let asked = ScriptedPeer::start(|request| {
        let status = if request.head.contains("X-Good: ") { 200 } else { 401 };
        Some(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    let check = |clients: Clients, outcome: AccessOutcome, any: bool, field: &str, expect: u16| {
        let plane = guarded(&app, &asked, |plan| {
            let scope = &mut plan.servers[0].locations[0].scope;
            scope.access.rules = vec![AccessRule { clients, outcome }];
            scope.core.satisfy_any = any;
        });
        let mut client = plane.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n"));
        let case = format!("{clients:?} {outcome:?} {any} {field}");
        assert_eq!(client.response(true).status, expect, "{case}");
    };
    check(Clients::All, AccessOutcome::Allow, true, "A: b", 200);
    check(Clients::All, AccessOutcome::Deny, true, "X-Good: 1", 200);
    check(Clients::All, AccessOutcome::Deny, true, "A: b", 401);
    check(Clients::Unix, AccessOutcome::Deny, true, "A: b", 401);
    check(Clients::All, AccessOutcome::Allow, false, "A: b", 401);
    check(Clients::All, AccessOutcome::Deny, false, "X-Good: 1", 403);
}

#[test]
fn an_answer_is_known_by_its_head_and_its_connection_is_kept_if_its_body_came() {
    let app = ScriptedPeer::saying("in");
    let endless = Arc::new(AtomicBool::new(false));
    let says = endless.clone();
    let asked = ScriptedPeer::start(move |_| {
        let length = if says.load(SeqCst) { 1_000_000 } else { 2 };
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok").into_bytes())
    });
    let plane = guarded(&app, &asked, |plan| {
        plan.upstreams.iter_mut().for_each(|upstream| upstream.keepalive.connections = 8)
    });
    let mut client = plane.client();
    (0..5).for_each(|_| assert_eq!(client.get("/").text(), "in"));
    assert_eq!(asked.connections.load(SeqCst), 1);
    endless.store(true, SeqCst);
    (0..3).for_each(|_| assert_eq!(client.get("/").text(), "in"));
    assert_eq!(asked.connections.load(SeqCst), 3);
}

#[test]
fn a_client_that_goes_ends_what_it_waits_for() {
    let app = ScriptedPeer::saying("in");
    let (came, comes) = mpsc::sync_channel(1);
    let asked = ScriptedPeer::start(move |_| {
        came.send(()).unwrap();
        std::thread::sleep(DEADLINE);
        None
    });
    let mut plane = guarded(&app, &asked, |_| {});
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    comes.recv_timeout(DEADLINE).unwrap();
    drop(client);
    let began = Instant::now();
    while plane.status().active > 0 {
        assert!(began.elapsed() < DEADLINE, "the request goes on without its client");
        std::thread::yield_now();
    }
    assert!(app.requests().is_empty());
}

#[test]
fn copies_have_the_body_and_nobody_waits_for_them() {
    let app = ScriptedPeer::saying("in");
    let (copied, copies) = mpsc::channel();
    let copied = std::sync::Mutex::new(copied);
    let silent = ScriptedPeer::start(move |request| {
        copied.lock().unwrap().send(request.clone()).unwrap();
        std::thread::sleep(DEADLINE);
        None
    });
    let plane = DataPlane::start(|plan| {
        passed(plan, "/", "app", &app);
        passed(plan, "/copy", "silent", &silent);
        plan.servers[0].locations[0].scope.mirror.paths = vec!["/copy".into(), "/copy/2".into()];
        plan.servers[0].locations[0].scope.core.client_body_buffer_size = ByteSize(1 << 10);
    });
    let large = "x".repeat(100_000);
    let mut client = plane.client();
    for body in ["small", large.as_str()] {
        let length = body.len();
        client
            .send(format!("POST /p?q HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(client.response(true).text(), "in");
        let mut lines = Vec::new();
        for _ in 0..2 {
            let copy = copies.recv_timeout(DEADLINE).unwrap();
            assert_eq!(copy.body, body.as_bytes());
            lines.push(copy.head.lines().next().unwrap().to_owned());
        }
        lines.sort();
        assert_eq!(lines, ["POST /copy/2?q HTTP/1.1", "POST /copy?q HTTP/1.1"]);
        assert_eq!(app.requests().last().unwrap().body, body.as_bytes());
    }
}

#[test]
fn a_worker_that_quits_waits_for_its_copies() {
    let app = ScriptedPeer::saying("in");
    let (go, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let slow = ScriptedPeer::start(move |_| {
        waits.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let mut plane = DataPlane::start(|plan| {
        passed(plan, "/", "app", &app);
        passed(plan, "/copy", "slow", &slow);
        plan.servers[0].locations[0].scope.mirror.paths = vec!["/copy".into()];
    });
    let mut client = plane.client();
    assert_eq!(client.get("/").text(), "in");
    drop(client);
    let began = Instant::now();
    while slow.requests().is_empty() {
        assert!(began.elapsed() < DEADLINE, "no copy came");
        std::thread::yield_now();
    }
    plane.order(&Order::Quit);
    go.send(()).unwrap();
    plane.expect_end();
    std::io::stdout().flush().unwrap();
    assert_eq!(slow.requests().len(), 1);
}
