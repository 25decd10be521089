//! A request in flight to a peer.

use std::{fmt, ops::Deref, sync::Arc, time::Instant};

use crate::{
    Attempt, PeerState,
    outlier::{Limits, Outlier},
    tier::RosterPeer,
};

/// A peer that was picked, with the request counted as in flight to it until this is dropped.
///
/// Tunnels and response bodies keep it to their end: a drain waits for it. Dropped without a report (a client went
/// away) it says nothing about the peer.
pub struct Pick {
    entry: Arc<RosterPeer>,
}

/// How many exchanges in a row an instance that is seen listening breaks before it is excluded.
const BROKEN_MIN: u32 = 3;

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer answered.
    Success,
    /// It didn't, or with what `proxy_next_upstream` counts as unsuccessful.
    Failure,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Unchanged,
    /// This failure has excluded the peer (nginx logs `upstream server temporarily disabled`). Those that were in
    /// flight by then and fail, too, change nothing: a peer that dies under load has thousands of them.
    Excluded,
    /// Its failures are forgotten.
    Recovered,
}

impl Pick {
    pub(crate) fn new(entry: Arc<RosterPeer>) -> Self {
        Self { entry }
    }

    pub(crate) fn begin(&mut self, attempt: Attempt) {
        self.entry.state.count(attempt);
    }

    pub(crate) fn entry(&self) -> &Arc<RosterPeer> {
        &self.entry
    }

    /// The peer, to be kept: in a pool of connections, or among those that a request has tried.
    pub fn peer(&self) -> &Arc<PeerState> {
        &self.entry.state
    }

    /// Says how the attempt went, as `max_fails` and `fail_timeout` count it. To be called once, at the end.
    pub fn report(&self, outcome: Outcome, now: Instant) -> Standing {
        let state = &self.entry.state;
        if outcome == Outcome::Failure {
            state.count_failure();
        } else if !state.has_failed() {
            return Standing::Unchanged;
        }
        let Some(limits) = self.entry.limits else {
            // As in nginx: the only peer starts afresh, so that nothing old counts once it has company again.
            if state.has_failed() {
                state.with_outlier(|outlier| *outlier = Outlier::default());
            }
            return Standing::Unchanged;
        };
        if outcome == Outcome::Failure && self.entry.is_watched {
            let excludes = state.with_outlier(|outlier| outlier.fails() + 1 >= limits.max_fails);
            if excludes {
                return self.exclude(limits, now);
            }
        }
        let standing = state.with_outlier(|outlier| {
            let before = *outlier;
            match outcome {
                Outcome::Success => outlier.on_success(),
                Outcome::Failure => outlier.on_failure(now),
            }
            match (outcome, outlier.excluded_until(limits).is_some()) {
                (Outcome::Failure, true) if !before.has_settled(limits) => Standing::Excluded,
                (Outcome::Success, false) if before.excluded_until(limits).is_some() => Standing::Recovered,
                _ => Standing::Unchanged,
            }
        });
        if standing != Standing::Unchanged {
            self.refresh(Some(now));
        }
        standing
    }

    /// Whether the peer is an instance that somebody watches, so that a connection which breaks there is looked into at
    /// once.
    pub fn is_watched(&self) -> bool {
        self.entry.is_watched
    }

    /// Notes that the peer, an instance that is watched, took the connection of an attempt that began at `began` and broke
    /// it off. Three such in a row, or `max_fails` where that is more, exclude it as long as another peer is left.
    pub fn report_broken(&self, began: Instant, now: Instant) -> Standing {
        let state = &self.entry.state;
        state.count_failure();
        let Some(limits) = self.entry.limits else { return Standing::Unchanged };
        let broken = state.with_outlier(|outlier| {
            let before = *outlier;
            let broken = outlier.on_broken(began, now);
            (*outlier != before).then_some(broken)
        });
        match broken {
            Some(broken) if broken >= limits.max_fails.max(BROKEN_MIN) => self.exclude(limits, now),
            _ => Standing::Unchanged,
        }
    }

    /// Excludes the peer, an instance that is watched, unless no other is left: one that may work is better than none.
    fn exclude(&self, limits: Limits, now: Instant) -> Standing {
        let group = self.entry.group.upgrade();
        if group.is_some_and(|group| group.exclude_unless_last(&self.entry, limits, now)) {
            return Standing::Excluded;
        }
        Standing::Unchanged
    }

    /// Counts a failure that excludes nobody: whether the peer can serve is found out elsewhere.
    pub fn count_failure(&self) {
        self.entry.state.count_failure();
    }

    fn refresh(&self, now: Option<Instant>) {
        if let Some(group) = self.entry.group.upgrade() {
            group.refresh(&self.entry, now);
        }
    }
}

impl Deref for Pick {
    type Target = PeerState;

    fn deref(&self) -> &PeerState {
        &self.entry.state
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        let before = self.entry.state.leave();
        if self.entry.max_conns != 0 && before >= self.entry.max_conns {
            self.refresh(None);
        }
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(&self.entry.state).finish()
    }
}
