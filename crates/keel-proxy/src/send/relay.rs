//! A response's body from peer to client, with back-pressure.
//!
//! Bytes wait in memory; once that is full, in a temporary file, so that a slow client doesn't hold up a peer
//! (`proxy_buffering`, `proxy_max_temp_file_size`). What the client takes as fast as it comes never sees the file.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Instant,
};

use keel_http::{Lines, Message, ResponseFraming, body::Decoder, body::Trailers, body::each_trailer, encode};
use keel_model::{LogLevel, ProxyScope};

use super::{Framing, filter_trailers};
use crate::{
    downstream::Client, error::PeerFailure, exchange::Exchange, filter::Transform, io::spool::Spool,
    job::Job, upstream::ClientWatch,
};

/// Bytes read from a peer at a time while a body streams.
const READ_BYTES: usize = 32 << 10;

/// With fewer bytes than this at hand, a response's first write waits for one more look at what has come.
const READ_FIRST_BYTES_MAX: usize = 4 << 10;

/// Bytes read back from a temporary file at a time.
const UNSPOOL_BYTES: usize = 64 << 10;

/// How a relay ended.
pub(super) enum Relayed {
    /// The client has the whole response. `reusable` says whether the peer's connection is clean.
    Whole { reusable: bool },
    /// The peer failed midway.
    PeerFailed(PeerFailure),
    /// The peer failed before a byte was sent to the client. `rest` is what the client may be given of the response all
    /// the same; it is empty where the peer said nothing yet, or what can't be trusted.
    PeerFailedFirst { failure: PeerFailure, rest: Vec<u8> },
    /// The client did.
    ClientGone,
    /// A temporary file can't be written or read; it has been logged.
    StoreFailed,
}

/// Why no more can be had of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Peer(PeerFailure),
    /// A temporary file can't be written.
    Store,
}

impl From<Failure> for Relayed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Peer(failure) => Relayed::PeerFailed(failure),
            Failure::Store => Relayed::StoreFailed,
        }
    }
}

/// Why no more can be sent of a body.
enum Unsent {
    ClientGone,
    /// A temporary file can't be read.
    Store,
}

impl From<Unsent> for Relayed {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::ClientGone => Relayed::ClientGone,
            Unsent::Store => Relayed::StoreFailed,
        }
    }
}

/// A connection that a response's head has been read from, as far as the relay has to do with it.
pub(crate) trait PeerBody {
    /// Reads once; 0 means the end.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>>;

    /// Goes on sending the request to a peer that has answered before it had the whole. What can't be sent isn't missed.
    fn poll_request(&mut self, cx: &mut Context<'_>, client: &mut Client, ex: &mut Exchange);

    /// What watches the client meanwhile.
    fn watch(&mut self) -> &mut ClientWatch;

    /// Counts the bytes of the request that were sent.
    fn sent_bytes(&self) -> u64;
}

/// One response body on its way.
pub(super) struct Relay {
    decoder: Decoder,
    framing: Framing,
    /// What the client gets next: the head, then the body.
    out: Vec<u8>,
    out_sent: usize,
    head_length: usize,
    /// Scratch for what must be re-framed or spooled.
    raw: Vec<u8>,
    spool: Option<Spool>,
    memory_max: usize,
    file_max: u64,
    clean: bool,
    finished: bool,
    payload_bytes: u64,
    /// Bytes sent before the response, interim ones.
    sent_before: u64,
    /// What filters do to the payload, in order.
    pub(super) transforms: Vec<Box<dyn Transform>>,
}

/// Makes what finds the end of the body of the peer's response.
pub(super) fn decoder(job: &Job<'_>, trailers: Trailers) -> Decoder {
    let head = &job.ex.upstream.head;
    match head.framing {
        _ if job.ex.upstream.asks_for_head || matches!(head.status, 204 | 304) => Decoder::Done,
        ResponseFraming::Length(length) => Decoder::length(length),
        ResponseFraming::Chunked => Decoder::chunked(trailers),
        ResponseFraming::UntilClose => Decoder::UntilClose,
    }
}

impl Relay {
    pub(super) fn new(job: &Job<'_>, framing: Framing, scope: &ProxyScope, head: Message) -> Self {
        let trailers = if scope.pass_trailers { Trailers::Keep } else { Trailers::Drop };
        let decoder = decoder(job, trailers);
        let head_length = head.head_length();
        let side = &job.ex.upstream;
        let accel = side.head.fields.first(keel_http::Name::XAccelBuffering);
        let accel = accel.map(|field| field.value.of(&side.input));
        let buffering = match accel {
            Some(value) if value.eq_ignore_ascii_case(b"no") => false,
            Some(value) if value.eq_ignore_ascii_case(b"yes") => true,
            _ => scope.upstream.buffering,
        };
        let memory =
            scope.upstream.buffers.size.as_usize().saturating_mul(scope.upstream.buffers.count as usize);
        Self {
            decoder,
            framing,
            out: head.into_bytes(),
            out_sent: 0,
            head_length,
            raw: Vec::new(),
            spool: None,
            memory_max: if buffering { memory } else { scope.upstream.buffer_size.as_usize() }.max(4 << 10),
            file_max: if buffering { scope.upstream.max_temp_file_size.0 } else { 0 },
            clean: true,
            finished: false,
            payload_bytes: 0,
            sent_before: job.ex.sent.bytes,
            transforms: Vec::new(),
        }
    }

