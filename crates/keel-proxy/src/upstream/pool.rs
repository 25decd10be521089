//! Idle connections to peers: one pool for each upstream and worker.
//!
//! A connection is kept for the very peer it leads to, incarnation included, and never handed out once that peer has
//! left, once anything has come on it unasked, or once it has idled beyond 80 % of what its peer is known to bear.
//! While it idles the event loop watches it, so that one the peer closes is closed here, too.
//!
//! A request that can't be repeated must not meet a peer that closes just then. Of a peer that announces nothing and has
//! shown nothing yet, it takes only a connection that has idled for a moment, or within 80 % of what another connection
//! to that peer was seen to bear.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use keel_lb::PeerState;
use keel_model::{PeerKey, UpstreamKeepalive};

use super::{
    retry::RetryBudget,
    shared::{Lease, Purpose, SharedConnections},
};
use crate::{
    http2::{io::Io, meter::Meter},
    io::timer::Timer,
    snapshot::{PlaceIdentity, ProtocolKind},
    transport::{LocalAddress, Look, Transport},
    worker::Worker,
};

/// Of the idle time that a peer announces or has shown, the share within which a connection is reused, in percent.
const IDLE_SHARE: u32 = 80;

/// Connections that have idled less than this are not looked at by a system call before reuse: the event loop tells of
/// whatever came before its last turn, and peers that close for idleness don't do so after this little.
const FRESH: Duration = Duration::from_millis(50);

/// Connections that have idled less than this are taken even for what can't be repeated, whatever is known of the peer:
/// none that keeps connections at all closes them this soon.
const UNPROVEN: Duration = Duration::from_millis(100);

/// How long connections beyond `keepalive` stay when they have just been given back. Between two turns of a busy loop
/// nearly all are idle for a moment, and peers take their turns unevenly: what is closed now is opened again at once.
const SURPLUS_STAYS: Duration = Duration::from_millis(100);

/// Peers whose idle time is remembered; beyond it all are forgotten and learnt again.
const SHOWN_MAX: usize = 10_000;

/// What makes connections to peers interchangeable: one serves where all that is asked for is the same.
#[derive(Clone, Copy)]
pub(crate) struct LeaseKey<'a> {
    /// The peer: another incarnation of it at the same address is another peer.
    pub(crate) peer: &'a Arc<PeerState>,
    /// The protocol that is spoken on it.
    pub(crate) protocol: ProtocolKind,
    /// The place that the connection is made for; `None` where it may be any (`keepalive` without `local`).
    pub(crate) place: Option<&'a Arc<PlaceIdentity>>,
    /// From which address the peer is reached (`proxy_bind`).
    pub(crate) local: Option<LocalAddress>,
}

impl LeaseKey<'_> {
    /// That of a shared connection of the same protocol.
    fn of<'b>(self, purpose: &'b Purpose) -> LeaseKey<'b> {
        let place = Some(&purpose.place);
        LeaseKey { peer: &purpose.peer, protocol: self.protocol, place, local: purpose.local }
    }

    /// Says whether a connection made for `self` serves where `wanted` is asked for.
    fn serves(self, wanted: LeaseKey<'_>) -> bool {
        let LeaseKey { peer, protocol, place, local } = wanted;
        // Nearly always both places are of one snapshot, and so in one place of memory.
        Arc::ptr_eq(self.peer, peer)
            && self.protocol == protocol
            && self.local == local
            && place.is_none_or(|place| self.place == Some(place))
    }
}

/// What a connection was made for.
pub(crate) struct MadeFor {
    pub(crate) peer: Arc<PeerState>,
    pub(crate) protocol: ProtocolKind,
    pub(crate) place: Arc<PlaceIdentity>,
    pub(crate) local: Option<LocalAddress>,
}

