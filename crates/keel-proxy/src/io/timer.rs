//! One timer per connection, moved lazily.
//!
//! Setting a deadline writes a number. The runtime's timer behind it moves only when it fires too early, or when the
//! new deadline is before it: on a busy connection that is never.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{task::coop, time::Sleep};

use super::clock::Clock;

/// How far a deadline may lie ahead; longer ones are cut to it. 30 years, as tokio has it.
const AHEAD_MAX: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A deadline that can be moved at any time.
#[derive(Default)]
pub(crate) struct Timer {
    deadline: Option<Instant>,
    armed: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
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

    /// Is ready once the deadline has passed, with the time as it is then, which may be later than what the clock gave
    /// before; otherwise sees to it that the task is woken then.
    ///
    /// The runtime's timer is polled only when it moves: it stays registered with the connection's task, which is the
    /// only one that ever polls it.
    pub(crate) fn poll_expired(&mut self, clock: &Clock, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let has_fired = self.sleep.as_ref().is_some_and(|sleep| sleep.is_elapsed());
        if has_fired {
            // It fires once: the turn's time, which may be older, mustn't say that it was too early.
            clock.look_again();
        }
        let now = clock.now();
        if now >= deadline {
            return Poll::Ready(now);
        }
        if !has_fired && self.armed.is_some_and(|armed| now < armed && armed <= deadline) {
            return Poll::Pending;
        }
        let at = tokio::time::Instant::from_std(deadline);
        self.armed = Some(deadline);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(at);
                sleep
            }
            None => self.sleep.insert(Box::pin(tokio::time::sleep_until(at))),
        };
        // Whatever else the task has done in this turn: what isn't polled isn't registered, and never fires.
        let mut sleep = pin!(coop::unconstrained(sleep.as_mut()));
        sleep.as_mut().poll(cx).map(|()| {
            clock.look_again();
            clock.now().max(deadline)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn expires_though_the_turn_s_time_is_older_than_its_own() {
        // Nobody tells this clock of turns, as in a worker that never waits for events.
        let (clock, mut timer) = (Clock::new(), Timer::default());
        timer.set(&clock, Duration::from_millis(5));
        let expired = poll_fn(|cx| timer.poll_expired(&clock, cx));
        let now = tokio::time::timeout(Duration::from_secs(10), expired).await.unwrap();
        assert!(timer.deadline().is_some_and(|deadline| deadline <= now));
    }

    #[tokio::test]
    async fn expires_though_it_was_set_when_the_task_s_turn_was_used_up() {
        let (clock, mut timer) = (Clock::new(), Timer::default());
        timer.set(&clock, Duration::from_millis(5));
        let mut is_first = true;
        let expired = poll_fn(|cx| {
            if std::mem::take(&mut is_first) {
                while let Poll::Ready(budget) = coop::poll_proceed(cx) {
                    budget.made_progress();
                }
            }
            timer.poll_expired(&clock, cx)
        });
        assert!(tokio::time::timeout(Duration::from_secs(10), expired).await.is_ok());
    }
}
