//! The tasks that serve clients' connections: each serves one at a time, and is kept for another when that has ended.
//!
//! To start a task, to arm its timer and to end both costs about as much as a small request does. A task that is kept
//! has it all at hand.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use slab::Slab;

use super::{Client, serve};
use crate::{io::timer::Timer, worker::Worker};

/// Idle connections that are closed at a time, as in nginx.
const CLOSED_MAX: usize = 32;

/// Tasks without a connection that one worker keeps.
const SPARE_MAX: usize = 256;

/// The tasks of one worker.
#[derive(Default)]
pub(crate) struct Tasks {
    all: RefCell<Slab<Rc<Seat>>>,
    spare: RefCell<Vec<Rc<Seat>>>,
    /// Counts the times that connections began to idle.
    turns: Cell<u64>,
    /// How many connections have been told to close and haven't yet.
    closing: Cell<u64>,
}

/// Where a task finds its next connection.
struct Seat {
    next: Cell<Option<Client>>,
    waker: Waker,
    rest: Rest,
}

/// Whether a connection may be closed to make room for another.
#[derive(Default)]
pub(crate) struct Rest {
    /// Which one in turn began to idle; 0 for one that doesn't.
    turn: Cell<u64>,
    must_close: Cell<bool>,
}

impl Rest {
    /// Notes that the connection idles.
    pub(crate) fn begin(&self, worker: &Worker) {
        if self.turn.get() == 0 {
            let turn = worker.tasks.turns.get() + 1;
            worker.tasks.turns.set(turn);
            self.turn.set(turn);
        }
    }

    /// Notes that the connection has something to do.
    pub(crate) fn end(&self) {
        self.turn.set(0);
    }

    /// Says whether it is to close for want of room.
    pub(crate) fn must_close(&self) -> bool {
        self.must_close.get()
    }

    /// Notes that a request came before the connection closed. True if this one is its last.
    pub(crate) fn was_closing(&self, worker: &Worker) -> bool {
        let marked = self.must_close.replace(false);
        if marked {
            let closing = &worker.tasks.closing;
            closing.set(closing.get().saturating_sub(1));
        }
        marked
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

    /// Has an eighth of the idle connections closed, 32 at most, those that have idled longest; gives how many.
    pub(crate) fn close_idle(&self) -> usize {
        let all = self.all.borrow();
        let idles = |seat: &&Rc<Seat>| seat.rest.turn.get() != 0 && !seat.rest.must_close();
        let mut idle: Vec<&Rc<Seat>> = all.iter().map(|(_, seat)| seat).filter(idles).collect();
        let count = (idle.len() / 8).clamp(1, CLOSED_MAX).min(idle.len());
        if count == 0 {
            return 0;
        }
        idle.select_nth_unstable_by_key(count - 1, |seat| seat.rest.turn.get());
        for seat in idle.iter().take(count) {
            seat.rest.must_close.set(true);
            seat.waker.wake_by_ref();
        }
        self.closing.set(self.closing.get() + count as u64);
        count
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
pub(crate) fn spawn(worker: &Rc<Worker>, client: Client) {
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

async fn run(worker: Rc<Worker>, first: Client) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let seat = Rc::new(Seat { next: Cell::new(Some(first)), waker, rest: Rest::default() });
    let place = worker.tasks.all.borrow_mut().insert(seat.clone());
    let _listed = Listed { worker: worker.clone(), place };
    let mut timer = Timer::default();
    loop {
        let mut client = poll_fn(|_| seat.next.take().map_or(Poll::Pending, Poll::Ready)).await;
        let ended = Ended { worker: worker.clone(), number: client.number, seat: seat.clone() };
        client.timer = timer;
        serve(&worker, &mut client, &seat.rest).await;
        timer = std::mem::take(&mut client.timer);
        timer.set_at(None);
        drop(client);
        drop(ended);
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
        self.worker.tasks.all.borrow_mut().try_remove(self.place);
    }
}

/// Sees a connection's end, whichever way it comes.
struct Ended {
    worker: Rc<Worker>,
    number: u64,
    seat: Rc<Seat>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.counters.panics.add(1);
            self.worker.alert(format_args!("*{} a connection ended by a panic", self.number));
        }
        self.seat.rest.end();
        self.seat.rest.was_closing(&self.worker);
        self.worker.connection_ended();
    }
}
