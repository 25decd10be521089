//! Peers that speak HTTP/2.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use keel_model::*;
use support::{DEADLINE, DataPlane, balance};
use tokio::net::{TcpListener, TcpStream};

/// What a peer does with a request.
#[derive(Clone, Copy)]
enum Act {
    /// Answers with the path and the length of the body, and a trailer.
    Answer,
    /// Refuses the stream.
    Refuse,
    /// Says goodbye instead of answering.
    SayGoodbye,
    /// Resets the stream once it has read the request.
    Reset,
    /// Keeps the request and doesn't read on.
    Keep,
    /// Is gone, without a word.
    Vanish,
}

/// A peer, its connections and the requests that it was sent.
struct Peer2 {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Peer2 {
    fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let (send, receive) = std::sync::mpsc::channel();
        let (connections, requests): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (opened, asked, act) = (connections.clone(), requests.clone(), Arc::new(act));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    opened.fetch_add(1, SeqCst);
                    let (asked, act) = (asked.clone(), act.clone());
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            let act = act(asked.fetch_add(1, SeqCst));
                            match act {
                                Act::SayGoodbye => connection.abrupt_shutdown(Reason::NO_ERROR),
                                Act::Vanish => std::future::pending().await,
                                act => drop(tokio::spawn(answer(act, request, respond))),
                            }
                        }
                    });
                }
            });
        });
        Self { address: receive.recv().unwrap(), connections, requests }
    }
}

async fn answer(act: Act, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if matches!(act, Act::Refuse) {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    if matches!(act, Act::Keep) {
        let _kept = (request, respond);
        return std::future::pending().await;
    }
    let (parts, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).unwrap();
        length += piece.len();
    }
    if matches!(act, Act::Reset) {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    }
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    let authority = parts.uri.authority().unwrap();
    let text = format!("{} {} {length}", parts.uri.path(), authority);
    send.send_data(text.into(), false).unwrap();
    let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("last"))]);
    send.send_trailers(trailers).unwrap();
}

fn start(peers: &[&Peer2], adjust: impl FnOnce(&mut ProxyScope)) -> DataPlane {
    DataPlane::start(|plan| {
        let addresses: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
        balance(plan, &addresses);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.proxy.http_version = ProxyHttpVersion::Http2;
        scope.core.client_max_body_size = ByteSize(0);
        adjust(&mut scope.proxy);
    })
}

#[test]
fn many_requests_share_one_connection() {
    let peer = Peer2::start(|_| Act::Answer);
    let plane = start(&[&peer], |_| {});
    let mut clients: Vec<_> = (0..20).map(|_| plane.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{at} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    for (at, client) in clients.iter_mut().enumerate() {
        let response = client.response(true);
        assert_eq!((response.status, response.text()), (200, format!("/{at} u 0").as_str()));
    }
    assert_eq!((peer.requests.load(SeqCst), peer.connections.load(SeqCst)), (20, 1));
}

#[test]
fn bodies_and_trailers_pass() {
    let peer = Peer2::start(|_| Act::Answer);
    for buffering in [true, false] {
        let plane = start(&[&peer], |proxy| proxy.upstream.request_buffering = buffering);
        let mut client = plane.client();
        let body = "x".repeat(300_000);
        client.send(format!(
            "POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.response(true).text(), "/p u 300000", "{buffering}");
        client.send(
            "POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        assert_eq!(client.response(true).text(), "/c u 3", "{buffering}");
    }
    let plane = start(&[&peer], |proxy| proxy.pass_trailers = true);
    let mut client = plane.client();
    client.send("GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stream, &mut text).unwrap();
    assert!(text.ends_with("6\r\n/t u 0\r\n0\r\netag: last\r\n\r\n"), "{text}");
}

#[test]
fn what_a_peer_refuses_goes_elsewhere_whatever_it_is() {
    let (refusing, other) = (Peer2::start(|_| Act::Refuse), Peer2::start(|_| Act::Answer));
    let plane = start(&[&refusing, &other], |_| {});
    let mut client = plane.client();
    for _ in 0..4 {
        client.send("POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.response(true).text(), "/p u 2");
    }
    assert!(refusing.requests.load(SeqCst) > 0);
    assert_eq!(other.requests.load(SeqCst), 4);
}

#[test]
fn what_a_peer_may_have_taken_is_sent_again_only_where_that_is_safe() {
    let (broken, other) = (Peer2::start(|_| Act::Reset), Peer2::start(|_| Act::Answer));
    let plane = start(&[&broken, &other], |proxy| proxy.upstream.next_upstream_tries = 2);
    let mut client = plane.client();
    client.send("POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response(true).status, 502);
    assert_eq!((broken.requests.load(SeqCst), other.requests.load(SeqCst)), (1, 0));
    assert_eq!(client.get("/g").status, 200);
}

#[test]
fn a_peer_that_says_goodbye_between_requests_loses_none() {
    let peer = Peer2::start(|at| if at % 3 == 2 { Act::SayGoodbye } else { Act::Answer });
    let plane = start(&[&peer], |_| {});
    let mut client = plane.client();
    for _ in 0..9 {
        assert_eq!(client.get("/g").text(), "/g u 0");
    }
}

#[test]
fn a_stream_that_a_peer_resets_is_a_failure_on_a_used_connection_too() {
    let peer = Peer2::start(|at| if at == 0 { Act::Answer } else { Act::Reset });
    let plane = start(&[&peer], |_| {});
    let mut client = plane.client();
    assert_eq!(client.get("/g").status, 200);
    assert_eq!(client.get("/g").status, 502);
    assert_eq!((peer.requests.load(SeqCst), peer.connections.load(SeqCst)), (2, 1));
}

#[test]
fn a_connection_on_which_nothing_comes_any_more_is_left() {
    let peer = Peer2::start(|at| if at == 1 { Act::Vanish } else { Act::Answer });
    let plane = start(&[&peer], |proxy| proxy.upstream.read_timeout = Duration::from_millis(300));
    let mut client = plane.client();
    assert_eq!(client.get("/g").status, 200);
    assert_eq!(client.get("/g").status, 504);
    assert_eq!(client.get("/g").status, 200);
    assert_eq!(peer.connections.load(SeqCst), 2);
}

#[test]
fn a_connection_with_too_many_small_pieces_that_wait_ends() {
    let peer = Peer2::start(|_| Act::Keep);
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].client.http2 = true;
        plan.servers[0].client.http2_body_preread_size = ByteSize::kib(1 << 10);
        let scope = &mut plan.servers[0].locations[0].scope;
        scope.core.client_max_body_size = ByteSize(0);
        scope.proxy.http_version = ProxyHttpVersion::Http2;
        scope.proxy.upstream.request_buffering = false;
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let stream = TcpStream::connect(plane.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method("POST").uri("http://localhost/").body(()).unwrap();
        let (response, mut body) = send.send_request(request, false).unwrap();
        body.reserve_capacity(256 << 10);
        while body.capacity() < 256 << 10 {
            std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
        }
        // The peer's window and what stands before it are full of this.
        body.send_data(vec![b'x'; 200 << 10].into(), false).unwrap();
        for _ in 0..10_000 {
            if body.send_data(Bytes::from_static(b"x"), false).is_err() {
                break;
            }
        }
        tokio::time::timeout(DEADLINE, response).await
    });
    assert!(ended.is_ok_and(|response| response.is_err()));
}
