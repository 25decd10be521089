//! The tasks that serve clients' connections: each serves one at a time, and is kept for another when that has ended.
//!
//! To start a task and to end it costs about as much as a small request does. A task that is kept has it all at hand. A
//! connection that idles has none: see [`super::parking`].

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use slab::Slab;

use super::{Served, order::Order, parking, serve};
use crate::{client::Client, worker::Worker};

/// Connections that are closed at a time to make room, as in nginx.
const CLOSED_MAX: usize = 32;

/// Tasks without a connection that one worker keeps.
const SPARE_MAX: usize = 256;

/// Turns of the parking's clock after which an idle connection is parked.
const PARKED_AFTER_TICKS: u32 = 2;

/// The tasks of one worker.
#[derive(Default)]
pub(crate) struct Tasks {
    all: RefCell<Slab<Rc<Seat>>>,
    spare: RefCell<Vec<Rc<Seat>>>,
    order: RefCell<Order<5>>,
    /// How many connections have been told to close and haven't yet.
    closing: Cell<u64>,
}

/// Where a task finds its next connection.
struct Seat {
    next: Cell<Option<Box<Client>>>,
    waker: Waker,
    rest: Rest,
}

/// What a connection does that may be closed to make room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resting {
    /// It waits for a request.
    Idle,
    /// It waits for a request, and is to be kept for a while (`keepalive_min_timeout`): it isn't closed.
    Kept,
    /// It has been answered for the last time and waits for the client's end.
    Lingering,
    /// It waits for the rest of a head. nginx never closes such ones, so that half heads keep other clients out.
    ReadingHead,
    /// It speaks HTTP/2 and waits for a stream: it keeps its task.
    Streamless,
}

/// What a connection does that needs no task for it.
const PARKABLE: [Resting; 2] = [Resting::Idle, Resting::Kept];

/// What a connection that rests is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Nothing,
    /// Close: there is no room.
    Close,
    /// Give up its task.
    Park,
}

/// Whether a connection may be closed to make room for another.
#[derive(Default)]
pub(crate) struct Rest {
    place: usize,
    resting: Cell<Option<Resting>>,
    /// When it began to, in turns of the parking's clock.
    since: Cell<u32>,
    asked: Cell<Asked>,
}

impl Rest {
    /// Notes that the connection rests.
    pub(crate) fn begin(&self, worker: &Worker, resting: Resting) {
        if self.resting.get() != Some(resting) {
            self.resting.set(Some(resting));
            self.since.set(worker.parking.tick());
            worker.tasks.order.borrow_mut().push(resting as usize, self.place);
        }
    }

    /// Notes that the connection has something to do.
    pub(crate) fn end(&self, worker: &Worker) {
        if self.resting.take().is_some() {
            worker.tasks.order.borrow_mut().remove(self.place);
        }
    }

    /// Says whether it is to close for want of room.
    pub(crate) fn must_close(&self) -> bool {
        self.asked.get() == Asked::Close
    }

    /// Says whether it is to give up its task.
    pub(crate) fn must_park(&self) -> bool {
        self.asked.get() == Asked::Park
    }

    /// Forgets what was asked, since more has come first. True if it was to close: what came is the last then.
    pub(crate) fn was_closing(&self, worker: &Worker) -> bool {
        let was_closing = self.asked.take() == Asked::Close;
        if was_closing {
            let closing = &worker.tasks.closing;
            closing.set(closing.get().saturating_sub(1));
        }
        was_closing
    }
}

impl Tasks {
    /// Wakes every task, so that it looks whether its worker quits.
    pub(crate) fn wake_all(&self) {
        self.all.borrow().iter().for_each(|(_, seat)| seat.waker.wake_by_ref());
    }

    /// Counts the connections that have been told to close and haven't yet.
    pub(crate) fn closing(&self) -> u64 {
        self.closing.get()
    }

    /// Gives back the room of tasks that are gone.
    pub(super) fn shrink(&self) {
        self.all.borrow_mut().shrink_to_fit();
        self.order.borrow_mut().shrink();
    }

    /// Says whether a connection idles that has a task.
    pub(super) fn has_idle(&self) -> bool {
        PARKABLE.iter().any(|resting| self.order.borrow().first(*resting as usize).is_some())
    }

    /// Has connections give up their tasks that have idled for a second.
    pub(super) fn park_idle(&self, tick: u32) {
        let all = self.all.borrow();
        let has_idled = |place: &usize| {
            let since = all.get(*place).map(|seat| seat.rest.since.get());
            since.is_none_or(|since| tick.wrapping_sub(since) >= PARKED_AFTER_TICKS)
        };
        let oldest = |resting: Resting| self.order.borrow().first(resting as usize);
        for resting in PARKABLE {
            while let Some(place) = oldest(resting).filter(has_idled) {
                self.ask(&all, place, Asked::Park);
            }
        }
    }

