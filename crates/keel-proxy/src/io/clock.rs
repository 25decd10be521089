//! The time, read once per turn of the event loop, as nginx does, and now and then in a long turn. The time of day is read
//! only in turns that ask for it.

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
    /// This turn's time since 1970, if it has been asked for.
    unix: Cell<Option<Duration>>,
    /// How often it was given since it was read.
    given: Cell<u32>,
    /// The value of the field `Date`, and when the next second begins.
    date: RefCell<(Instant, Rc<[u8]>)>,
    pub(crate) timers: Timers,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            now: Cell::new(now),
            unix: Cell::new(None),
            given: Cell::new(0),
            date: RefCell::new((now, Rc::from(&b""[..]))),
            timers: Timers::default(),
        }
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
        self.unix.set(None);
    }

    /// Gives this turn's time.
    pub(crate) fn now(&self) -> Instant {
        self.refresh();
        self.now.get()
    }

    /// Gives this turn's time since 1970.
    pub(crate) fn unix(&self) -> Duration {
        self.refresh();
        self.unix.get().unwrap_or_else(|| {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.unix.set(Some(unix));
            unix
        })
    }

    /// Gives the value of the field `Date`, made once a second.
    pub(crate) fn date(&self) -> Rc<[u8]> {
        let now = self.now();
        let mut date = self.date.borrow_mut();
        if date.0 <= now {
            let unix = self.unix();
            let text = keel_http::date::http(i64::try_from(unix.as_secs()).unwrap_or(0));
            let next_second = Duration::from_secs(1) - Duration::from_nanos(unix.subsec_nanos().into());
            *date = (now + next_second, Rc::from(text.as_bytes()));
        }
        date.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_second() {
        let clock = Clock::new();
        let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for _ in 0..30 {
            let before = second();
            clock.look_again();
            let date = clock.date();
            let is_of = |second: u64| keel_http::date::http(second as i64).as_bytes() == &*date;
            assert!((before..=second()).any(is_of), "{}", String::from_utf8_lossy(&date));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn goes_on_within_a_turn() {
        let clock = Clock::new();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(clock.now(), before);
        assert!((0..=GIVEN_MAX).any(|_| clock.now() > before));
    }
}