/// A connection to a peer.
pub(crate) struct PeerConnection {
    pub(crate) transport: Transport,
    made_for: MadeFor,
    /// Requests sent on it.
    pub(crate) requests: u64,
    pub(crate) opened: Instant,
    /// How long the peer lets it idle, if it said so (`Keep-Alive: timeout`).
    pub(crate) announced_idle: Option<Duration>,
    /// Whether the last response on it had more than one buffer holds.
    pub(crate) answers_long: bool,
    watch: Option<Watch>,
    _counted: Counted,
}

/// Counts a connection from the attempt to open it until it is closed.
pub(crate) struct Counted(Rc<Cell<u64>>);

impl Counted {
    pub(crate) fn new(worker: &Worker) -> Self {
        let count = &worker.peer_connections;
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// What tells the pool that something happened on an idle connection.
struct Watch {
    id: u64,
    waker: Waker,
}

impl PeerConnection {
    pub(crate) fn new(transport: Transport, made_for: MadeFor, opened: Instant, counted: Counted) -> Self {
        Self {
            transport,
            made_for,
            requests: 0,
            opened,
            announced_idle: None,
            answers_long: false,
            watch: None,
            _counted: counted,
        }
    }

    /// Lets others have streams on it, with the first of which it begins.
    pub(super) async fn share(self, pool: &Pool, worker: &Rc<Worker>) -> Result<Lease, h2::Error> {
        let MadeFor { peer, place, local, .. } = self.made_for;
        let purpose = Purpose { peer, place, local };
        let (clock, buffers) = (worker.clock.clone(), worker.buffers.clone());
        let io = Io::new(clock, buffers, self.transport, Vec::new(), Meter::of_peer());
        pool.shared.begin(purpose, worker, io, self._counted).await
    }

    fn key(&self) -> LeaseKey<'_> {
        let MadeFor { peer, protocol, place, local } = &self.made_for;
        LeaseKey { peer, protocol: *protocol, place: Some(place), local: *local }
    }

    /// The peer that it leads to.
    fn peer(&self) -> &Arc<PeerState> {
        &self.made_for.peer
    }
}

/// Whether a request may be sent again when its connection turns out to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Allowed,
    /// It is not idempotent, or its body is gone once it has been sent.
    Forbidden,
}

struct Idle {
    connection: PeerConnection,
    since: Instant,
}

/// The idle connections of one upstream.
#[derive(Default)]
pub(crate) struct Pool {
    /// The one used last is last.
    idle: RefCell<Vec<Idle>>,
    settings: RefCell<UpstreamKeepalive>,
    serial: Cell<u64>,
    watched: Cell<bool>,
    /// Whether there may be more idle connections than are to stay.
    has_surplus: Cell<bool>,
    events: Arc<Events>,
    /// The shortest idle time after which a peer has closed a connection.
    shown_idle: RefCell<HashMap<PeerKey, Duration>>,
    /// The longest idle time that a connection to a peer was seen to bear, asked for where nothing else is known.
    borne_idle: RefCell<HashMap<PeerKey, Duration>>,
    pub(crate) budget: RetryBudget,
    /// Connections that carry many requests at once.
    pub(super) shared: Rc<SharedConnections>,
}

/// What the watcher of a pool is to look at.
#[derive(Default)]
struct Events(Mutex<Told>);

#[derive(Default)]
struct Told {
    /// Idle connections on which something has happened.
    ids: Vec<u64>,
    /// There are more connections than are to stay.
    surplus: bool,
    watcher: Option<Waker>,
}

impl Events {
    fn tell(&self, what: impl FnOnce(&mut Told)) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut told);
        if let Some(watcher) = told.watcher.take() {
            watcher.wake();
        }
    }

    /// Gives the connections told of, once there is a reason to look.
    fn poll_told(&self, cx: &mut Context<'_>) -> Poll<Vec<u64>> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.watcher = Some(cx.waker().clone());
        let is_nothing = told.ids.is_empty() && !std::mem::take(&mut told.surplus);
        if is_nothing { Poll::Pending } else { Poll::Ready(std::mem::take(&mut told.ids)) }
    }
}

struct Event {
    id: u64,
    events: Arc<Events>,
}

