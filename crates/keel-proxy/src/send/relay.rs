//! A response's body from peer to client, with back-pressure.
//!
//! Bytes wait in memory; once that is full, in a temporary file, so that a slow client doesn't hold up a peer
//! (`proxy_buffering`, `proxy_max_temp_file_size`). What the client takes as fast as it comes never sees the file.

use std::{
    future::poll_fn,
    io,
    path::Path,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use keel_http::{Lines, Message};
use keel_model::{LogLevel, UpstreamScope};

use super::{
    filter_trailers, log_broken_filter,
    part::{self, Within},
};
use crate::{
    client::{ClientStream, Framing, flush},
    error::{Cause, PeerFailure},
    io::spool::Spool,
    job::Job,
    snapshot::PeerProgram,
    transform::{Broken, Transforms},
    upstream::{Exchanged, PeerStream},
};

/// Bytes read from a peer at a time while a body streams.
const READ_BYTES: usize = 32 << 10;

/// The same where it is limited how fast a peer is read.
const LIMITED_READ_BYTES: usize = 4 << 10;

/// With fewer bytes than this at hand, a response's first write waits for one more look at what has come.
const READ_FIRST_BYTES_MAX: usize = 4 << 10;

/// How long a peer may pause while its responses are buffered, before what filters hold back is sent. An app that sends
/// in pieces is not meant to have each of them compressed alone.
const FLUSH_AFTER: Duration = Duration::from_millis(5);

/// Bytes that filters change of one body before others have their turn.
const CHANGED_BYTES_MAX: usize = 128 << 10;

/// Bytes read back from a temporary file at a time.
const UNSPOOL_BYTES: usize = 64 << 10;

/// One response body on its way. What the client gets next waits in its stream.
pub(super) struct Relay {
    framing: Framing,
    head_length: usize,
    /// Scratch for what was read.
    raw: Vec<u8>,
    /// Payload that waits behind what the client's stream holds.
    spool: Option<Spool>,
    memory_max: usize,
    file_max: u64,
    /// Whether the peer's response has been read to its end, and its trailers have been kept.
    ended: bool,
    /// Whether the client's stream has the end, too.
    finished: bool,
    payload_bytes: u64,
    /// Whether the client's stream holds something of a response that broke off, which the client may be given all the
    /// same.
    pub(super) has_rest: bool,
    /// Bytes sent before the response, interim ones.
    sent_before: u64,
    /// What filters do to the payload.
    transforms: Transforms,
    /// Why they can't go on.
    broken: Option<Broken>,
    /// How long the peer may pause before what filters hold back is sent.
    flush_after: Duration,
    /// Bytes read from the peer at a time.
    read_bytes: usize,
    /// Bytes that filters have changed since others had their turn.
    changed_bytes: usize,
    /// Whether something is included behind the body.
    goes_on: bool,
    /// How fast the peer is read, where that is limited.
    limit: Option<ReadLimit>,
}

/// How fast a response is read from its peer (`proxy_limit_rate`): as nginx does it, a second's worth when a second begins.
struct ReadLimit {
    /// Bytes a second.
    rate: u64,
    began: Instant,
}

impl ReadLimit {
    /// Until when nothing is read of a response of which so much has been.
    fn held_until(&self, read: u64, now: Instant) -> Option<Instant> {
        let seconds = now.saturating_duration_since(self.began).as_secs() + 1;
        let beyond = read.checked_sub(self.rate.saturating_mul(seconds))?;
        Some(now + Duration::from_millis(beyond.saturating_mul(1000) / self.rate.max(1) + 1))
    }
}

impl Relay {
    /// Begins the response in the client's stream.
    pub(super) fn new(job: &mut Job<'_>, framing: Framing, program: &PeerProgram, head: Message) -> Self {
        let head_length = head.head_length();
        job.client.stream.begin(head, framing);
        let side = &job.ex.upstream;
        let settings = &program.settings;
        let ignores = program.ignores.contains(keel_http::Name::XAccelBuffering);
        let accel = side.head.fields.first(keel_http::Name::XAccelBuffering).filter(|_| !ignores);
        let accel = accel.map(|field| field.value.of(&side.input));
        let buffering = match accel {
            Some(value) if value.eq_ignore_ascii_case(b"no") => false,
            Some(value) if value.eq_ignore_ascii_case(b"yes") => true,
            _ => settings.buffering,
        };
        let rate = if buffering { job.lookup().size(&settings.limit_rate) } else { 0 };
        let limit = (rate > 0).then(|| ReadLimit { rate, began: job.worker.clock.now() });
        let memory = settings.buffers.size.as_usize().saturating_mul(settings.buffers.count as usize);
        Self {
            framing,
            head_length,
            raw: Vec::new(),
            spool: None,
            memory_max: if buffering { memory } else { settings.buffer_size.as_usize() }.max(4 << 10),
            file_max: if buffering { settings.max_temp_file_size.0 } else { 0 },
            ended: false,
            finished: false,
            payload_bytes: 0,
            has_rest: false,
            sent_before: job.ex.sent.bytes,
            transforms: Transforms::default(),
            broken: None,
            flush_after: if buffering { FLUSH_AFTER } else { Duration::ZERO },
            read_bytes: if limit.is_some() { LIMITED_READ_BYTES } else { READ_BYTES },
            changed_bytes: 0,
            goes_on: false,
            limit,
        }
    }

    /// Has the payload changed on its way.
    pub(super) fn change(&mut self, transforms: Transforms) {
        if !transforms.is_empty() {
            let bytes_max = transforms.input_bytes_max();
            self.read_bytes = self.read_bytes.min(bytes_max);
            if bytes_max < usize::MAX {
                // A few bytes of it may be a gigabyte unpacked: that waits at the peer, not on the disk.
                self.file_max = 0;
            }
            self.transforms = transforms;
        }
    }

    fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::pending)
    }

    /// Says whether more may be read from the peer now.
    fn has_room(&self, stream: &ClientStream) -> bool {
        let has_room_on_disk = self.spool.as_ref().map_or(0, Spool::len) < self.file_max;
        // Behind unread bytes of the file everything goes to the file.
        if self.spooled() > 0 {
            has_room_on_disk
        } else {
            stream.pending() < self.memory_max || has_room_on_disk
        }
    }

    /// Passes payload on, as the place's filters change it.
    #[inline]
    fn filter(&mut self, payload: &[u8], mut pass: impl FnMut(&[u8])) {
        self.payload_bytes += payload.len() as u64;
        if self.transforms.is_empty() {
            return pass(payload);
        }
        if self.broken.is_some() {
            return;
        }
        self.changed_bytes += payload.len();
        let mut piece = payload.to_vec();
        match self.transforms.piece(&mut piece) {
            Ok(()) => pass(&piece),
            Err(broken) => self.broken = Some(broken),
        }
    }

    /// Whether payload goes straight to the client's stream.
    fn is_direct(&self, stream: &ClientStream) -> bool {
        self.spooled() == 0 && stream.pending() < self.memory_max
    }

    /// Ends the body for the client, once everything before the end has been put.
    fn finish(&mut self, stream: &mut ClientStream, trailers: &Lines) {
        let is_over = self.ended && self.spooled() == 0;
        if is_over && !std::mem::replace(&mut self.finished, true) && !self.goes_on {
            stream.end(trailers);
        }
    }

    /// Puts payload into the temporary file.
    fn store(&mut self, payload: &[u8], folder: &Path) -> io::Result<()> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            None => self.spool.insert(Spool::create(folder)?),
        };
        spool.write(payload)
    }
}

