//! Responses that are compressed here, or unpacked.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
};

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

/// What says a gzip header and the largest window.
const GZIP: u8 = 31;

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; bytes.len() + 100];
    let mut deflate = Deflate::new(6, true, GZIP);
    deflate.compress(bytes, &mut out, DeflateFlush::Finish).unwrap();
    out.truncate(usize::try_from(deflate.total_out()).unwrap());
    out
}

fn unpacked(bytes: &[u8]) -> String {
    let mut out = vec![0; 1 << 20];
    let mut inflate = Inflate::new(true, GZIP);
    inflate.decompress(bytes, &mut out, InflateFlush::NoFlush).unwrap();
    out.truncate(usize::try_from(inflate.total_out()).unwrap());
    String::from_utf8(out).unwrap()
}

/// Asks for a path; gives the response.
fn get(plane: &DataPlane, path: &str, fields: &str) -> support::Response {
    let mut client = plane.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    client.response(true)
}

const ACCEPTS: &str = "Accept-Encoding: gzip\r\n";

/// What a peer says to any request.
fn peer(head: &'static str, body: Vec<u8>) -> ScriptedPeer {
    ScriptedPeer::start(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n", body.len());
        Some([head.as_bytes(), &body].concat())
    })
}

fn with_gzip(adjust: impl Fn(&mut Scope)) -> impl Fn(&mut Plan) {
    move |plan| {
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.gzip.enabled = true;
        scope.gzip.vary = true;
        adjust(scope);
    }
}

#[test]
fn a_peer_s_response_is_compressed_for_clients_that_accept_it() {
    let body = "some text, ".repeat(5000);
    let peer = peer(
        "Content-Type: text/html; charset=utf-8\r\nETag: \"e\"\r\nAccept-Ranges: bytes\r\n",
        body.clone().into_bytes(),
    );
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        with_gzip(|_| {})(plan);
    });
    let plain = get(&plane, "/", "");
    assert_eq!((plain.text(), plain.field("content-encoding")), (body.as_str(), None));
    assert_eq!((plain.field("vary"), plain.field("etag")), (Some("Accept-Encoding"), Some("\"e\"")));
    let got = get(&plane, "/", ACCEPTS);
    assert_eq!((unpacked(&got.body), got.field("content-encoding")), (body, Some("gzip")));
    assert_eq!((got.field("vary"), got.field("etag")), (Some("Accept-Encoding"), Some("W/\"e\"")));
    assert_eq!((got.field("content-length"), got.field("accept-ranges")), (None, None));
    assert!(got.body.len() < 1000, "{}", got.body.len());
    // Without chunks it ends with the connection.
    let mut client = plane.client();
    client.send(format!("GET / HTTP/1.0\r\n{ACCEPTS}\r\n"));
    assert_eq!(client.response(true).field("content-encoding"), None);
    // HEAD is told what GET would be.
    client = plane.client();
    client.send(format!("HEAD / HTTP/1.1\r\nHost: localhost\r\n{ACCEPTS}\r\n"));
    let head = client.response(false);
    assert_eq!((head.field("content-encoding"), head.field("content-length")), (Some("gzip"), None));
    assert_eq!(client.get("/").status, 200);
}

/// What a location of its own is tried with.
struct Case {
    /// What the peer says.
    head: &'static str,
    body: &'static str,
    /// What the client says.
    fields: &'static str,
    adjust: fn(&mut Scope),
    packs: bool,
}

const HTML: &str = "Content-Type: text/html\r\n";
const LONG: &str = "long enough for a gain";
const VIA: &str = "Via: 1.1 x\r\n";
const MSIE: &str = "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)\r\n";