impl Wake for Event {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.events.tell(|told| told.ids.push(self.id));
    }
}

impl Pool {
    /// Follows new settings.
    pub(crate) fn configure(&self, settings: &UpstreamKeepalive) {
        *self.settings.borrow_mut() = settings.clone();
        self.shared.configure(settings);
        let limit = settings.connections as usize;
        let mut idle = self.idle.borrow_mut();
        let surplus = idle.len().saturating_sub(limit);
        idle.drain(..surplus);
    }

    /// Takes out a connection that serves where `wanted` is asked for, the one used last first.
    pub(crate) fn take(&self, wanted: LeaseKey<'_>, repeat: Repeat, now: Instant) -> Option<PeerConnection> {
        let (idle_timeout, local) = (self.settings.borrow().idle_timeout, self.settings.borrow().local);
        let wanted = LeaseKey { place: wanted.place.filter(|_| local), ..wanted };
        let fits = |idle: &Idle| idle.connection.key().serves(wanted);
        loop {
            let mut idle = self.idle.borrow_mut();
            let at = idle.iter().rposition(fits)?;
            let newest = idle.get(at)?;
            let idled = now.saturating_duration_since(newest.since);
            let known = self.idle_bound(&newest.connection);
            if known.is_none()
                && repeat == Repeat::Forbidden
                && idled >= UNPROVEN
                && idled >= self.proven_idle(&mut idle, wanted.peer, now)
            {
                return None;
            }
            let Idle { mut connection, .. } = idle.remove(at);
            drop(idle);
            if idled < known.unwrap_or(idle_timeout).min(idle_timeout) && is_quiet(&mut connection, idled) {
                return Some(connection);
            }
        }
    }

    /// Takes a stream on a connection that serves where `wanted` is asked for.
    pub(super) fn take_stream(&self, wanted: LeaseKey<'_>) -> Option<Lease> {
        let wanted = self.asked(wanted);
        self.shared.take(&|purpose| wanted.of(purpose).serves(wanted))
    }

    /// Gives what is told when a connection that serves where `wanted` is asked for has been opened, or couldn't be; `None`
    /// where nobody opens one.
    pub(super) fn opened(&self, wanted: LeaseKey<'_>) -> Option<impl Future<Output = ()> + use<>> {
        let wanted = self.asked(wanted);
        self.shared.opened(&|purpose| wanted.of(purpose).serves(wanted))
    }

