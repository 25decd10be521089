//! Requests that wait for an instance which Evenkeel is starting.
//!
//! Bounded in number and time; they leave when the peers change, when their client goes, or when time is up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use keel_telemetry::WorkerCounters;
use tokio::sync::{Notify, futures::Notified};

use crate::stores::Named;

/// Requests that may wait for one upstream.
pub(crate) const WAITING_MAX: u32 = 1000;

/// How long one may wait.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a request that failed at every peer waits for word of their deaths, which takes milliseconds. Only where
/// Evenkeel runs the peers: then others are on their way.
pub(crate) const NEWS_WAIT_MAX: Duration = Duration::from_secs(1);

/// What `Retry-After` says once waiting was in vain, in seconds.
pub(crate) const RETRY_AFTER_S: &[u8] = b"5";

/// Wakes requests of one worker when peers change, and the worker itself when connections end.
#[derive(Default)]
pub(crate) struct Waiters {
    peers: Notify,
    ended: Notify,
}

impl Waiters {
    pub(crate) fn wake_all(&self) {
        self.peers.notify_waiters();
    }

    /// Ends at the next change of any peers.
    pub(crate) fn peers_changed(&self) -> Notified<'_> {
        self.peers.notified()
    }

    pub(crate) fn wake_ended(&self) {
        self.ended.notify_one();
    }

    pub(crate) fn connection_ended(&self) -> Notified<'_> {
        self.ended.notified()
    }
}

/// How many requests wait for one upstream, over all workers and configurations.
#[derive(Default)]
pub(crate) struct QueueLength(AtomicU32);

impl Named for QueueLength {
    type Settings = ();

    fn new((): &()) -> Self {
        Self::default()
    }

    fn settings(&self) -> &() {
        &()
    }
}

impl QueueLength {
    /// Takes a place, unless all are taken.
    pub(crate) fn enter(&self, until: Instant, counters: Arc<WorkerCounters>) -> Option<QueuePlace<'_>> {
        if self.0.fetch_add(1, Relaxed) >= WAITING_MAX {
            self.0.fetch_sub(1, Relaxed);
            return None;
        }
        counters.queued.add(1);
        Some(QueuePlace { queue: self, until, counters })
    }
}

/// A place in the queue, given back when dropped.
pub(crate) struct QueuePlace<'a> {
    queue: &'a QueueLength,
    until: Instant,
    counters: Arc<WorkerCounters>,
}

impl QueuePlace<'_> {
    /// Gives the moment at which waiting ends.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.queue.0.fetch_sub(1, Relaxed);
        self.counters.queued.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::Stores;

    fn reload(stores: &mut Stores) -> Arc<QueueLength> {
        let mut claims = stores.claims(Vec::new());
        let queue = claims.named::<QueueLength>("app", &());
        let claimed = claims.finish();
        stores.commit(claimed);
        queue
    }

    #[test]
    fn the_bound_holds_over_reloads_while_requests_wait() {
        let mut stores = Stores::new(1, Arc::new(|_, _| {})).unwrap();
        let until = Instant::now();
        let before = reload(&mut stores);
        let places: Vec<_> = (0..WAITING_MAX).map(|_| before.enter(until, Arc::default()).unwrap()).collect();
        let after = reload(&mut stores);
        assert!(after.enter(until, Arc::default()).is_none());
        drop(places);
        assert!(after.enter(until, Arc::default()).is_some());
    }
}
