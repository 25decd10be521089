//! Connections to peers that carry many requests at once (HTTP/2): one worker's, of one upstream.
//!
//! What is leased is a stream. A connection has a task for its frames, which ends with the last stream once nobody may
//! begin another: when its peer has left or says goodbye, when it has carried enough, has idled for too long, or too many
//! idle.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use keel_lb::PeerState;
use keel_model::UpstreamKeepalive;
use tokio::sync::Notify;

use crate::{
    http2::{SEND_BYTES_MAX, io::Io, meter::Gauge},
    io::{clock::Clock, timer::Timer},
    snapshot::PlaceIdentity,
    transport::LocalAddress,
    worker::Worker,
};

/// How much of a response a peer may send before it is asked for.
const STREAM_WINDOW: u32 = 128 << 10;

/// The largest window there is (RFC 9113 §6.9.1): the connection's own, which leaves flow control to its streams.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// What small frames of data that nobody has read yet may take beside their payload, in bytes: about 256 each. A peer's
/// connection is many clients', and slow ones have much waiting.
const FRAMES_BUDGET: usize = 16 << 20;

/// The largest head of a response, before the place's own limit.
const HEAD_BYTES_MAX: u32 = 256 << 10;

/// Streams that a peer is taken to bear until it has said how many it does.
const STREAMS_UNTOLD: usize = 100;

/// How long a peer may take to end a connection that nobody uses any more.
const FAREWELL: Duration = Duration::from_secs(5);

/// The shared connections of one pool.
#[derive(Default)]
pub(crate) struct SharedConnections {
    all: RefCell<Vec<Rc<Shared>>>,
    /// Connections that are being opened.
    opening: RefCell<Vec<Rc<Opening>>>,
    settings: RefCell<UpstreamKeepalive>,
}

/// A connection that others may have streams on.
pub(super) struct Shared {
    purpose: Purpose,
    clock: Rc<Clock>,
    /// What begins streams; `None` once nobody may.
    send: RefCell<Option<SendRequest<Bytes>>>,
    streams: Cell<usize>,
    requests: Cell<u64>,
    opened: Instant,
    idle_since: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
    gauge: Rc<Gauge>,
}

/// What a connection is made for.
#[derive(Clone)]
pub(super) struct Purpose {
    pub(super) peer: Arc<PeerState>,
    pub(super) place: Arc<PlaceIdentity>,
    pub(super) local: Option<LocalAddress>,
}

/// A connection that is being opened, for which others wait that may use it.
struct Opening {
    purpose: Purpose,
    done: Notify,
}

/// Has those that wait for a connection look again when it is dropped.
pub(super) struct Opens {
    list: Rc<SharedConnections>,
    opening: Rc<Opening>,
}

impl Drop for Opens {
    fn drop(&mut self) {
        self.list.opening.borrow_mut().retain(|opening| !Rc::ptr_eq(opening, &self.opening));
        self.opening.done.notify_waiters();
    }
}

/// Whether connections of this purpose serve where something is asked for.
pub(super) type Serves<'a> = &'a dyn Fn(&Purpose) -> bool;

impl SharedConnections {
    /// Follows new settings.
    pub(super) fn configure(&self, settings: &UpstreamKeepalive) {
        self.settings.borrow_mut().clone_from(settings);
    }

    /// Takes a stream on a connection that serves, the one with the most streams first, so that others can end.
    pub(super) fn take(&self, serves: Serves<'_>) -> Option<Lease> {
        let settings = self.settings.borrow();
        let all = self.all.borrow();
        let fits = |shared: &&Rc<Shared>| serves(&shared.purpose) && shared.has_room(&settings);
        let shared = all.iter().filter(fits).max_by_key(|shared| shared.streams.get())?;
        shared.lease(&settings)
    }

    /// Gives what is told when a connection of that kind has been opened, or couldn't be.
    pub(super) fn opened(&self, serves: Serves<'_>) -> Option<impl Future<Output = ()> + use<>> {
        let opening = self.opening.borrow();
        let fits = |opening: &&Rc<Opening>| serves(&opening.purpose);
        let opening = opening.iter().find(fits)?.clone();
        Some(async move { opening.done.notified().await })
    }

    /// Lets others wait for a connection that is about to be opened, until what is given is dropped.
    pub(super) fn open(self: &Rc<Self>, purpose: Purpose) -> Opens {
        let opening = Rc::new(Opening { purpose, done: Notify::new() });
        self.opening.borrow_mut().push(opening.clone());
        Opens { list: self.clone(), opening }
    }

    /// Begins to speak HTTP/2 on a connection, and gives the first stream on it. `held` is dropped when it has ended.
    pub(super) async fn begin(
        self: &Rc<Self>,
        purpose: Purpose,
        worker: &Rc<Worker>,
        io: Io,
        held: impl Sized + 'static,
    ) -> Result<Lease, h2::Error> {
        let gauge = io.gauge().clone();
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buffer_size(SEND_BYTES_MAX)
            .data_frame_budget(FRAMES_BUDGET)
            .initial_max_send_streams(STREAMS_UNTOLD);
        let (send, connection) = builder.handshake(io).await?;
        let now = worker.clock.now();
        let shared = Rc::new(Shared {
            purpose,
            clock: worker.clock.clone(),
            send: RefCell::new(Some(send)),
            streams: Cell::new(0),
            requests: Cell::new(0),
            opened: now,
            idle_since: Cell::new(now),
            waker: RefCell::new(None),
            gauge,
        });
        let settings = self.settings.borrow().clone();
        let lease = shared.lease(&settings).ok_or(h2::Error::from(h2::Reason::REFUSED_STREAM))?;
        if settings.connections > 0 {
            self.all.borrow_mut().push(shared.clone());
        } else {
            shared.leave();
        }
        tokio::task::spawn_local(drive(worker.clone(), Rc::downgrade(self), shared, connection, held));
        Ok(lease)
    }

