//! The time, read once per turn of the event loop, as nginx does.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

thread_local! {
    static STALE: Cell<bool> = const { Cell::new(true) };
}

/// Lets the next reader on this thread look at the clock again. Called after each wait for events.
pub(crate) fn turn() {
    STALE.set(true);
}

/// One worker's clock.
pub(crate) struct Clock {
    now: Cell<Instant>,
    unix: Cell<Duration>,
    date: RefCell<(u64, Rc<[u8]>)>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self {
            now: Cell::new(Instant::now()),
            unix: Cell::new(Duration::ZERO),
            date: RefCell::new((u64::MAX, Rc::from(&b""[..]))),
        };
        clock.read();
        clock
    }

    fn refresh(&self) {
        if STALE.get() {
            self.read();
        }
    }

    fn read(&self) {
        STALE.set(false);
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
