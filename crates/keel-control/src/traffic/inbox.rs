//! What is asked of the task that owns the data plane, in the order it was asked, and bounded.
//!
//! Plans, questions and ends have somebody who waits for their answer, which bounds them. Peer sets have nobody: of
//! those that wait, the newest of each upstream is kept, in the place of the one before it, so that all that was asked
//! behind that one still comes behind. It never passes a plan: the one before a plan belongs to another upstream of the
//! same name.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keel_model::{DataPlaneStatus, PeerKey, PeerSet, Plan, UpstreamName};
use tokio::sync::{Notify, oneshot};

use super::ApplyError;
use crate::peers::left;

/// Something asked of the task.
#[derive(Debug)]
pub(crate) enum Request {
    Apply(Box<Plan>, oneshot::Sender<Result<(), ApplyError>>),
    Peers(PeersUpdate),
    /// With how long the answer may take.
    Status(Duration, oneshot::Sender<Option<DataPlaneStatus>>),
    ReopenLogs(oneshot::Sender<Result<(), ApplyError>>),
    Quit(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// New peers of an upstream.
#[derive(Debug)]
pub(crate) struct PeersUpdate {
    pub(crate) upstream: UpstreamName,
    pub(crate) set: PeerSet,
    /// Peers of sets that this one has replaced before a data plane was told of them.
    pub(crate) skipped: BTreeSet<PeerKey>,
}

/// The side that asks; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox(Arc<Asking>);

/// The side that answers. Dropping it drops all requests.
#[derive(Debug)]
pub(crate) struct Asked(Arc<Shared>);

/// Says when nobody can ask any more.
#[derive(Debug)]
struct Asking(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<Request>,
    nobody_asks: bool,
    nobody_answers: bool,
}

/// Makes the two sides.
pub(crate) fn inbox() -> (Inbox, Asked) {
    let shared = Arc::new(Shared::default());
    (Inbox(Arc::new(Asking(shared.clone()))), Asked(shared))
}

impl Inbox {
    /// Asks for something. Where nobody answers any more it is dropped, and its asker's wait ends.
    pub(crate) fn put(&self, request: Request) {
        let shared = &self.0.0;
        let mut queue = shared.queue();
        if !queue.nobody_answers {
            queue.put(request);
            shared.arrived.notify_one();
        }
    }
}

impl Asked {
    /// Waits for what is asked next; `None` when nobody can ask any more. May be cancelled.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        loop {
            {
                let mut queue = self.0.queue();
                if let Some(request) = queue.requests.pop_front() {
                    return Some(request);
                }
                if queue.nobody_asks {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.queue().nobody_asks = true;
        self.0.arrived.notify_one();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.nobody_answers = true;
        queue.requests.clear();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn put(&mut self, request: Request) {
        let request = match request {
            Request::Peers(update) => match self.waiting_update(&update.upstream) {
                Some(older) => return older.become_newer(update),
                None => Request::Peers(update),
            },
            other => other,
        };
        self.requests.push_back(request);
    }

    /// Finds the peers of an upstream that wait behind the last plan.
    fn waiting_update(&mut self, wanted: &UpstreamName) -> Option<&mut PeersUpdate> {
        let behind_plan =
            self.requests.iter_mut().rev().take_while(|request| !matches!(request, Request::Apply(..)));
        behind_plan.into_iter().find_map(|request| match request {
            Request::Peers(update) if update.upstream == *wanted => Some(update),
            _ => None,
        })
    }
}

impl PeersUpdate {
    fn become_newer(&mut self, newer: Self) {
        self.skipped.extend(left(&self.set.peers, &newer.set).map(|peer| peer.key.clone()));
        self.set = newer.set;
    }
}

#[cfg(test)]
mod tests {
    use keel_model::{Address, Peer};

    use super::*;

    fn peers(name: &str, starting: bool) -> Request {
        peers_update(name, PeerSet { starting, ..PeerSet::default() })
    }

    fn peers_update(name: &str, set: PeerSet) -> Request {
        Request::Peers(PeersUpdate { upstream: UpstreamName(name.into()), set, skipped: BTreeSet::new() })
    }

    fn plan() -> Request {
        Request::Apply(Box::default(), oneshot::channel().0)
    }

    fn status() -> Request {
        Request::Status(Duration::ZERO, oneshot::channel().0)
    }

    fn check(put: Vec<Request>, expect: &[&str]) {
        let mut queue = Queue::default();
        put.into_iter().for_each(|request| queue.put(request));
        let text = |request: &Request| match request {
            Request::Apply(..) => "plan".to_owned(),
            Request::Peers(update) => format!("{}={}", update.upstream, update.set.starting),
            Request::Status(..) => "status".into(),
            _ => "other".into(),
        };
        assert_eq!(queue.requests.iter().map(text).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn the_newest_set_of_an_upstream_takes_the_place_of_the_one_before() {
        check(vec![peers("a", false), peers("b", false), peers("a", true)], &["a=true", "b=false"]);
        // Who asked for counts behind a set gets counts that follow it.
        check(vec![peers("a", false), status(), peers("a", true)], &["a=true", "status"]);
    }

    #[test]
    fn a_peer_that_comes_and_goes_while_its_set_waits_is_not_forgotten() {
        let set = |ports: &[u16]| {
            let peer = |port: &u16| Peer::new(Address::Tcp(([127, 0, 0, 1], *port).into()), "x");
            PeerSet { peers: ports.iter().map(peer).collect(), ..PeerSet::default() }
        };
        let mut queue = Queue::default();
        for ports in [&[1, 2][..], &[1, 3], &[1]] {
            queue.put(peers_update("a", set(ports)));
        }
        let Some(Request::Peers(update)) = queue.requests.pop_front() else { panic!("a set waits") };
        let keys = |set: PeerSet| set.peers.into_iter().map(|peer| peer.key).collect::<BTreeSet<_>>();
        assert_eq!((keys(update.set), update.skipped), (keys(set(&[1])), keys(set(&[2, 3]))));
    }

    #[test]
    fn no_set_passes_a_plan() {
        check(vec![peers("a", false), plan(), peers("a", true)], &["a=false", "plan", "a=true"]);
        check(
            vec![plan(), peers("a", false), plan(), peers("a", true), peers("a", false)],
            &["plan", "a=false", "plan", "a=false"],
        );
    }

    #[test]
    fn however_many_sets_come_one_of_each_waits() {
        let many = (0..10_000).map(|n| peers(if n % 2 == 0 { "a" } else { "b" }, n >= 9_998));
        check(many.collect(), &["a=true", "b=true"]);
    }

    #[tokio::test]
    async fn either_side_notices_the_others_end() {
        let (inbox, mut asked) = inbox();
        inbox.put(status());
        drop(inbox);
        assert!(matches!(asked.next().await, Some(Request::Status(..))));
        assert!(asked.next().await.is_none());
        let (inbox, asked) = super::inbox();
        let (reply, answer) = oneshot::channel();
        inbox.put(Request::Status(Duration::ZERO, reply));
        drop(asked);
        assert!(answer.await.is_err());
        let (reply, answer) = oneshot::channel();
        inbox.put(Request::Status(Duration::ZERO, reply));
        assert!(answer.await.is_err());
    }
}
