//! Requests of a server or of a peer: statuses, bytes, durations. One set of counts for each worker, as for
//! connections, so that adding needs no lock on the bus.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use keel_model::{DURATION_BOUNDS, STATUS_CLASSES, TrafficStatus};

/// One more than the bounds: the last is for what takes longer.
const BUCKETS: usize = DURATION_BOUNDS.len() + 1;

/// One request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The response's status; 0 where there was none.
    pub status: u16,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// From the first byte of the request to the end of the response.
    pub took: Duration,
}

/// Counts of all workers.
#[derive(Debug)]
pub struct Traffic {
    workers: Box<[Counts]>,
}

/// Counts of one worker, in cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    requests: AtomicU64,
    responses: [AtomicU64; STATUS_CLASSES],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
    took_micros: AtomicU64,
}

impl Traffic {
    /// Makes counts for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Counts::default()).collect() }
    }

    /// Counts a request. Only the thread of the worker with this number, from 0, may.
    pub fn record(&self, worker: usize, sample: &Sample) {
        let Some(counts) = self.workers.get(worker) else { return };
        add(&counts.requests, 1);
        if let Some(class) = class(sample.status).and_then(|class| counts.responses.get(class)) {
            add(class, 1);
        }
        add(&counts.received_bytes, sample.received_bytes);
        add(&counts.sent_bytes, sample.sent_bytes);
        let bucket = DURATION_BOUNDS.iter().position(|bound| sample.took <= *bound);
        if let Some(bucket) = counts.buckets.get(bucket.unwrap_or(DURATION_BOUNDS.len())) {
            add(bucket, 1);
        }
        add(&counts.took_micros, u64::try_from(sample.took.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sums over all workers.
    pub fn status(&self) -> TrafficStatus {
        let mut sums = TrafficStatus { durations: vec![0; BUCKETS], ..TrafficStatus::default() };
        for counts in &self.workers {
            sums.requests += counts.requests.load(Relaxed);
            sums.received_bytes += counts.received_bytes.load(Relaxed);
            sums.sent_bytes += counts.sent_bytes.load(Relaxed);
            sums.took_micros = sums.took_micros.wrapping_add(counts.took_micros.load(Relaxed));
            sums.responses
                .iter_mut()
                .zip(&counts.responses)
                .for_each(|(sum, count)| *sum += count.load(Relaxed));
            sums.durations
                .iter_mut()
                .zip(&counts.buckets)
                .for_each(|(sum, count)| *sum += count.load(Relaxed));
        }
        sums
    }
}

/// Adds; the counter's own thread alone does.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

/// The class of a status: 0 for 1xx to 4 for 5xx. nginx's own 499 is a 4xx.
fn class(status: u16) -> Option<usize> {
    usize::from(status / 100).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(status: u16, millis: u64) -> Sample {
        Sample { status, received_bytes: 10, sent_bytes: 100, took: Duration::from_millis(millis) }
    }

    #[test]
    fn sums_what_workers_count() {
        let traffic = Traffic::new(2);
        traffic.record(0, &sample(200, 1));
        traffic.record(1, &sample(204, 3));
        traffic.record(1, &sample(502, 60_000));
        traffic.record(0, &sample(0, 0));
        // No such worker.
        traffic.record(2, &sample(200, 1));
        let status = traffic.status();
        assert_eq!((status.requests, status.responses), (4, [0, 2, 0, 0, 1]));
        assert_eq!((status.received_bytes, status.sent_bytes), (40, 400));
        assert_eq!(status.took_micros, 60_004_000);
        let at = |bound: usize| status.durations[bound];
        assert_eq!((at(0), at(1), at(2), at(BUCKETS - 1)), (2, 0, 1, 1));
        assert_eq!(status.durations.iter().sum::<u64>(), 4);
    }
}
