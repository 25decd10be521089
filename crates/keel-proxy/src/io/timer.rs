//! One timer per connection, moved lazily.
//!
//! Setting a deadline writes a number. The entry behind it among the worker's [`Timers`] moves only when it comes up too
//! early, or when the new deadline is before it: on a busy connection that is never. The runtime has one timer per
//! worker, for the earliest of all.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::task::coop;

use super::{
    clock::Clock,
    deadlines::{Deadline, Deadlines},
};

/// How far a deadline may lie ahead; longer ones are cut to it. 30 years, as tokio has it.
const AHEAD_MAX: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The timers of one worker.
#[derive(Default)]
pub(crate) struct Timers {
    deadlines: RefCell<Deadlines<Instant>>,
    armed: RefCell<Slab<Armed>>,
    /// The next deadline's stamp.
    stamps: Cell<u32>,
    /// For when the driver waits; `None` while it doesn't wait for any moment.
    next: Cell<Option<Instant>>,
    driver: RefCell<Option<Waker>>,
}

/// A timer that has been armed.
struct Armed {
    waker: Waker,
    /// Which of its deadlines counts.
    stamp: u32,
}

impl Timers {
    fn counts(armed: &Slab<Armed>, deadline: &Deadline<Instant>) -> bool {
        armed.get(deadline.key as usize).is_some_and(|armed| armed.stamp == deadline.stamp)
    }

    /// Gives back the room of timers that are gone.
    pub(crate) fn shrink(&self) {
        let mut armed = self.armed.borrow_mut();
        armed.shrink_to_fit();
        self.deadlines.borrow_mut().shrink(|known| Self::counts(&armed, known));
    }

    /// Sees to it that the task behind `waker` is woken at a moment, and not at the one before; gives its place.
    fn arm(&self, place: Option<usize>, at: Instant, waker: &Waker) -> usize {
        let stamp = self.stamps.replace(self.stamps.get().wrapping_add(1));
        let mut armed = self.armed.borrow_mut();
        let place = match place.and_then(|place| armed.get_mut(place).map(|armed| (place, armed))) {
            Some((place, armed)) => {
                armed.waker.clone_from(waker);
                armed.stamp = stamp;
                place
            }
            None => armed.insert(Armed { waker: waker.clone(), stamp }),
        };
        // Slabs never hold as many as would be cut here.
        let deadline = Deadline { at, key: u32::try_from(place).unwrap_or(u32::MAX), stamp };
        self.deadlines.borrow_mut().push(deadline, armed.len(), |known| Self::counts(&armed, known));
        if self.next.get().is_none_or(|next| at < next) {
            self.next.set(Some(at));
            if let Some(driver) = self.driver.borrow().as_ref() {
                driver.wake_by_ref();
            }
        }
        place
    }

    /// Wakes whose time has come, and gives the moment of the next.
    fn fire(&self, now: Instant) -> Option<Instant> {
        let mut armed = self.armed.borrow_mut();
        let mut deadlines = self.deadlines.borrow_mut();
        loop {
            let Some(first) = deadlines.earliest(|known| Self::counts(&armed, known)) else {
                self.next.set(None);
                return None;
            };
            if first.at > now {
                self.next.set(Some(first.at));
                return Some(first.at);
            }
            deadlines.pop();
            if let Some(armed) = armed.get_mut(first.key as usize) {
                armed.waker.wake_by_ref();
            }
        }
    }
}

