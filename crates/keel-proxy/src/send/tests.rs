//! Answers on their way, without a connection on either side.

use std::{
    io::Write,
    sync::Arc,
    task::{Context, Waker},
};

use keel_http::{Lines, Progress};
use keel_lb::{Ask, Attempt, Group};
use keel_model::*;

use super::{
    Sent,
    relay::{self, Relay},
    send,
};
use crate::{
    answer::{Answer, FileParts, Ranges, Source},
    client::{CAPTURE_BYTES_MAX, ClientWatch, Framing},
    error::{Cause, PeerFailure},
    job::Job,
    rig::{self, Rig, location},
    snapshot::PeerProgram,
    transform::{Broken, Transform, Transforms},
    transport::{Script, Transport},
    upstream::{
        Exchanged, Line, PeerStream,
        pool::{Counted, MadeFor, PeerConnection},
    },
};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// What was captured, without the date.
fn text(captured: &[u8]) -> String {
    let text = String::from_utf8(captured.to_vec()).unwrap();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: "));
    lines.collect()
}

/// Sends an answer to a request.
fn sent(rig: &Rig, request: &str, answer: impl FnOnce() -> Box<Answer>) -> (Sent, String) {
    rig.enter(async || {
        let (sent, captured) = rig.with_job(request, async |job| send(job, answer()).await).await;
        (sent, text(&captured))
    })
}

fn add(name: &str, value: &str) -> AddHeader {
    AddHeader { name: name.into(), value: Template::literal(value), always: false }
}

#[test]
fn bytes_go_through_the_filters_of_their_place() {
    let rig = Rig::new(|plan| {
        let scope = &mut plan.servers[0].scope;
        scope.headers.add = vec![add("X-A", "1")];
        scope.headers.add_trailers = vec![add("X-T", "2")];
    });
    let answer = || Answer::text(200, "text/plain", b"hello".to_vec());
    let (_, got) = sent(&rig, GET, answer);
    assert_eq!(
        got,
        "HTTP/1.1 200 OK\r\nServer: nginx/1.31.5\r\nContent-Type: text/plain\r\n\
         Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nX-A: 1\r\n\r\n\
         5\r\nhello\r\n0\r\nX-T: 2\r\n\r\n"
    );
    let (_, got) = sent(&rig, "GET / HTTP/1.0\r\n\r\n", answer);
    assert!(got.ends_with("Content-Length: 5\r\nConnection: close\r\nX-A: 1\r\n\r\nhello"), "{got}");
    let (_, got) = sent(&rig, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", answer);
    assert!(got.ends_with("Content-Length: 5\r\nConnection: keep-alive\r\nX-A: 1\r\n\r\n"), "{got}");
}

fn file(text: &[u8]) -> Box<Answer> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text).unwrap();
    let parts = FileParts::whole(file, text.len() as u64);
    let mut answer = Answer::new(200, Source::File(parts));
    answer.fields.ranges = Ranges::Many;
    answer.fields.etag = Some(b"\"x\"".to_vec());
    answer
}

#[test]
fn a_file_is_sent_in_whole_in_part_or_not_at_all() {
    let rig = Rig::new(|_| {});
    let check = |field: &str, expect: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
        let (_, got) = sent(&rig, &request, || file(b"0123456789"));
        assert!(got.starts_with(&format!("HTTP/1.1 {} ", &expect[..3])), "{field}: {got}");
        assert!(got.ends_with(&expect[4..]), "{field}: {got}");
    };
    check("A: b", "200 Accept-Ranges: bytes\r\nConnection: keep-alive\r\n\r\n0123456789");
    check("Range: bytes=2-4", "206 Content-Range: bytes 2-4/10\r\nConnection: keep-alive\r\n\r\n234");
    check("If-None-Match: \"x\"", "304 ETag: \"x\"\r\nConnection: keep-alive\r\n\r\n");
    let request = "GET / HTTP/1.1\r\nHost: h\r\nRange: bytes=20-\r\n\r\n";
    let (instead, got) = sent(&rig, request, || file(b"0123456789"));
    assert!(matches!(instead, Sent::Instead(special) if special.status == 416));
    assert_eq!(got, "");
}

