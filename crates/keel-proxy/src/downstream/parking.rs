//! Clients' connections that idle: each is a small entry, without a task, a timer of its own or a place in the runtime.
//!
//! A connection that has idled for a second is parked. All parked ones of a worker are watched by one epoll(7) instance,
//! which the runtime watches in turn. The first bytes of a request, an end or an error take a connection out
//! again. The kernel tells of what came before it began to watch, so a request that comes while its connection is parked
//! or taken out isn't missed, and one that closes for want of room or time is looked at once more before it does.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    num::NonZeroU64,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use keel_model::Address;
use keel_sys::{Watched, allocator};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;

use super::{QUIT_IDLE, order::Order, spawn};
use crate::{
    client::{Client, ClientConnection, Sink},
    exchange::Remote,
    io::{
        deadlines::{Deadline, Deadlines},
        timer::Timer,
    },
    preface::Preface,
    transport::{self, ParkedTransport, Peeked, Tls},
    worker::{View, Worker},
};

/// How often idle connections are looked at; one is parked that has idled for the whole of the time between two looks.
const TICK: Duration = Duration::from_secs(1);

/// After how many looks since the last parking memory is given back, that of the tasks above all. While connections are
/// parked again and again their tasks are needed again, too.
const GIVEN_BACK_TICKS: u32 = 2;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 64;

/// A connection without a task: what a [`Client`] holds, without what it can be made of again, and small.
struct Parked {
    /// Its socket; `None` where that is part of `preface`.
    plain: Option<OwnedFd>,
    listener_at: u32,
    remote: SmallRemote,
    preface: Option<Box<ParkedPreface>>,
    listener: Rc<Address>,
    view: Rc<View>,
    number: u64,
    requests: u64,
    accepted: Moment,
    deadline: Option<Moment>,
    kept_until: Option<Moment>,
    no_delay: bool,
    wants_no_delay: bool,
}

/// What a connection has begun with, and what it is made of since. In a box, as most have none.
struct ParkedPreface {
    preface: Option<Box<Preface>>,
    tls: Option<Box<Tls>>,
}

/// Half the size of a [`Remote`]. IPv6 addresses are boxed.
enum SmallRemote {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Unix,
}

impl From<Remote> for SmallRemote {
    fn from(remote: Remote) -> Self {
        match remote {
            Remote::Tcp(SocketAddr::V4(address)) => Self::V4(address),
            Remote::Tcp(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
            Remote::Unix => Self::Unix,
        }
    }
}

impl From<SmallRemote> for Remote {
    fn from(remote: SmallRemote) -> Self {
        match remote {
            SmallRemote::V4(address) => Self::Tcp(SocketAddr::V4(address)),
            SmallRemote::V6(address) => Self::Tcp(SocketAddr::V6(*address)),
            SmallRemote::Unix => Self::Unix,
        }
    }
}

/// A time in milliseconds since the worker's start, and one, so that there is an `Option` of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(NonZeroU64);

impl Moment {
    /// Rounds up: nothing expires early.
    fn new(start: Instant, at: Instant) -> Self {
        let nanoseconds = at.saturating_duration_since(start).as_nanos();
        let milliseconds = u64::try_from(nanoseconds.div_ceil(1_000_000)).unwrap_or(u64::MAX - 1);
        Self(NonZeroU64::MIN.saturating_add(milliseconds))
    }

    fn instant(self, start: Instant) -> Instant {
        start.checked_add(Duration::from_millis(self.0.get() - 1)).unwrap_or(start)
    }
}

/// The parked connections of one worker.
pub(crate) struct Parking {
    /// `None` where the kernel gave none: nothing is parked then.
    events: Option<Watched>,
    places: RefCell<Slab<Parked>>,
    /// Those that may be closed to make room.
    order: RefCell<Order<1>>,
    deadlines: RefCell<Deadlines<Moment>>,
    /// Counts the looks at idle connections.
    tick: Cell<u32>,
    /// After how many further looks memory is given back; 0 for never.
    giving_back: Cell<u32>,
    start: Instant,
    /// When the next is; `None` while nobody idles.
    next_tick: Cell<Option<Instant>>,
    watcher: RefCell<Option<Waker>>,
}

/// What happens with a parked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Something has come.
    Ready,
    /// Its time is up, or its place is needed.
    Closing,
}

