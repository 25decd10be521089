//! One attempt: a connection, the request on it, the response's head.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use keel_lb::Pick;
use keel_model::{Address, LogLevel, UpstreamScope};

use super::{
    pool::{Counted, LeaseKey, MadeFor, PeerConnection, Repeat},
    retry::Retries,
    route::Target,
    shared::Purpose,
    stream::{InvalidHead, Line, NoHead, PeerStream, SendFailure},
};
use crate::{
    client::ClientWatch,
    error::{BodyFailure, Cause, Error, PeerFailure, Retry},
    exchange::Exchange,
    job::Job,
    snapshot::PeerProgram,
    transport::{ConnectOptions, LocalAddress, Ownership, Socket, SocketBuffers},
    worker::Worker,
};

/// How long a connection to a peer that has left its set may take to come about.
const LEFT_PATIENCE: Duration = Duration::from_millis(250);

/// How often a peer may refuse a request on connections that others have used before it gets one of its own.
const REFUSALS_MAX: u32 = 3;

/// A peer's stream from which a response's head has been read.
pub(crate) struct Exchanged {
    pub(crate) stream: PeerStream,
    /// What watches the client meanwhile.
    pub(crate) watch: ClientWatch,
}

/// Why waiting ended.
pub(crate) enum Waited {
    Changed,
    TimeUp,
    ClientGone,
}

/// Waits for a change of peers, the end of the client, or a moment.
pub(crate) async fn wait(
    job: &mut Job<'_>,
    changed: Pin<&mut impl Future<Output = ()>>,
    until: Instant,
) -> Waited {
    wait_with(job, changed, until, ClientAbort::Ends).await
}

/// What the end of a client means to those that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientAbort {
    Ends,
    Ignored,
}

async fn wait_with(
    job: &mut Job<'_>,
    mut changed: Pin<&mut impl Future<Output = ()>>,
    until: Instant,
    abort: ClientAbort,
) -> Waited {
    let mut watch = ClientWatch::default();
    let (worker, client) = (job.worker, &mut *job.client);
    client.timer.set_at(Some(until));
    poll_fn(|cx| {
        if changed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Waited::Changed);
        }
        if abort == ClientAbort::Ends
            && (watch.poll_gone(cx, client, worker.clock.now()).is_ready() || watch.is_half_closed())
        {
            return Poll::Ready(Waited::ClientGone);
        }
        client.timer.poll_expired(&worker.clock, cx).map(|_| Waited::TimeUp)
    })
    .await
}

/// Sends the request to a peer and reads the head of its response.
pub(crate) async fn attempt(
    job: &mut Job<'_>,
    pick: &Pick,
    target: &Target,
    program: &PeerProgram,
    retries: &Retries,
) -> Result<Box<Exchanged>, Error> {
    let streams = retries.streams;
    let repeat = if !streams && job.ex.may_repeat() { Repeat::Allowed } else { Repeat::Forbidden };
    let local = local_address(job, &program.settings);
    let place = Some(&job.place().identity);
    let wanted = LeaseKey { peer: pick.peer(), protocol: program.kind(), place, local };
    let mut reused = if program.shares_connections() {
        target.pool().take_stream(wanted).map(Line::Shared)
    } else {
        target.pool().take(wanted, repeat, job.worker.clock.now()).map(Line::Own)
    };
    let mut refusals = 0;
    loop {
        let line = match reused.take() {
            Some(line) => line,
            None => {
                // A failed connect counts against the peer; a stale pooled connection does not.
                // Boxed, as most requests need no room for it.
                match Box::pin(open(job, pick, target, program, local, refusals)).await {
                    Ok(line) => line,
                    Err(cause) => return Err(Error { cause, retry: Retry::Safe }),
                }
            }
        };
        let (was_reused, has_idled) = (line.is_reused(), line.has_idled());
        note_connected(job);
        // Only where it can matter: the kernel is asked what had been acknowledged before this request.
        let acked = match &line {
            Line::Own(connection) if was_reused && !job.ex.may_repeat() => acknowledged(connection),
            _ => None,
        };
        let failed = match exchange(job, line, program, streams).await {
            Ok(exchanged) => return Ok(exchanged),
            Err(failed) => failed,
        };
        let Failed { mut cause, broken: Some(broken), text } = failed else {
            return Err(failed.cause.finally());
        };
        // What the client has sent of a streamed body since can't be sent again, whether the peer took it or not.
        let nothing_taken = broken.sent == 0 || (!job.ex.received.body_is_lost && broken.is_untaken(acked));
        let may_repeat = !streams && (job.ex.may_repeat() || nothing_taken);
        if broken.is_stale(has_idled) || (broken.end == End::Refused && was_reused) {
            refusals += 1;
            if may_repeat || broken.sent == 0 {
                // The peer closed an idle connection just then: it gets the request on a new one.
                job.client.log(job.worker, job.ex, LogLevel::Info, &text);
                if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
                    attempt.connected = None;
                }
                continue;
            }
            cause = Cause::Peer(PeerFailure::Stale);
        }
        job.client.log_error(job.worker, job.ex, &text);
        let retry = if nothing_taken { Retry::Safe } else { retries.after_sending() };
        return Err(Error { cause, retry });
    }
}