/// Relays a body to its end.
pub(super) async fn run(
    job: &mut Job<'_>,
    peer: &mut Exchanged,
    relay: &mut Relay,
    program: &PeerProgram,
) -> Result<(), Cause> {
    let stream = &mut job.client.stream;
    let begun = peer.stream.begin_body(&mut job.ex.upstream, program.trailers(), |payload| {
        relay.filter(payload, |piece| stream.put(piece));
    });
    log_notices(job, &mut peer.stream);
    let begun = begun.map_err(Cause::Peer).and_then(|()| check_filters(job, relay));
    let begun = begun.and_then(|()| match peer.stream.has_ended() {
        true => end_body(job, &peer.stream, relay, &program.settings),
        false => Ok(()),
    });
    let ended = match begun {
        Ok(()) => self::stream(job, peer, relay, &program.settings).await,
        Err(cause) => Err(cause),
    };
    // What a peer said before it failed in another way than by breaking off can't be trusted.
    relay.has_rest =
        ended == Err(Cause::Peer(PeerFailure::Error)) && !job.ex.sent.begun && relay.payload_bytes > 0;
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.response_bytes = relay.payload_bytes;
        attempt.received_bytes = attempt.received_bytes.max(relay.payload_bytes);
        attempt.sent_bytes = peer.stream.sent_bytes();
    }
    if !relay.goes_on || ended.is_err() {
        conclude(job, relay);
    }
    ended
}

