//! What is remembered about one peer as long as it lives: requests in flight, counts, failures.
//!
//! Requests in flight and the CLOSED bit share one atomic word. A pick increments and then looks at CLOSED, so no
//! request slips in behind the closing. The thread that brings a CLOSED word to none in flight reports the peer as
//! drained, once: a third bit records the report, because late picks may touch zero again.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::*},
    },
};

use keel_metrics::{Sample, Traffic};
use keel_model::{PeerKey, TrafficStatus, UpstreamName};

use crate::{
    Attempt,
    outlier::{Limits, Outlier},
};

/// Told when a peer that left its set has no request in flight any more. Called once for each peer that left, on
/// whichever thread ended the last request, so it must not block.
pub type Drained = Arc<dyn Fn(&UpstreamName, &PeerKey) + Send + Sync>;

const CLOSED: u32 = 1 << 31;
const DRAIN_TOLD: u32 = 1 << 30;
const IN_FLIGHT: u32 = DRAIN_TOLD - 1;

/// What is remembered about one peer, across reloads and for all workers.
pub struct PeerState {
    pub(crate) identity: Identity,
    word: AtomicU32,
    /// A copy of the outlier's count, so that a peer that never fails costs no lock.
    fails: AtomicU32,
    /// Whether the outlier remembers anything, for the same reason.
    has_failed: AtomicBool,
    first_attempts: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    /// Its attempts that have ended; made with the first of them.
    traffic: OnceLock<Traffic>,
    outlier: Mutex<Outlier>,
    /// nginx's `current_weight` among ties. Belongs to the policy, which changes it under a lock of its own.
    pub(crate) credit: AtomicI64,
    /// The group that may close it; changed under the registry's lock.
    pub(crate) owner: AtomicU64,
    /// States of the same upstream and key that are not drained yet, this one included.
    undrained: Arc<AtomicU32>,
    drained: Drained,
}

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) upstream: UpstreamName,
    pub(crate) key: PeerKey,
    pub(crate) name: String,
    pub(crate) instance: Option<String>,
}

/// Counts of a peer since it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// First attempts given to it.
    pub first_attempts: u64,
    /// Retries given to it.
    pub retries: u64,
    /// Attempts reported as failed.
    pub failures: u64,
}

/// Why a request can't enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Closed,
    Busy,
}

impl PeerState {
    pub(crate) fn new(identity: Identity, owner: u64, undrained: Arc<AtomicU32>, drained: Drained) -> Self {
        undrained.fetch_add(1, AcqRel);
        Self {
            identity,
            word: AtomicU32::new(0),
            fails: AtomicU32::new(0),
            has_failed: AtomicBool::new(false),
            first_attempts: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            traffic: OnceLock::new(),
            outlier: Mutex::default(),
            credit: AtomicI64::new(0),
            owner: AtomicU64::new(owner),
            undrained,
            drained,
        }
    }

    /// The upstream it belongs to.
    pub fn upstream(&self) -> &UpstreamName {
        &self.identity.upstream
    }

    /// What makes it this peer: its address and incarnation.
    pub fn key(&self) -> &PeerKey {
        &self.identity.key
    }

    /// Its text in the file (`app1:5000`).
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The instance behind it, where Evenkeel runs it.
    pub fn instance(&self) -> Option<&str> {
        self.identity.instance.as_deref()
    }

    /// Whether it has left its set. Idle connections to it are to be closed, none to be reused.
    pub fn is_closed(&self) -> bool {
        self.word.load(Acquire) & CLOSED != 0
    }

    /// The requests in flight over all workers.
    pub fn in_flight(&self) -> u32 {
        self.word.load(Acquire) & IN_FLIGHT
    }

    /// Its counts.
    pub fn counts(&self) -> Counts {
        Counts {
            first_attempts: self.first_attempts.load(Relaxed),
            retries: self.retries.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }

    /// Counts an attempt that has ended, on one of so many workers. Only the thread of that worker may.
    pub fn record(&self, workers: usize, worker: usize, sample: &Sample) {
        self.traffic.get_or_init(|| Traffic::new(workers)).record(worker, sample);
    }

    /// The sums of its attempts that have ended.
    pub fn traffic(&self) -> TrafficStatus {
        self.traffic.get().map(Traffic::status).unwrap_or_default()
    }

    /// Takes a request in and gives how many are in flight then. `limit` 0 is none.
    pub(crate) fn enter(&self, limit: u32) -> Result<u32, Refusal> {
        if limit == 0 {
            let before = self.word.fetch_add(1, AcqRel);
            if before & CLOSED != 0 {
                self.leave();
                return Err(Refusal::Closed);
            }
            return Ok(before + 1);
        }
        let step = |word: u32| (word & CLOSED == 0 && word & IN_FLIGHT < limit).then_some(word + 1);
        match self.word.fetch_update(AcqRel, Acquire, step) {
            Ok(before) => Ok(before + 1),
            Err(word) if word & CLOSED != 0 => Err(Refusal::Closed),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// Lets a request out and gives how many were in flight before.
    pub(crate) fn leave(&self) -> u32 {
        let before = self.word.fetch_sub(1, AcqRel);
        self.tell_if_drained(before - 1);
        before & IN_FLIGHT
    }

    /// Lets no further request in.
    pub(crate) fn close(&self) {
        let before = self.word.fetch_or(CLOSED, AcqRel);
        self.tell_if_drained(before | CLOSED);
    }

    fn tell_if_drained(&self, word: u32) {
        let told = CLOSED | DRAIN_TOLD;
        if word == CLOSED
            && self.word.compare_exchange(CLOSED, told, AcqRel, Acquire).is_ok()
            && self.undrained.fetch_sub(1, AcqRel) == 1
        {
            (self.drained)(&self.identity.upstream, &self.identity.key);
        }
    }

    pub(crate) fn count(&self, attempt: Attempt) {
        match attempt {
            Attempt::First => &self.first_attempts,
            Attempt::Retry => &self.retries,
        }
        .fetch_add(1, Relaxed);
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// The failures that count towards `max_fails` now.
    pub(crate) fn fails(&self) -> u32 {
        self.fails.load(Acquire)
    }

    /// Whether a success could clear anything.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Acquire)
    }

    /// The failure record as it is.
    pub(crate) fn outlier(&self) -> Outlier {
        *self.lock_outlier()
    }

    /// Changes the failure record.
    pub(crate) fn with_outlier<T>(&self, change: impl FnOnce(&mut Outlier) -> T) -> T {
        let mut outlier = self.lock_outlier();
        let result = change(&mut outlier);
        self.fails.store(outlier.fails(), Release);
        self.has_failed.store(!outlier.is_clean(), Release);
        result
    }

    pub(crate) fn is_excluded(&self, limits: Option<Limits>) -> bool {
        self.fails() != 0 && limits.is_some_and(|limits| self.outlier().excluded_until(limits).is_some())
    }

    fn lock_outlier(&self) -> MutexGuard<'_, Outlier> {
        self.outlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerState")
            .field("identity", &self.identity)
            .field("in_flight", &self.in_flight())
            .field("closed", &self.is_closed())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
