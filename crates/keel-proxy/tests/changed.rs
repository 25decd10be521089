//! Bodies that filters change on their way: text that is replaced, other responses around them, other charsets.

mod support;

use std::io::Read;

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};
use zlib_rs::{Inflate, InflateFlush};

/// A peer that sends what `b` in the path's query says, in chunks of one byte where it has `chunked`.
fn echo() -> ScriptedPeer {
    ScriptedPeer::start(|request| {
        let path = request.head.split(' ').nth(1)?;
        let body = path.split(['?', '&']).find_map(|pair| pair.strip_prefix("b="))?;
        let mut out = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"e\"\r\n".to_vec();
        if path.contains("chunked") {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            body.bytes().for_each(|byte| out.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']));
            out.extend_from_slice(b"0\r\n\r\n");
        } else {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
        Some(out)
    })
}

fn returning(path: &str, text: &str) -> Location {
    let mut location = proxy_location(path, "u");
    location.scope.content = Content::Static;
    location.scope.core.default_type = "text/html".into();
    location.rewrite = Return { status: 200, text: Some(Template::literal(text)) }.into();
    location
}

fn pair(text: &str, replacement: &str) -> SubPair {
    SubPair { text: Template::literal(text), replacement: Template::literal(replacement) }
}

#[test]
fn text_is_replaced_in_bodies_of_every_source() {
    let peer = echo();
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let mut own = returning("/own", "a foo, a Foo");
        for location in [&mut plan.servers[0].locations[0], &mut own] {
            location.scope.sub.pairs = vec![pair("foo", "bar"), pair("a Bar", "x")];
        }
        plan.servers[0].locations.push(own);
        let mut all = proxy_location("/all", "u");
        let replacement = Template::variable(Variable::Arg("r".into()));
        all.scope.sub.pairs = vec![SubPair { text: Template::literal("Foo"), replacement }];
        (all.scope.sub.once, all.scope.sub.last_modified) = (false, true);
        plan.servers[0].locations.push(all);
    });
    let mut client = plane.client();
    let response = client.get("/?b=foo-foo");
    assert_eq!((response.text(), response.field("etag")), ("bar-foo", None));
    assert_eq!(response.field("content-length"), None);
    assert_eq!(client.get("/?chunked&b=xfooafo").text(), "xbarafo");
    assert_eq!(client.get("/own").text(), "a bar, a Foo");
    let response = client.get("/all?r=12&chunked&b=foofoxFOO");
    assert_eq!((response.text(), response.field("etag")), ("12fox12", Some("W/\"e\"")));
    // An empty body stays one.
    assert_eq!(client.get("/?b=").field("content-length"), Some("0"));
}

#[test]
fn other_responses_stand_around_a_body() {
    let peer = echo();
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].scope.addition.before = Some("/before".into());
        plan.servers[0].locations[0].scope.addition.after = Some("/peer&b=AFTER".into());
        let mut own = returning("/own", "own");
        own.scope.addition.after = Some("/own".into());
        own.scope.gzip.enabled = true;
        own.scope.gzip.min_length = ByteSize(0);
        plan.servers[0].locations.extend([
            own,
            returning("/before", "[before]"),
            proxy_location("/peer", "u"),
        ]);
        let mut missing = returning("/missing", "body");
        missing.scope.addition.after = Some("/none/such".into());
        let mut none = proxy_location("/none", "u");
        none.scope.content = Content::Static;
        plan.servers[0].locations.extend([missing, none]);
    });
    let mut client = plane.client();
    let response = client.get("/?b=body");
    assert_eq!((response.text(), response.field("content-length")), ("[before]bodyAFTER", None));
    assert_eq!(response.field("etag"), Some("W/\"e\""));
    assert_eq!(client.get("/?chunked&b=body").text(), "[before]bodyAFTER");
    // Once: what is added has nothing around it.
    assert_eq!(client.get("/own").text(), "ownown");
    let text = client.get("/missing");
    assert!(text.text().starts_with("body<html>\r\n<head><title>404 Not Found</title>"), "{}", text.text());
    // HEAD asks for none of it.
    client.send("HEAD /?b=body HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response(false).field("content-length"), None);
    // All of it is compressed together.
    client.send("GET /own HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n");
    let packed = client.response(true).body;
    let (mut out, mut inflate) = (vec![0; 100], Inflate::new(true, 31));
    inflate.decompress(&packed, &mut out, InflateFlush::NoFlush).unwrap();
    assert_eq!(&out[..usize::try_from(inflate.total_out()).unwrap()], b"ownown");
    // To an old client it ends with the connection.
    let mut client = plane.client();
    client.send("GET /own HTTP/1.0\r\n\r\n");
    let mut text = String::new();
    client.stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("\r\n\r\nownown") && !text.contains("Content-Length"), "{text}");
}