/// A connection that broke before a response came.
struct Broken {
    /// Where it was the request's own.
    connection: Option<PeerConnection>,
    sent: u64,
    received: bool,
    end: End,
}

/// How a connection to a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In good order (FIN).
    Fin,
    /// By a reset or another error.
    Error,
    /// It hasn't: the attempt was given up.
    GivenUp,
    /// The peer said that it has taken nothing.
    Refused,
    /// The request's stream was reset, on a connection that goes on.
    Reset,
}

impl Broken {
    /// Says whether it looks like an idle connection that the peer had closed.
    fn is_stale(&self, has_idled: bool) -> bool {
        has_idled && !self.received && matches!(self.end, End::Fin | End::Error)
    }

    /// Says whether the peer has taken nothing of what was sent: it says so, or the kernel proves it. A reset never does: it
    /// was seen with bytes read.
    fn is_untaken(&self, acked_before: Option<u64>) -> bool {
        let proves_unread = || {
            self.end == End::Fin
                && !self.received
                && acked_before.is_some()
                && acked_before == self.connection.as_ref().and_then(acknowledged)
        };
        self.end == End::Refused || proves_unread()
    }
}

fn acknowledged(connection: &PeerConnection) -> Option<u64> {
    let socket = connection.transport.socket();
    if !socket.is_tcp() {
        return None;
    }
    keel_sys::tcp::tcp_info(socket).ok().map(|info| info.bytes_acked)
}

fn note_connected(job: &mut Job<'_>) {
    let now = job.worker.clock.now();
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.connected = Some(now);
    }
}

/// Opens a connection for a request; one that others may use, too, unless somebody opens such a one already.
async fn open(
    job: &mut Job<'_>,
    pick: &Pick,
    target: &Target,
    program: &PeerProgram,
    local: Option<LocalAddress>,
    refusals: u32,
) -> Result<Line, Cause> {
    if !program.shares_connections() {
        return connect(job, pick, program, local).await.map(Line::Own);
    }
    let place = job.place().identity.clone();
    let wanted = LeaseKey { peer: pick.peer(), protocol: program.kind(), place: Some(&place), local };
    let until = job.worker.clock.now() + program.settings.connect_timeout;
    let abort = if program.settings.ignore_client_abort { ClientAbort::Ignored } else { ClientAbort::Ends };
    // One that is about to be opened may be for more than have waited for it, and may have no room for all.
    while refusals < REFUSALS_MAX
        && let Some(opened) = target.pool().opened(wanted)
    {
        match wait_with(job, pin!(opened), until, abort).await {
            Waited::ClientGone => return Err(Cause::ClientGone),
            Waited::TimeUp => {
                let text = "upstream timed out (110: Connection timed out) while connecting to upstream";
                job.client.log_error(job.worker, job.ex, text);
                return Err(Cause::Peer(PeerFailure::Timeout));
            }
            Waited::Changed => {}
        }
        if let Some(lease) = target.pool().take_stream(wanted) {
            return Ok(Line::Shared(lease));
        }
    }
    let opens = target.pool().shared.open(Purpose { peer: pick.peer().clone(), place: place.clone(), local });
    let connection = connect(job, pick, program, local).await?;
    let shared = connection.share(target.pool(), job.worker).await;
    drop(opens);
    shared.map(Line::Shared).map_err(|error| {
        let text = format!("{error} while connecting to upstream");
        job.client.log_error(job.worker, job.ex, &text);
        Cause::Peer(PeerFailure::Error)
    })
}

/// Evaluates `proxy_bind`.
fn local_address(job: &Job<'_>, settings: &UpstreamScope) -> Option<LocalAddress> {
    let bind = settings.bind.as_ref()?;
    let text = job.text(&bind.address);
    if text.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&text);
    let bare = || text.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, 0));
    let Some(address) = text.parse().ok().or_else(bare) else {
        job.client.log_error(job.worker, job.ex, &format!("invalid local address \"{text}\""));
        return None;
    };
    Some(LocalAddress { address, ownership: if bind.transparent { Ownership::Any } else { Ownership::Own } })
}

