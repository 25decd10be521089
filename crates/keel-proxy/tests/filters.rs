//! What places do to every answer, whatever it comes from.

mod support;

use std::io::Read;

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};

fn file_location(prefix: &str, root: &std::path::Path) -> Location {
    let mut location = proxy_location(prefix, "u");
    location.scope.content = Content::Static;
    location.scope.core.root = Root::Root(Template::literal(root.to_string_lossy()));
    location
}

fn with(client: &mut support::Client, path: &str, fields: &str) -> support::Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    client.response(true)
}

#[test]
fn expires_that_a_variable_switches_off_leaves_a_peer_s_fields() {
    let peer = ScriptedPeer::start(|_| {
        Some(
            b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nExpires: never\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        )
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let lifetime = Template::variable(Variable::Arg("e".into()));
        plan.servers[0].locations[0].scope.headers.expires = Expires::Variable(lifetime);
    });
    let mut client = plane.client();
    let response = client.get("/?e=off");
    assert_eq!(response.field("cache-control"), Some("private"));
    assert_eq!(response.field("expires"), Some("never"));
    let response = client.get("/?e=1h");
    let all: Vec<&str> = response.head.lines().filter(|line| line.starts_with("Cache-Control")).collect();
    assert_eq!(all, ["Cache-Control: max-age=3600"]);
}

