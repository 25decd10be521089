//! HTTP/2 on a client's connection: one task for its frames, and one for each stream, on which a request is served like any
//! other.
//!
//! A connection ends by a goodbye (GOAWAY) that tells which requests will be answered: those that were on their way when it
//! was said are among them.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use keel_model::{ClientSettings, LingeringClose, LogLevel};

use super::{QUIT_IDLE, Rest, Resting, h1};
use crate::{
    client::{Client, ClientStream, H2},
    http2::{
        SEND_BYTES_MAX,
        io::Io,
        meter::{Gauge, Meter},
    },
    job::{Ended, Job},
    phase,
    snapshot::Place,
    transport::Transport,
    worker::Worker,
};

/// How long a client may take to end a connection that is to end, once no stream is left.
const FAREWELL: Duration = Duration::from_secs(5);

/// The same where its place is needed.
const HURRIED_FAREWELL: Duration = Duration::from_millis(250);

/// The largest window there is (RFC 9113 §6.9.1): the connection's own, which leaves flow control to its streams.
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The smallest window of a stream. It opens as its body is read, and one that was never open would never do.
const WINDOW_MIN: u32 = 16 << 10;

/// What small frames of data that nobody has read yet may take beside their payload, in bytes: about 256 each.
const FRAMES_BUDGET: usize = 1 << 20;

/// Bytes read and thrown away in one go.
const LINGER_ROOM: usize = 4 << 10;

/// Streams that were reset, and whose frames may still be on their way, that are remembered.
const RESET_REMEMBERED_MAX: usize = 100;

type Frames = h2::server::Connection<Io, Bytes>;

/// Serves a connection that begins with the preface of HTTP/2, in `input`, to its end.
pub(super) async fn serve(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) {
    // Streams have no socket that could be asked.
    client.local_address();
    client.no_delay();
    let Some((transport, input)) = client.take_transport() else { return };
    let meter = Meter::of_client(client.default_server().client.http2_max_concurrent_streams);
    let io = Io::new(worker.clock.clone(), worker.buffers.clone(), transport, input, meter);
    let gauge = io.gauge().clone();
    let streams = Rc::new(Streams::default());
    let ended = match greet(worker, client, io, &gauge).await {
        Some(frames) => {
            let mut connection = Connection {
                worker,
                client,
                rest,
                frames,
                gauge: gauge.clone(),
                streams: streams.clone(),
                idle_since: None,
                farewell: None,
                is_flooded: false,
            };
            poll_fn(|cx| connection.poll(cx)).await
        }
        None => Parting::Broken,
    };
    rest.end(worker);
    if let Some(transport) = gauge.left()
        && ended == Parting::InGoodOrder
    {
        linger(worker, client, rest, transport).await;
    }
    // A request may have to go on though nobody waits for its response.
    poll_fn(|cx| streams.poll_none(cx)).await;
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    InGoodOrder,
    Broken,
}

fn root(client: &Client) -> &Place {
    let view = &client.connection.view;
    view.snapshot.place(client.default_server().root)
}

/// What a client is told about its connection.
fn offer(settings: &ClientSettings) -> h2::server::Builder {
    let large = settings.large_header_buffers;
    let header_bytes = large.size.as_usize().saturating_mul(large.count as usize);
    let preread = u32::try_from(settings.http2_body_preread_size.0).unwrap_or(WINDOW_MAX);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(settings.http2_max_concurrent_streams)
        .initial_window_size(preread.clamp(WINDOW_MIN, WINDOW_MAX))
        .initial_connection_window_size(WINDOW_MAX)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BYTES_MAX)
        .data_frame_budget(FRAMES_BUDGET)
        .max_concurrent_reset_streams(RESET_REMEMBERED_MAX)
        .max_pending_accept_reset_streams(RESET_REMEMBERED_MAX);
    builder
}

/// Exchanges settings. `None` where the client sends something else, or nothing in time.
async fn greet(worker: &Rc<Worker>, client: &mut Client, io: Io, gauge: &Gauge) -> Option<Frames> {
    let mut handshake = Box::pin(offer(&client.default_server().client).handshake(io));
    let frames = poll_fn(|cx| {
        if let Poll::Ready(frames) = handshake.as_mut().poll(cx) {
            return Poll::Ready(frames.ok());
        }
        if gauge.flood().is_some() {
            return Poll::Ready(None);
        }
        client.timer.poll_expired(&worker.clock, cx).map(|_| None)
    });
    frames.await
}

