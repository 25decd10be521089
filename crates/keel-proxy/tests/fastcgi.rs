//! FastCGI with applications that do as they are told.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use keel_model::*;
use support::{Client, DataPlane, balance};

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// A request as an application saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    connection: usize,
    keeps: bool,
    params: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(param, _)| param == name).map(|(_, value)| value.as_str())
    }
}

/// An application that answers each request with bytes, and closes the connection unless it was asked to keep it.
struct Application {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Application {
    fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, connections, answer) = (asked.clone(), AtomicUsize::new(0), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (log, answer, number) = (log.clone(), answer.clone(), connections.fetch_add(1, SeqCst));
                thread::spawn(move || {
                    while let Some(mut request) = read_request(&mut stream) {
                        request.connection = number;
                        log.lock().unwrap().push(request.clone());
                        let bytes = answer(&request);
                        if stream.write_all(&bytes).is_err() || !request.keeps {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// Starts one that answers with an output.
    fn printing(output: &'static str) -> Self {
        Self::start(move |_| printed(output))
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_record(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).ok()?;
    assert_eq!((head[0], head[2], head[3]), (1, 0, 1));
    let mut content = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]]))];
    stream.read_exact(&mut content).ok()?;
    stream.read_exact(&mut vec![0; usize::from(head[6])]).ok()?;
    Some((head[1], content))
}

fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut params = Vec::new();
    loop {
        match read_record(stream)? {
            (BEGIN_REQUEST, content) => asked.keeps = content[2] == 1,
            (PARAMS, content) => params.extend(content),
            (STDIN, content) if content.is_empty() => break,
            (STDIN, content) => asked.body.extend(content),
            (kind, _) => panic!("a record of kind {kind}"),
        }
    }
    let mut rest = params.as_slice();
    let length = |rest: &mut &[u8]| {
        let size = if rest[0] < 128 { 1 } else { 4 };
        let (bytes, behind) = rest.split_at(size);
        *rest = behind;
        bytes
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(byte & if size == 4 { 0xff } else { 0x7f }))
            & 0x7fff_ffff
    };
    while !rest.is_empty() {
        let (name, value) = (length(&mut rest), length(&mut rest));
        let (name, behind) = rest.split_at(name);
        let (value, behind) = behind.split_at(value);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        asked.params.push((text(name), text(value)));
        rest = behind;
    }
    Some(asked)
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 3, 0], content, &[0; 3]].concat()
}

/// The records of an output and its end.
fn printed(output: &str) -> Vec<u8> {
    [record(STDOUT, output.as_bytes()), record(STDOUT, b""), record(END_REQUEST, &[0; 8])].concat()
}

fn param(name: &str, value: Template) -> GatewayParam {
    GatewayParam { name: name.into(), value, empty: EmptyParam::Sent }
}

/// Passes everything to applications.
fn pass(plan: &mut Plan, applications: &[SocketAddr]) {
    balance(plan, applications);
    let scope = &mut plan.servers[0].locations[0].scope;
    scope.content = Content::FastCgi(ProxyTarget::Upstream(UpstreamName("u".into())));
    scope.fastcgi.upstream.temp_path = std::env::temp_dir();
}

fn fastcgi(plan: &mut Plan) -> &mut FastCgiScope {
    &mut plan.servers[0].locations[0].scope.fastcgi
}