impl Parking {
    /// Makes one. To be called within the worker's runtime.
    pub(crate) fn new() -> Self {
        let events = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from).and_then(Watched::reading);
        Self {
            events: events.ok(),
            places: RefCell::default(),
            order: RefCell::default(),
            deadlines: RefCell::default(),
            tick: Cell::new(0),
            giving_back: Cell::new(0),
            start: Instant::now(),
            next_tick: Cell::new(None),
            watcher: RefCell::new(None),
        }
    }

    /// Counts the looks at idle connections so far. A connection asks when it begins to idle; that schedules the next look.
    pub(super) fn tick(&self) -> u32 {
        if self.next_tick.get().is_none() {
            self.wake();
        }
        self.tick.get()
    }

    /// Counts the parked connections that may be closed to make room.
    pub(super) fn count(&self) -> usize {
        self.order.borrow().count(0)
    }

    fn wake(&self) {
        if let Some(watcher) = self.watcher.borrow().as_ref() {
            watcher.wake_by_ref();
        }
    }

    /// Closes the connection that has been parked longest; false where there is none. One that has a request goes on, and
    /// closes behind its response.
    pub(super) fn close_oldest(&self, worker: &Rc<Worker>) -> bool {
        let Some(place) = self.order.borrow().first(0) else { return false };
        self.leave(worker, place, Leaving::Closing);
        true
    }

    /// Keeps parked connections only for as long as a worker that quits keeps idle ones.
    pub(crate) fn quit(&self, since: Instant) {
        let places: Vec<usize> = self.places.borrow().iter().map(|(place, _)| place).collect();
        for place in places {
            let mut all = self.places.borrow_mut();
            let Some(parked) = all.get_mut(place) else { continue };
            let latest = Moment::new(self.start, since + QUIT_IDLE);
            let latest = parked.kept_until.take().map_or(latest, |until| until.max(latest));
            parked.deadline = Some(parked.deadline.map_or(latest, |deadline| deadline.min(latest)));
            drop(all);
            self.note_deadline(place);
        }
        self.wake();
    }

    /// Has parked connections take this configuration, so that none keeps an older one, its logs and all, in memory. Those
    /// whose listener is gone keep theirs, as it tells how they were to be served.
    pub(crate) fn follow_configuration(&self, current: &Rc<View>) {
        for (_, parked) in self.places.borrow_mut().iter_mut() {
            if let Some(at) = current.snapshot.listener(&parked.listener) {
                parked.listener_at = u32::try_from(at).unwrap_or(u32::MAX);
                parked.view = current.clone();
            }
        }
    }

    /// Enters the moment at which something is due with a connection.
    fn note_deadline(&self, place: usize) {
        let places = self.places.borrow();
        let Some(parked) = places.get(place) else { return };
        let Some(at) = parked.due() else { return };
        // Slabs never hold as many as would be cut here.
        let deadline = Deadline { at, key: u32::try_from(place).unwrap_or(u32::MAX), stamp: parked.stamp() };
        self.deadlines.borrow_mut().push(deadline, places.len(), |known| counts(&places, known));
    }

    /// Gives the earliest moment at which something is due.
    fn earliest(&self) -> Option<Deadline<Moment>> {
        let places = self.places.borrow();
        self.deadlines.borrow_mut().earliest(|known| counts(&places, known))
    }

    /// Takes a connection out: a task goes on with it where there is something to do, else it closes.
    fn leave(&self, worker: &Rc<Worker>, place: usize, leaving: Leaving) {
        self.order.borrow_mut().remove(place);
        let Some(mut parked) = self.places.borrow_mut().try_remove(place) else { return };
        let goes_on = match parked.peek() {
            Peeked::Bytes => true,
            Peeked::Nothing => leaving == Leaving::Ready,
            Peeked::End | Peeked::Broken => false,
        };
        if !goes_on {
            drop(parked);
            return worker.connection_ended();
        }
        if let (Some(events), Some(socket)) = (&self.events, parked.socket()) {
            // Fails only for a descriptor that isn't there.
            let _ = epoll::delete(events, socket);
        }
        parked.go_on(worker, leaving);
    }

    /// Takes out the connections on which something has happened.
    fn take_ready(&self, worker: &Rc<Worker>, cx: &mut Context<'_>) {
        let Some(events) = &self.events else { return };
        let mut found = Vec::with_capacity(EVENTS_MAX);
        let mut left = EVENTS_MAX;
        loop {
            if left == 0 {
                // Others have their turn.
                cx.waker().wake_by_ref();
                return;
            }
            found.clear();
            let waited = events.try_read(|epoll| {
                let buffer = rustix::buffer::spare_capacity(&mut found);
                match epoll::wait(epoll, buffer, Some(&rustix::event::Timespec::default()))? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            });
            match waited {
                Ok(count) => {
                    left = left.saturating_sub(count);
                    for event in &found {
                        self.leave(
                            worker,
                            usize::try_from(event.data.u64()).unwrap_or(usize::MAX),
                            Leaving::Ready,
                        );
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if events.poll_read_ready(cx).is_pending() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return worker.alert(format_args!("epoll_wait() failed: {error}")),
            }
        }
    }

    /// Does what is due.
    fn end_expired(&self, worker: &Rc<Worker>, now: Instant) {
        while let Some(due) = self.earliest() {
            if due.at.instant(self.start) > now {
                return;
            }
            self.deadlines.borrow_mut().pop();
            let place = due.key as usize;
            if self.may_close_now(place) {
                self.leave(worker, place, Leaving::Closing);
            }
        }
    }

    /// Says whether a connection's time is up. If only the time for which it was to be kept is, it may close for want of
    /// room from now on.
    fn may_close_now(&self, place: usize) -> bool {
        let mut places = self.places.borrow_mut();
        let Some(parked) = places.get_mut(place) else { return false };
        if !parked.is_kept() {
            return true;
        }
        parked.kept_until = None;
        drop(places);
        self.order.borrow_mut().push(0, place);
        self.note_deadline(place);
        false
    }

    /// Gives back the memory that tasks of connections had which are parked now.
    fn give_back(&self, worker: &Worker) {
        worker.tasks.shrink();
        worker.clock.timers.shrink();
        let places = self.places.borrow();
        self.deadlines.borrow_mut().shrink(|known| counts(&places, known));
        allocator::give_back();
    }

    /// Counts time for those that idle with a task. Gives the moment of the next look.
    fn poll_tick(&self, worker: &Rc<Worker>, now: Instant) -> Option<Instant> {
        let is_due = self.next_tick.get().is_none_or(|next| next <= now);
        if is_due {
            if self.next_tick.get().is_some() {
                self.tick.set(self.tick.get().wrapping_add(1));
                worker.tasks.park_idle(self.tick.get());
                let giving_back = self.giving_back.get();
                self.giving_back.set(giving_back.saturating_sub(1));
                if giving_back == 1 {
                    self.give_back(worker);
                }
            }
            let goes_on = worker.tasks.has_idle() || self.giving_back.get() > 0;
            self.next_tick.set(goes_on.then(|| now + TICK));
        }
        self.next_tick.get()
    }
}

fn counts(places: &Slab<Parked>, deadline: &Deadline<Moment>) -> bool {
    let parked = places.get(deadline.key as usize);
    parked.is_some_and(|parked| parked.stamp() == deadline.stamp && parked.due() == Some(deadline.at))
}

impl Parked {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        let tls = || self.preface.as_ref()?.tls.as_ref();
        self.plain.as_ref().map(AsFd::as_fd).or_else(|| tls().map(|tls| tls.as_fd()))
    }

    /// Looks at what waits to be read, without taking it.
    fn peek(&mut self) -> Peeked {
        match (&self.plain, self.preface.as_mut().and_then(|preface| preface.tls.as_mut())) {
            (Some(descriptor), _) => transport::peek_plain(descriptor),
            (None, Some(tls)) => tls.peek(),
            (None, None) => Peeked::Broken,
        }
    }

    /// Tells it from others that were parked in its place.
    fn stamp(&self) -> u32 {
        (self.number & u64::from(u32::MAX)) as u32
    }

    /// Gives the moment at which something is due: it may be closed to make room, or its time is up.
    fn due(&self) -> Option<Moment> {
        if self.is_kept() { self.kept_until } else { self.deadline }
    }

    /// Says whether it may not be closed to make room yet.
    fn is_kept(&self) -> bool {
        let kept = |until: Moment| self.deadline.is_none_or(|deadline| until < deadline);
        self.kept_until.is_some_and(kept)
    }

    /// Has a task go on with it.
    fn go_on(self, worker: &Rc<Worker>, leaving: Leaving) {
        match self.into_client(worker.parking.start, leaving) {
            Ok(client) => spawn(worker, Box::new(client)),
            Err(error) => {
                worker.alert(format_args!("a connection can't be watched: {error}"));
                worker.connection_ended();
            }
        }
    }

    /// Takes apart a client; `None` for one without a connection, which never idles.
    fn new(client: Client, start: Instant, now: Instant) -> Option<Self> {
        let Client {
            connection,
            stream,
            timer,
            timed_out: _,
            pipelined: _,
            no_delay,
            wants_no_delay,
            is_last: _,
            kept_until,
            last_host: _,
            pace: _,
        } = client;
        let ClientConnection {
            remote,
            listener,
            number,
            requests,
            accepted,
            preface,
            view,
            listener_at,
            local: _,
        } = connection;
        let moment = |at| Moment::new(start, at);
        let (plain, tls) = match stream.into_transport()?.park() {
            ParkedTransport::Plain(descriptor) => (Some(descriptor), None),
            ParkedTransport::Tls(tls) => (None, Some(tls)),
        };
        let has_more = preface.is_some() || tls.is_some();
        Some(Self {
            plain,
            // There are never as many listeners as would be cut here.
            listener_at: u32::try_from(listener_at).unwrap_or(u32::MAX),
            remote: remote.into(),
            preface: has_more.then(|| Box::new(ParkedPreface { preface, tls })),
            listener,
            view,
            number,
            requests,
            accepted: moment(accepted),
            deadline: timer.deadline().map(moment),
            kept_until: kept_until.filter(|until| *until > now).map(moment),
            no_delay,
            wants_no_delay,
        })
    }

    fn into_client(self, start: Instant, leaving: Leaving) -> io::Result<Client> {
        let Self {
            plain,
            remote,
            preface,
            listener,
            view,
            listener_at,
            number,
            requests,
            accepted,
            deadline,
            kept_until,
            no_delay,
            wants_no_delay,
        } = self;
        let mut timer = Timer::default();
        timer.set_at(deadline.map(|moment| moment.instant(start)));
        let (preface, tls) = match preface {
            Some(parked) => (parked.preface, parked.tls),
            None => (None, None),
        };
        let parked = tls.map(ParkedTransport::Tls).or(plain.map(ParkedTransport::Plain));
        let transport = parked.ok_or(io::ErrorKind::NotConnected)?.unpark(&listener)?;
        let connection = ClientConnection {
            remote: remote.into(),
            listener,
            number,
            requests,
            accepted: accepted.instant(start),
            preface,
            view,
            listener_at: listener_at as usize,
            local: OnceCell::new(),
        };
        let mut client = Client::resumed(connection, Sink::Connection(transport), timer);
        client.no_delay = no_delay;
        client.wants_no_delay = wants_no_delay;
        client.is_last = leaving == Leaving::Closing;
        client.kept_until = kept_until.map(|moment| moment.instant(start));
        Ok(client)
    }
}