/// A connection and what is known of its streams.
struct Connection<'a> {
    worker: &'a Rc<Worker>,
    client: &'a mut Client,
    rest: &'a Rest,
    frames: Frames,
    gauge: Rc<Gauge>,
    streams: Rc<Streams>,
    /// Since when it has had no stream and nothing that its client hasn't taken.
    idle_since: Option<Instant>,
    /// Once goodbye has been said.
    farewell: Option<Farewell>,
    /// Whether its client has sent too many frames of a kind.
    is_flooded: bool,
}

/// A goodbye that has been said.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    said: Instant,
    /// How long the connection stays from then on, or from the end of its last stream on.
    stays: Duration,
}

impl Connection<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Parting> {
        self.streams.wakes(cx);
        loop {
            self.look_for_orders();
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    let text = format!("http2 connection failed ({error})");
                    self.client.log_before_request(self.worker, LogLevel::Info, &text);
                    return Poll::Ready(Parting::Broken);
                }
                Poll::Ready(None) => return Poll::Ready(Parting::InGoodOrder),
                Poll::Pending if self.stops_flood() => {}
                Poll::Pending => break,
            }
        }
        self.poll_time(cx)
    }

    /// Closes the connection at once if its client floods it. True when that has just been found.
    fn stops_flood(&mut self) -> bool {
        let Some(flood) = self.gauge.flood() else { return false };
        if std::mem::replace(&mut self.is_flooded, true) {
            return false;
        }
        self.client.log_before_request(self.worker, LogLevel::Info, flood.text());
        self.frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        true
    }

    /// Says goodbye, at which a client opens no further stream.
    fn say_goodbye(&mut self, stays: Duration) {
        if self.farewell.is_none() {
            self.frames.graceful_shutdown();
        }
        let new = Farewell { said: self.worker.clock.now(), stays };
        let farewell = self.farewell.get_or_insert(new);
        farewell.stays = farewell.stays.min(stays);
    }

    /// Looks whether the worker quits, or needs the place.
    fn look_for_orders(&mut self) {
        if self.worker.quitting().is_some() {
            self.say_goodbye(QUIT_IDLE);
        }
        if self.rest.must_close() {
            self.say_goodbye(HURRIED_FAREWELL);
        }
    }

    fn begin(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (worker, client) = (self.worker, &mut *self.client);
        self.rest.end(worker);
        // Goodbye has been said then: it closes behind its streams, and until then is no connection that gives up its place.
        self.rest.was_closing(worker);
        self.idle_since = None;
        client.connection.follow_configuration(worker);
        client.connection.requests += 1;
        let stream = client.on_stream(H2::new(request, respond));
        let counted = Counted {
            worker: worker.clone(),
            number: client.connection.number,
            streams: self.streams.clone(),
        };
        self.streams.count.set(self.streams.count.get() + 1);
        tokio::task::spawn_local(serve_stream(worker.clone(), stream, counted));
        let core = &root(client).scope.core;
        let is_old = client
            .connection
            .accepted
            .checked_add(core.keepalive_time)
            .is_some_and(|end| worker.clock.now() >= end);
        let listener_left = worker.view().snapshot.listener(&client.connection.listener).is_none();
        let is_last = client.connection.requests >= core.keepalive_requests || is_old || listener_left;
        if is_last {
            self.say_goodbye(FAREWELL);
        }
    }

    /// Is ready when the connection has idled for too long, or its client takes nothing any more.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Parting> {
        let now = self.worker.clock.now();
        let core = &root(self.client).scope.core;
        let blocked_since = self.gauge.blocked_since();
        let blocked = blocked_since.and_then(|since| since.checked_add(core.send_timeout));
        // A stream's task ends once the connection has its last bytes, which the client may take later.
        let is_idle = self.streams.count.get() == 0 && blocked_since.is_none();
        let idle = if !is_idle {
            self.idle_since = None;
            None
        } else if let Some(farewell) = self.farewell {
            let since = self.idle_since.get_or_insert(now);
            farewell.said.max(*since).checked_add(farewell.stays)
        } else {
            self.rest.begin(self.worker, Resting::Streamless);
            let header_timeout = self.client.default_server().client.header_timeout;
            let keepalive =
                if self.client.connection.requests == 0 { header_timeout } else { core.keepalive_timeout };
            let within = self.gauge.within_since().and_then(|since| since.checked_add(header_timeout));
            let idle = self.idle_since.get_or_insert(now).checked_add(keepalive);
            within.into_iter().chain(idle).min()
        };
        self.client.timer.set_at(blocked.into_iter().chain(idle).min());
        let Poll::Ready(now) = self.client.timer.poll_expired(&self.worker.clock, cx) else {
            return Poll::Pending;
        };
        if blocked.is_some_and(|until| now >= until) {
            self.client.log_before_request(self.worker, LogLevel::Info, "client timed out");
            return Poll::Ready(Parting::Broken);
        }
        if self.farewell.is_some() {
            return Poll::Ready(Parting::InGoodOrder);
        }
        self.say_goodbye(FAREWELL);
        // What says so is sent next.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The streams of one connection that are being served.
