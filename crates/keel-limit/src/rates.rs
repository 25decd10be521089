//! How many requests of a key come in a time: a leaky bucket for each.
//!
//! A bucket holds thousandths of requests and leaks at the rate. A request that would make it hold more than the burst is
//! refused and not counted. One that has several limits is tried at all of them first, which pins its buckets, and counted
//! then: at all or at none.

use crate::lru::{Index, Lru};

/// A bucket that hasn't been used for so long may be forgotten, once it is empty.
const FORGET_AFTER_MS: i64 = 60_000;

/// A clock that went back so far counts as having moved on a millisecond; less counts as nothing.
const BACK_MS_MAX: i64 = 60_000;

/// What a bucket takes of a zone's memory besides its key, in bytes. Rounded up as nginx's allocator does, so that a zone holds
/// as many keys as there.
const BUCKET_BYTES: usize = 80;

/// Thousandths of a request.
const ONE: i64 = 1000;

/// Thousandths of requests in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// A limit at a table: how fast the buckets leak, and what they may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How fast they leak.
    pub rate: Rate,
    /// How much they may hold, in thousandths of requests.
    pub burst: u64,
}

/// What trying a request at a limit gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried {
    /// It may pass, and has been counted; the bucket holds so many thousandths now.
    Counted(u64),
    /// It may pass, as far as this limit goes, and has not been counted yet.
    Pinned(Pin),
    /// It is too much by so many thousandths of requests.
    Refused(u64),
    /// There is no memory for its key.
    Full,
}

/// A bucket that stays until [`Rates::count`] or [`Rates::unpin`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Pin(Index);

/// Whether a request is counted when it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// At the last of its limits.
    Count,
    /// At the others.
    Pin,
}

/// Buckets by key.
#[derive(Debug)]
pub struct Rates {
    buckets: Lru<Bucket>,
    bytes_free: usize,
}

#[derive(Debug)]
struct Bucket {
    excess: i64,
    /// When it was counted last; never where nothing was yet.
    last_ms: Option<i64>,
    pins: u32,
}

impl Bucket {
    /// What it holds after another request, and the milliseconds since it was counted last.
    fn with_one_more(&self, rate: Rate, now_ms: i64) -> (i64, i64) {
        let Some(last) = self.last_ms else { return (0, now_ms.max(1)) };
        let ms = match now_ms.saturating_sub(last) {
            ms if ms < -BACK_MS_MAX => 1,
            ms => ms.max(0),
        };
        (self.excess.saturating_sub(leaked(rate, ms)).saturating_add(ONE).max(0), ms)
    }

    fn is_forgettable(&self, rate: Rate, now_ms: i64) -> bool {
        let Some(last) = self.last_ms else { return true };
        let ms = now_ms.saturating_sub(last).saturating_abs();
        ms >= FORGET_AFTER_MS && self.excess <= leaked(rate, ms)
    }
}

/// What leaks in a time, in thousandths of requests.
fn leaked(rate: Rate, ms: i64) -> i64 {
    i64::try_from(rate.0).unwrap_or(i64::MAX).saturating_mul(ms) / 1000
}