#[test]
fn a_large_file_is_sent_to_its_end_and_with_trailers() {
    let rig = Rig::new(|plan| plan.servers[0].scope.headers.add_trailers = vec![add("X-T", "1")]);
    let body = vec![b'x'; 100_000];
    let (_, got) = sent(&rig, GET, || file(&body));
    assert!(got.contains("\r\n\r\n186a0\r\nxxx"), "{}", &got[..200]);
    assert!(got.ends_with("xxx\r\n0\r\nX-T: 1\r\n\r\n"));
    let (_, got) = sent(&rig, "GET / HTTP/1.0\r\n\r\n", || file(&body));
    assert_eq!(got.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(100_000));
}

#[test]
fn a_place_without_chunks_has_no_trailers() {
    let rig = Rig::new(|plan| {
        let scope = &mut plan.servers[0].scope;
        scope.core.chunked_transfer_encoding = false;
        scope.headers.add_trailers = vec![add("X-T", "1")];
    });
    let (_, got) = sent(&rig, GET, || Answer::text(200, "", b"hello".to_vec()));
    assert!(got.ends_with("Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"), "{got}");
}

#[test]
fn a_capture_has_a_bound() {
    let rig = Rig::new(|_| {});
    let answer = || Answer::text(200, "", vec![0; CAPTURE_BYTES_MAX + 1]);
    assert!(matches!(sent(&rig, GET, answer).0, Sent::Cut));
}

/// A connection to a peer that says what the reads give.
fn peer(job: &mut Job<'_>, reads: &[Option<&str>], program: &PeerProgram) -> Exchanged {
    let group = Group::new(&rig::upstream("app"), &job.worker.registry, Arc::new(|_, _| {})).unwrap();
    let ask = Ask {
        now: job.worker.clock.now(),
        client_key: b"",
        key: b"",
        tried: &[],
        attempt: Attempt::First,
        random: 0,
    };
    let pick = group.pick(&ask).unwrap();
    let transport = Transport::Script(Script::new(reads));
    let counted = Counted::new(job.worker);
    let made_for = MadeFor {
        peer: pick.peer().clone(),
        protocol: program.kind(),
        place: job.place().identity.clone(),
        local: None,
    };
    let connection = PeerConnection::new(transport, made_for, ask.now, counted);
    let mut stream = PeerStream::new(Line::Own(connection), job.ex, program, false, 0);
    let mut cx = Context::from_waker(Waker::noop());
    stream.poll_rest_of_request(&mut cx, job.client, job.ex);
    Exchanged { stream, watch: ClientWatch::default() }
}

fn receive(job: &mut Job<'_>, head: &str, body: &str) {
    let side = &mut job.ex.upstream;
    side.input = format!("{head}\r\n\r\n{body}").into_bytes();
    let Ok(Progress::Complete(end)) = side.head.parse(&side.input) else { panic!("no head: {head}") };
    (side.body_start, side.has_head) = (end, true);
}

/// What became of a relayed response.
struct Outcome {
    relayed: Result<(), Cause>,
    has_rest: bool,
    /// Whether the peer's connection may be used again.
    is_reusable: bool,
    got: String,
    /// What the client didn't get yet.
    waiting: String,
}