#[derive(Default)]
struct Streams {
    count: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    /// Has the task be woken when the last one has ended.
    fn wakes(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn poll_none(&self, cx: &Context<'_>) -> Poll<()> {
        self.wakes(cx);
        if self.count.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Counts a stream while it is being served.
struct Counted {
    worker: Rc<Worker>,
    number: u64,
    streams: Rc<Streams>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.counters.panics.add(1);
            self.worker.alert(format_args!("*{} a stream ended by a panic", self.number));
        }
        let left = self.streams.count.get().saturating_sub(1);
        self.streams.count.set(left);
        if left == 0
            && let Some(waker) = self.streams.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

/// Serves the request of one stream.
async fn serve_stream(worker: Rc<Worker>, mut client: Client, counted: Counted) {
    let mut ex = worker.take_exchange();
    ex.received.input = worker.buffers.take();
    let view = client.connection.view.clone();
    ex.begin(view.clone(), client.names().default_server());
    ex.received.started = Some(worker.clock.now());
    let rules = h1::rules(&ex.server(&view).client);
    let head = match &mut client.stream {
        ClientStream::H2(stream) => stream.read_head(&mut ex.received, &rules),
        ClientStream::H1(_) => return,
    };
    let ended = h1::answer(&worker, &mut client, &mut ex, &view, head).await;
    let job = Job { worker: &worker, client: &mut client, ex: &mut ex, view };
    if ended == Ended::Closed && job.ex.sent.status == 0 {
        job.ex.sent.status = if job.client.timed_out { 408 } else { 499 };
    }
    phase::log(&job);
    if let ClientStream::H2(stream) = &mut client.stream {
        stream.close();
    }
    drop(client);
    ex.reset();
    worker.buffers.give(std::mem::take(&mut ex.received.input));
    worker.buffers.give(std::mem::take(&mut ex.upstream.input));
    worker.give_exchange(ex);
    drop(counted);
}

/// Reads what a client still sends, so that its kernel doesn't throw away what it was sent last.
async fn linger(worker: &Rc<Worker>, client: &mut Client, rest: &Rest, mut transport: Transport) {
    let core = &root(client).scope.core;
    if core.lingering_close == LingeringClose::Off {
        return;
    }
    let quick = worker.quitting().map(|_| QUIT_IDLE);
    let until = worker.clock.now() + quick.unwrap_or(core.lingering_time).min(core.lingering_timeout);
    transport.shutdown_write();
    client.timer.set_at(Some(until));
    let mut scratch = worker.buffers.take();
    poll_fn(|cx| {
        loop {
            scratch.clear();
            match transport.poll_fill(cx, &mut scratch, LINGER_ROOM) {
                Poll::Ready(Ok(1..)) if worker.clock.now() < until => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if rest.must_close() => return Poll::Ready(()),
                Poll::Pending => {
                    rest.begin(worker, Resting::Lingering);
                    return client.timer.poll_expired(&worker.clock, cx).map(drop);
                }
            }
        }
    })
    .await;
    rest.end(worker);
    worker.buffers.give(scratch);
}
