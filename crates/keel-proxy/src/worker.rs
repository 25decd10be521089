//! One worker: a thread with its own event loop, connections, buffers, timers and pools.
//!
//! Nothing here is shared with other workers but the snapshot, the peers and the logs. Orders come over a channel;
//! the loop acts on them between requests.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use keel_lb::{Group, Registry};
use keel_model::{Address, LogLevel, UpstreamName};
use keel_sys::sock_diag::SockDiag;
use keel_telemetry::{Counters, TimeText, WorkerCounters};
use tokio::sync::mpsc;

use crate::{
    accept::{self, Listening},
    downstream::{
        Tasks,
        parking::{self, Parking},
    },
    exchange::Exchange,
    io::{buffer::BufferPool, clock, clock::Clock, timer},
    log,
    reports::Reports,
    snapshot::Snapshot,
    subrequest::BACKGROUND_MAX,
    upstream::{pool::Pool, queue::Waiters},
};

/// How often something is said that comes up again and again.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// How long it is known that no socket on a wildcard address has a port. One that comes since, just when the instance has
/// ceased to listen, could answer for it; and to ask at each connection costs more than to make it.
const LONE_PORT_KNOWN: Duration = Duration::from_millis(20);

/// Ports of which that is known at once.
const LONE_PORTS_MAX: usize = 1024;

/// A loopback address that is nobody's: instances never get a broadcast address.
const NOBODYS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// Exchanges that one worker keeps for reuse.
const EXCHANGES_POOLED_MAX: usize = 256;

/// Something that may come up at every connection: it is said once a second, and how often it came up between.
#[derive(Default)]
pub(crate) struct Repeated {
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Repeated {
    /// Gives how often it came up unsaid, if it is to be said now.
    fn note(&self, now: Instant) -> Option<u64> {
        let is_news = self.said.get().is_none_or(|said| now.saturating_duration_since(said) >= SAID_EVERY);
        if is_news {
            self.said.set(Some(now));
            return Some(self.unsaid.take());
        }
        self.unsaid.set(self.unsaid.get() + 1);
        None
    }
}

/// What the control thread tells a worker.
pub(crate) enum WorkerOrder {
    /// Take this configuration for new requests and these sockets for new connections.
    Commit { snapshot: Arc<Snapshot>, sockets: Vec<(Address, std::os::fd::OwnedFd)>, done: Acknowledge },
    /// The peers of some upstream have changed: close idle connections to those that left, let waiting requests look.
    PeersChanged,
    /// Accept no more and end once the last connection has.
    Quit,
}

/// Tells the control thread that an order has been carried out, when dropped.
pub(crate) struct Acknowledge(
    #[expect(dead_code, reason = "its end is the message")] std::sync::mpsc::Sender<()>,
);

impl Acknowledge {
    pub(crate) fn new(sender: std::sync::mpsc::Sender<()>) -> Self {
        Self(sender)
    }
}

/// A snapshot with this worker's pools for its upstreams.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) pools: Vec<Rc<Pool>>,
}

/// A group for an address that only a request names, and this worker's pool for it.
pub(crate) type DynamicGroup = (Arc<Group>, Rc<Pool>);

/// What the loop of one worker holds.
pub(crate) struct Worker {
    pub(crate) clock: Rc<Clock>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) counters: Arc<WorkerCounters>,
    /// The counters of all workers.
    pub(crate) all_counters: Counters,
    pub(crate) reports: Reports,
    pub(crate) index: usize,
    pub(crate) hostname: String,
    pub(crate) time_text: RefCell<TimeText>,
    pub(crate) registry: Registry,
    pub(crate) waiters: Waiters,
    /// Groups for addresses that only a request names (`proxy_pass http://$name`).
    pub(crate) dynamic: RefCell<HashMap<Vec<u8>, DynamicGroup>>,
    view: RefCell<Rc<View>>,
    pools: RefCell<HashMap<UpstreamName, Rc<Pool>>>,
    #[expect(clippy::vec_box, reason = "an exchange is too large to be moved in and out for each request")]
    exchanges: RefCell<Vec<Box<Exchange>>>,
    quitting: Cell<Option<Instant>>,
    pub(crate) tasks: Tasks,
    pub(crate) parking: Parking,
    listening: RefCell<HashMap<Address, Listening>>,
    connection_serial: Arc<AtomicU64>,
    random: Cell<u64>,
    /// Subrequests that nobody waits for.
    background: Cell<u32>,
    /// Connections to peers, idle ones included.
    pub(crate) peer_connections: Rc<Cell<u64>>,
    /// The number from which on a descriptor isn't for clients.
    client_descriptors_max: Cell<u64>,
    /// Connections are closed to make room.
    reusing: Repeated,
    /// Connections are refused for want of room.
    pub(crate) refusing: Repeated,
    /// Connections can't be accepted.
    pub(crate) not_accepting: Repeated,
    /// What the kernel is asked with about listening sockets.
    diag: RefCell<Option<SockDiag>>,
    /// Ports that no socket on a wildcard address had, and when that was seen.
    lone_ports: RefCell<HashMap<u16, Instant>>,
}

