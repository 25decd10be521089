//! Failure accounting of one peer: `max_fails` and `fail_timeout` as nginx counts them.
//!
//! A peer that fails `max_fails` times is excluded for `fail_timeout`. Then one live request probes it: while that is
//! out the peer stays excluded, its success clears the failures, its failure excludes the peer again. Failures below
//! the limit are forgotten by the first success that began `fail_timeout` after the last of them.
//!
//! An instance that Evenkeel runs and sees listening is excluded by exchanges that it breaks only where it does so again and
//! again: a success between them starts the count anew, and those that were under way together count once.
//!
//! nginx counts whole seconds of a cached clock; here it is the `Instant` that the caller gives. nginx also lowers the
//! weight of a peer that failed and raises it again step by step; Evenkeel doesn't, because shares are exact.

use std::time::{Duration, Instant};

/// `max_fails` and `fail_timeout` of a peer that may be excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures that exclude, at least 1.
    pub max_fails: u32,
    /// The window in which they count, and how long the peer stays excluded.
    pub fail_timeout: Duration,
}

/// What may be sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Any request.
    Available,
    /// One request, to see whether it is back.
    ProbeDue,
    /// Nothing before this time has passed.
    Excluded {
        /// The last moment of the exclusion.
        until: Instant,
    },
}

/// The failures of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlier {
    fails: u32,
    /// When it last failed.
    failed_at: Option<Instant>,
    /// When it last failed, or was last given a request to see whether it still does.
    checked_at: Option<Instant>,
    /// Exchanges that it broke one after the other.
    broken: u32,
    /// When it broke the last of them that counts.
    broken_at: Option<Instant>,
}

impl Outlier {
    /// Says what may be sent at `now`.
    pub fn admission(&self, limits: Limits, now: Instant) -> Admission {
        match self.excluded_until(limits) {
            None => Admission::Available,
            Some(until) if now > until => Admission::ProbeDue,
            Some(until) => Admission::Excluded { until },
        }
    }

    /// The last moment of the exclusion, be it past or not, if failures have reached the limit.
    pub fn excluded_until(&self, limits: Limits) -> Option<Instant> {
        let checked_at = self.checked_at.filter(|_| self.fails >= limits.max_fails)?;
        Some(checked_at.checked_add(limits.fail_timeout).unwrap_or(checked_at))
    }

    /// Whether failures exclude the peer and no probe is out, so that one more failure says nothing new.
    pub fn has_settled(&self, limits: Limits) -> bool {
        self.excluded_until(limits).is_some() && self.failed_at >= self.checked_at
    }

    /// Notes that a request goes to the peer.
    pub fn on_pick(&mut self, limits: Limits, now: Instant) {
        let stale = |at: Instant| now.saturating_duration_since(at) > limits.fail_timeout;
        if self.checked_at.is_some_and(stale) {
            self.checked_at = Some(now);
        }
    }

    /// Notes that a request failed.
    pub fn on_failure(&mut self, now: Instant) {
        self.fails = self.fails.saturating_add(1);
        self.failed_at = Some(now);
        self.checked_at = Some(now);
    }

    /// Notes that an attempt which began at `began` was broken off; gives how many were one after the other. One that was
    /// under way when the last one broke says nothing new.
    pub fn on_broken(&mut self, began: Instant, now: Instant) -> u32 {
        if self.broken_at.is_none_or(|before| before <= began) {
            self.broken = self.broken.saturating_add(1);
            self.broken_at = Some(now);
        }
        self.broken
    }

    /// Excludes the peer from now on.
    pub fn exclude(&mut self, limits: Limits, now: Instant) {
        self.on_failure(now);
        self.fails = self.fails.max(limits.max_fails);
    }

    /// Whether nothing is remembered of it.
    pub fn is_clean(&self) -> bool {
        self.fails == 0 && self.broken == 0
    }

    /// Notes that a request succeeded; it clears the failures only if a check began after the last of them.
    pub fn on_success(&mut self) {
        (self.broken, self.broken_at) = (0, None);
        if self.failed_at < self.checked_at {
            *self = Self::default();
        }
    }

    /// The failures that count now.
    pub fn fails(&self) -> u32 {
        self.fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_fails: 2, fail_timeout: Duration::from_secs(10) };

    fn admission(outlier: &Outlier, start: Instant, seconds: u64) -> &'static str {
        match outlier.admission(LIMITS, start + Duration::from_secs(seconds)) {
            Admission::Available => "available",
            Admission::ProbeDue => "probe",
            Admission::Excluded { .. } => "excluded",
        }
    }

    #[test]
    fn excludes_at_the_limit_and_probes_once_per_timeout() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outlier = Outlier::default();
        outlier.on_failure(at(0));
        assert_eq!(admission(&outlier, start, 0), "available");
        outlier.on_failure(at(1));
        assert_eq!(admission(&outlier, start, 11), "excluded");
        assert_eq!(admission(&outlier, start, 12), "probe");
        outlier.on_pick(LIMITS, at(12));
        assert_eq!(admission(&outlier, start, 13), "excluded", "one probe at a time");
        outlier.on_failure(at(14));
        assert_eq!(admission(&outlier, start, 24), "excluded");
        outlier.on_pick(LIMITS, at(25));
        outlier.on_success();
        assert_eq!(admission(&outlier, start, 25), "available");
        assert_eq!(outlier.fails(), 0);
    }

    #[test]
    fn exchanges_broken_together_count_once_and_a_success_ends_the_row() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outlier = Outlier::default();
        assert_eq!(outlier.on_broken(at(0), at(2)), 1);
        assert_eq!(outlier.on_broken(at(1), at(3)), 1, "it was under way");
        assert_eq!(outlier.on_broken(at(3), at(4)), 2);
        outlier.on_success();
        assert!(outlier.is_clean());
        assert_eq!(outlier.on_broken(at(5), at(6)), 1);
        assert!(!outlier.is_clean() && outlier.fails() == 0);
    }

    #[test]
    fn a_success_that_began_before_the_failure_proves_nothing() {
        let start = Instant::now();
        let mut outlier = Outlier::default();
        outlier.on_pick(LIMITS, start);
        outlier.on_failure(start);
        outlier.on_success();
        assert_eq!(outlier.fails(), 1);
        outlier.on_pick(LIMITS, start + Duration::from_secs(5));
        outlier.on_success();
        assert_eq!(outlier.fails(), 1, "within the window");
        outlier.on_pick(LIMITS, start + Duration::from_secs(11));
        outlier.on_success();
        assert_eq!(outlier.fails(), 0);
    }
}