#[test]
fn what_is_not_meant_is_left_alone() {
    let case = |head, body, fields, adjust, packs| Case { head, body, fields, adjust, packs };
    let png = "Content-Type: image/png\r\n";
    let private = "Content-Type: text/html\r\nCache-Control: private\r\n";
    let expired = "Content-Type: text/html\r\nExpires: Thu, 01 Jan 1970 00:00:01 GMT\r\n";
    let tagged = "Content-Type: text/html\r\nETag: \"e\"\r\n";
    let cases = [
        case(HTML, LONG, "", |_| {}, true),
        case(HTML, "short", "", |_| {}, false),
        case(HTML, "short", "", |scope| scope.gzip.min_length = ByteSize(0), true),
        case(png, LONG, "", |_| {}, false),
        case(png, LONG, "", |scope| scope.gzip.types = MediaTypes::All, true),
        case("Content-Type: text/html\r\nContent-Encoding: br\r\n", LONG, "", |_| {}, false),
        case(HTML, LONG, VIA, |_| {}, false),
        case(HTML, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::Any], true),
        case(private, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::Private], true),
        case(private, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::NoStore], false),
        case(expired, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::Expired], true),
        case(expired, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::NoEtag], false),
        case(
            HTML,
            LONG,
            "Via: 1.1 x\r\nAuthorization: x\r\n",
            |scope| scope.gzip.proxied = vec![GzipProxied::Auth],
            true,
        ),
        case(tagged, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::NoEtag], false),
        case(tagged, LONG, VIA, |scope| scope.gzip.proxied = vec![GzipProxied::NoLastModified], true),
        case(HTML, LONG, MSIE, |_| {}, true),
        case(HTML, LONG, MSIE, |scope| scope.gzip.disable.msie6 = true, false),
        case(HTML, LONG, "User-Agent: x\r\n", |scope| scope.gzip.disable.msie6 = true, true),
    ];
    let answers: Vec<_> = cases.iter().map(|case| (case.head, case.body)).collect();
    let peer = ScriptedPeer::start(move |request| {
        let number = request.head.split(' ').nth(1)?.strip_prefix("/case/")?;
        let (head, body) = answers.get(number.parse::<usize>().ok()?)?;
        Some(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        for (number, case) in cases.iter().enumerate() {
            let mut location = proxy_location("", "u");
            location.matcher = LocationMatcher::Exact(format!("/case/{number}"));
            location.scope.gzip.enabled = true;
            (case.adjust)(&mut location.scope);
            plan.servers[0].locations.push(location);
        }
    });
    for (number, case) in cases.iter().enumerate() {
        let got = get(&plane, &format!("/case/{number}"), &format!("{ACCEPTS}{}", case.fields));
        let packs = got.field("content-encoding") == Some("gzip");
        assert_eq!(packs, case.packs, "case {number}: {} {}", case.head, case.fields);
    }
}

#[test]
fn a_stream_of_events_is_sent_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, wait) = mpsc::channel::<&str>();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        for event in wait {
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[address]);
        with_gzip(|scope| scope.gzip.types = MediaTypes::All)(plan);
    });
    let mut client = plane.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{ACCEPTS}\r\n"));
    go.send("data: 1\n\n").unwrap();
    let mut body = Vec::new();
    let stream = client.stream.get_mut();
    // Chunks as they come, without looking for their borders: the first ends before the second event is made.
    let mut read_until = |text: &str| {
        let mut piece = [0; 4096];
        loop {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "it ended");
            body.extend_from_slice(&piece[..read]);
            let at = body.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            if unpacked(&dechunked(&body[at + 4..])).ends_with(text) {
                return;
            }
        }
    };
    read_until("data: 1\n\n");
    go.send("data: 2\n\n").unwrap();
    read_until("data: 2\n\n");
    drop(go);
}

/// Takes the chunks out of a body that may not be whole.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        let chunk = &bytes[at + 2..];
        out.extend_from_slice(&chunk[..size.min(chunk.len())]);
        let Some(rest) = chunk.get(size + 2..).filter(|_| size > 0) else { break };
        bytes = rest;
    }
    out
}

#[test]
fn a_compressed_response_is_unpacked_for_clients_that_do_not_accept_it() {
    let text = "packed text, ".repeat(10_000);
    let peer = peer("Content-Encoding: GZip\r\nETag: \"e\"\r\n", packed(text.as_bytes()));
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].scope.gunzip.enabled = true;
    });
    let got = get(&plane, "/", "");
    assert_eq!((got.text(), got.field("content-encoding")), (text.as_str(), None));
    assert_eq!(got.field("etag"), Some("W/\"e\""));
    let got = get(&plane, "/", ACCEPTS);
    assert_eq!((unpacked(&got.body), got.field("content-encoding")), (text, Some("GZip")));
}