impl Rates {
    /// Makes an empty table that takes so much memory at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { buckets: Lru::default(), bytes_free: bytes_max }
    }

    /// Tries a request of a key.
    pub fn try_one(&mut self, key: &[u8], limit: Limit, how: Try, now_ms: i64) -> Tried {
        let Some(at) = self.buckets.find(key) else { return self.begin(key, limit, how, now_ms) };
        self.buckets.touch(at);
        let Some(bucket) = self.buckets.get(at) else { return Tried::Full };
        let (excess, ms) = bucket.with_one_more(limit.rate, now_ms);
        if excess.unsigned_abs() > limit.burst {
            return Tried::Refused(excess.unsigned_abs());
        }
        match how {
            Try::Pin => {
                bucket.pins += 1;
                Tried::Pinned(Pin(at))
            }
            Try::Count => {
                bucket.excess = excess;
                if ms != 0 {
                    bucket.last_ms = Some(now_ms);
                }
                Tried::Counted(excess.unsigned_abs())
            }
        }
    }

    /// Counts a request that was tried; gives what its bucket holds now.
    pub fn count(&mut self, pin: Pin, rate: Rate, now_ms: i64) -> u64 {
        let Some(bucket) = self.buckets.get(pin.0) else { return 0 };
        let (excess, ms) = bucket.with_one_more(rate, now_ms);
        bucket.excess = excess;
        if ms != 0 {
            bucket.last_ms = Some(now_ms);
        }
        bucket.pins = bucket.pins.saturating_sub(1);
        excess.unsigned_abs()
    }

    /// Lets a request go that was tried and isn't counted.
    pub fn unpin(&mut self, pin: Pin) {
        if let Some(bucket) = self.buckets.get(pin.0) {
            bucket.pins = bucket.pins.saturating_sub(1);
        }
    }

    /// Makes the bucket of a new key; it is empty after its first request.
    fn begin(&mut self, key: &[u8], limit: Limit, how: Try, now_ms: i64) -> Tried {
        for _ in 0..2 {
            self.forget(|bucket| bucket.is_forgettable(limit.rate, now_ms));
        }
        let bytes = bytes(key.len());
        while self.bytes_free < bytes {
            if !self.forget(|_| true) {
                return Tried::Full;
            }
        }
        self.bytes_free -= bytes;
        let bucket = match how {
            Try::Count => Bucket { excess: 0, last_ms: Some(now_ms), pins: 0 },
            Try::Pin => Bucket { excess: 0, last_ms: None, pins: 1 },
        };
        let at = self.buckets.insert(key, bucket);
        match how {
            Try::Count => Tried::Counted(0),
            Try::Pin => Tried::Pinned(Pin(at)),
        }
    }

    /// Forgets the bucket that has gone unused for longest, unless it is pinned or `may` says no.
    fn forget(&mut self, may: impl Fn(&Bucket) -> bool) -> bool {
        let oldest = self.buckets.oldest().filter(|(_, bucket)| bucket.pins == 0 && may(bucket));
        let Some((at, _)) = oldest else { return false };
        self.bytes_free += bytes(self.buckets.remove(at));
        true
    }
}

/// How long a request waits whose bucket holds `excess`, where `delay` may pass at once, both in thousandths of requests.
pub fn wait_ms(excess: u64, delay: u64, rate: Rate) -> u64 {
    excess.saturating_sub(delay).saturating_mul(1000) / rate.0.max(1)
}

