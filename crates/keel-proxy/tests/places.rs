//! What places answer themselves: lists of folders, a picture, and cookies on the way.

mod support;

use std::time::{Duration, Instant};

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};

fn own(path: &str) -> Location {
    let mut location = proxy_location(path, "u");
    location.scope.content = Content::Static;
    location
}

#[test]
fn a_folder_is_listed_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b", "a", ".hidden"] {
        std::fs::write(folder.path().join(name), "12345").unwrap();
    }
    std::fs::create_dir(folder.path().join("z")).unwrap();
    let plane = DataPlane::start(|plan| {
        for (path, format) in [("/html/", AutoindexFormat::Html), ("/jsonp/", AutoindexFormat::Jsonp)] {
            let mut location = own(path);
            location.scope.core.root =
                Root::Alias(Template::literal(format!("{}/", folder.path().display())));
            location.scope.autoindex = AutoindexScope { enabled: true, format, ..AutoindexScope::default() };
            plan.servers[0].locations.push(location);
        }
        let mut none = own("/none/");
        none.scope.autoindex.enabled = true;
        plan.servers[0].locations.push(none);
    });
    let mut client = plane.client();
    let page = client.get("/html/");
    assert_eq!((page.field("content-type"), page.field("content-length")), (Some("text/html"), None));
    let names: Vec<_> = page.text().lines().filter_map(|line| line.strip_prefix("<a href=\"")).collect();
    let names: Vec<_> = names.iter().filter_map(|line| line.split('"').next()).collect();
    assert_eq!(names, ["z/", "a", "b"]);
    assert!(page.text().contains("                  5\r\n"), "{}", page.text());
    let call = client.get("/jsonp/?callback=f.x");
    assert_eq!(call.field("content-type"), Some("application/javascript"));
    assert!(call.text().starts_with("/* callback */\r\nf.x([\r\n{ \"name\":\"z\""), "{}", call.text());
    assert_eq!(plane.client().get("/jsonp/?callback=f(x").status, 400);
    assert_eq!(client.get("/jsonp/").field("content-type"), Some("application/json"));
    assert_eq!(client.get("/none/").status, 404);
}

#[test]
fn any_file_answers_for_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("only"), "this").unwrap();
    std::fs::write(folder.path().join(".hidden"), "that").unwrap();
    let plane = DataPlane::start(|plan| {
        let mut location = own("/");
        location.scope.core.root = Root::Root(Template::literal(folder.path().to_string_lossy()));
        location.scope.random_index = true;
        plan.servers[0].locations.push(location);
    });
    assert_eq!(plane.client().get("/").text(), "this");
}

#[test]
fn a_picture_of_nothing_is_there() {
    let plane = DataPlane::start(|plan| {
        let mut location = own("/");
        location.scope.content = Content::EmptyGif;
        plan.servers[0].locations.push(location);
    });
    let mut client = plane.client();
    let picture = client.get("/x");
    assert_eq!((picture.field("content-type"), picture.body.len()), (Some("image/gif"), 43));
    assert!(picture.body.starts_with(b"GIF89a"));
    client.send("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response(true).status, 405);
}

#[test]
fn a_client_gets_a_cookie_and_keeps_it() {
    let plane = DataPlane::start(|plan| {
        let scope = &mut plan.servers[0].scope;
        scope.userid = UseridScope {
            mode: UseridMode::On,
            mark: Some(b'Z'),
            service: Some(0x0102_0304),
            flags: vec![UseridFlag::Secure, UseridFlag::SamesiteLax],
            reset: Some(Variable::Arg("reset".into())),
            ..UseridScope::default()
        };
        let add = |name: &str, variable| AddHeader {
            name: name.into(),
            value: Template::variable(variable),
            always: true,
        };
        scope.headers.add = vec![add("X-Got", Variable::UidGot), add("X-Set", Variable::UidSet)];
        plan.servers[0].rewrite = Return { status: 200, text: Some(Template::literal("hi")) }.into();
    });
    let mut client = plane.client();
    let first = client.get("/");
    let cookie = first.field("set-cookie").unwrap().to_owned();
    let value = cookie.split(';').next().unwrap().to_owned();
    assert!(value.starts_with("uid=AQIDB") && value.ends_with("Z="), "{cookie}");
    assert!(cookie.ends_with("; path=/; secure; samesite=lax"), "{cookie}");
    let set = first.field("x-set").unwrap().to_owned();
    assert_eq!((set.len(), first.field("x-got")), ("uid=".len() + 32, None));
    let mut with = |path: &str, cookie: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; {cookie}\r\n\r\n"));
        client.response(true)
    };
    let again = with("/", &value);
    assert_eq!((again.field("x-got"), again.field("set-cookie")), (Some(set.as_str()), None));
    let reset = with("/?reset=1", &value);
    assert!(reset.field("set-cookie").is_some_and(|other| !other.starts_with(&value)));
    // Without its mark it is sent again.
    let marked = with("/", &format!("{}==", &value[..value.len() - 2]));
    assert!(marked.field("set-cookie").is_some_and(|other| other.starts_with(&value)));
    assert_eq!(with("/", "uid=short").field("x-got"), None);
}