#[test]
fn a_request_becomes_parameters() {
    let app = Application::printing("A: b\n\nhello");
    let plane = DataPlane::start(|plan| {
        pass(plan, &[app.address]);
        let long = "v".repeat(70_000);
        fastcgi(plan).params = vec![
            param("METHOD", Template::variable(Variable::RequestMethod)),
            param("EMPTY", Template::default()),
            param("LONG", Template::literal(&long)),
            GatewayParam {
                empty: EmptyParam::LeftOut,
                ..param("NOTHING", Template::variable(Variable::Arg("x".into())))
            },
            param("HTTP_X_HIDDEN", Template::default()),
            param("HTTP_X_SET", Template::literal("ours")),
        ];
    });
    let mut client = plane.client();
    client.send(
        "PUT /a HTTP/1.1\r\nHost: Example.org:81\r\nX-One: 1\r\nCookie: a=1\r\nx-one: 2\r\nX-Hidden: h\r\n\
         X-Set: theirs\r\nCookie: b=2\r\nContent-Length: 3\r\n\r\nabc",
    );
    let response = client.response(true);
    assert_eq!((response.status, response.text(), response.field("a")), (200, "hello", Some("b")));
    let asked = &app.asked()[0];
    let params: Vec<_> = asked.params.iter().filter(|(name, _)| name != "LONG").collect();
    let expect = [
        ("METHOD", "PUT"),
        ("EMPTY", ""),
        ("HTTP_X_SET", "ours"),
        ("HTTP_HOST", "example.org:81"),
        ("HTTP_X_ONE", "1, 2"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_CONTENT_LENGTH", "3"),
    ];
    assert_eq!(params, expect.map(|(name, value)| (name.to_owned(), value.to_owned())).each_ref());
    assert_eq!(asked.param("LONG").map(str::len), Some(70_000));
    assert_eq!((asked.body.as_slice(), asked.keeps), (b"abc".as_slice(), false));
}

#[test]
fn bodies_of_any_size_go_with_it_buffered_or_not() {
    let app = Application::start(|asked| {
        printed(&format!("X-Length: {}\n\n{}", asked.param("LENGTH").unwrap(), asked.body.len()))
    });
    for (in_memory, buffers) in [(true, true), (false, true), (false, false)] {
        let plane = DataPlane::start(|plan| {
            pass(plan, &[app.address]);
            fastcgi(plan).params = vec![param("LENGTH", Template::variable(Variable::ContentLength))];
            fastcgi(plan).upstream.request_buffering = buffers;
            let core = &mut plan.servers[0].locations[0].scope.core;
            core.client_body_buffer_size = if in_memory { ByteSize::mib(1) } else { ByteSize::kib(8) };
        });
        for size in [0, 1, 7, 8, 16 << 10, 40_000, 200_000] {
            let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let announced = size.to_string();
            let check = |head: &str, body: &[u8], length: Option<usize>| {
                let mut client = plane.client();
                client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n"));
                client.send(body);
                let response = client.response(true);
                let seen = app.asked().last().unwrap().body.clone();
                assert_eq!(response.text(), size.to_string(), "{head} {in_memory} {buffers}");
                assert!(seen.iter().enumerate().all(|(at, byte)| *byte == at as u8), "{head}");
                // One that comes in pieces has no length yet.
                let told = response.field("x-length").filter(|told| !told.is_empty());
                let may_lack = !buffers && length.is_none();
                assert!(told == Some(announced.as_str()) || told.is_none() && may_lack, "{head} {told:?}");
            };
            check(&format!("Content-Length: {size}"), &body, Some(size));
            let mut chunked: Vec<u8> = Vec::new();
            for chunk in body.chunks(9999) {
                chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
                chunked.extend(chunk);
                chunked.extend(b"\r\n");
            }
            chunked.extend(b"0\r\n\r\n");
            check("Transfer-Encoding: chunked", &chunked, None);
        }
    }
}

#[test]
fn the_status_is_a_field() {
    let check = |output: &'static str, line: &str, fields: &[(&str, Option<&str>)]| {
        let app = Application::printing(output);
        let plane = DataPlane::start(|plan| pass(plan, &[app.address]));
        let response = plane.client().get("/");
        assert_eq!(response.head.lines().next(), Some(line), "{output}");
        for (name, value) in fields {
            assert_eq!(response.field(name), *value, "{output}: {name}");
        }
    };
    check(
        "Status: 404 No Page\r\nX: y\r\n\r\n",
        "HTTP/1.1 404 No Page",
        &[("status", None), ("x", Some("y"))],
    );
    check("Status: 403\n\n", "HTTP/1.1 403 Forbidden", &[]);
    check("Location: /x\n\n", "HTTP/1.1 302 Moved Temporarily", &[("location", Some("/x"))]);
    check("Date: then\nServer: me\n\n", "HTTP/1.1 200 OK", &[("date", Some("then")), ("server", Some("me"))]);
    check(
        "Transfer-Encoding: chunked\nConnection: close\n\nx",
        "HTTP/1.1 200 OK",
        &[("connection", Some("keep-alive"))],
    );
    check("Status: 103 Early\n\nStatus: 201 Done\n\n", "HTTP/1.1 201 Done", &[]);
    for output in ["Status: no\n\n", "no field\n\n", "Status: 101 Switch\n\n", "Unfinished: y", ""] {
        check(output, "HTTP/1.1 502 Bad Gateway", &[]);
    }
}

#[test]
fn records_may_be_cut_anywhere() {
    let bytes = [
        record(STDERR, b"a complaint"),
        record(STDOUT, b"Content-"),
        record(STDERR, b"another"),
        record(STDOUT, b"Type: text/x\n"),
        record(STDOUT, b"\nhel"),
        record(STDOUT, b"lo"),
        record(STDOUT, b""),
        record(STDERR, b"the last"),
        record(END_REQUEST, &[0; 8]),
    ]
    .concat();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (size, mut stream) in (1..).zip(listener.incoming().map_while(Result::ok)) {
            stream.set_nodelay(true).unwrap();
            read_request(&mut stream).unwrap();
            for piece in bytes.chunks(size) {
                stream.write_all(piece).unwrap();
                thread::yield_now();
            }
        }
    });
    let plane = DataPlane::start(|plan| pass(plan, &[address]));
    for _ in 0..40 {
        let response = plane.client().get("/");
        assert_eq!((response.field("content-type"), response.text()), (Some("text/x"), "hello"));
    }
}