/// Opens a connection to a peer.
async fn connect(
    job: &mut Job<'_>,
    pick: &Pick,
    program: &PeerProgram,
    local: Option<LocalAddress>,
) -> Result<PeerConnection, Cause> {
    let settings = &program.settings;
    if !job.worker.make_room() {
        let text = "worker_connections are not enough while connecting to upstream";
        job.client.log(job.worker, job.ex, LogLevel::Alert, text);
        return Err(Cause::NoRoom);
    }
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    // From now on: many at once would otherwise all see the same room.
    let counted = Counted::new(job.worker);
    let buffers = SocketBuffers { receive: settings.socket_rcvbuf, send: settings.socket_sndbuf };
    let mut connecting = pin!(Socket::connect(&pick.key().address, ConnectOptions { buffers, local }));
    let mut watch = ClientWatch::default();
    let (worker, client) = (job.worker, &mut *job.client);
    let mut limit = worker.clock.now() + settings.connect_timeout;
    client.timer.set_at(Some(limit));
    // Where a peer's host is gone nobody refuses, and the kernel tries for minutes: that it left is known earlier.
    let mut peers_changed = pin!(worker.waiters.peers_changed());
    let mut has_left = false;
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
            return Poll::Ready(result.and_then(|socket| reached(worker, pick, socket)).map_err(|error| {
                let reason = crate::phase::files::errno_text(&error);
                if crate::accept::is_out_of_descriptors(&error) {
                    worker.close_idle(format_args!("descriptors"));
                    let text = format!("socket() failed ({reason}) while connecting to upstream");
                    return (Cause::NoRoom, text);
                }
                if let Some(LocalAddress { address, .. }) = local
                    && matches!(error.kind(), AddrInUse | AddrNotAvailable | PermissionDenied)
                {
                    // The peer has no part in it.
                    let text = format!("bind({address}) failed ({reason}) while connecting to upstream");
                    return (Cause::NoRoom, text);
                }
                let text = format!("connect() failed ({reason}) while connecting to upstream");
                (Cause::Peer(PeerFailure::Error), text)
            }));
        }
        while peers_changed.as_mut().poll(cx).is_ready() {
            peers_changed.set(worker.waiters.peers_changed());
        }
        if !has_left && pick.peer().is_closed() {
            has_left = true;
            // One that drains still takes what was on its way to it.
            limit = limit.min(worker.clock.now() + LEFT_PATIENCE);
        }
        let now = worker.clock.now();
        if !settings.ignore_client_abort && watch.poll_gone(cx, client, now).is_ready() {
            return Poll::Ready(Err((Cause::ClientGone, String::new())));
        }
        client.timer.set_at(Some(watch.deadline().map_or(limit, |patience| patience.min(limit))));
        let now = ready!(client.timer.poll_expired(&worker.clock, cx));
        Poll::Ready(Err(if now >= limit && has_left {
            let text = "the upstream server left while connecting to upstream";
            (Cause::Peer(PeerFailure::Error), text.to_owned())
        } else if now >= limit {
            let text = "upstream timed out (110: Connection timed out) while connecting to upstream";
            (Cause::Peer(PeerFailure::Timeout), text.to_owned())
        } else {
            (Cause::ClientGone, String::new())
        }))
    });
    match outcome.await {
        Ok(socket) => {
            if settings.socket_keepalive {
                socket.set_keepalive();
            }
            let made_for = MadeFor {
                peer: pick.peer().clone(),
                protocol: program.kind(),
                place: job.place().identity.clone(),
                local,
            };
            Ok(PeerConnection::new(socket.into(), made_for, job.worker.clock.now(), counted))
        }
        Err((cause, text)) => {
            if !text.is_empty() {
                job.client.log_error(job.worker, job.ex, &text);
            }
            Err(cause)
        }
    }
}

/// Takes a connection to an instance for refused where the instance doesn't listen: somebody with the port on all addresses,
/// this program's own listener among them, has taken it. Nothing has been sent, so any request may go elsewhere.
fn reached(worker: &Worker, pick: &Pick, socket: Socket) -> io::Result<Socket> {
    match pick.key().address {
        Address::Tcp(address) if pick.is_watched() && !worker.is_listened_at(address) => {
            socket.reset_on_close();
            Err(rustix::io::Errno::CONNREFUSED.into())
        }
        _ => Ok(socket),
    }
}

