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

/// Tasks without a connection that one worker keeps.
const SPARE_MAX: usize = 256;

/// The tasks of one worker.
#[derive(Default)]
pub(crate) struct Tasks {
    all: RefCell<Slab<Rc<Seat>>>,
    spare: RefCell<Vec<Rc<Seat>>>,
}

/// Where a task finds its next connection.
struct Seat {
    next: Cell<Option<Client>>,
    waker: Waker,
}

impl Tasks {
    /// Wakes every task, so that it looks whether its worker quits.
    pub(crate) fn wake_all(&self) {
        self.all.borrow().iter().for_each(|(_, seat)| seat.waker.wake_by_ref());
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
    let seat = Rc::new(Seat { next: Cell::new(Some(first)), waker });
    let place = worker.tasks.all.borrow_mut().insert(seat.clone());
    let _listed = Listed { worker: worker.clone(), place };
    let mut timer = Timer::default();
    loop {
        let mut client = poll_fn(|_| seat.next.take().map_or(Poll::Pending, Poll::Ready)).await;
        let ended = Ended { worker: worker.clone(), number: client.number };
        client.timer = timer;
        serve(&worker, &mut client).await;
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
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.counters.panics.add(1);
            self.worker.alert(format_args!("*{} a connection ended by a panic", self.number));
        }
        self.worker.connection_ended();
    }
}