#[test]
fn a_long_response_behind_a_body_comes_whole() {
    let long = "0123456789".repeat(100_000);
    let expect = format!("body{long}");
    let peer = ScriptedPeer::start(move |_| {
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len()).into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let mut own = returning("/own", "body");
        own.scope.addition.after = Some("/long".into());
        plan.servers[0].locations.push(own);
    });
    assert!(plane.client().get("/own").text() == expect);
}

#[test]
fn an_added_response_that_breaks_off_does_not_look_whole() {
    let peer = ScriptedPeer::start(|_| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123".to_vec()));
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].scope.proxy.upstream.read_timeout = std::time::Duration::from_millis(50);
        let mut own = returning("/own", "body");
        own.scope.addition.after = Some("/broken".into());
        plan.servers[0].locations.push(own);
    });
    let mut client = plane.client();
    client.send("GET /own HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut text = String::new();
    client.stream.read_to_string(&mut text).unwrap();
    assert!(!text.contains("0\r\n\r\n"), "{text}");
}

#[test]
fn bodies_are_converted_to_the_charset_that_is_named() {
    let peer = ScriptedPeer::start(|request| {
        let fields = match request.head.split(' ').nth(1)? {
            "/told" => "X-Accel-Charset: win\r\n",
            "/unknown" => "X-Accel-Charset: latin\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=koi\r\n{fields}Content-Length: 3\r\n\r\n"
        );
        Some([head.as_bytes(), b"a\xc1!"].concat())
    });
    let plane = DataPlane::start(|plan| {
        let map = |to: &str, bytes: &[u8]| CharsetMap {
            from: "koi".into(),
            to: to.into(),
            pairs: vec![(0xc1, bytes.to_vec())],
        };
        plan.charset_maps = vec![map("win", b"\xe0"), map("utf-8", "а".as_bytes())];
        balance(plan, &[peer.address]);
        let mut utf8 = proxy_location("/utf8", "u");
        (utf8.scope.charset.charset, utf8.scope.charset.overrides) = (Some(Template::literal("utf-8")), true);
        let mut win = utf8.clone();
        win.matcher = LocationMatcher::Prefix("/win".into());
        win.scope.charset.charset = Some(Template::literal("win"));
        let mut own = returning("/own", "x");
        own.scope.charset.charset = Some(Template::literal("utf-8"));
        own.scope.addition.after = Some("/within".into());
        plan.servers[0].locations.extend([utf8, win, own]);
    });
    let mut client = plane.client();
    let mut check = |path: &str, charset: &str, length: Option<&str>, body: &[u8]| {
        let response = client.get(path);
        assert_eq!(
            response.field("content-type"),
            Some(format!("text/html; charset={charset}").as_str()),
            "{path}"
        );
        assert_eq!((response.body.as_slice(), response.field("content-length")), (body, length), "{path}");
    };
    check("/", "koi", Some("3"), b"a\xc1!");
    check("/utf8", "utf-8", None, "aа!".as_bytes());
    check("/win", "win", Some("3"), b"a\xe0!");
    check("/told", "win", Some("3"), b"a\xe0!");
    check("/unknown", "koi", Some("3"), b"a\xc1!");
    // What is added comes in the charset of the rest.
    check("/own", "utf-8", None, "xaа!".as_bytes());
}