fn bytes(key_bytes: usize) -> usize {
    (BUCKET_BYTES + key_bytes).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_second: u64, burst: u64) -> Limit {
        Limit { rate: Rate(per_second * 1000), burst: burst * 1000 }
    }

    #[test]
    fn a_bucket_leaks_at_its_rate_to_the_thousandth() {
        let mut rates = Rates::new(1 << 20);
        let limit = limit(3, 1);
        let mut check = |now_ms: i64, expect: Tried| {
            assert_eq!(rates.try_one(b"k", limit, Try::Count, now_ms), expect, "at {now_ms}");
        };
        check(0, Tried::Counted(0));
        check(0, Tried::Counted(1000));
        check(0, Tried::Refused(2000));
        // Three thousandths leak in a millisecond; one that is refused changes nothing.
        check(1, Tried::Refused(1997));
        check(333, Tried::Refused(1001));
        check(334, Tried::Counted(998));
        check(334, Tried::Refused(1998));
        check(10_000, Tried::Counted(0));
    }

    #[test]
    fn what_is_within_a_millisecond_is_counted_from_its_begin() {
        let mut rates = Rates::new(1 << 20);
        let limit = limit(1000, 5);
        for expect in [0, 1000, 2000] {
            assert_eq!(rates.try_one(b"k", limit, Try::Count, 7), Tried::Counted(expect));
        }
        assert_eq!(rates.try_one(b"k", limit, Try::Count, 8), Tried::Counted(2000));
    }

    #[test]
    fn a_clock_that_goes_back_lets_nothing_leak() {
        let mut rates = Rates::new(1 << 20);
        let limit = limit(1, 9);
        rates.try_one(b"k", limit, Try::Count, 100_000);
        assert_eq!(rates.try_one(b"k", limit, Try::Count, 99_000), Tried::Counted(1000));
        // So far back, it has moved by a millisecond and is believed from now on.
        assert_eq!(rates.try_one(b"k", limit, Try::Count, 0), Tried::Counted(1999));
        assert_eq!(rates.try_one(b"k", limit, Try::Count, 1000), Tried::Counted(1999));
    }

    #[test]
    fn what_is_pinned_is_counted_once_and_stays() {
        let mut rates = Rates::new(256);
        let limit = limit(1, 1);
        let Tried::Pinned(first) = rates.try_one(b"a", limit, Try::Pin, 0) else { panic!("not pinned") };
        let Tried::Pinned(second) = rates.try_one(b"a", limit, Try::Pin, 0) else { panic!("not pinned") };
        // Nothing has been counted, and a pinned bucket makes no room.
        assert!(matches!(rates.try_one(b"b", limit, Try::Count, 0), Tried::Counted(0)));
        assert_eq!(rates.count(first, limit.rate, 5), 0);
        assert_eq!(rates.count(second, limit.rate, 5), 1000);
        assert_eq!(rates.try_one(b"a", limit, Try::Count, 5), Tried::Refused(2000));
        let Tried::Pinned(third) = rates.try_one(b"b", limit, Try::Pin, 0) else { panic!("not pinned") };
        let Tried::Pinned(fourth) = rates.try_one(b"a", limit, Try::Pin, 2000) else { panic!("not pinned") };
        assert_eq!(rates.try_one(b"c", limit, Try::Count, 2000), Tried::Full);
        rates.unpin(third);
        assert_eq!(rates.try_one(b"c", limit, Try::Count, 2000), Tried::Counted(0));
        rates.unpin(fourth);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut rates = Rates::new(128 * 10);
        let limit = limit(1, 0);
        for key in 0..100u32 {
            assert_eq!(rates.try_one(&key.to_le_bytes(), limit, Try::Count, 0), Tried::Counted(0));
            assert_eq!(rates.try_one(&0u32.to_le_bytes(), limit, Try::Count, 0), Tried::Refused(1000));
        }
        // The ten that came last, and the one that kept coming.
        assert!(matches!(rates.try_one(&99u32.to_le_bytes(), limit, Try::Count, 0), Tried::Refused(_)));
        assert!(matches!(rates.try_one(&91u32.to_le_bytes(), limit, Try::Count, 0), Tried::Refused(_)));
        assert!(matches!(rates.try_one(&90u32.to_le_bytes(), limit, Try::Count, 0), Tried::Counted(0)));
        assert_eq!(rates.try_one(&[7; 5000], limit, Try::Count, 0), Tried::Full);
    }

    #[test]
    fn empty_buckets_are_forgotten_two_at_a_time() {
        let mut rates = Rates::new(1 << 20);
        let limit = limit(1, 100);
        for key in 0..5u8 {
            rates.try_one(&[key], limit, Try::Count, 0);
        }
        for _ in 0..100 {
            rates.try_one(&[0], limit, Try::Count, 0);
        }
        let left = |rates: &Rates| (0..5u8).filter(|key| rates.buckets.find(&[*key]).is_some()).count();
        rates.try_one(b"new", limit, Try::Count, 59_999);
        assert_eq!(left(&rates), 5);
        rates.try_one(b"newer", limit, Try::Count, 60_000);
        assert_eq!(left(&rates), 3);
        rates.try_one(b"newest", limit, Try::Count, 60_000);
        assert_eq!(left(&rates), 1, "the one that isn't empty stays");
        rates.try_one(b"last", limit, Try::Count, 100_000);
        assert_eq!(left(&rates), 0);
    }

    #[test]
    fn waiting_is_what_it_takes_to_leak() {
        let check = |excess, delay, per_minute: u64, expect| {
            assert_eq!(wait_ms(excess, delay, Rate(per_minute * 1000 / 60)), expect);
        };
        check(1000, 0, 60, 1000);
        check(1000, 0, 120, 500);
        check(999, 1000, 60, 0);
        check(2500, 1000, 600, 150);
        check(1000, 0, 1, 62_500);
        check(u64::MAX, 0, 60, u64::MAX / 1000);
    }
}