#[test]
fn what_can_not_be_unpacked_is_an_error_or_cut_off() {
    let mut long: Vec<u8> =
        (0..300_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    long = packed(&long);
    long.truncate(long.len() / 2);
    let peer = ScriptedPeer::start(move |request| {
        let body = if request.head.starts_with("GET /long") { long.clone() } else { b"plain text".to_vec() };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
        Some([head.as_bytes(), &body].concat())
    });
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations[0].scope.gunzip.enabled = true;
    });
    assert_eq!(get(&plane, "/", "").status, 500);
    let mut client = plane.client();
    client.send("GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut text = Vec::new();
    client.stream.read_to_end(&mut text).unwrap();
    assert!(text.starts_with(b"HTTP/1.1 200 ") && !text.ends_with(b"0\r\n\r\n"), "it must not look whole");
}

#[test]
fn a_compressed_file_takes_the_place_of_the_other() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "plain").unwrap();
    std::fs::write(folder.path().join("a.txt.gz"), packed(b"packed")).unwrap();
    std::fs::write(folder.path().join("b.txt"), "only plain").unwrap();
    let mut plane = DataPlane::start(|_| {});
    let mut load = |how: GzipStatic, vary: bool| {
        plane.load(|plan| {
            let mut location = proxy_location("/", "u");
            location.scope.content = Content::Static;
            location.scope.core.root = Root::Root(Template::literal(folder.path().to_string_lossy()));
            location.scope.gzip_static = how;
            location.scope.gzip.vary = vary;
            plan.servers[0].locations.push(location);
        });
        [get(&plane, "/a.txt", ACCEPTS), get(&plane, "/a.txt", ""), get(&plane, "/b.txt", ACCEPTS)]
    };
    let [gzip, plain, other] = load(GzipStatic::On, true);
    assert_eq!((unpacked(&gzip.body).as_str(), gzip.field("content-encoding")), ("packed", Some("gzip")));
    assert_eq!((gzip.field("vary"), gzip.field("accept-ranges")), (Some("Accept-Encoding"), Some("bytes")));
    assert_eq!((plain.text(), plain.field("content-encoding")), ("plain", None));
    assert_eq!((plain.field("vary"), other.field("vary")), (Some("Accept-Encoding"), None));
    assert_eq!(other.text(), "only plain");
    let [gzip, plain, _] = load(GzipStatic::Always, true);
    assert_eq!((gzip.field("vary"), plain.field("content-encoding")), (None, Some("gzip")));
    let [gzip, plain, _] = load(GzipStatic::Off, true);
    assert_eq!((gzip.text(), plain.text()), ("plain", "plain"));
}

#[test]
fn a_file_is_compressed_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let body: String = (0..60_000).map(|number| format!("{number} ")).collect();
    std::fs::write(folder.path().join("f"), &body).unwrap();
    let plane = DataPlane::start(|plan| {
        let mut location = proxy_location("/", "u");
        location.scope.content = Content::Static;
        location.scope.core.root = Root::Root(Template::literal(folder.path().to_string_lossy()));
        plan.servers[0].locations.push(location);
        with_gzip(|scope| scope.gzip.types = MediaTypes::All)(plan);
    });
    let got = get(&plane, "/f", ACCEPTS);
    assert_eq!((unpacked(&got.body) == body, got.field("content-length")), (true, None));
    assert_eq!((got.field("accept-ranges"), got.field("transfer-encoding")), (None, Some("chunked")));
    assert!(got.field("etag").unwrap().starts_with("W/\""));
}

/// The bytes of nameless temporary files in a folder that this process has open.
fn nameless_bytes(folder: &std::path::Path) -> u64 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let nameless = open.filter(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.starts_with(folder) && target.to_string_lossy().ends_with("(deleted)")
    });
    nameless.filter_map(|entry| Some(std::fs::metadata(entry.path()).ok()?.len())).sum()
}

#[test]
fn what_is_unpacked_waits_at_the_peer_and_never_on_the_disk() {
    const BYTES: usize = 64 << 20;
    let body = packed(&vec![0; BYTES]);
    let peer = peer("Content-Encoding: gzip\r\n", body);
    let folder = tempfile::tempdir().unwrap();
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.gunzip.enabled = true;
        scope.proxy.upstream.temp_path = folder.path().into();
    });
    let mut client = plane.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut got = vec![0; 1 << 20];
    let mut count = 0;
    loop {
        let read = client.stream.read(&mut got).unwrap();
        if read == 0 {
            break;
        }
        count += read;
        assert_eq!(nameless_bytes(folder.path()), 0);
    }
    assert!(count > BYTES, "{count}");
}