    /// Leaves out of what is asked for what makes no difference here.
    fn asked<'a>(&self, wanted: LeaseKey<'a>) -> LeaseKey<'a> {
        let local = self.settings.borrow().local;
        LeaseKey { place: wanted.place.filter(|_| local), ..wanted }
    }

    /// Gives the idle time within which a connection to a peer is sure to be open, from what others to it have borne.
    fn proven_idle(&self, idle: &mut [Idle], peer: &Arc<PeerState>, now: Instant) -> Duration {
        let bears = |idle: &mut Idle| {
            let is_same = Arc::ptr_eq(idle.connection.peer(), peer);
            let is_open = is_same && is_quiet(&mut idle.connection, Duration::MAX);
            is_open.then(|| now.saturating_duration_since(idle.since))
        };
        // The oldest is first, or nearly so.
        let oldest = idle.iter_mut().find_map(bears);
        let longest = remember(&self.borne_idle, peer.key(), oldest.unwrap_or_default(), Duration::max);
        longest * IDLE_SHARE / 100
    }

    /// Gives the idle time up to which a connection may be reused, where its peer is known to close it.
    fn idle_bound(&self, connection: &PeerConnection) -> Option<Duration> {
        let shown = self.shown_idle.borrow();
        let shown = if shown.is_empty() { None } else { shown.get(connection.peer().key()).copied() };
        let known = connection.announced_idle.into_iter().chain(shown).min()?;
        Some(known * IDLE_SHARE / 100)
    }

    /// Keeps a connection whose response has been read to its end, unless it is used up.
    pub(crate) fn give(self: &Rc<Self>, worker: &Rc<Worker>, mut connection: PeerConnection) {
        let now = worker.clock.now();
        let settings = self.settings.borrow();
        let spent = connection.requests >= settings.requests
            || connection.opened.checked_add(settings.time).is_some_and(|end| now >= end);
        let limit = settings.connections as usize;
        if limit == 0 || spent || connection.peer().is_closed() || worker.quitting().is_some() {
            return;
        }
        drop(settings);
        let watch = connection.watch.get_or_insert_with(|| {
            let id = self.serial.replace(self.serial.get() + 1);
            let waker = Waker::from(Arc::new(Event { id, events: self.events.clone() }));
            Watch { id, waker }
        });
        if connection.transport.poll_read_ready(&mut Context::from_waker(&watch.waker)).is_ready() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limit {
            // The one that has idled longest is first.
            let settled = idle
                .first()
                .is_some_and(|oldest| now.saturating_duration_since(oldest.since) >= SURPLUS_STAYS);
            if settled || idle.len() >= limit.saturating_mul(2) {
                idle.remove(0);
            } else if !self.has_surplus.replace(true) {
                self.events.tell(|told| told.surplus = true);
            }
        }
        idle.push(Idle { connection, since: now });
        drop(idle);
        if !self.watched.replace(true) {
            tokio::task::spawn_local(watch_idle(worker.clone(), Rc::downgrade(self)));
        }
    }

    /// Closes the connection that has idled longest; false where there is none.
    pub(crate) fn close_oldest(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let any = !idle.is_empty();
        idle.drain(..usize::from(any));
        any || self.shared.close_oldest()
    }

    /// Closes connections to peers that have left.
    pub(crate) fn close_left(&self) {
        self.idle.borrow_mut().retain(|idle| !idle.connection.peer().is_closed());
        self.shared.close_left();
    }

    /// Closes what has expired, has ended or is too much, and gives the moment at which to look again.
    fn sweep(&self, ended: &[u64], now: Instant) -> Option<Instant> {
        let settings = self.settings.borrow();
        let (limit, idle_timeout) = (settings.connections as usize, settings.idle_timeout);
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|idle| {
            let idled = now.saturating_duration_since(idle.since);
            let id = idle.connection.watch.as_ref().map(|watch| watch.id);
            if id.is_some_and(|id| ended.contains(&id)) && !is_quiet(&mut idle.connection, Duration::MAX) {
                self.learn(&idle.connection, idled);
                return false;
            }
            let bound = self.idle_bound(&idle.connection).unwrap_or(idle_timeout);
            idled < bound.min(idle_timeout)
        });
        // The one that has idled longest is first.
        let settled = idle.iter().take_while(|idle| idle.since + SURPLUS_STAYS <= now).count();
        let surplus = idle.len().saturating_sub(limit);
        idle.drain(..surplus.min(settled));
        let has_surplus = idle.len() > limit;
        self.has_surplus.set(has_surplus);
        let stays = if has_surplus { SURPLUS_STAYS } else { idle_timeout };
        idle.first().map(|oldest| oldest.since + stays)
    }

    /// Remembers after what idle time a peer has closed.
    fn learn(&self, connection: &PeerConnection, idled: Duration) {
        // A peer that goes away closes everything at once, and that says nothing about its idle time.
        if idled < Duration::from_millis(500) {
            return;
        }
        remember(&self.shown_idle, connection.peer().key(), idled, Duration::min);
    }
}

/// Joins what is known of a peer with what was seen, and gives the result.
fn remember(
    known: &RefCell<HashMap<PeerKey, Duration>>,
    peer: &PeerKey,
    seen: Duration,
    join: fn(Duration, Duration) -> Duration,
) -> Duration {
    let mut known = known.borrow_mut();
    if let Some(value) = known.get_mut(peer) {
        *value = join(*value, seen);
        return *value;
    }
    if known.len() >= SHOWN_MAX {
        known.clear();
    }
    known.insert(peer.clone(), seen);
    seen
}

