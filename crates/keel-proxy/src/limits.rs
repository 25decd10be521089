//! Zones of limits: tables that all workers share, each in several parts with a lock of its own.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use keel_limit::{Counted, Counts, Limit, Pin, Rate, Rates, Tried, Try};
use keel_model::{LimitZone, Template};

use crate::stores::Named;

/// Memory from which on a zone is divided, in bytes. A part holds a thousand keys at least, so that keys which fall unevenly
/// don't push each other out.
const PART_BYTES_MIN: usize = 128 << 10;

/// Parts at most.
const PARTS_MAX: usize = 16;

/// What a zone is made from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ZoneSettings {
    bytes: usize,
    key: Template,
}

impl From<&LimitZone> for ZoneSettings {
    fn from(zone: &LimitZone) -> Self {
        Self { bytes: zone.size.as_usize(), key: zone.key.clone() }
    }
}

/// Tables of one kind.
struct Parts<T> {
    parts: Box<[Mutex<T>]>,
    hasher: RandomState,
}

impl<T> Parts<T> {
    fn new(settings: &ZoneSettings, make: fn(usize) -> T) -> Self {
        let count = (settings.bytes / PART_BYTES_MIN).clamp(1, PARTS_MAX);
        let parts = (0..count).map(|_| Mutex::new(make(settings.bytes / count))).collect();
        Self { parts, hasher: RandomState::new() }
    }

    /// Which part a key is in.
    fn part(&self, key: &[u8]) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        let count = self.parts.len() as u64;
        usize::try_from(self.hasher.hash_one(key) % count).unwrap_or(0)
    }

    fn lock(&self, part: usize) -> Option<MutexGuard<'_, T>> {
        self.parts.get(part).map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A zone of `limit_req_zone`.
pub(crate) struct RateZone {
    settings: ZoneSettings,
    rates: Parts<Rates>,
    began: Instant,
}

impl Named for RateZone {
    type Settings = ZoneSettings;

    fn new(settings: &ZoneSettings) -> Self {
        let ZoneSettings { bytes, key } = settings;
        Self {
            settings: ZoneSettings { bytes: *bytes, key: key.clone() },
            rates: Parts::new(settings, Rates::new),
            began: Instant::now(),
        }
    }

    fn settings(&self) -> &ZoneSettings {
        &self.settings
    }
}

/// A request that has been tried at a zone; what isn't counted is let go.
pub(crate) struct Held<'a> {
    zone: &'a RateZone,
    part: usize,
    pin: Option<Pin>,
}

impl Held<'_> {
    /// Counts it; gives what its key holds now.
    pub(crate) fn count(mut self, rate: Rate, now: Instant) -> u64 {
        let now_ms = self.zone.now_ms(now);
        match (self.zone.rates.lock(self.part), self.pin.take()) {
            (Some(mut rates), Some(pin)) => rates.count(pin, rate, now_ms),
            _ => 0,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take()
            && let Some(mut rates) = self.zone.rates.lock(self.part)
        {
            rates.unpin(pin);
        }
    }
}

/// What trying a request at a zone gave.
pub(crate) enum TriedAt<'a> {
    Counted(u64),
    Held(Held<'a>),
    Refused(u64),
    Full,
}

impl RateZone {
    /// Tries a request of a key.
    pub(crate) fn try_one(&self, key: &[u8], limit: Limit, how: Try, now: Instant) -> TriedAt<'_> {
        let part = self.rates.part(key);
        let Some(mut rates) = self.rates.lock(part) else { return TriedAt::Full };
        match rates.try_one(key, limit, how, self.now_ms(now)) {
            Tried::Counted(excess) => TriedAt::Counted(excess),
            Tried::Pinned(pin) => TriedAt::Held(Held { zone: self, part, pin: Some(pin) }),
            Tried::Refused(excess) => TriedAt::Refused(excess),
            Tried::Full => TriedAt::Full,
        }
    }

    fn now_ms(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(i64::MAX)
    }
}

/// A zone of `limit_conn_zone`.
pub(crate) struct CountZone {
    settings: ZoneSettings,
    counts: Parts<Counts>,
}

impl Named for CountZone {
    type Settings = ZoneSettings;

    fn new(settings: &ZoneSettings) -> Self {
        let ZoneSettings { bytes, key } = settings;
        Self {
            settings: ZoneSettings { bytes: *bytes, key: key.clone() },
            counts: Parts::new(settings, Counts::new),
        }
    }

    fn settings(&self) -> &ZoneSettings {
        &self.settings
    }
}

impl CountZone {
    /// Counts one more of a key, of which there may be `max`. An error is why it may not.
    pub(crate) fn enter(self: &Arc<Self>, key: &[u8], max: u32) -> Result<Entered, Counted> {
        let Some(mut counts) = self.counts.lock(self.counts.part(key)) else { return Err(Counted::Full) };
        match counts.enter(key, max) {
            Counted::Entered => Ok(Entered { zone: self.clone(), key: key.into() }),
            refused => Err(refused),
        }
    }
}

/// A request that is counted until this is dropped.
pub(crate) struct Entered {
    zone: Arc<CountZone>,
    key: Box<[u8]>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(mut counts) = self.zone.counts.lock(self.zone.counts.part(&self.key)) {
            counts.leave(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(bytes: usize) -> ZoneSettings {
        ZoneSettings { bytes, key: Template::default() }
    }

    #[test]
    fn all_workers_together_get_what_the_rate_allows() {
        let zone = RateZone::new(&settings(1 << 20));
        let now = zone.began + Duration::from_secs(1);
        let limit = Limit { rate: Rate(1000), burst: 99_000 };
        let passed = std::thread::scope(|scope| {
            let tries = || {
                (0..100).filter(|_| matches!(zone.try_one(b"k", limit, Try::Count, now), TriedAt::Counted(_)))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(move || tries().count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(passed, 100);
    }

    #[test]
    fn what_entered_leaves_when_it_is_dropped() {
        let zone = Arc::new(CountZone::new(&settings(1 << 20)));
        let first = zone.enter(b"k", 1);
        assert!(first.is_ok());
        assert!(matches!(zone.enter(b"k", 1), Err(Counted::Refused)));
        drop(first);
        assert!(zone.enter(b"k", 1).is_ok());
    }

    #[test]
    fn large_zones_are_divided_and_small_ones_are_not() {
        assert_eq!(RateZone::new(&settings(32 << 10)).rates.parts.len(), 1);
        assert_eq!(RateZone::new(&settings(10 << 20)).rates.parts.len(), PARTS_MAX);
    }
}