    /// Closes an eighth of the connections that rest, 32 at most and one at least, those that have idled longest first.
    /// False where none rests.
    pub(crate) fn make_room(worker: &Rc<Worker>) -> bool {
        let tasks = &worker.tasks;
        let count = |resting: Resting| tasks.order.borrow().count(resting as usize);
        let idle = worker.parking.count()
            + count(Resting::Idle)
            + count(Resting::Lingering)
            + count(Resting::Streamless);
        // Without one that idles, one whose head isn't whole goes, and no more of them than are needed.
        let mut left = (idle / 8).clamp(1, CLOSED_MAX);
        while left > 0 && worker.parking.close_oldest(worker) {
            left -= 1;
        }
        let all = tasks.all.borrow();
        for resting in [Resting::Idle, Resting::Lingering, Resting::Streamless] {
            while left > 0 && tasks.close_first(&all, resting) {
                left -= 1;
            }
        }
        idle > 0 || tasks.close_first(&all, Resting::ReadingHead)
    }

    fn close_first(&self, all: &Slab<Rc<Seat>>, resting: Resting) -> bool {
        let Some(place) = self.order.borrow().first(resting as usize) else { return false };
        self.closing.set(self.closing.get() + 1);
        self.ask(all, place, Asked::Close);
        true
    }

    /// Asks a connection for something and takes it out of its line.
    fn ask(&self, all: &Slab<Rc<Seat>>, place: usize, asked: Asked) {
        self.order.borrow_mut().remove(place);
        if let Some(seat) = all.get(place) {
            seat.rest.asked.set(asked);
            seat.waker.wake_by_ref();
        }
    }

    /// Keeps a task whose connection has ended. False when there are enough.
    fn keep(&self, seat: &Rc<Seat>) -> bool {
        let mut spare = self.spare.borrow_mut();
        let has_room = spare.len() < SPARE_MAX;
        if has_room {
            spare.push(seat.clone());
        }
        has_room
    }
}

/// Has a task serve a connection. The runtime catches a panic in it, which costs this one connection.
pub(crate) fn spawn(worker: &Rc<Worker>, client: Box<Client>) {
    let spare = worker.tasks.spare.borrow_mut().pop();
    match spare {
        Some(seat) => {
            seat.next.set(Some(client));
            seat.waker.wake_by_ref();
        }
        None => {
            tokio::task::spawn_local(run(worker.clone(), client));
        }
    }
}

async fn run(worker: Rc<Worker>, first: Box<Client>) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let seat = {
        let mut all = worker.tasks.all.borrow_mut();
        let entry = all.vacant_entry();
        let rest = Rest { place: entry.key(), ..Rest::default() };
        entry.insert(Rc::new(Seat { next: Cell::new(Some(first)), waker, rest })).clone()
    };
    let _listed = Listed { worker: worker.clone(), place: seat.rest.place };
    loop {
        let mut client = poll_fn(|_| seat.next.take().map_or(Poll::Pending, Poll::Ready)).await;
        let mut ended = Ended {
            worker: worker.clone(),
            number: client.connection.number,
            seat: seat.clone(),
            parked: false,
        };
        let served = serve(&worker, &mut client, &seat.rest).await;
        ended.parked = served == Served::Idle;
        drop(ended);
        match served {
            Served::Idle => parking::park(&worker, *client),
            Served::Ended => drop(client),
        }
        if worker.quitting().is_some() || !worker.tasks.keep(&seat) {
            return;
        }
    }
}

/// Takes a task off its worker's list when it ends.
struct Listed {
    worker: Rc<Worker>,
    place: usize,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.worker.tasks.order.borrow_mut().remove(self.place);
        self.worker.tasks.all.borrow_mut().try_remove(self.place);
    }
}

/// Sees that a task is done with a connection, whichever way that comes.
struct Ended {
    worker: Rc<Worker>,
    number: u64,
    seat: Rc<Seat>,
    /// Whether the connection goes on without a task.
    parked: bool,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.counters.panics.add(1);
            self.worker.alert(format_args!("*{} a connection ended by a panic", self.number));
        }
        self.seat.rest.end(&self.worker);
        self.seat.rest.was_closing(&self.worker);
        if !self.parked {
            self.worker.connection_ended();
        }
    }
}