/// Parks a connection that idles. Where the kernel can't watch it so, it goes on with a task.
pub(super) fn park(worker: &Rc<Worker>, mut client: Client) {
    client.connection.follow_configuration(worker);
    let parking = &worker.parking;
    let Some(parked) = Parked::new(client, parking.start, worker.clock.now()) else { return };
    let kept = parked.is_kept();
    let mut places = parking.places.borrow_mut();
    let entry = places.vacant_entry();
    let place = entry.key();
    let flags = EventFlags::IN | EventFlags::RDHUP;
    let added = match (&parking.events, parked.socket()) {
        (Some(events), Some(socket)) => epoll::add(events, socket, EventData::new_u64(place as u64), flags),
        _ => Err(rustix::io::Errno::NOSYS),
    };
    if added.is_err() {
        drop(places);
        return parked.go_on(worker, Leaving::Ready);
    }
    entry.insert(parked);
    drop(places);
    parking.giving_back.set(GIVEN_BACK_TICKS);
    if !kept {
        parking.order.borrow_mut().push(0, place);
    }
    let before = parking.earliest();
    parking.note_deadline(place);
    if parking.earliest() != before {
        parking.wake();
    }
}

/// Watches the parked connections of a worker, for ever.
pub(crate) async fn watch(worker: Rc<Worker>) {
    let mut timer = Timer::default();
    poll_fn(|cx| {
        let parking = &worker.parking;
        parking.watcher.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        loop {
            parking.take_ready(&worker, cx);
            let now = worker.clock.now();
            parking.end_expired(&worker, now);
            let next = parking.poll_tick(&worker, now);
            let due = parking.earliest().map(|deadline| deadline.at.instant(parking.start));
            timer.set_at(next.into_iter().chain(due).min());
            if timer.poll_expired(&worker.clock, cx).is_pending() {
                return Poll::<()>::Pending;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small_and_keeps_times_and_addresses() {
        assert!(size_of::<Parked>() <= 96, "{}", size_of::<Parked>());
        let start = Instant::now();
        for milliseconds in [0, 1, 75_000, 30 * 365 * 86_400_000] {
            let at = start + Duration::from_millis(milliseconds);
            assert_eq!(Moment::new(start, at).instant(start), at);
            assert!(Moment::new(start, at + Duration::from_nanos(1)).instant(start) > at);
        }
        for text in ["127.0.0.1:80", "[fe80::1%3]:80"] {
            let address: SocketAddr = text.parse().unwrap();
            let Remote::Tcp(kept) = SmallRemote::from(Remote::Tcp(address)).into() else { panic!("{text}") };
            assert_eq!(kept, address);
        }
    }
}