/// Ends the response for the client's stream, sent or not.
fn conclude(job: &mut Job<'_>, relay: &Relay) {
    let sent = job.ex.sent.bytes - relay.sent_before;
    job.ex.sent.body_bytes = sent.saturating_sub(relay.head_length as u64);
    if !relay.has_rest {
        job.client.stream.finish(&mut job.ex.sent.head);
    }
}

/// Relays a body to its end, with other responses before it and behind it.
pub(super) async fn run_within(
    job: &mut Job<'_>,
    peer: &mut Exchanged,
    relay: &mut Relay,
    program: &PeerProgram,
    within: Within,
) -> Result<(), Cause> {
    relay.goes_on = within.goes_on();
    if let Err(cause) = within.before(job, &mut relay.transforms).await {
        conclude(job, relay);
        return Err(cause);
    }
    run(job, peer, relay, program).await?;
    if !within.goes_on() {
        return Ok(());
    }
    let ended = end_within(job, relay, &within).await;
    conclude(job, relay);
    ended
}

/// Puts a response behind the body, and ends both.
async fn end_within(job: &mut Job<'_>, relay: &mut Relay, within: &Within) -> Result<(), Cause> {
    within.behind(job, &mut relay.transforms).await?;
    let mut tail = Vec::new();
    let ended = relay.transforms.end_outer(&mut tail);
    part::check(job, ended)?;
    job.client.stream.put(&tail);
    job.ex.sent.note_gzip(relay.transforms.gzip_ratio());
    job.client.stream.end(&job.ex.sent.trailers);
    Ok(flush(job).await?)
}

/// Keeps the trailers of a response that has been read to its end, and ends the client's where nothing is in between.
fn end_body(
    job: &mut Job<'_>,
    peer: &PeerStream,
    relay: &mut Relay,
    settings: &UpstreamScope,
) -> Result<(), Cause> {
    let mut trailers = peer.trailers();
    trailers.as_bytes().clone_into(&mut job.ex.upstream.trailers);
    trailers.append(&filter_trailers(job, relay.framing));
    job.ex.sent.trailers = trailers;
    relay.ended = true;
    if !relay.transforms.is_empty() {
        pass_held(job, relay, settings)?;
        job.ex.sent.note_gzip(relay.transforms.gzip_ratio());
    }
    relay.finish(&mut job.client.stream, &job.ex.sent.trailers);
    Ok(())
}

/// Says what the peer's stream has to say.
fn log_notices(job: &Job<'_>, stream: &mut PeerStream) {
    while let Some(notice) = stream.take_notice() {
        let text = format!("{} while reading upstream", notice.text());
        job.client.log(job.worker, job.ex, notice.level(), &text);
    }
}

/// Says that a temporary file fails: neither the peer nor the client has anything to do with it.
fn log_store(job: &Job<'_>, error: &io::Error) {
    let reason = crate::phase::files::errno_text(error);
    let text = format!("a temporary file for the response failed ({reason}) while buffering it");
    job.client.log(job.worker, job.ex, LogLevel::Crit, &text);
}