/// What a worker is made from.
pub(crate) struct WorkerSetup {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) registry: Registry,
    /// The counters of all workers.
    pub(crate) counters: Counters,
    pub(crate) reports: Reports,
    pub(crate) index: usize,
    pub(crate) connection_serial: Arc<AtomicU64>,
    pub(crate) seed: u64,
    pub(crate) orders: mpsc::Receiver<WorkerOrder>,
}

impl Worker {
    /// Runs the loop until it is told to quit and the last connection has ended.
    pub(crate) fn run(setup: WorkerSetup) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_unpark(clock::turn)
            .event_interval(EVENT_INTERVAL)
            .build_local(tokio::runtime::LocalOptions::default())?;
        runtime.block_on(Self::main(setup));
        Ok(())
    }

    /// Makes one with its first configuration. Must be called within its runtime.
    pub(crate) fn new(setup: WorkerSetup) -> (Rc<Self>, mpsc::Receiver<WorkerOrder>) {
        let worker = Rc::new(Self {
            clock: Rc::new(Clock::new()),
            buffers: Rc::default(),
            counters: setup.counters.worker(setup.index).unwrap_or_default(),
            all_counters: setup.counters,
            reports: setup.reports,
            index: setup.index,
            hostname: keel_sys::hostname(),
            time_text: RefCell::new(TimeText::new()),
            registry: setup.registry,
            waiters: Waiters::default(),
            dynamic: RefCell::default(),
            view: RefCell::new(Rc::new(View { snapshot: setup.snapshot.clone(), pools: Vec::new() })),
            pools: RefCell::default(),
            exchanges: RefCell::default(),
            quitting: Cell::new(None),
            tasks: Tasks::default(),
            parking: Parking::new(),
            listening: RefCell::default(),
            connection_serial: setup.connection_serial,
            random: Cell::new(setup.seed | 1),
            background: Cell::new(0),
            peer_connections: Rc::default(),
            client_descriptors_max: Cell::new(u64::MAX),
            reusing: Repeated::default(),
            refusing: Repeated::default(),
            not_accepting: Repeated::default(),
            diag: RefCell::new(SockDiag::open().ok()),
            lone_ports: RefCell::default(),
        });
        worker.take_snapshot(setup.snapshot);
        (worker, setup.orders)
    }

    async fn main(setup: WorkerSetup) {
        let (worker, mut orders) = Self::new(setup);
        tokio::task::spawn_local(timer::drive(worker.clock.clone()));
        tokio::task::spawn_local(parking::watch(worker.clone()));
        while let Some(order) = orders.recv().await {
            match order {
                WorkerOrder::Commit { snapshot, sockets, done } => {
                    // Whoever came by a listener that goes is served as that listener was meant to.
                    worker.empty_sockets(|address| snapshot.listener(address).is_none());
                    worker.take_snapshot(snapshot);
                    worker.take_sockets(sockets);
                    drop(done);
                }
                WorkerOrder::PeersChanged => {
                    worker.pools.borrow().values().for_each(|pool| pool.close_left());
                    worker.waiters.wake_all();
                }
                WorkerOrder::Quit => {
                    worker.quit().await;
                    return;
                }
            }
        }
    }

    fn take_snapshot(&self, snapshot: Arc<Snapshot>) {
        let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        // Each client may need a peer, and logs and control a descriptor.
        self.client_descriptors_max.set(files_max.map_or(u64::MAX, |files_max| files_max / 2));
        let mut pools = self.pools.borrow_mut();
        let before = std::mem::take(&mut *pools);
        for upstream in &snapshot.upstreams {
            let pool = before.get(&upstream.name).cloned().unwrap_or_default();
            pool.configure(&upstream.keepalive);
            pools.insert(upstream.name.clone(), pool);
        }
        let of = |name: &UpstreamName| pools.get(name).cloned().unwrap_or_default();
        let view = View { pools: snapshot.upstreams.iter().map(|conf| of(&conf.name)).collect(), snapshot };
        drop(before);
        let view = Rc::new(view);
        *self.view.borrow_mut() = view.clone();
        self.parking.follow_configuration(&view);
        self.waiters.wake_all();
    }

    /// Takes every connection that waits at some of the listeners.
    fn empty_sockets(self: &Rc<Self>, which: impl Fn(&Address) -> bool) {
        for (_, socket) in self.listening.borrow().iter().filter(|(address, _)| which(address)) {
            socket.empty(self);
        }
    }

    fn take_sockets(self: &Rc<Self>, sockets: Vec<(Address, std::os::fd::OwnedFd)>) {
        let view = self.view();
        let mut listening = self.listening.borrow_mut();
        listening.retain(|address, socket| {
            let stays = view.snapshot.listener(address).is_some();
            if !stays {
                socket.close();
            }
            stays
        });
        for (address, socket) in sockets {
            match accept::listen(self, address.clone(), socket) {
                Ok(socket) => {
                    listening.insert(address, socket);
                }
                Err(error) => {
                    self.alert(format_args!("a listening socket on {address} is unusable: {error}"))
                }
            }
        }
    }

    async fn quit(self: &Rc<Self>) {
        let sockets: Vec<Listening> = self.listening.borrow_mut().drain().map(|(_, socket)| socket).collect();
        for mut socket in sockets {
            socket.closed().await;
            // Last of all: this may be the last one who holds it, and the kernel resets whoever waits there then.
            socket.empty(self);
        }
        let now = self.clock.now();
        self.quitting.set(Some(now));
        self.parking.quit(now);
        self.tasks.wake_all();
        self.waiters.wake_all();
        let limit = self.view().snapshot.shutdown_timeout;
        let all_gone = async {
            while self.counters.active.get() > 0 || self.background.get() > 0 {
                self.waiters.connection_ended().await;
            }
        };
        match limit {
            Some(limit) => drop(tokio::time::timeout(limit, all_gone).await),
            None => all_gone.await,
        }
    }

    /// Gives the configuration for a request that begins now.
    pub(crate) fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// Says whether one more connection may be opened, of whichever side (`worker_connections`). Where there are too many,
    /// those that have idled longest are closed for it, as in nginx.
    pub(crate) fn make_room(self: &Rc<Self>) -> bool {
        let connections_max = self.view.borrow().snapshot.connections_max as u64;
        let open = self.counters.active.get() + self.peer_connections.get();
        open.saturating_sub(self.tasks.closing()) < connections_max
            || self.close_idle(format_args!("{connections_max} worker_connections"))
    }

    /// Says whether a client's descriptor is one of those that are to stay free for peers, logs and control.
    pub(crate) fn is_reserved(&self, descriptor: u64) -> bool {
        descriptor >= self.client_descriptors_max.get()
    }

    /// Closes some of the connections that have idled longest; false where none idles.
    pub(crate) fn close_idle(self: &Rc<Self>, what: std::fmt::Arguments<'_>) -> bool {
        let closed = Tasks::make_room(self)
            || self.pools.borrow().values().any(|pool| pool.close_oldest())
            || self.dynamic.borrow().values().any(|(_, pool)| pool.close_oldest());
        if closed && self.reusing.note(self.clock.now()).is_some() {
            self.log(LogLevel::Warn, format_args!("{what} are not enough, reusing connections"));
        }
        closed
    }

    fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        log::process_entry(&self.view().snapshot.error_log, level, text);
    }

    /// Logs what concerns the whole process.
    pub(crate) fn alert(&self, text: std::fmt::Arguments<'_>) {
        self.log(LogLevel::Alert, text);
    }

    /// Logs what concerns the whole process and may come up often.
    pub(crate) fn alert_once(&self, repeated: &Repeated, text: std::fmt::Arguments<'_>) {
        match repeated.note(self.clock.now()) {
            Some(0) => self.alert(text),
            Some(unsaid) => {
                self.alert(format_args!("{text}, and {unsaid} times before since it was last said"))
            }
            None => {}
        }
    }

    /// Gives this turn's time of day.
    pub(crate) fn system_time(&self) -> SystemTime {
        UNIX_EPOCH + self.clock.unix()
    }

    /// Says since when this worker takes no new connections.
    pub(crate) fn quitting(&self) -> Option<Instant> {
        self.quitting.get()
    }

    /// Gives the next connection's number, unique over all workers.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connection_serial.fetch_add(1, Relaxed)
    }

    /// Counts a connection that has ended.
    pub(crate) fn connection_ended(&self) {
        self.counters.active.sub(1);
        self.waiters.wake_ended();
    }

    /// How many subrequests nobody waits for.
    #[cfg(test)]
    pub(crate) fn background(&self) -> u32 {
        self.background.get()
    }

    /// Counts a subrequest that nobody waits for, until what is given is dropped; `None` when there are enough.
    pub(crate) fn begin_background(self: &Rc<Self>) -> Option<Background> {
        let count = self.background.get();
        (count < BACKGROUND_MAX).then(|| {
            self.background.set(count + 1);
            Background(self.clone())
        })
    }

    pub(crate) fn take_exchange(&self) -> Box<Exchange> {
        self.exchanges.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_exchange(&self, exchange: Box<Exchange>) {
        let mut exchanges = self.exchanges.borrow_mut();
        if exchanges.len() < EXCHANGES_POOLED_MAX {
            exchanges.push(exchange);
        }
    }

    /// Says whether what has just taken a connection to this address listens exactly there, and isn't a socket on a wildcard
    /// address that has the port as well. Where the kernel doesn't say, it is taken to be so.
    pub(crate) fn is_listened_at(&self, address: SocketAddr) -> bool {
        let now = self.clock.now();
        let mut lone_ports = self.lone_ports.borrow_mut();
        let is_known = |seen: &Instant| now.saturating_duration_since(*seen) < LONE_PORT_KNOWN;
        if lone_ports.get(&address.port()).is_some_and(is_known) {
            return true;
        }
        lone_ports.remove(&address.port());
        let Some(taker) = self.taker_of(address) else { return true };
        if taker != Some(address) {
            return false;
        }
        // An address at which nobody listens shows who would answer in an instance's stead.
        if address.is_ipv4() && self.taker_of((NOBODYS_ADDRESS, address.port()).into()) == Some(None) {
            if lone_ports.len() >= LONE_PORTS_MAX {
                lone_ports.clear();
            }
            lone_ports.insert(address.port(), now);
        }
        true
    }

    /// Gives the address of the socket that would take a connection. `None` where the kernel doesn't say.
    fn taker_of(&self, address: SocketAddr) -> Option<Option<SocketAddr>> {
        let mut diag = self.diag.borrow_mut();
        match diag.as_mut()?.taker_of(address) {
            Ok(taker) => Some(taker.map(|taker| taker.address)),
            Err(_) => {
                // An answer to this question may still be in it.
                *diag = SockDiag::open().ok();
                None
            }
        }
    }

    /// Gives a random number that needn't be unpredictable (xorshift64*, Vigna 2014).
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Counts one subrequest that nobody waits for; a worker that quits waits for it.
pub(crate) struct Background(Rc<Worker>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.background.set(self.0.background.get().saturating_sub(1));
        self.0.waiters.wake_ended();
    }
}

/// Tasks polled between two looks at the sockets. Higher than tokio's 61: one wait hands out many ready connections,
/// and each is served in one poll.
const EVENT_INTERVAL: u32 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_up_again_and_again_is_said_once_a_second_with_a_count() {
        let (repeated, start) = (Repeated::default(), Instant::now());
        let at = |ms| repeated.note(start + Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        assert!((1..999).all(|ms| at(ms).is_none()));
        assert_eq!((at(1000), at(1001), at(2000)), (Some(998), None, Some(1)));
    }
}