#[test]
fn cookies_of_peers_are_changed_by_the_first_rule_that_fits() {
    let peer = ScriptedPeer::start(|request| {
        let cookie = request.head.split(' ').nth(1)?.strip_prefix('/')?.replace('+', " ");
        Some(format!("HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let text = |text: &str| CookieText::Text(Template::literal(text));
        let regex = |source: &str| {
            let engine = PatternEngine::Linear;
            CookieText::Regex(Pattern { source: source.into(), ignore_case: true, engine })
        };
        let group =
            Template { parts: vec![Part::Variable(Variable::Capture(1)), Part::Literal(".org".into())] };
        let proxy = &mut plan.servers[0].locations[0].scope.proxy;
        proxy.cookie_domains = vec![
            CookieRule { from: text("a.test"), to: Template::literal("b.test") },
            CookieRule { from: regex(r"^(.+)\.com$"), to: group },
        ];
        proxy.cookie_paths = vec![CookieRule { from: text("/in/"), to: Template::literal("/out/") }];
        let flags = |name, flags: &[&str]| CookieFlags {
            name,
            flags: flags.iter().map(|flag| Template::literal(*flag)).collect(),
        };
        proxy.cookie_flags = vec![
            flags(text("s"), &["secure", "HttpOnly", "samesite=lax"]),
            flags(text("n"), &["nosecure", "nosamesite"]),
            flags(regex("^x"), &["secure"]),
        ];
    });
    let mut client = plane.client();
    let mut check = |path: &str, expect: &str| {
        assert_eq!(client.get(path).field("set-cookie"), Some(expect), "{path}");
    };
    check("/c=1;Domain=.A.test;+Path=/in/x", "c=1; Domain=.b.test; Path=/out/x");
    check("/c=1;domain=w.Com", "c=1; domain=w.org");
    check("/c=1;Domain=other;Path=/x", "c=1;Domain=other;Path=/x");
    check("/S=1", "S=1; Secure; HttpOnly; SameSite=Lax");
    check("/s=1;secure;samesite=none", "s=1; secure; SameSite=Lax; HttpOnly");
    check("/n=1;Secure;SameSite=Lax;a", "n=1; a");
    check("/xyz=1", "xyz=1; Secure");
    check("/only", "only");
}

#[test]
fn connections_and_requests_are_counted() {
    let plane = DataPlane::start(|plan| {
        let mut location = own("/status");
        location.scope.content = Content::StubStatus;
        plan.servers[0].locations.push(location);
        plan.servers[0].rewrite = Rewrite::default();
    });
    let mut client = plane.client();
    let expect = "Active connections: 1 \nserver accepts handled requests\n 1 1 1 \nReading: 0 Writing: 1 Waiting: 0 \n";
    let response = client.get("/status");
    assert_eq!((response.text(), response.field("content-type")), (expect, Some("text/plain")));
    // One that has said nothing waits, one that has begun is being read.
    let mut other = plane.client();
    other.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = other.response(true).text().to_owned();
    assert!(text.ends_with("\nReading: 0 Writing: 1 Waiting: 1 \n"), "{text}");
    other.send("GET /st");
    loop {
        let text = client.get("/status").text().to_owned();
        if text.ends_with("\nReading: 1 Writing: 1 Waiting: 0 \n") {
            break;
        }
        // It hasn't been read yet.
        assert!(text.ends_with("\nReading: 0 Writing: 1 Waiting: 1 \n"), "{text}");
    }
    client.send("POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response(true).status, 405);
}

#[test]
fn a_response_is_sent_no_faster_than_is_allowed() {
    let body = "x".repeat(3000);
    let told = ScriptedPeer::start(move |request| {
        let rate = if request.head.starts_with("GET /told") { "X-Accel-Limit-Rate: 2000\r\n" } else { "" };
        Some(format!("HTTP/1.1 200 OK\r\n{rate}Content-Length: 3000\r\n\r\n{body}").into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[told.address]);
        let mut limited = proxy_location("/limited", "u");
        limited.scope.core.limit_rate = SizeValue::Evaluated(Template::variable(Variable::Arg("r".into())));
        limited.scope.core.limit_rate_after = SizeValue::Fixed(ByteSize(100));
        plan.servers[0].locations.push(limited);
    });
    let took = |path: &str| {
        let begun = Instant::now();
        assert_eq!(plane.client().get(path).body.len(), 3000, "{path}");
        begun.elapsed()
    };
    // Half of it at once, and the rest a second later.
    assert!(took("/limited?r=2k") >= Duration::from_millis(900));
    assert!(took("/told") >= Duration::from_millis(900));
    // None, and what is none.
    took("/limited?r=0");
    took("/limited?r=none");
}