/// An attempt that failed once there was a connection.
struct Failed {
    cause: Cause,
    /// The connection, where it is the peer's fault.
    broken: Option<Broken>,
    /// What is to be logged.
    text: String,
}

/// Sends the request and reads the response's head, both at once: a peer may answer early.
async fn exchange(
    job: &mut Job<'_>,
    line: Line,
    program: &PeerProgram,
    streams: bool,
) -> Result<Box<Exchanged>, Failed> {
    let view = job.view.clone();
    let core = &job.ex.place(&view).scope.core;
    let side = &mut job.ex.upstream;
    if side.input.capacity() == 0 {
        side.input = job.worker.buffers.take();
    }
    side.input.clear();
    side.head.clear_at(0);
    side.has_head = false;
    let stream = PeerStream::new(line, job.ex, program, streams, core.client_max_body_size.0);
    let mut exchanged = Box::new(Exchanged { stream, watch: ClientWatch::default() });
    let mut state = Exchanging {
        settings: &program.settings,
        body_timeout: core.client_body_timeout,
        head_max: program.settings.buffer_size.as_usize().max(HEAD_BYTES_MIN),
        writable: true,
        limit: None,
    };
    let outcome = poll_fn(|cx| state.poll(cx, job, &mut exchanged)).await;
    let received = exchanged.stream.received_bytes(&job.ex.upstream);
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.sent_bytes = exchanged.stream.sent_bytes();
        attempt.received_bytes = received;
    }
    let (ending, end) = match outcome {
        Ok(()) => {
            let now = job.worker.clock.now();
            if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
                attempt.headed = Some(now);
                attempt.status = job.ex.upstream.head.status;
            }
            return Ok(exchanged);
        }
        Err(ending) => ending,
    };
    let received = received > 0;
    let sent = exchanged.stream.sent_bytes();
    let broken = Broken { connection: exchanged.stream.into_connection(), sent, received, end };
    Err(ending.explain(broken))
}

/// A request being sent and a response being awaited.
struct Exchanging<'a> {
    settings: &'a UpstreamScope,
    body_timeout: Duration,
    head_max: usize,
    /// Whether the peer still takes bytes.
    writable: bool,
    /// When waiting ends, and for what; moved with every byte that passes.
    limit: Option<(Instant, Waiting)>,
}

type Polled = Poll<Result<(), (Ending, End)>>;