    /// Lets connections to peers that have left end with their last streams.
    pub(super) fn close_left(&self) {
        self.all
            .borrow()
            .iter()
            .filter(|shared| shared.purpose.peer.is_closed())
            .for_each(|shared| shared.leave());
    }

    /// Closes the connection that has idled longest; false where none idles.
    pub(super) fn close_oldest(&self) -> bool {
        let all = self.all.borrow();
        let idle = all.iter().filter(|shared| shared.is_idle());
        let oldest = idle.min_by_key(|shared| shared.idle_since.get());
        oldest.map(|shared| shared.leave()).is_some()
    }

    /// Gives the moment at which a connection that idles has done so for too long: at once where too many do.
    fn idles_until(&self, shared: &Shared) -> Option<Instant> {
        let settings = self.settings.borrow();
        let idle = self.all.borrow().iter().filter(|shared| shared.is_idle()).count();
        if idle > settings.connections as usize {
            return Some(shared.idle_since.get());
        }
        shared.idle_since.get().checked_add(settings.idle_timeout)
    }
}

impl Shared {
    fn is_idle(&self) -> bool {
        self.streams.get() == 0 && self.send.borrow().is_some()
    }

    /// Whether another stream may begin.
    fn has_room(&self, settings: &UpstreamKeepalive) -> bool {
        let is_old = self.opened.checked_add(settings.time).is_some_and(|end| self.clock.now() >= end);
        let send = self.send.borrow();
        let streams_max = send.as_ref().map_or(0, SendRequest::current_max_send_streams);
        !is_old && self.streams.get() < streams_max && !self.purpose.peer.is_closed()
    }

    fn lease(self: &Rc<Self>, settings: &UpstreamKeepalive) -> Option<Lease> {
        let send = self.send.borrow().clone()?;
        let has_idled = self.requests.get() > 0 && self.streams.get() == 0;
        self.streams.set(self.streams.get() + 1);
        self.requests.set(self.requests.get() + 1);
        if self.requests.get() >= settings.requests {
            self.leave();
        }
        Some(Lease { shared: self.clone(), send: Some(send), number: self.requests.get(), has_idled })
    }

    /// Lets nobody begin another stream.
    fn leave(&self) {
        drop(self.send.take());
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn wakes(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}

/// One stream on a connection that others use, too.
pub(crate) struct Lease {
    shared: Rc<Shared>,
    send: Option<SendRequest<Bytes>>,
    number: u64,
    has_idled: bool,
}

impl Lease {
    /// Whether others have had streams on the connection before.
    pub(super) fn is_reused(&self) -> bool {
        self.number > 1
    }

    /// Whether others have had streams on the connection before, none of them when this one came.
    pub(super) fn has_idled(&self) -> bool {
        self.has_idled
    }

    /// Lets nobody begin another stream on the connection if nothing has come on it for so long.
    pub(super) fn note_silence(&self, silence: Duration) {
        let since = self.shared.gauge.received_at().unwrap_or(self.shared.opened);
        if self.shared.clock.now().saturating_duration_since(since) >= silence {
            self.shared.leave();
        }
    }

    /// Begins the stream. An error means that the peer has got nothing of it.
    pub(super) fn begin(
        &mut self,
        request: http::Request<()>,
        ends: keel_http::StreamEnd,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let refused = h2::Error::from(h2::Reason::REFUSED_STREAM);
        let mut send = self.send.take().ok_or(refused)?;
        send.send_request(request, ends == keel_http::StreamEnd::WithHead)
            .inspect_err(|_| self.shared.leave())
    }

    /// Lets nobody begin another stream on the connection: the peer refuses them.
    pub(super) fn leave(&self) {
        self.shared.leave();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let left = self.shared.streams.get().saturating_sub(1);
        self.shared.streams.set(left);
        if left == 0 {
            // It may have begun when those to peers that have left were looked for.
            if self.shared.purpose.peer.is_closed() {
                self.shared.leave();
            }
            self.shared.idle_since.set(self.shared.clock.now());
            self.shared.wake();
        }
    }
}

/// Reads and writes a connection's frames until it has ended.
async fn drive(
    worker: Rc<Worker>,
    list: Weak<SharedConnections>,
    shared: Rc<Shared>,
    connection: h2::client::Connection<Io, Bytes>,
    held: impl Sized + 'static,
) {
    let mut timer = Timer::default();
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        shared.wakes(cx);
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if let Some(flood) = shared.gauge.flood() {
                let address = &shared.purpose.peer.key().address;
                worker.alert(format_args!("upstream {address}: {}", flood.text()));
                return Poll::Ready(());
            }
            if shared.streams.get() > 0 {
                return Poll::Pending;
            }
            let list = list.upgrade();
            let until = match list.filter(|_| shared.is_idle()) {
                Some(list) => list.idles_until(&shared),
                None => Some(shared.idle_since.get().max(shared.opened) + FAREWELL),
            };
            timer.set_at(until);
            if timer.poll_expired(&shared.clock, cx).is_pending() {
                return Poll::Pending;
            }
            if !shared.is_idle() {
                return Poll::Ready(());
            }
            shared.idle_since.set(shared.clock.now());
            shared.leave();
        }
    })
    .await;
    shared.leave();
    if let Some(list) = list.upgrade() {
        list.all.borrow_mut().retain(|other| !Rc::ptr_eq(other, &shared));
    }
    drop(held);
}
