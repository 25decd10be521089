//! Requests that two readers could read differently, as an attacker sends them: each is refused, its connection is
//! closed, and its peer sees nothing of it.
//!
//! The cases follow RFC 9112 §11.2 and what is known of request smuggling between proxies: where one ends a request by
//! its length, another by its chunks, and a third at a stray byte.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use keel_testkit::{Binary, Client, Peer, PeerBehaviour, Running, free_port};

type Outcome = anyhow::Result<()>;

struct Setup {
    balancer: Running,
    address: SocketAddr,
    peer: Peer,
}

/// One peer behind a location that buffers requests and one that streams them.
fn setup(peer: Peer) -> anyhow::Result<Setup> {
    let port = free_port()?;
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&format!(
        "events {{}}\n\
         http {{\n\
             access_log off;\n\
             server {{\n\
                 listen 127.0.0.1:{port};\n\
                 location / {{ proxy_pass http://{peer}; }}\n\
                 location /stream {{ proxy_pass http://{peer}; proxy_request_buffering off; }}\n\
             }}\n\
         }}\n",
        peer = peer.address()
    ))?;
    Ok(Setup { balancer, address: ([127, 0, 0, 1], port).into(), peer })
}

/// Sends each of these, followed by a request that must never be read, and looks at what comes back.
fn refuses(cases: &[(&str, Vec<u8>)], statuses: &[u16]) -> Outcome {
    const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    let setup = setup(Peer::start("app", PeerBehaviour::Answer)?)?;
    for (what, bytes) in cases {
        let mut client = Client::connect(setup.address)?;
        client.send([bytes, SMUGGLED].concat())?;
        let response =
            client.response().map_err(|error| error.context(format!("{what}: {:?}", show(bytes))))?;
        assert!(statuses.contains(&response.status), "{what}: status {} to {}", response.status, show(bytes));
        assert_eq!(response.field("Connection"), Some("close"), "{what}");
        // A reset is an end as well: what was not read may be lying there.
        let rest = client.rest().unwrap_or_default();
        assert!(rest.is_empty(), "{what}: also answered {}", show(&rest));
        assert_eq!(setup.peer.connections(), 0, "{what}: the peer saw {}", show(bytes));
    }
    // The same peer, asked properly: it is there, and this is the first it hears.
    let answer = Client::connect(setup.address)?.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    assert_eq!((answer.status, setup.peer.requests()), (200, 1));
    assert!(!setup.balancer.error_log().contains("panic"), "{}", setup.balancer.error_log());
    Ok(())
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(300)).unwrap_or_default()).escape_debug().to_string()
}

/// A POST with these fields besides Host, and a body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: test\r\n{fields}\r\n{body}").into_bytes()
}

