//! Whether a request may be sent to another peer.
//!
//! Nothing is ever sent twice unless that is safe: none of its bytes left, or it is idempotent and no byte of a response
//! went to the client. Within that, `proxy_next_upstream` and its limits decide, and a budget that keeps a failing
//! upstream from being flooded with second attempts. What was in flight at an instance that died is
//! beside the budget: it is as much as there was, once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use keel_model::UpstreamScope;

use super::route::Target;
use crate::{
    error::{Cause, Error, PeerFailure, Retry},
    job::Job,
};

/// Retries that each first attempt earns, in hundredths.
const EARNED_PER_REQUEST: u32 = 20;

/// Retries that each second earns, in hundredths.
const EARNED_PER_SECOND: u32 = 1000;

/// What may be saved up, in hundredths; a new upstream begins with it.
const SAVED_MAX: u32 = 10_000;

/// Peers that one request tries at most, however many there are.
const TRIES_MAX: u32 = 1000;

/// Replacements of dead instances that one request tries besides, where Evenkeel runs them.
const REPLACED_MAX: u32 = 8;

/// How many retries one upstream is allowed by one worker.
pub(crate) struct RetryBudget {
    saved: Cell<u32>,
    since: Cell<Option<Instant>>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { saved: Cell::new(SAVED_MAX), since: Cell::new(None) }
    }
}

impl RetryBudget {
    fn earn(&self, more: u32) {
        self.saved.set(self.saved.get().saturating_add(more).min(SAVED_MAX));
    }

    /// Counts a first attempt.
    pub(crate) fn first_attempt(&self) {
        self.earn(EARNED_PER_REQUEST);
    }

    /// Takes one retry; false when there is none left.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let since = self.since.replace(Some(now)).unwrap_or(now);
        let milliseconds =
            u32::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u32::MAX);
        self.earn(milliseconds.min(60_000) * (EARNED_PER_SECOND / 1000));
        match self.saved.get().checked_sub(100) {
            Some(left) => {
                self.saved.set(left);
                true
            }
            None => false,
        }
    }
}

/// Whether another peer is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Yes,
    /// The budget is used up: only if the peer was an instance that has died.
    IfItDied,
    No,
}

/// What one request may still try.
pub(crate) struct Retries {
    left: u32,
    deadline: Option<Instant>,
    /// Whether the request's body is gone once it has been sent (`proxy_request_buffering off`).
    pub(super) streams: bool,
    happened: bool,
}

impl Retries {
    pub(super) fn new(job: &Job<'_>, settings: &UpstreamScope, target: &Target, streams: bool) -> Self {
        target.pool().budget.first_attempt();
        let limit = settings.next_upstream_timeout;
        let deadline = (limit > Duration::ZERO).then(|| job.worker.clock.now() + limit);
        Self { left: u32::MAX, deadline, streams, happened: false }
    }

    /// Says whether there has been more than one attempt.
    pub(super) fn happened(&self) -> bool {
        self.happened
    }

    /// Decides whether another peer is tried after this failure.
    pub(super) fn allow(
        &mut self,
        job: &Job<'_>,
        settings: &UpstreamScope,
        target: &Target,
        error: Error,
    ) -> Allowed {
        if !self.may(job, settings, target, error) {
            return Allowed::No;
        }
        if target.pool().budget.take(job.worker.clock.now()) {
            self.begin();
            return Allowed::Yes;
        }
        match error.cause {
            Cause::Peer(PeerFailure::Error | PeerFailure::Stale) if target.group().is_managed() => {
                Allowed::IfItDied
            }
            _ => Allowed::No,
        }
    }

    /// Counts another attempt.
    pub(super) fn begin(&mut self) {
        self.left -= 1;
        self.happened = true;
    }

    /// What a request allows of which a peer may have taken something.
    pub(super) fn after_sending(&self) -> Retry {
        if self.streams { Retry::Never } else { Retry::IfIdempotent }
    }