/// Says whether nothing has come on an idle connection: no byte, no end, no error.
fn is_quiet(connection: &mut PeerConnection, idled: Duration) -> bool {
    connection.transport.is_quiet(if idled < FRESH { Look::Glance } else { Look::Close })
}

/// Watches the idle connections of one pool for as long as the pool lives.
async fn watch_idle(worker: Rc<Worker>, pool: Weak<Pool>) {
    let mut timer = Timer::default();
    loop {
        let Some(alive) = pool.upgrade() else { return };
        let next = alive.sweep(&[], worker.clock.now());
        timer.set_at(next.or_else(|| worker.clock.now().checked_add(WATCH_EVERY)));
        let events = alive.events.clone();
        drop(alive);
        let ended = poll_fn(|cx| match events.poll_told(cx) {
            Poll::Pending => timer.poll_expired(&worker.clock, cx).map(|_| Vec::new()),
            told => told,
        });
        let ended = ended.await;
        if let Some(alive) = pool.upgrade() {
            alive.sweep(&ended, worker.clock.now());
        }
    }
}

/// How often an empty pool looks whether it is still needed.
const WATCH_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use crate::transport::Ownership;
    use keel_lb::{Ask, Attempt, Group};

    use super::*;
    use crate::{
        rig::{self, Rig},
        transport::{Script, Transport},
    };

    #[test]
    fn a_connection_serves_its_own_place_or_any_as_keepalive_says() {
        let rig = Rig::new(|plan| plan.servers[0].locations.push(rig::location("/")));
        rig.enter(async || {
            let worker = rig.worker();
            let upstream = rig::upstream("app");
            let group = Group::new(&upstream, &worker.registry, Arc::new(|_, _| {})).unwrap();
            let now = worker.clock.now();
            let ask = Ask { now, client_key: b"", key: b"", tried: &[], attempt: Attempt::First, random: 0 };
            let peer = group.pick(&ask).unwrap().peer().clone();
            let another =
                Group::new(&rig::upstream("app"), &keel_lb::Registry::default(), Arc::new(|_, _| {}));
            let another = another.unwrap().pick(&ask).unwrap().peer().clone();
            let snapshot = &worker.view().snapshot;
            let server = &snapshot.place(snapshot.servers[0].root).identity;
            let crate::snapshot::Found::Place(place) = snapshot.servers[0].tree.find(snapshot, b"/") else {
                panic!("no location takes it")
            };
            let location = &snapshot.place(place).identity;
            let taken = |local: bool, wanted: LeaseKey<'_>| {
                let pool = Rc::new(Pool::default());
                pool.configure(&UpstreamKeepalive { local, ..UpstreamKeepalive::default() });
                let transport = Transport::Script(Script::default());
                let counted = Counted::new(worker);
                let made_for = MadeFor {
                    peer: peer.clone(),
                    protocol: ProtocolKind::Http,
                    place: location.clone(),
                    local: None,
                };
                let connection = PeerConnection::new(transport, made_for, now, counted);
                pool.give(worker, connection);
                pool.take(wanted, Repeat::Allowed, now).is_some()
            };
            let key = |peer, place| LeaseKey {
                peer,
                protocol: ProtocolKind::Http,
                place: Some(place),
                local: None,
            };
            let bound = LocalAddress { address: ([127, 0, 0, 2], 0).into(), ownership: Ownership::Own };
            let from = |local| LeaseKey { local, ..key(&peer, location) };
            assert!(taken(true, from(None)) && !taken(true, from(Some(bound))));
            assert!(taken(true, key(&peer, location)));
            assert!(!taken(true, key(&peer, server)));
            assert!(taken(false, key(&peer, server)));
            assert!(!taken(false, key(&another, location)), "another peer at the same address");
            let fastcgi = LeaseKey { protocol: ProtocolKind::FastCgi, ..key(&peer, location) };
            assert!(!taken(false, fastcgi), "another protocol at the same peer");
        });
    }
}
