//! Clients that speak HTTP/2.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    io::{Read, Write},
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Request, StatusCode};
use keel_model::*;
use support::{DEADLINE, DataPlane, ScriptedPeer, balance, unlogged};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    task::JoinHandle,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection.
struct Http2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn read(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        RecvStream::flow_control(&mut stream).release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(Answer { status: parts.status, fields: parts.headers, body, trailers })
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://localhost{path}")).body(()).unwrap()
}

impl Http2 {
    fn connect(plane: &DataPlane) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (send, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(plane.address).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Self { runtime, send, connection }
    }

    fn begin(&mut self, request: Request<()>) -> h2::client::ResponseFuture {
        self.send.send_request(request, true).unwrap().0
    }

    fn finish(&self, response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
        self.runtime.block_on(async { tokio::time::timeout(DEADLINE, read(response)).await.unwrap() })
    }

    fn ask(&mut self, request: Request<()>) -> Answer {
        let response = self.begin(request);
        self.finish(response).unwrap()
    }

    /// Sends a body in pieces of at most so many bytes, as the other side takes them.
    fn post(&mut self, path: &str, body: &[u8], piece: usize) -> Answer {
        let request =
            Request::builder().method("POST").uri(format!("http://localhost{path}")).body(()).unwrap();
        let (response, mut stream) = self.send.send_request(request, false).unwrap();
        self.runtime.block_on(async {
            let mut rest = Bytes::copy_from_slice(body);
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len().min(piece));
                while stream.capacity() == 0 {
                    std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                }
                let next = rest.split_to(stream.capacity().min(rest.len()));
                stream.send_data(next, rest.is_empty()).unwrap();
            }
        });
        self.finish(response).unwrap()
    }

    fn expect_end(self) {
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, self.connection).await.unwrap().unwrap() })
            .unwrap();
    }
}

fn start(adjust: impl FnOnce(&mut Plan)) -> DataPlane {
    DataPlane::start(|plan| {
        plan.servers[0].client.http2 = true;
        adjust(plan);
    })
}

fn returning(path: &str, text: &str) -> Location {
    Location {
        matcher: LocationMatcher::Prefix(path.into()),
        scope: unlogged(),
        rewrite: Return { status: 200, text: Some(Template::literal(text)) }.into(),
        locations: Vec::new(),
    }
}

#[test]
fn many_requests_are_answered_on_one_connection_and_http_1_beside_it() {
    let peer = ScriptedPeer::start(|seen| {
        let path = seen.head.split(' ').nth(1).unwrap().to_owned();
        Some(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{path}",
                path.len()
            )
            .into_bytes(),
        )
    });
    let plane = start(|plan| balance(plan, &[peer.address]));
    let mut client = Http2::connect(&plane);
    let responses: Vec<_> = (0..100).map(|at| client.begin(get(&format!("/{at}")))).collect();
    for (at, response) in responses.into_iter().enumerate() {
        let answer = client.finish(response).unwrap();
        assert_eq!((answer.status, answer.body), (StatusCode::OK, format!("/{at}").into_bytes()));
        assert!(!answer.fields.contains_key("connection"));
    }
    assert_eq!(plane.client().get("/one").text(), "/one");
    assert!(
        peer.requests()
            .iter()
            .all(|seen| seen.head.contains("HTTP/1.0\r\n") || seen.head.contains("HTTP/1.1\r\n"))
    );
}

#[test]
fn bodies_flow_beyond_the_windows_both_ways() {
    let peer = ScriptedPeer::start(|seen| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len()).into_bytes();
        answer.extend_from_slice(&seen.body);
        Some(answer)
    });
    for buffering in [true, false] {
        let plane = start(|plan| {
            balance(plan, &[peer.address]);
            let scope = &mut plan.servers[0].locations[0].scope;
            scope.core.client_max_body_size = ByteSize(0);
            scope.proxy.http_version = ProxyHttpVersion::Http11;
            scope.proxy.upstream.request_buffering = buffering;
            scope.proxy.upstream.buffering = buffering;
        });
        let body: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let answer = Http2::connect(&plane).post("/", &body, 30_000);
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == body, "{} of {} bytes, buffering {buffering}", answer.body.len(), body.len());
    }
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let plane = start(|plan| {
        balance(plan, &["127.0.0.1:1".parse().unwrap()]);
        plan.servers[0].locations[0].scope.core.client_max_body_size = ByteSize(10);
    });
    assert_eq!(Http2::connect(&plane).post("/", &[0; 20], 20).status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn heads_alone_trailers_and_errors_are_as_in_http_1() {
    let peer = ScriptedPeer::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        Some(format!("{head}2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n").into_bytes())
    });
    let plane = start(|plan| {
        balance(plan, &[peer.address]);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.proxy.pass_trailers = true;
        scope.proxy.http_version = ProxyHttpVersion::Http11;
        let mut own = returning("/own", "text");
        let value = Template::variable(Variable::Http2);
        own.scope.headers.add_trailers.push(AddHeader { name: "X-Version".into(), value, always: false });
        plan.servers[0].locations.push(own);
    });
    let mut client = Http2::connect(&plane);
    let answer = client.ask(get("/"));
    assert_eq!((answer.body.as_slice(), answer.trailers["x-sum"].as_bytes()), (&b"hi"[..], &b"1"[..]));
    let answer = client.ask(get("/own"));
    assert_eq!(
        (answer.body.as_slice(), answer.trailers["x-version"].as_bytes()),
        (&b"text"[..], &b"h2c"[..])
    );
    assert_eq!(answer.fields["content-length"], "4");
    let head = Request::builder().method("HEAD").uri("http://localhost/own").body(()).unwrap();
    let answer = client.ask(head);
    assert_eq!((answer.body.len(), answer.fields["content-length"].as_bytes()), (0, &b"4"[..]));
    let two_hosts = Request::builder().uri("http://localhost/own").header("host", "other").body(()).unwrap();
    assert_eq!(client.ask(two_hosts).status, StatusCode::BAD_REQUEST);
    assert_eq!(client.ask(get("/own")).status, StatusCode::OK, "the others go on");
}