    fn pending(&self) -> usize {
        self.out.len() - self.out_sent
    }

    fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::pending)
    }

    /// Says whether more may be read from the peer now.
    fn has_room(&self) -> bool {
        self.pending() < self.memory_max || self.spool.as_ref().map_or(0, Spool::len) < self.file_max
    }

    /// Takes bytes that came from the peer and appends what the client gets of them to `to`.
    fn take(&mut self, bytes: &[u8], to: &mut Vec<u8>) -> Result<(), PeerFailure> {
        let mut at = 0;
        while at < bytes.len() {
            if self.decoder.is_done() {
                // More than was announced: what it is nobody can know.
                self.clean = false;
                break;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let step = self.decoder.decode(rest).map_err(|_| PeerFailure::Invalid)?;
            let payload = rest.get(step.payload).unwrap_or_default();
            self.payload_bytes += payload.len() as u64;
            if self.transforms.is_empty() {
                self.framing.append(payload, to);
            } else {
                let mut piece = payload.to_vec();
                self.transforms.iter_mut().for_each(|transform| transform.piece(&mut piece));
                self.framing.append(&piece, to);
            }
            at += step.consumed;
        }
        Ok(())
    }

    /// Ends the body for the client, once.
    fn end(&mut self, trailers: &Lines, to: &mut Vec<u8>) {
        if std::mem::replace(&mut self.finished, true) || self.framing != Framing::Chunked {
            return;
        }
        trailers.write_last_chunk(to);
    }

    /// Puts bytes behind everything that waits already.
    fn store(&mut self, mut bytes: Vec<u8>, folder: &std::path::Path) -> io::Result<Vec<u8>> {
        if self.spooled() == 0 && self.pending() < self.memory_max {
            self.out.extend_from_slice(&bytes);
        } else {
            let spool = match &mut self.spool {
                Some(spool) => spool,
                None => self.spool.insert(Spool::create(folder)?),
            };
            spool.write(&bytes)?;
        }
        bytes.clear();
        Ok(bytes)
    }
}

impl Framing {
    /// Appends a piece of a body.
    fn append(self, payload: &[u8], to: &mut Vec<u8>) {
        match self {
            Framing::Chunked => encode::chunk(payload, to),
            Framing::None => {}
            Framing::Length(_) | Framing::UntilClose => to.extend_from_slice(payload),
        }
    }
}

/// Relays a body to its end.
pub(super) async fn run(
    job: &mut Job<'_>,
    peer: &mut impl PeerBody,
    relay: &mut Relay,
    scope: &ProxyScope,
) -> Relayed {
    let mut input = std::mem::take(&mut job.ex.upstream.input);
    let mut out = std::mem::take(&mut relay.out);
    let first = input.get(job.ex.upstream.body_start..).unwrap_or_default();
    let taken = relay.take(first, &mut out);
    input.truncate(job.ex.upstream.body_start);
    job.ex.upstream.input = input;
    relay.out = out;
    let begun = match taken {
        Ok(()) if relay.decoder.is_done() => end_body(job, relay, scope),
        Ok(()) => Ok(()),
        Err(failure) => Err(Failure::Peer(failure)),
    };
    let ended = match begun {
        Ok(()) => stream(job, peer, relay, scope).await,
        Err(failure) => failure.into(),
    };
    let ended = match ended {
        Relayed::PeerFailed(failure) if !job.ex.sent.begun => {
            let is_trusted = failure == PeerFailure::Error && relay.payload_bytes > 0;
            let rest = if is_trusted { relay.out.clone() } else { Vec::new() };
            Relayed::PeerFailedFirst { failure, rest }
        }
        ended => ended,
    };
    let head_length = relay.head_length.min(relay.out.len());
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.response_bytes = relay.payload_bytes;
        attempt.received_bytes = attempt.received_bytes.max(relay.payload_bytes);
        attempt.sent_bytes = peer.sent_bytes();
    }
    let sent = job.ex.sent.bytes - relay.sent_before;
    job.ex.sent.body_bytes = sent.saturating_sub(relay.head_length as u64);
    if job.ex.sent.head.is_empty() {
        relay.out.truncate(head_length);
        job.ex.sent.head = std::mem::take(&mut relay.out);
    }
    ended
}