/// Relays a response whose head and first bytes have come, the rest in these reads.
fn relayed(
    head: &str,
    first: &str,
    reads: &[Option<&str>],
    framing: Framing,
    transforms: Transforms,
) -> Outcome {
    let rig = Rig::new(|plan| plan.servers[0].locations.push(location("/")));
    rig.enter(async || {
        let both = rig
            .with_job(GET, async |job| {
                receive(job, head, first);
                let mut lines = Lines::default();
                lines.fixed("H: 1\r\n");
                let program = &rig::program(&Scope::default());
                let mut relay = Relay::new(job, framing, program, lines.end().unwrap());
                relay.change(transforms);
                let mut peer = peer(job, reads, program);
                let relayed = relay::run(job, &mut peer, &mut relay, program).await;
                let waiting = String::from_utf8(job.client.stream.waiting().to_vec()).unwrap();
                (relayed, relay.has_rest, peer.stream.is_reusable(&job.ex.upstream), waiting)
            })
            .await;
        let ((relayed, has_rest, is_reusable, waiting), captured) = both;
        Outcome { relayed, has_rest, is_reusable, got: String::from_utf8(captured).unwrap(), waiting }
    })
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked";
const LENGTH_10: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10";

#[test]
fn a_body_is_framed_anew_however_it_comes() {
    let whole = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
    for cut in 0..whole.len() {
        let (first, rest) = whole.split_at(cut);
        let Outcome { relayed, is_reusable, got, .. } =
            relayed(CHUNKED, first, &[Some(rest)], Framing::UntilClose, Transforms::default());
        assert!(relayed == Ok(()) && is_reusable, "cut at {cut}");
        assert_eq!(got, "H: 1\r\n\r\nhello world", "cut at {cut}");
    }
    let Outcome { got, .. } =
        relayed(LENGTH_10, "01234", &[Some("56789")], Framing::Chunked, Transforms::default());
    assert_eq!(got, "H: 1\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
}

#[test]
fn a_peer_that_breaks_off_is_told_by_what_was_sent_before() {
    let check = |first: &str, reads: &[Option<&str>], expect: &str| {
        let Outcome { relayed, has_rest, got, waiting, .. } =
            relayed(LENGTH_10, first, reads, Framing::Length(10), Transforms::default());
        assert_eq!(relayed, Err(Cause::Peer(PeerFailure::Error)), "{first}");
        if got.is_empty() {
            assert_eq!(has_rest, !expect.is_empty(), "{first}");
            assert_eq!(waiting, expect, "{first}");
        } else {
            assert_eq!((got.as_str(), has_rest), (expect, false), "{first}");
        }
    };
    // Nothing had been sent: another peer may be asked, and what there is may be given all the same.
    check("", &[None], "");
    check("012", &[None], "H: 1\r\n\r\n012");
    // The head has been sent with the first bytes.
    check("", &[Some("012"), None], "H: 1\r\n\r\n012");
}

#[test]
fn a_response_longer_than_announced_leaves_its_connection_unclean() {
    let Outcome { relayed, is_reusable, got, .. } =
        relayed(LENGTH_10, "0123456789more", &[], Framing::Length(10), Transforms::default());
    assert!(relayed == Ok(()) && !is_reusable);
    assert_eq!(got, "H: 1\r\n\r\n0123456789");
}

/// Doubles every byte.
struct Doubled;

impl Transform for Doubled {
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        *piece = piece.iter().flat_map(|byte| [*byte, *byte]).collect();
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        out.push(b'.');
        Ok(())
    }
}

#[test]
fn transforms_act_on_the_payload_in_their_order() {
    let mut transforms = Transforms::default();
    (0..2).for_each(|_| transforms.push(Doubled));
    let Outcome { got, .. } = relayed(LENGTH_10, "01", &[Some("23456789")], Framing::Chunked, transforms);
    let body = got.strip_prefix("H: 1\r\n\r\n").unwrap();
    assert!(body.starts_with("8\r\n00001111\r\n20\r\n2222"), "{got}");
    assert!(body.ends_with("\r\n3\r\n...\r\n0\r\n\r\n"), "{got}");
}

#[test]
fn an_old_browser_is_led_elsewhere_by_a_page() {
    let rig = Rig::new(|plan| {
        let scope = &mut plan.servers[0].scope;
        scope.core.msie_refresh = true;
        plan.servers[0].rewrite =
            Return { status: 302, text: Some(Template::literal("http://o/a'b?c")) }.into();
    });
    let get =
        |browser: &str| rig.request(&format!("GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: {browser}\r\n\r\n"));
    let got = get("Mozilla/4.0 (compatible; MSIE 7.0)");
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && !got.contains("\r\nLocation: "), "{got}");
    assert!(got.contains("content=\"0; URL=http://o/a%27b?c\">"), "{got}");
    let got = get("curl/8");
    assert!(got.starts_with("HTTP/1.1 302 ") && got.contains("\r\nLocation: http://o/a'b?c\r\n"), "{got}");
}

#[test]
fn a_redirect_with_a_page_of_its_own_stays_one() {
    let rig = Rig::new(|plan| {
        let page =
            ErrorPage { status: 302, response: ErrorPageStatus::Keep, uri: Template::literal("/page") };
        plan.servers[0].scope.core.error_pages = vec![page];
        let mut from = location("/from");
        from.scope.core.error_pages = plan.servers[0].scope.core.error_pages.clone();
        from.rewrite = Return { status: 302, text: Some(Template::literal("/to")) }.into();
        let mut page = location("/page");
        page.rewrite = Return { status: 200, text: Some(Template::literal("look there")) }.into();
        plan.servers[0].locations.extend([from, page]);
    });
    let got = rig.request("GET /from HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 302 ") && got.ends_with("look there"), "{got}");
    assert!(got.contains("\r\nLocation: http://h/to\r\n"), "{got}");
}