/// Wakes the tasks of one worker whose timers have expired, for ever.
pub(crate) async fn drive(clock: Rc<Clock>) {
    let timers = &clock.timers;
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut until: Option<Instant> = None;
    poll_fn(|cx| {
        timers.driver.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        loop {
            let Some(next) = timers.fire(clock.now()) else { return Poll::<()>::Pending };
            if until.replace(next) != Some(next) {
                sleep.as_mut().reset(tokio::time::Instant::from_std(next));
            }
            // Without the budget of this turn: a sleep that isn't polled isn't registered, and never fires.
            if pin!(coop::unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Tasks look at this time: it mustn't say that their timers came up too early.
            clock.look_again();
            until = None;
        }
    })
    .await;
}

/// A deadline that can be moved at any time.
#[derive(Default)]
pub(crate) struct Timer {
    deadline: Option<Instant>,
    armed: Option<Instant>,
    entry: Option<Entry>,
}

/// A timer's place among those of its worker.
struct Entry {
    clock: Rc<Clock>,
    place: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clock.timers.armed.borrow_mut().try_remove(self.place);
    }
}

impl Timer {
    /// Expires after `time` from now.
    pub(crate) fn set(&mut self, clock: &Clock, time: Duration) {
        self.deadline = Some(clock.now() + time.min(AHEAD_MAX));
    }

    /// Expires at a moment, or never.
    pub(crate) fn set_at(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Gives the moment at which it expires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Is ready once the deadline has passed, with the time as it is then; otherwise sees to it that the task is woken
    /// then. Only one task ever polls it.
    pub(crate) fn poll_expired(&mut self, clock: &Rc<Clock>, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let now = clock.now();
        if now >= deadline {
            return Poll::Ready(now);
        }
        if self.armed.is_some_and(|armed| now < armed && armed <= deadline) {
            return Poll::Pending;
        }
        self.armed = Some(deadline);
        let place = clock.timers.arm(self.entry.as_ref().map(|entry| entry.place), deadline, cx.waker());
        if self.entry.is_none() {
            self.entry = Some(Entry { clock: clock.clone(), place });
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    /// Runs a test beside a driver. Nobody tells its clock of turns, as in a worker that never waits for events.
    async fn with_driver(test: impl AsyncFnOnce(Rc<Clock>)) {
        let clock = Rc::new(Clock::new());
        let local = LocalSet::new();
        local.spawn_local(drive(clock.clone()));
        let bounded = tokio::time::timeout(Duration::from_secs(10), test(clock));
        local.run_until(bounded).await.expect("a timer didn't expire");
    }

    #[tokio::test]
    async fn expires_and_not_too_early() {
        with_driver(async |clock| {
            let (mut timer, start) = (Timer::default(), Instant::now());
            timer.set(&clock, Duration::from_millis(5));
            let now = poll_fn(|cx| timer.poll_expired(&clock, cx)).await;
            assert!(timer.deadline().is_some_and(|deadline| deadline <= now));
            assert!(start.elapsed() >= Duration::from_millis(5));
        })
        .await;
    }

    #[tokio::test]
    async fn expires_though_the_task_s_turn_was_used_up() {
        with_driver(async |clock| {
            let mut timer = Timer::default();
            timer.set(&clock, Duration::from_millis(5));
            let mut is_first = true;
            poll_fn(|cx| {
                if std::mem::take(&mut is_first) {
                    while let Poll::Ready(budget) = coop::poll_proceed(cx) {
                        budget.made_progress();
                    }
                }
                timer.poll_expired(&clock, cx)
            })
            .await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_deadline_moves_both_ways_and_ends_with_its_timer() {
        with_driver(async |clock| {
            let mut timers: Vec<Timer> = (0..100).map(|_| Timer::default()).collect();
            let start = Instant::now();
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    // Each is armed for an hour first; then half of them go.
                    for timer in &mut timers {
                        timer.set(&clock, Duration::from_secs(3600));
                        assert!(timer.poll_expired(&clock, cx).is_pending());
                    }
                    timers.truncate(50);
                    for timer in &mut timers {
                        timer.set(&clock, Duration::from_millis(20));
                    }
                }
                timers.retain_mut(|timer| timer.poll_expired(&clock, cx).is_pending());
                if timers.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert!(start.elapsed() >= Duration::from_millis(20));
            assert!(clock.timers.armed.borrow().is_empty());
        })
        .await;
    }
}
