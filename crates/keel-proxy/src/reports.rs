//! What the supervisor is told.
//!
//! Nobody who serves clients may wait for the supervisor to read: only the control thread and one that does nothing else
//! write to the channel. Workers leave what they have to say with the latter.
//! - [`Report::Drained`] is never lost. Each stands for a peer that an order took out of its set, so there are no more
//!   of them than such peers.
//! - [`Report::Excluded`] and [`Report::Doubted`] are advice. What is left of each beyond [`ADVICE_WAITING_MAX`] is dropped;
//!   a peer that goes on failing is reported again.
//!
//! What still waits when the process ends needn't be said: its end tells that nothing is in flight.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use keel_model::{PeerKey, Report, UpstreamName};
use keel_sys::Channel;

/// Exclusions, and doubts, that may wait to be written.
const ADVICE_WAITING_MAX: usize = 256;

/// Sends reports from any thread.
#[derive(Clone)]
pub(crate) struct Reports(Arc<Shared>);

struct Shared {
    channel: Channel,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    drained: VecDeque<(UpstreamName, PeerKey)>,
    doubted: VecDeque<u64>,
    excluded: VecDeque<(UpstreamName, PeerKey)>,
    /// Nothing more will come.
    ended: bool,
}

impl Waiting {
    /// Takes the next one out: a drain first, as somebody waits for it.
    fn next(&mut self) -> Option<Report> {
        if let Some((upstream, peer)) = self.drained.pop_front() {
            return Some(Report::Drained { upstream, peer });
        }
        if let Some(incarnation) = self.doubted.pop_front() {
            return Some(Report::Doubted { incarnation });
        }
        let (upstream, peer) = self.excluded.pop_front()?;
        Some(Report::Excluded { upstream, peer })
    }
}

impl Reports {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(Arc::new(Shared { channel, waiting: Mutex::default(), changed: Condvar::new() }))
    }

    /// Starts the thread that writes what others leave here, until [`end`](Self::end) or until nobody can read it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(&self) -> io::Result<()> {
        let reports = self.clone();
        thread::Builder::new().name("reports".into()).spawn(move || reports.write_waiting())?;
        Ok(())
    }

    /// Lets the thread end once it has written what waits.
    pub(crate) fn end(&self) {
        self.waiting().ended = true;
        self.0.changed.notify_all();
    }

    /// Writes a report and waits until the kernel has taken it: for the control thread alone.
    pub(crate) fn send(&self, report: &Report) {
        // When nobody listens any more, the reading side sees the end.
        let _ = self.write(report);
    }

    /// Leaves word that a peer which left its set has no request in flight any more.
    pub(crate) fn drained(&self, upstream: &UpstreamName, peer: &PeerKey) {
        self.waiting().drained.push_back((upstream.clone(), peer.clone()));
        self.0.changed.notify_one();
    }

    /// Leaves word that failures have excluded a peer, unless that waits already or too much does.
    pub(crate) fn excluded(&self, upstream: &UpstreamName, peer: &PeerKey) {
        let mut waiting = self.waiting();
        let excluded = &mut waiting.excluded;
        let known = excluded.iter().any(|(of, who)| of == upstream && who == peer);
        if known || excluded.len() >= ADVICE_WAITING_MAX {
            return;
        }
        excluded.push_back((upstream.clone(), peer.clone()));
        drop(waiting);
        self.0.changed.notify_one();
    }

    /// Leaves word that a connection to an instance broke, unless that waits already or too much does.
    pub(crate) fn doubted(&self, incarnation: u64) {
        let mut waiting = self.waiting();
        if waiting.doubted.contains(&incarnation) || waiting.doubted.len() >= ADVICE_WAITING_MAX {
            return;
        }
        waiting.doubted.push_back(incarnation);
        drop(waiting);
        self.0.changed.notify_one();
    }

    fn write_waiting(&self) {
        let mut waiting = self.waiting();
        loop {
            let Some(report) = waiting.next() else {
                if waiting.ended {
                    return;
                }
                waiting = self.0.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(waiting);
            if self.write(&report).is_err() {
                return;
            }
            waiting = self.waiting();
        }
    }

    fn write(&self, report: &Report) -> io::Result<()> {
        match report.encode() {
            Ok(bytes) => self.0.channel.send(&bytes, &[]),
            // Nothing that is reported is that long.
            Err(_) => Ok(()),
        }
    }

    /// Held for a push or a pop, never while anything is written.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use keel_model::Address;

    use super::*;

    fn peer(number: u64) -> PeerKey {
        PeerKey { address: Address::Tcp(([127, 0, 0, 1], 80).into()), incarnation: number }
    }

    /// More than the kernel keeps for who doesn't read.
    const MANY: u64 = 5000;

    #[test]
    fn nobody_waits_for_a_supervisor_that_does_not_read() {
        let (mut theirs, ours) = Channel::pair().unwrap();
        let reports = Reports::new(ours);
        reports.start().unwrap();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let upstream = UpstreamName("app".into());
            for number in 0..MANY {
                reports.excluded(&upstream, &peer(number));
                reports.drained(&upstream, &peer(number));
            }
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(30)).expect("a worker doesn't wait");
        let (mut drained, mut excluded) = (Vec::new(), Vec::new());
        while drained.len() < MANY as usize {
            let (bytes, _) = theirs.recv().unwrap().unwrap();
            match Report::decode(&bytes).unwrap() {
                Report::Drained { peer, .. } => drained.push(peer.incarnation),
                Report::Excluded { peer, .. } => excluded.push(peer.incarnation),
                other => panic!("{other:?}"),
            }
        }
        assert!(drained.into_iter().eq(0..MANY), "none is lost");
        assert!((excluded.len() as u64) < MANY, "what is too much is dropped");
    }

    #[test]
    fn advice_waits_once_and_not_without_bound() {
        let (_theirs, ours) = Channel::pair().unwrap();
        // Nobody writes.
        let reports = Reports::new(ours);
        let upstream = UpstreamName("app".into());
        reports.excluded(&upstream, &peer(1));
        reports.excluded(&upstream, &peer(1));
        assert_eq!(reports.waiting().excluded.len(), 1);
        (0..MANY).for_each(|number| reports.excluded(&upstream, &peer(number)));
        assert_eq!(reports.waiting().excluded.len(), ADVICE_WAITING_MAX);
        reports.doubted(1);
        reports.doubted(1);
        assert_eq!(reports.waiting().doubted.len(), 1);
        (0..MANY).for_each(|number| reports.doubted(number));
        assert_eq!(reports.waiting().doubted.len(), ADVICE_WAITING_MAX);
    }
}