async fn stream(
    job: &mut Job<'_>,
    peer: &mut Exchanged,
    relay: &mut Relay,
    settings: &UpstreamScope,
) -> Result<(), Cause> {
    let send_timeout = job.place().scope.core.send_timeout;
    let mut read_since: Option<Instant> = None;
    let mut write_since: Option<Instant> = None;
    // An app often sends head and body apart; what has come by now leaves in one write.
    let mut reads_first = job.client.stream.pending() < READ_FIRST_BYTES_MAX;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if std::mem::take(&mut reads_first)
                && !relay.ended
                && let Poll::Ready(Err(cause)) = read(job, peer, relay, settings, cx)
            {
                return Poll::Ready(Err(cause));
            }
            match write(job, relay, cx) {
                Poll::Ready(Ok(moved)) => {
                    progress |= moved;
                    write_since = None;
                }
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                Poll::Pending => {}
            }
            if relay.finished && job.client.stream.pending() == 0 {
                return Poll::Ready(Ok(()));
            }
            peer.stream.poll_rest_of_request(cx, job.client, job.ex);
            let mut reads = !relay.ended && relay.has_room(&job.client.stream);
            let held_until = relay
                .limit
                .as_ref()
                .filter(|_| reads)
                .and_then(|limit| limit.held_until(relay.payload_bytes, job.worker.clock.now()));
            reads &= held_until.is_none();
            if reads {
                match read(job, peer, relay, settings, cx) {
                    Poll::Ready(Ok(())) => {
                        progress = true;
                        read_since = None;
                    }
                    Poll::Ready(Err(cause)) => {
                        pass_rest(job, relay, settings, cause, cx);
                        return Poll::Ready(Err(cause));
                    }
                    Poll::Pending => {}
                }
            } else {
                read_since = None;
            }
            if relay.changed_bytes >= CHANGED_BYTES_MAX {
                relay.changed_bytes = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if progress {
                continue;
            }
            let now = job.worker.clock.now();
            if reads {
                read_since.get_or_insert(now);
            }
            let flush_at =
                read_since.filter(|_| relay.transforms.holds()).map(|since| since + relay.flush_after);
            if flush_at.is_some_and(|at| now >= at) {
                pass_held(job, relay, settings)?;
                continue;
            }
            if job.client.stream.pending() > 0 && !job.client.is_held_back() {
                write_since.get_or_insert(now);
            }
            if !settings.ignore_client_abort && peer.watch.poll_gone(cx, job.client, now).is_ready() {
                return Poll::Ready(Err(Cause::ClientGone));
            }
            let read_until = read_since.map(|since| since + settings.read_timeout);
            let write_until = write_since.map(|since| since + send_timeout);
            let gone_at = peer.watch.deadline().filter(|_| job.client.stream.pending() == 0);
            let next = read_until
                .into_iter()
                .chain(write_until)
                .chain(gone_at)
                .chain(flush_at)
                .chain(held_until)
                .min();
            job.client.timer.set_at(next);
            let now = ready!(job.client.timer.poll_expired(&job.worker.clock, cx));
            if flush_at.into_iter().chain(held_until).any(|at| now >= at) {
                continue;
            }
            if write_until.is_some_and(|until| now >= until) {
                job.client.timed_out = true;
                return Poll::Ready(Err(Cause::ClientGone));
            }
            if read_until.is_some_and(|until| now >= until) {
                peer.stream.note_silence(settings.read_timeout);
                return Poll::Ready(Err(Cause::Peer(PeerFailure::Timeout)));
            }
            return Poll::Ready(Err(Cause::ClientGone));
        }
    })
    .await
}

/// Sends what waits. Ready with whether anything moved; an error when the client is gone.
fn write(job: &mut Job<'_>, relay: &mut Relay, cx: &mut Context<'_>) -> Poll<Result<bool, Cause>> {
    let mut moved = false;
    loop {
        while job.client.stream.pending() > 0 {
            match job.client.poll_send(&job.worker.clock, cx) {
                Poll::Ready(Ok(sent)) => {
                    job.ex.sent.bytes += sent as u64;
                    job.ex.sent.begun = true;
                    moved = true;
                    let more = job.client.stream.pending() > 0 || !relay.ended;
                    if more && job.place().scope.core.tcp_nodelay {
                        job.client.no_delay();
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Cause::ClientGone)),
                Poll::Pending => {
                    // Behind a slow client it never empties.
                    job.client.stream.clear_sent(&mut job.ex.sent.head);
                    return if moved { Poll::Ready(Ok(true)) } else { Poll::Pending };
                }
            }
        }
        if relay.finished {
            return Poll::Ready(Ok(moved));
        }
        job.client.stream.clear_sent(&mut job.ex.sent.head);
        let Some(spool) = relay.spool.as_mut().filter(|spool| spool.pending() > 0) else {
            relay.spool = None;
            return Poll::Ready(Ok(moved));
        };
        let mut piece = std::mem::take(&mut relay.raw);
        piece.clear();
        if let Err(error) = spool.read(&mut piece, UNSPOOL_BYTES) {
            log_store(job, &error);
            return Poll::Ready(Err(Cause::Store));
        }
        job.client.stream.put(&piece);
        relay.raw = piece;
        relay.finish(&mut job.client.stream, &job.ex.sent.trailers);
    }
}