impl Exchanging<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, job: &mut Job<'_>, exchanged: &mut Exchanged) -> Polled {
        if self.writable && !exchanged.stream.is_sent() {
            ready_error(self.poll_send(cx, job, exchanged))?;
        }
        let polled = self.poll_head(cx, job.ex, &mut exchanged.stream);
        while let Some(notice) = exchanged.stream.take_notice() {
            let text = format!("{} while reading response header from upstream", notice.text());
            job.client.log(job.worker, job.ex, notice.level(), &text);
        }
        if polled.is_ready() {
            return polled;
        }
        if !self.writable {
            return Poll::Ready(Err((Ending::Closed, End::Error)));
        }
        self.poll_limits(cx, job, exchanged)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, job: &mut Job<'_>, exchanged: &mut Exchanged) -> Polled {
        let before = exchanged.stream.sent_bytes();
        match exchanged.stream.poll_send(cx, job.client, job.ex) {
            Poll::Ready(Ok(())) => self.limit = None,
            Poll::Ready(Err(SendFailure::Client(failure))) => {
                return Poll::Ready(Err((Ending::ClientFailed(failure), End::GivenUp)));
            }
            Poll::Ready(Err(SendFailure::Unwritable)) => {
                return Poll::Ready(Err((Ending::Unwritable, End::GivenUp)));
            }
            // The peer may have answered before it closed: what it said is read first.
            Poll::Ready(Err(SendFailure::Peer)) => self.writable = false,
            Poll::Pending if exchanged.stream.sent_bytes() > before => self.limit = None,
            Poll::Pending => {}
        }
        Poll::Pending
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, ex: &mut Exchange, stream: &mut PeerStream) -> Polled {
        let before = stream.received_bytes(&ex.upstream);
        let polled = stream.poll_head(cx, &mut ex.upstream, self.head_max);
        if stream.received_bytes(&ex.upstream) > before {
            self.limit = None;
        }
        polled.map_err(|no_head| match no_head {
            // Behind a write that failed, the end of the stream may be what a reset left.
            NoHead::Closed => (Ending::Closed, if self.writable { End::Fin } else { End::Error }),
            NoHead::Broke(error) => (Ending::Broke(error), End::Error),
            NoHead::Invalid(error) => (Ending::Invalid(error), End::GivenUp),
            NoHead::Refused => (Ending::Refused, End::Refused),
            NoHead::Reset(code) => (Ending::Reset(code), End::Reset),
        })
    }

    /// Is ready when the client is gone or time is up.
    fn poll_limits(&mut self, cx: &mut Context<'_>, job: &mut Job<'_>, exchanged: &mut Exchanged) -> Polled {
        let Exchanged { stream, watch } = exchanged;
        let now = job.worker.clock.now();
        let body_waits = stream.waits_for_client(job.ex);
        if !body_waits
            && !self.settings.ignore_client_abort
            && watch.poll_gone(cx, job.client, now).is_ready()
        {
            return Poll::Ready(Err((Ending::ClientGone, End::GivenUp)));
        }
        // Who has ended its side has most likely gone: it keeps nobody else out (`limit_conn`).
        if watch.is_half_closed() {
            job.ex.routed.entered.clear();
        }
        let (until, waiting) = *self.limit.get_or_insert_with(|| {
            if stream.is_sent() {
                (now + self.settings.read_timeout, Waiting::Response)
            } else if body_waits {
                (now + self.body_timeout, Waiting::Body)
            } else {
                (now + self.settings.send_timeout, Waiting::Send)
            }
        });
        job.client.timer.set_at(Some(watch.deadline().map_or(until, |patience| patience.min(until))));
        let now = ready!(job.client.timer.poll_expired(&job.worker.clock, cx));
        if now < until {
            return Poll::Ready(Err((Ending::ClientGone, End::GivenUp)));
        }
        job.client.timed_out = waiting == Waiting::Body;
        match waiting {
            Waiting::Response => stream.note_silence(self.settings.read_timeout),
            Waiting::Send => stream.note_silence(self.settings.send_timeout),
            Waiting::Body => {}
        }
        Poll::Ready(Err((Ending::TimedOut(waiting), End::GivenUp)))
    }
}

/// Lets `?` leave with an error that is there already.
fn ready_error(polled: Polled) -> Result<(), (Ending, End)> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

/// The least room for a response's head, whatever `proxy_buffer_size` says.
const HEAD_BYTES_MIN: usize = 1 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Send,
    Body,
    Response,
}

enum Ending {
    Closed,
    Broke(std::io::Error),
    Invalid(InvalidHead),
    Refused,
    /// The stream was, with this error.
    Reset(u32),
    TimedOut(Waiting),
    Unwritable,
    ClientFailed(BodyFailure),
    ClientGone,
}

impl Ending {
    /// Says what happened, for the log, and what it means for the request.
    fn explain(self, broken: Broken) -> Failed {
        const READING: &str = "while reading response header from upstream";
        let failed = |failure, text| Failed { cause: Cause::Peer(failure), broken: Some(broken), text };
        let without = |cause| Failed { cause, broken: None, text: String::new() };
        match self {
            Ending::Closed => {
                failed(PeerFailure::Error, format!("upstream prematurely closed connection {READING}"))
            }
            Ending::Broke(error) => {
                let text = crate::phase::files::errno_text(&error);
                failed(PeerFailure::Error, format!("recv() failed ({text}) {READING}"))
            }
            Ending::Reset(code) => {
                failed(PeerFailure::Error, format!("upstream rejected request with error {code} {READING}"))
            }
            Ending::Refused => failed(PeerFailure::Error, format!("upstream refused the request {READING}")),
            Ending::Invalid(error) => failed(PeerFailure::Invalid, format!("{error} {READING}")),
            Ending::TimedOut(Waiting::Body) => without(Cause::Body(BodyFailure::TimedOut)),
            Ending::TimedOut(waiting) => {
                let what =
                    if waiting == Waiting::Send { "while sending request to upstream" } else { READING };
                failed(PeerFailure::Timeout, format!("upstream timed out (110: Connection timed out) {what}"))
            }
            Ending::Unwritable => {
                let text = "the request can't be written in HTTP/2 while sending request to upstream";
                let cause = Cause::Body(BodyFailure::Internal);
                Failed { cause, ..failed(PeerFailure::Error, text.to_owned()) }
            }
            Ending::ClientFailed(failure) => without(Cause::Body(failure)),
            Ending::ClientGone => without(Cause::ClientGone),
        }
    }
}