#[test]
fn what_is_in_flight_when_the_data_plane_quits_is_answered() {
    let (began, has_begun) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let goes_on = std::sync::Mutex::new(goes_on);
    let peer = ScriptedPeer::start(move |_| {
        began.send(()).unwrap();
        goes_on.lock().unwrap().recv().unwrap();
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec())
    });
    let mut plane = start(|plan| balance(plan, &[peer.address]));
    let (mut client, idle) = (Http2::connect(&plane), Http2::connect(&plane));
    let response = client.begin(get("/"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    plane.order(&Order::Quit);
    // An idle connection ends at once, by which time the other has been told, too.
    idle.expect_end();
    go_on.send(()).unwrap();
    assert_eq!(client.finish(response).unwrap().body, b"late");
    client.expect_end();
    plane.expect_end();
}

#[test]
fn a_connection_ends_after_its_last_request() {
    let plane = start(|plan| {
        plan.servers[0].scope.core.keepalive_requests = 2;
        plan.servers[0].locations.push(returning("/", "text"));
    });
    let mut client = Http2::connect(&plane);
    assert_eq!(client.ask(get("/")).body, b"text");
    assert_eq!(client.ask(get("/")).body, b"text");
    client.expect_end();
}

#[test]
fn a_flood_ends_its_connection() {
    let plane = start(|plan| plan.servers[0].locations.push(returning("/", "text")));
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut stream = std::net::TcpStream::connect(plane.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).unwrap();
    stream.write_all(&ping.repeat(101)).unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    let goodbye = came.windows(9).position(|frame| frame[..4] == [0, 0, 8, 7]).unwrap();
    assert_eq!(came[goodbye + 13..goodbye + 17], [0, 0, 0, 11], "ENHANCE_YOUR_CALM");
    assert_eq!(Http2::connect(&plane).ask(get("/")).body, b"text", "others are served");
}

#[test]
fn a_preface_in_pieces_is_one_and_what_begins_like_it_is_http_1() {
    let plane = start(|plan| plan.servers[0].locations.push(returning("/", "text")));
    let mut stream = std::net::TcpStream::connect(plane.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for piece in PREFACE.chunks(5) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "settings");
    let mut client = plane.client();
    client.send("PRIX / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response(true).text(), "text");
}

#[test]
fn grpc_streams_both_ways_at_once_and_passes_its_trailers() {
    let (send, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
            while let Some(piece) = body.data().await {
                answer.send_data(piece.unwrap(), false).unwrap();
            }
            let status = http::HeaderName::from_static("grpc-status");
            answer
                .send_trailers(HeaderMap::from_iter([(status, http::HeaderValue::from_static("0"))]))
                .unwrap();
            std::future::pending::<()>().await;
        });
    });
    let peer = address.recv().unwrap();
    let plane = start(|plan| {
        balance(plan, &[peer]);
        let scope = &mut plan.servers[0].locations[0].scope;
        let Content::Proxy(pass) = std::mem::take(&mut scope.content) else { panic!("no pass") };
        scope.content = Content::Grpc(pass);
    });
    let mut client = Http2::connect(&plane);
    let request = Request::builder().method("POST").uri("http://localhost/s/Call").header("te", "trailers");
    let (response, mut up) = client.send.send_request(request.body(()).unwrap(), false).unwrap();
    client.runtime.block_on(async {
        let mut down = response.await.unwrap().into_body();
        for piece in ["one", "two"] {
            up.send_data(piece.into(), false).unwrap();
            assert_eq!(down.data().await.unwrap().unwrap(), piece, "before anything else is sent");
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert!(down.data().await.is_none());
        assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn what_a_slow_client_takes_after_the_data_plane_was_to_quit_is_sent_to_its_end() {
    const LENGTH: usize = 1 << 20;
    let mut plane = start(|plan| {
        plan.servers[0].locations.push(returning("/", &"x".repeat(LENGTH)));
    });
    // Connections have it of the socket that listens.
    rustix::net::sockopt::set_socket_send_buffer_size(&plane.listener, 8 << 10).unwrap();
    // The windows are of 16 MB, so that nothing but the socket holds the body up.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let head = [&[0, 0, 14, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 9][..], b"localhost"].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let came = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 << 10).unwrap();
        let mut stream = socket.connect(plane.address).await.unwrap();
        stream.write_all(&[PREFACE, &settings, &window, &head].concat()).await.unwrap();
        let mut came = 0;
        let mut piece = [0; 4 << 10];
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => break came,
                count if came == 0 => {
                    plane.order(&Order::Quit);
                    came += count;
                }
                count => came += count,
            }
            // All in all it takes longer than a connection without streams is kept then.
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
    });
    assert!(came > LENGTH, "{came} bytes came");
    plane.expect_end();
}
