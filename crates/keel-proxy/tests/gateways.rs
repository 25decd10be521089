//! uwsgi and SCGI with applications that do as they are told. Their connections end with their responses.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use keel_model::*;
use support::{DataPlane, balance};

/// A request as an application saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// The modifiers of uwsgi.
    modifiers: (u8, u8),
    params: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Answers each request with bytes and closes.
fn application(
    read: fn(&mut TcpStream) -> Asked,
    output: &'static str,
) -> (SocketAddr, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let log = asked.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let request = read(&mut stream);
            log.lock().unwrap().push(request);
            stream.write_all(output.as_bytes()).unwrap();
        }
    });
    (address, asked)
}

fn body(stream: &mut TcpStream, params: &[(String, String)]) -> Vec<u8> {
    let length = params.iter().find(|(name, _)| name == "CONTENT_LENGTH").map(|(_, value)| value.parse());
    let mut body = vec![0; length.map_or(0, Result::unwrap)];
    stream.read_exact(&mut body).unwrap();
    body
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn read_uwsgi(stream: &mut TcpStream) -> Asked {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut vars = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
    stream.read_exact(&mut vars).unwrap();
    let mut texts = Vec::new();
    let mut rest = vars.as_slice();
    while let [low, high, behind @ ..] = rest {
        let (one, behind) = behind.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        texts.push(text(one));
        rest = behind;
    }
    let params: Vec<_> = texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Asked { modifiers: (head[0], head[3]), body: body(stream, &params), params }
}

fn read_scgi(stream: &mut TcpStream) -> Asked {
    let mut byte = [0];
    let mut length = String::new();
    loop {
        stream.read_exact(&mut byte).unwrap();
        if byte == *b":" {
            break;
        }
        length.push(byte[0].into());
    }
    let mut headers = vec![0; length.parse::<usize>().unwrap() + 1];
    stream.read_exact(&mut headers).unwrap();
    assert_eq!(headers.pop(), Some(b','));
    assert_eq!(headers.pop(), Some(0));
    let texts: Vec<_> = headers.split(|byte| *byte == 0).map(text).collect();
    let params: Vec<_> = texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Asked { modifiers: (0, 0), body: body(stream, &params), params }
}

fn param(name: &str, variable: Variable) -> GatewayParam {
    GatewayParam { name: name.into(), value: Template::variable(variable), empty: EmptyParam::Sent }
}

fn target() -> ProxyTarget {
    ProxyTarget::Upstream(UpstreamName("u".into()))
}

const POST: &str = "POST /a?b HTTP/1.1\r\nHost: H\r\nX-One: 1\r\nContent-Length: 3\r\n\r\nabc";

#[test]
fn a_request_in_uwsgi() {
    let (address, asked) = application(read_uwsgi, "HTTP/1.1 404 No Page\r\nX: y\r\n\r\nhello");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.content = Content::Uwsgi(target());
        scope.uwsgi.params =
            vec![param("CONTENT_LENGTH", Variable::ContentLength), param("ARGS", Variable::Args)];
        (scope.uwsgi.modifier1, scope.uwsgi.modifier2) = (5, 6);
    });
    let mut client = plane.client();
    client.send(POST);
    let response = client.response(true);
    assert_eq!((response.head.lines().next(), response.text()), (Some("HTTP/1.1 404 No Page"), "hello"));
    let params = [
        ("CONTENT_LENGTH", "3"),
        ("ARGS", "b"),
        ("HTTP_HOST", "h"),
        ("HTTP_X_ONE", "1"),
        ("HTTP_CONTENT_LENGTH", "3"),
    ];
    let expect = Asked {
        modifiers: (5, 6),
        params: params.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: b"abc".to_vec(),
    };
    assert_eq!(*asked.lock().unwrap(), [expect]);
    // A connection is for one request.
    client.send(POST);
    assert_eq!(client.response(true).text(), "hello");
}

#[test]
fn a_request_in_scgi() {
    let (address, asked) = application(read_scgi, "Status: 201 Made\nContent-Length: 2\n\nhi, too much");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.content = Content::Scgi(target());
        scope.scgi.params = vec![param("ARGS", Variable::Args)];
        scope.scgi.upstream.request_buffering = false;
    });
    let mut client = plane.client();
    for (head, size) in [("Content-Length: 3", 3), ("Transfer-Encoding: chunked", 3), ("A: b", 0)] {
        client.send(format!("POST /?c HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n"));
        client.send(match head {
            "Content-Length: 3" => "abc",
            "Transfer-Encoding: chunked" => "3\r\nabc\r\n0\r\n\r\n",
            _ => "",
        });
        let response = client.response(true);
        assert_eq!((response.head.lines().next(), response.text()), (Some("HTTP/1.1 201 Made"), "hi"));
        let asked = asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked.params[0], ("CONTENT_LENGTH".into(), size.to_string()), "{head}");
        assert_eq!(asked.params[1], ("ARGS".into(), "c".into()));
        assert_eq!(asked.body, b"abc"[..size], "{head}");
    }
}

#[test]
fn what_a_head_cannot_say_is_refused() {
    let (address, asked) = application(read_uwsgi, "A: b\n\nhello");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.content = Content::Uwsgi(target());
        let value = Template::literal("v".repeat(40_000));
        let long =
            |name: &str| GatewayParam { name: name.into(), value: value.clone(), empty: EmptyParam::Sent };
        scope.uwsgi.params = vec![long("A"), long("B")];
    });
    assert_eq!(plane.client().get("/").status, 500);
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_tunnel_begins_where_the_client_asked_for_one() {
    let (address, _) = application(read_uwsgi, "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\ndata");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[address]);
        plan.servers[0].locations[0].scope.content = Content::Uwsgi(target());
    });
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let mut rest = String::new();
    client.stream.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 101 Switch\r\n") && rest.ends_with("\r\n\r\ndata"), "{rest}");
    assert_eq!(plane.client().get("/").status, 502);
}