/// Reads once from the peer and stores what came.
fn read(
    job: &mut Job<'_>,
    peer: &mut Exchanged,
    relay: &mut Relay,
    settings: &UpstreamScope,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Cause>> {
    let mut raw = std::mem::take(&mut relay.raw);
    let stream = &mut job.client.stream;
    let (is_direct, room) = (relay.is_direct(stream), relay.read_bytes);
    let mut stored = Vec::new();
    let polled = peer.stream.poll_payload(cx, &mut raw, room, |payload| {
        relay.filter(payload, |piece| {
            if is_direct {
                stream.put(piece);
            } else {
                stored.extend_from_slice(piece);
            }
        });
    });
    relay.raw = raw;
    log_notices(job, &mut peer.stream);
    let count = ready!(polled).map_err(Cause::Peer)?;
    check_filters(job, relay)?;
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.received_bytes += count as u64;
    }
    if !stored.is_empty() {
        spool(job, relay, &stored, &settings.temp_path)?;
    }
    if peer.stream.has_ended() {
        end_body(job, &peer.stream, relay, settings)?;
    }
    Poll::Ready(Ok(()))
}

/// An error where a filter can't go on.
fn check_filters(job: &Job<'_>, relay: &mut Relay) -> Result<(), Cause> {
    match relay.broken.take() {
        None => Ok(()),
        Some(broken) => {
            log_broken_filter(job, &broken);
            Err(Cause::Filter)
        }
    }
}

/// Passes on what filters have held back: all of it at the body's end, else what they may give before it.
fn pass_held(job: &mut Job<'_>, relay: &mut Relay, settings: &UpstreamScope) -> Result<(), Cause> {
    let mut held = Vec::new();
    let given = match (relay.ended, relay.goes_on) {
        (false, _) => relay.transforms.flush(&mut held),
        (true, true) => relay.transforms.end_inner(&mut held),
        (true, false) => {
            relay.transforms.end_inner(&mut held).and_then(|()| relay.transforms.end_outer(&mut held))
        }
    };
    relay.broken = given.err();
    check_filters(job, relay)?;
    if held.is_empty() {
        return Ok(());
    }
    if relay.is_direct(&job.client.stream) {
        job.client.stream.put(&held);
        return Ok(());
    }
    spool(job, relay, &held, &settings.temp_path)
}

/// Lets the client have what filters hold back of a response that broke off.
fn pass_rest(
    job: &mut Job<'_>,
    relay: &mut Relay,
    settings: &UpstreamScope,
    cause: Cause,
    cx: &mut Context<'_>,
) {
    if cause == Cause::Peer(PeerFailure::Error)
        && relay.transforms.holds()
        && pass_held(job, relay, settings).is_ok()
        && job.ex.sent.begun
    {
        // As much as it takes at once.
        let _ = write(job, relay, cx);
    }
}

/// Puts payload behind everything else: the client hasn't taken that yet.
fn spool(job: &mut Job<'_>, relay: &mut Relay, payload: &[u8], folder: &Path) -> Result<(), Cause> {
    if relay.spool.is_none() {
        let text = "an upstream response is buffered to a temporary file while reading upstream";
        job.client.log(job.worker, job.ex, LogLevel::Warn, text);
    }
    relay.store(payload, folder).map_err(|error| {
        log_store(job, &error);
        Cause::Store
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_is_read_in_each_second() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let limit = ReadLimit { rate: 1000, began };
        assert_eq!(limit.held_until(999, at(0)), None);
        assert_eq!(limit.held_until(1000, at(0)), Some(at(1)));
        assert_eq!(limit.held_until(2500, at(0)), Some(at(1501)));
        assert_eq!(limit.held_until(2500, at(1501)), Some(at(2002)));
        assert_eq!(limit.held_until(2500, at(2002)), None);
    }
}