    /// Says whether another peer could be tried, without deciding it.
    pub(super) fn may(
        &mut self,
        job: &Job<'_>,
        settings: &UpstreamScope,
        target: &Target,
        error: Error,
    ) -> bool {
        let next = &settings.next_upstream;
        if self.left == u32::MAX {
            let peers = u32::try_from(target.group().tries()).unwrap_or(TRIES_MAX).min(TRIES_MAX);
            let replaced = if target.group().is_managed() { REPLACED_MAX } else { 0 };
            let peers = peers + replaced;
            let tries = settings.next_upstream_tries;
            let tries = if tries == 0 { peers } else { tries.min(peers) };
            self.left = tries.saturating_sub(1);
        }
        let Cause::Peer(failure) = error.cause else { return false };
        let named = match failure {
            PeerFailure::Error | PeerFailure::Stale => next.error,
            PeerFailure::Timeout => next.timeout,
            PeerFailure::Invalid => next.invalid_header,
            PeerFailure::Status(status) => next.statuses.contains(&status),
        };
        let safe = match error.retry {
            Retry::Safe => true,
            Retry::IfIdempotent => job.ex.may_repeat() || next.non_idempotent,
            Retry::Never => false,
        };
        let in_time = self.deadline.is_none_or(|deadline| job.worker.clock.now() < deadline);
        named && safe && in_time && self.left > 0 && !job.ex.sent.begun
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc};

    use keel_lb::Group;
    use keel_model::{Address, Peer};

    use super::*;
    use crate::{
        rig::{self, Rig},
        upstream::{pool::Pool, route::Dynamic},
    };

    #[test]
    fn only_a_peer_s_failure_is_retried_and_only_where_that_is_safe() {
        let rig = Rig::new(|plan| plan.servers[0].locations.push(rig::location("/")));
        let check = |method: &str, cause: Cause, retry: Retry, expect: bool| {
            let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
            let may = async |job: &mut Job<'_>| {
                let mut upstream = rig::upstream("app");
                upstream.peers.peers.push(Peer::new(Address::Unix("other".into()), "other"));
                let group = Group::new(&upstream, &job.worker.registry, Arc::new(|_, _| {})).unwrap();
                let (name, pool) = ("app".to_owned(), Rc::new(Pool::default()));
                let target = Target::Dynamic(Box::new(Dynamic { name, group, pool, uri: None }));
                let settings = UpstreamScope::default();
                let mut retries = Retries::new(job, &settings, &target, false);
                retries.may(job, &settings, &target, Error { cause, retry })
            };
            let (may, _) = rig.enter(async || rig.with_job(&request, may).await);
            assert_eq!(may, expect, "{method} {cause:?} {retry:?}");
        };
        let broke = Cause::Peer(PeerFailure::Error);
        check("GET", broke, Retry::Safe, true);
        check("GET", broke, Retry::IfIdempotent, true);
        check("GET", broke, Retry::Never, false);
        check("POST", broke, Retry::Safe, true);
        check("POST", broke, Retry::IfIdempotent, false);
        check("POST", Cause::Peer(PeerFailure::Stale), Retry::IfIdempotent, false);
        // By default no status is a failure.
        check("GET", Cause::Peer(PeerFailure::Status(503)), Retry::IfIdempotent, false);
        check("GET", Cause::ClientGone, Retry::Safe, false);
        check("GET", Cause::NoRoom, Retry::Safe, false);
    }

    #[test]
    fn a_budget_runs_out_and_recovers() {
        let budget = RetryBudget::default();
        let start = Instant::now();
        let taken = (0..1000).filter(|_| budget.take(start)).count();
        assert_eq!(taken, 100);
        (0..5).for_each(|_| budget.first_attempt());
        assert!(budget.take(start) && !budget.take(start));
        assert!(budget.take(start + Duration::from_secs(1)));
    }
}
