//! Counts of the data plane, one set for each worker, summed when somebody asks.
//!
//! A worker alone writes its counters, so adding is a load and a store without a bus lock, and each set has cache lines
//! of its own, so that workers don't disturb each other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A number that one thread changes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the counter's own thread may.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Subtracts, for numbers of what is there now. Only the counter's own thread may.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of one worker.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct WorkerCounters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// Sums over all workers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Totals {
            fn add(&mut self, worker: &WorkerCounters) {
                $(self.$name = self.$name.wrapping_add(worker.$name.get());)*
            }
        }
    };
}

counters! {
    /// Connections accepted from clients.
    accepted,
    /// Connections of clients that are open now.
    active,
    /// Requests read from clients.
    requests,
    /// Those of them that have been answered, or given up.
    answered,
    /// Connections whose request has come in part.
    reading,
    /// Requests waiting now for an instance that is being started.
    queued,
    /// Panics caught, each of which cost one connection.
    panics,
}

/// The counters of all workers.
#[derive(Clone, Debug)]
pub struct Counters {
    workers: Arc<[Arc<WorkerCounters>]>,
}

impl Counters {
    /// Makes counters for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Arc::default()).collect() }
    }

    /// The counters of a worker, from 0.
    pub fn worker(&self, index: usize) -> Option<Arc<WorkerCounters>> {
        self.workers.get(index).cloned()
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The sums as they are now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.workers.iter().for_each(|worker| totals.add(worker));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_workers_count() {
        let counters = Counters::new(3);
        std::thread::scope(|scope| {
            for index in 0..3 {
                let worker = counters.worker(index).unwrap();
                scope.spawn(move || {
                    for _ in 0..1000 {
                        worker.active.add(1);
                        worker.requests.add(2);
                        worker.active.sub(1);
                    }
                });
            }
        });
        assert_eq!(counters.totals(), Totals { requests: 6000, ..Totals::default() });
        assert!(counters.worker(3).is_none());
    }
}