fn end_body(job: &mut Job<'_>, relay: &mut Relay, scope: &ProxyScope) -> Result<(), Failure> {
    let mut kept = Lines::default();
    let mut tail = Vec::new();
    if scope.pass_trailers {
        let trailers = relay.decoder.trailers();
        each_trailer(trailers, |field| kept.copied(field, trailers));
        job.ex.upstream.trailers = kept.as_bytes().to_vec();
    }
    if relay.framing == Framing::Chunked {
        kept.append(&filter_trailers(job));
    }
    relay.end(&kept, &mut tail);
    relay.decoder = match std::mem::take(&mut relay.decoder) {
        Decoder::UntilClose => Decoder::Done,
        decoder => decoder,
    };
    job.ex.sent.trailers = kept;
    if relay.spooled() > 0 {
        if let Some(Err(error)) = relay.spool.as_mut().map(|spool| spool.write(&tail)) {
            log_store(job, &error);
            return Err(Failure::Store);
        }
    } else {
        relay.out.extend_from_slice(&tail);
    }
    Ok(())
}

/// Says that a temporary file fails: neither the peer nor the client has anything to do with it.
fn log_store(job: &Job<'_>, error: &io::Error) {
    let reason = crate::phase::files::errno_text(error);
    let text = format!("a temporary file for the response failed ({reason}) while buffering it");
    job.client.log(job.worker, job.ex, LogLevel::Crit, &text);
}

async fn stream(
    job: &mut Job<'_>,
    peer: &mut impl PeerBody,
    relay: &mut Relay,
    scope: &ProxyScope,
) -> Relayed {
    let send_timeout = job.place().scope.core.send_timeout;
    let mut read_since: Option<Instant> = None;
    let mut write_since: Option<Instant> = None;
    // An app often sends head and body apart; what has come by now leaves in one write.
    let mut reads_first = relay.pending() < READ_FIRST_BYTES_MAX;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if std::mem::take(&mut reads_first)
                && !relay.decoder.is_done()
                && let Poll::Ready(Err(failure)) = read(job, peer, relay, scope, cx)
            {
                return Poll::Ready(failure.into());
            }
            match write(job, relay, cx) {
                Poll::Ready(Ok(moved)) => {
                    progress |= moved;
                    write_since = None;
                }
                Poll::Ready(Err(unsent)) => return Poll::Ready(unsent.into()),
                Poll::Pending => {}
            }
            if relay.decoder.is_done() && relay.pending() == 0 && relay.spooled() == 0 {
                return Poll::Ready(Relayed::Whole { reusable: relay.clean });
            }
            peer.poll_request(cx, job.client, job.ex);
            let reads = !relay.decoder.is_done() && relay.has_room();
            if reads {
                match read(job, peer, relay, scope, cx) {
                    Poll::Ready(Ok(())) => {
                        progress = true;
                        read_since = None;
                    }
                    Poll::Ready(Err(failure)) => return Poll::Ready(failure.into()),
                    Poll::Pending => {}
                }
            } else {
                read_since = None;
            }
            if progress {
                continue;
            }
            let now = job.worker.clock.now();
            if reads {
                read_since.get_or_insert(now);
            }
            if relay.pending() > 0 {
                write_since.get_or_insert(now);
            }
            if !scope.upstream.ignore_client_abort && peer.watch().poll_gone(cx, job.client, now).is_ready() {
                return Poll::Ready(Relayed::ClientGone);
            }
            let read_until = read_since.map(|since| since + scope.upstream.read_timeout);
            let write_until = write_since.map(|since| since + send_timeout);
            let gone_at = peer.watch().deadline().filter(|_| relay.pending() == 0);
            let next = read_until.into_iter().chain(write_until).chain(gone_at).min();
            job.client.timer.set_at(next);
            let now = std::task::ready!(job.client.timer.poll_expired(&job.worker.clock, cx));
            if write_until.is_some_and(|until| now >= until) {
                job.client.timed_out = true;
                return Poll::Ready(Relayed::ClientGone);
            }
            if read_until.is_some_and(|until| now >= until) {
                return Poll::Ready(Relayed::PeerFailed(PeerFailure::Timeout));
            }
            return Poll::Ready(Relayed::ClientGone);
        }
    })
    .await
}