#[test]
fn a_connection_is_kept_where_the_application_is_asked_to() {
    let app = Application::printing("A: b\n\nhello");
    let plane = DataPlane::start(|plan| {
        pass(plan, &[app.address]);
        fastcgi(plan).keep_conn = true;
    });
    let mut client = plane.client();
    (0..3).for_each(|_| assert_eq!(client.get("/").text(), "hello"));
    let connections = || app.asked().iter().map(|asked| asked.connection).collect::<Vec<_>>();
    assert!(app.asked().iter().all(|asked| asked.keeps));
    assert_eq!(connections(), [0, 0, 0]);
    // Nobody reads the body that follows.
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response(false).status, 200);
    client.get("/");
    assert_eq!(connections(), [0, 0, 0, 0, 1]);
}

#[test]
fn what_the_length_leaves_out_is_left_out() {
    let app = Application::start(|asked| {
        let length = if asked.param("HTTP_SHORT").is_some() { 100 } else { 5 };
        printed(&format!("Content-Length: {length}\n\nhello, this is too much"))
    });
    let plane = DataPlane::start(|plan| {
        pass(plan, &[app.address]);
        fastcgi(plan).keep_conn = true;
    });
    let mut client = plane.client();
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(app.asked()[1].connection, 1, "what is behind it would be the next response");
    client.send("GET / HTTP/1.1\r\nHost: h\r\nShort: 1\r\n\r\n");
    let mut rest = String::new();
    client.stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("Content-Length: 100\r\n") && rest.ends_with("too much"), "{rest}");
}

#[test]
fn a_response_that_its_application_did_not_end_is_broken() {
    let app = Application::start(|_| record(STDOUT, b"A: b\n\nhello"));
    let plane = DataPlane::start(|plan| pass(plan, &[app.address]));
    let mut client = plane.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut rest = String::new();
    client.stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("chunked") && !rest.contains("\r\n0\r\n\r\n"), "{rest}");
    // It has said all, and that is known.
    let app = Application::start(|_| [record(STDOUT, b"A: b\n\nhello"), record(STDOUT, b"")].concat());
    let plane = DataPlane::start(|plan| pass(plan, &[app.address]));
    assert_eq!(plane.client().get("/").text(), "hello");
}

/// Two applications, of which the first never answers well; gives how often each was asked.
fn tried(
    failing: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    method: &str,
    adjust: fn(&mut Plan),
) -> [usize; 3] {
    let (bad, good) = (Application::start(failing), Application::printing("A: b\n\nhello"));
    let plane = DataPlane::start(|plan| {
        pass(plan, &[bad.address, good.address]);
        adjust(plan);
    });
    let mut client = Client::connect(plane.address);
    client.send(format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"));
    let status = client.response(true).status;
    [usize::from(status), bad.asked().len(), good.asked().len()]
}

#[test]
fn nothing_is_sent_twice_unless_that_is_safe() {
    let dies = |_: &Asked| Vec::new();
    assert_eq!(tried(dies, "GET", |_| {}), [200, 1, 1]);
    assert_eq!(tried(dies, "POST", |_| {}), [502, 1, 0]);
    assert_eq!(
        tried(dies, "POST", |plan| fastcgi(plan).upstream.next_upstream.non_idempotent = true),
        [200, 1, 1]
    );
    let complains = |_: &Asked| [record(STDERR, b"PHP Fatal error: no\n"), printed("A: b\n\nbad")].concat();
    assert_eq!(tried(complains, "GET", |_| {}), [200, 1, 0]);
    let catches = |plan: &mut Plan| {
        fastcgi(plan).catch_stderr = vec!["Notice".into(), "Fatal".into()];
        fastcgi(plan).upstream.next_upstream.invalid_header = true;
    };
    assert_eq!(tried(complains, "GET", catches), [200, 1, 1]);
    assert_eq!(tried(complains, "POST", catches), [502, 1, 0]);
    let bad = |_: &Asked| printed("Status: 503 Busy\n\n");
    assert_eq!(
        tried(bad, "GET", |plan| fastcgi(plan).upstream.next_upstream.statuses = vec![503]),
        [200, 1, 1]
    );
    assert_eq!(tried(|_| b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "GET", |_| {}), [502, 1, 0]);
}