#[test]
fn two_framings_or_a_doubtful_one() -> Outcome {
    let framings = [
        ("length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("length zero and chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("a list of lengths", "Content-Length: 5, 5\r\n"),
        ("a signed length", "Content-Length: +5\r\n"),
        ("a negative length", "Content-Length: -5\r\n"),
        ("an empty length", "Content-Length:\r\n"),
        ("a hexadecimal length", "Content-Length: 0x5\r\n"),
        ("a length with a space in it", "Content-Length: 5 0\r\n"),
        ("a length with a fraction", "Content-Length: 5.0\r\n"),
        ("a length with an underscore", "Content-Length: 5_0\r\n"),
        ("a length beyond 64 bits", "Content-Length: 18446744073709551621\r\n"),
        ("a length beyond 63 bits", "Content-Length: 9223372036854775813\r\n"),
        ("a length that ends in a letter", "Content-Length: 5x\r\n"),
        ("a length after a vertical tab", "Content-Length: \x0b5\r\n"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
        ("chunked not last", "Transfer-Encoding: chunked, identity\r\n"),
        ("a list with identity", "Transfer-Encoding: identity, chunked\r\n"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n"),
        ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n"),
        ("a coding after a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
        ("a coding with a parameter", "Transfer-Encoding: chunked;a=b\r\n"),
        ("an empty coding", "Transfer-Encoding:\r\n"),
        ("a space before the colon of the length", "Content-Length : 5\r\n"),
        ("a tab before the colon of the coding", "Transfer-Encoding\t: chunked\r\n"),
        ("a space before the colon of any field", "X-Any : 1\r\n"),
    ];
    let body = "0\r\n\r\n";
    let cases: Vec<_> = framings.iter().map(|(what, fields)| (*what, post(fields, body))).collect();
    // 501 is nginx's answer to a coding that it doesn't know.
    refuses(&cases, &[400, 501])
}

#[test]
fn heads_with_stray_bytes() -> Outcome {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a bare CR in a value", post("X: a\rb\r\n", "")),
        ("a bare CR before a field", post("X: a\r\rContent-Length: 5\r\n", "")),
        ("a bare CR as the end of a line", post("X: a\rContent-Length: 5\r\n", "")),
        ("a folded line", post("X: a\r\n b\r\n", "")),
        ("a folded line with a tab", post("X: a\r\n\tContent-Length: 5\r\n", "")),
        ("a folded first line", b"GET / HTTP/1.1\r\n X: a\r\nHost: test\r\n\r\n".to_vec()),
        ("NUL in a value", post("X: a\0b\r\n", "")),
        ("NUL in a name", post("X\0: a\r\n", "")),
        ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("NUL behind a coding", post("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n")),
        ("a field without a colon", post("Content-Length 5\r\n", "")),
        ("a field without a name", post(": 5\r\n", "")),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec()),
        ("the same host twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_vec()),
        ("no host", b"GET / HTTP/1.1\r\nX: a\r\n\r\n".to_vec()),
        ("a host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec()),
        ("a host with a slash", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec()),
        ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("a target out of the root", b"GET /../../etc/passwd HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("an encoded target out of the root", b"GET /%2e%2e/x HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("a target with a broken escape", b"GET /%zz HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("a target with an encoded NUL", b"GET /%00 HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("no version, yet fields", b"GET /\tHTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("a version with a letter", b"GET / HTTP/1.x\r\nHost: test\r\n\r\n".to_vec()),
        ("a method with a colon", b"GE:T / HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()),
        ("TLS on a plain port", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("chunks in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
    ];
    refuses(&cases, &[400])
}

#[test]
fn chunks_with_tricks() -> Outcome {
    let bodies = [
        ("a space in the size", "5 5\r\nhello\r\n0\r\n\r\n"),
        ("a sign before the size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix before the size", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("an underscore in the size", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("an extension without a size", ";a=b\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size of all ones", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "3\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without an end of line", "5\r\nhello0\r\n\r\n"),
        ("a chunk that ends with a bare CR", "5\r\nhello\r0\r\n\r\n"),
        ("a size that ends with a bare CR", "5\rhello\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("NUL for a size", "\0\r\n\r\n"),
        ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ];
    let fields = "Transfer-Encoding: chunked\r\n";
    let cases: Vec<_> = bodies.iter().map(|(what, body)| (*what, post(fields, body))).collect();
    refuses(&cases, &[400])
}

/// While a body streams its peer has seen the head, but never an end of the body: the request is broken off.
#[test]
fn a_fault_in_a_streamed_body_breaks_off_the_request() -> Outcome {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let setup = setup(Peer::scripted(move |connection, requests| {
        loop {
            let head = connection.head()?;
            let is_chunked = head.contains("chunked");
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
            let body = if is_chunked { connection.chunks()? } else { Vec::new() };
            requests.fetch_add(1, Ordering::Relaxed);
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()))?;
            connection.send(body)?;
        }
    })?)?;
    let whole = "POST /stream HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let answer = Client::connect(setup.address)?.request(format!("{whole}0\r\n\r\n"))?;
    assert_eq!((answer.status, answer.text().as_str(), setup.peer.requests()), (200, "hello", 1));
    for fault in ["5 5\r\nhello\r\n0\r\n\r\n", "3\r\nhello\r\n0\r\n\r\n", "-1\r\n\r\n0\r\n\r\n"] {
        let mut client = Client::connect(setup.address)?;
        client.send(format!("{whole}{fault}GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"))?;
        let rest = client.rest().unwrap_or_default();
        let text = String::from_utf8_lossy(&rest);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{fault:?}: {text:?}");
        assert!(text.matches("HTTP/1.1 ").count() <= 1, "{fault:?}: {text:?}");
    }
    let answer = Client::connect(setup.address)?.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    assert_eq!((answer.status, setup.peer.requests()), (200, 2));
    let heads = heads.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(heads.iter().all(|head| !head.contains("smuggled")), "{heads:?}");
    Ok(())
}

#[test]
fn what_is_too_long() -> Outcome {
    let long = |length: usize| "a".repeat(length);
    let request = |line: &str, fields: &str| format!("{line}\r\nHost: test\r\n{fields}\r\n").into_bytes();
    let get = "GET / HTTP/1.1";
    let many: String = (0..1100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X-Large: {}\r\n", long(7000)).repeat(6);
    let cases = vec![
        ("a target", request(&format!("GET /{} HTTP/1.1", long(9000)), "")),
        ("a field", request(get, &format!("X: {}\r\n", long(9000)))),
        ("a name", request(get, &format!("{}: x\r\n", long(9000)))),
        ("a head", request(get, &large)),
        ("too many fields", request(get, &many)),
        ("a body", post("Content-Length: 1048577\r\n", "")),
    ];
    refuses(&cases, &[400, 413, 414, 431])
}