/// Sends what waits. Ready with whether anything moved; an error when the client is gone.
fn write(job: &mut Job<'_>, relay: &mut Relay, cx: &mut Context<'_>) -> Poll<Result<bool, Unsent>> {
    let mut moved = false;
    loop {
        while relay.pending() > 0 {
            let rest = relay.out.get(relay.out_sent..).unwrap_or_default();
            match job.client.sink.poll_send(cx, rest) {
                Poll::Ready(Ok(sent)) => {
                    relay.out_sent += sent;
                    job.ex.sent.bytes += sent as u64;
                    job.ex.sent.begun = true;
                    moved = true;
                    let more = relay.out_sent < relay.out.len() || !relay.decoder.is_done();
                    if more && job.place().scope.core.tcp_nodelay {
                        job.client.no_delay();
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Unsent::ClientGone)),
                Poll::Pending => return if moved { Poll::Ready(Ok(true)) } else { Poll::Pending },
            }
        }
        if relay.decoder.is_done() && relay.spooled() == 0 {
            return Poll::Ready(Ok(moved));
        }
        if relay.out_sent > 0 {
            keep_head(job, relay);
            relay.out.clear();
            relay.out_sent = 0;
        }
        let Some(spool) = relay.spool.as_mut().filter(|spool| spool.pending() > 0) else {
            relay.spool = None;
            return Poll::Ready(Ok(moved));
        };
        if let Err(error) = spool.read(&mut relay.out, UNSPOOL_BYTES) {
            log_store(job, &error);
            return Poll::Ready(Err(Unsent::Store));
        }
    }
}

/// Keeps the head for variables and logs before its buffer is used for the body.
fn keep_head(job: &mut Job<'_>, relay: &Relay) {
    if job.ex.sent.head.is_empty() {
        let head = relay.out.get(..relay.head_length).unwrap_or_default();
        job.ex.sent.head.extend_from_slice(head);
    }
}

/// Reads once from the peer and stores what came.
fn read(
    job: &mut Job<'_>,
    peer: &mut impl PeerBody,
    relay: &mut Relay,
    scope: &ProxyScope,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    let mut raw = std::mem::take(&mut relay.raw);
    raw.clear();
    let polled = peer.poll_read(cx, &mut raw, READ_BYTES);
    let count = match polled {
        Poll::Pending => {
            relay.raw = raw;
            return Poll::Pending;
        }
        Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Peer(PeerFailure::Error))),
        Poll::Ready(Ok(count)) => count,
    };
    if count == 0 {
        if !matches!(relay.decoder, Decoder::UntilClose) {
            return Poll::Ready(Err(Failure::Peer(PeerFailure::Error)));
        }
        relay.clean = false;
        relay.raw = raw;
        return Poll::Ready(end_body(job, relay, scope));
    }
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.received_bytes += count as u64;
    }
    let direct = relay.spooled() == 0 && relay.pending() < relay.memory_max;
    if direct {
        let mut out = std::mem::take(&mut relay.out);
        let taken = relay.take(&raw, &mut out);
        relay.out = out;
        relay.raw = raw;
        if let Err(failure) = taken {
            return Poll::Ready(Err(Failure::Peer(failure)));
        }
    } else {
        let mut framed = Vec::with_capacity(raw.len() + 32);
        let taken = relay.take(&raw, &mut framed);
        relay.raw = raw;
        if let Err(failure) = taken {
            return Poll::Ready(Err(Failure::Peer(failure)));
        }
        if relay.spool.is_none() {
            job.client.log(
                job.worker,
                job.ex,
                LogLevel::Warn,
                "an upstream response is buffered to a temporary file while reading upstream",
            );
        }
        if let Err(error) = relay.store(framed, &scope.upstream.temp_path) {
            log_store(job, &error);
            return Poll::Ready(Err(Failure::Store));
        }
    }
    Poll::Ready(if relay.decoder.is_done() { end_body(job, relay, scope) } else { Ok(()) })
}
