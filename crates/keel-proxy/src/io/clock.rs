//! The time, read once per turn of the event loop, as nginx does, and now and then in a long turn.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::timer::Timers;

thread_local! {
    static STALE: Cell<bool> = const { Cell::new(true) };
}

/// How often the time is given before it is read again within one turn: a few hundred requests. A worker that always has
/// something to do goes on without ever waiting for events, and the runtime tells of waits only.
const GIVEN_MAX: u32 = 1000;

/// Lets the next reader on this thread look at the clock again. Called after each wait for events.
pub(crate) fn turn() {
    STALE.set(true);
}

/// One worker's clock.
pub(crate) struct Clock {
    now: Cell<Instant>,
    unix: Cell<Duration>,
    /// How often it was given since it was read.
    given: Cell<u32>,
    date: RefCell<(u64, Rc<[u8]>)>,
    pub(crate) timers: Timers,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self {
            now: Cell::new(Instant::now()),
            unix: Cell::new(Duration::ZERO),
            given: Cell::new(0),
            date: RefCell::new((u64::MAX, Rc::from(&b""[..]))),
            timers: Timers::default(),
        };
        clock.look_again();
        clock
    }

    fn refresh(&self) {
        let given = self.given.get();
        self.given.set(given + 1);
        if STALE.get() || given >= GIVEN_MAX {
            self.look_again();
        }
    }

    /// Reads the time: something shows that it has gone on.
    pub(crate) fn look_again(&self) {
        STALE.set(false);
        self.given.set(0);
        self.now.set(Instant::now());
        self.unix.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    }

    /// Gives this turn's time.
    pub(crate) fn now(&self) -> Instant {
        self.refresh();
        self.now.get()
    }

    /// Gives this turn's time since 1970.
    pub(crate) fn unix(&self) -> Duration {
        self.refresh();
        self.unix.get()
    }

    /// Gives the value of the field `Date`, made once a second.
    pub(crate) fn date(&self) -> Rc<[u8]> {
        let seconds = self.unix().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != seconds {
            let text = keel_http::date::http(i64::try_from(seconds).unwrap_or(0));
            *date = (seconds, Rc::from(text.as_bytes()));
        }
        date.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_within_a_turn() {
        let clock = Clock::new();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(clock.now(), before);
        assert!((0..=GIVEN_MAX).any(|_| clock.now() > before));
    }
}