#[test]
fn what_is_added_can_name_what_is_sent() {
    let peer = ScriptedPeer::start(|_| {
        Some(b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nX-P: 1\r\nContent-Length: 2\r\n\r\nhi".to_vec())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let sent = |name: &str| Part::Variable(Variable::SentHeader(name.into()));
        let parts =
            vec![sent("content_type"), Part::Literal(" ".into()), sent("content_length"), sent("x_p")];
        plan.servers[0].locations[0].scope.headers.add =
            vec![AddHeader { name: "X-Sent".into(), value: Template { parts }, always: false }];
    });
    assert_eq!(plane.client().get("/").field("x-sent"), Some("text/x 21"));
}

#[test]
fn a_part_of_a_peer_s_response_is_given_where_that_is_wanted() {
    let peer = ScriptedPeer::start(|_| {
        Some(
            b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nAccept-Ranges: none\r\nContent-Length: 10\r\n\r\n0123456789"
                .to_vec(),
        )
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let mut forced = proxy_location("/forced", "u");
        forced.scope.proxy.upstream.force_ranges = true;
        plan.servers[0].locations.push(forced);
        plan.upstreams[0].keepalive.connections = 8;
    });
    let mut client = plane.client();
    let response = with(&mut client, "/", "Range: bytes=2-4\r\n");
    assert_eq!(
        (response.status, response.text(), response.field("accept-ranges")),
        (200, "0123456789", Some("none"))
    );
    let response = with(&mut client, "/forced", "Range: bytes=2-4\r\n");
    assert_eq!((response.status, response.text()), (206, "234"));
    assert_eq!(response.field("content-range"), Some("bytes 2-4/10"));
    let response = with(&mut client, "/forced", "Range: bytes=2-4\r\nIf-Range: \"e\"\r\n");
    assert_eq!(response.text(), "234");
    let response = with(&mut client, "/forced", "Range: bytes=2-4\r\nIf-Range: \"f\"\r\n");
    assert_eq!((response.status, response.field("accept-ranges")), (200, Some("bytes")));
    // One range at most, as the body passes only once.
    let response = with(&mut client, "/forced", "Range: bytes=0-0,2-4\r\n");
    assert_eq!((response.status, response.text()), (200, "0123456789"));
    let response = with(&mut client, "/forced", "Range: bytes=20-\r\n");
    assert_eq!((response.status, response.field("content-range")), (416, Some("bytes */10")));
    // A peer's own answer to a condition stands.
    let response = with(&mut client, "/", "If-None-Match: \"e\"\r\n");
    assert_eq!(response.status, 200);
}

#[test]
fn files_have_trailers_and_conditions() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["f", "t"] {
        std::fs::write(folder.path().join(name), "0123456789").unwrap();
    }
    let plane = DataPlane::start(|plan| {
        let plain = file_location("/", folder.path());
        let mut trailed = file_location("/t", folder.path());
        let value = Template::variable(Variable::Status);
        trailed.scope.headers.add_trailers =
            vec![AddHeader { name: "X-Status".into(), value, always: false }];
        plan.servers[0].locations.extend([plain, trailed]);
    });
    let mut trailed = plane.client();
    trailed.send("GET /t HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    trailed.stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("\r\nTransfer-Encoding: chunked\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\na\r\n0123456789\r\n0\r\nX-Status: 200\r\n\r\n"), "{text}");
    let mut client = plane.client();
    let response = client.get("/f");
    assert_eq!(response.text(), "0123456789");
    let etag = response.field("etag").unwrap().to_owned();
    let modified = response.field("last-modified").unwrap().to_owned();
    let mut check = |fields: String, expect: u16| {
        let response = with(&mut client, "/f", &fields);
        assert_eq!(response.status, expect, "{fields}");
    };
    check(format!("If-None-Match: {etag}\r\n"), 304);
    check(format!("If-Modified-Since: {modified}\r\n"), 304);
    // Both must say that nothing has changed.
    check(format!("If-Modified-Since: {modified}\r\nIf-None-Match: \"other\"\r\n"), 200);
    check(format!("If-Modified-Since: x\r\nIf-None-Match: {etag}\r\n"), 200);
    check("If-Match: \"other\"\r\n".into(), 412);
    check("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n".into(), 412);
    check(format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n"), 206);
    check("Range: bytes=99-\r\n".into(), 416);
}

#[test]
fn a_folder_without_its_slash_is_301_to_every_method_that_may_ask() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a b")).unwrap();
    let plane = DataPlane::start(|plan| plan.servers[0].locations.push(file_location("/", folder.path())));
    let check = |method: &str, expect: u16| {
        let mut client = plane.client();
        client.send(format!("{method} /a%20b?x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        let response = client.response(method != "HEAD");
        assert_eq!(response.status, expect, "{method}");
        if expect == 301 {
            let location = response.field("location").unwrap();
            assert!(
                location.starts_with("http://localhost:") && location.ends_with("/a%20b/?x"),
                "{location}"
            );
        }
    };
    check("GET", 301);
    check("HEAD", 301);
    check("POST", 301);
    check("PUT", 405);
}

#[test]
fn a_location_is_sent_as_it_is_written() {
    let plane = DataPlane::start(|plan| {
        let text = Template::literal("http://example.org/a b?c=\"é\"#d");
        plan.servers[0].rewrite = Return { status: 302, text: Some(text) }.into();
    });
    let response = plane.client().get("/");
    assert_eq!(response.field("location"), Some("http://example.org/a b?c=\"é\"#d"));
}

#[test]
fn a_text_asks_for_the_body_that_it_ignores_and_an_error_does_not() {
    let plane = DataPlane::start(|plan| {
        let mut text = proxy_location("/text", "u");
        text.scope.content = Content::Static;
        let mut error = text.clone();
        error.matcher = LocationMatcher::Prefix("/error".into());
        text.rewrite = Return { status: 200, text: Some(Template::literal("hi")) }.into();
        error.rewrite = Return { status: 404, text: None }.into();
        plan.servers[0].locations.extend([text, error]);
    });
    let ask = |path: &str| {
        let mut client = plane.client();
        let fields = "Host: localhost\r\nContent-Length: 4\r\nExpect: 100-continue";
        client.send(format!("POST {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
        let first = client.response(true).status;
        (client, first)
    };
    let (mut client, first) = ask("/text");
    assert_eq!(first, 100);
    assert_eq!(client.response(true).text(), "hi");
    client.send("body");
    assert_eq!(client.get("/text").text(), "hi");
    assert_eq!(ask("/error").1, 404);
}

#[test]
fn a_charset_is_named_where_the_type_has_none_or_the_same() {
    let peer = ScriptedPeer::start(|request| {
        let content_type = match request.head.split(' ').nth(1) {
            Some("/plain") => "text/plain",
            Some("/named") => "text/html; charset=UTF-8",
            Some("/other") => "text/html; charset=koi8-r",
            Some("/image") => "image/png",
            _ => "text/html",
        };
        let status = if request.head.starts_with("GET /moved") { "302 Found" } else { "200 OK" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: 2\r\n\r\n");
        Some([head.as_bytes(), b"hi"].concat())
    });
    let mut plane = DataPlane::start(|_| {});
    let mut check = |overrides: bool, source: Option<&str>, cases: &[(&str, &str)]| {
        plane.load(|plan| {
            balance(plan, &[peer.address]);
            let charset = CharsetScope {
                charset: Some(Template::literal("utf-8")),
                source: source.map(Template::literal),
                overrides,
                ..CharsetScope::default()
            };
            plan.servers[0].locations[0].scope.charset = charset.clone();
            let mut own = proxy_location("/own", "u");
            own.scope.content = Content::Static;
            own.scope.charset = charset;
            plan.servers[0].locations.push(own);
        });
        let mut client = plane.client();
        for (path, expect) in cases {
            let got = client.get(path);
            let types: Vec<_> = got.head.lines().filter(|line| line.starts_with("Content-Type: ")).collect();
            assert_eq!(types, [format!("Content-Type: {expect}")], "{path}");
        }
    };
    let same = [
        ("/", "text/html; charset=utf-8"),
        ("/plain", "text/plain; charset=utf-8"),
        ("/image", "image/png"),
        ("/other", "text/html; charset=koi8-r"),
        ("/moved", "text/html"),
        // A page of an error.
        ("/own", "text/html; charset=utf-8"),
    ];
    check(false, None, &same);
    check(false, None, &[("/named", "text/html; charset=UTF-8")]);
    check(true, Some("UTF-8"), &same);
    check(true, None, &[("/named", "text/html; charset=utf-8")]);
    check(false, Some("koi8-r"), &[("/", "text/html")]);
}
