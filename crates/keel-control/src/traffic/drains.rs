//! Peers that left their upstreams, and the data planes that may still have requests in flight to them.

use std::collections::{BTreeSet, HashMap, HashSet};

use keel_model::{PeerKey, PeerSet, Plan, UpstreamName};
use tokio::sync::mpsc;

use super::{TrafficNotice, data_plane::DataPlaneId};
use crate::peers;

/// A peer and whose it is.
pub(super) type PeerOf = (UpstreamName, PeerKey);

/// Says of each peer that left when nothing is in flight to it any more.
pub(super) struct Drains {
    left: HashMap<PeerOf, HashSet<DataPlaneId>>,
    notices: mpsc::UnboundedSender<TrafficNotice>,
}

impl Drains {
    pub(super) fn new(notices: mpsc::UnboundedSender<TrafficNotice>) -> Self {
        Self { left: HashMap::new(), notices }
    }

    /// Waits for word from these data planes on peers that left.
    pub(super) fn track(&mut self, gone: Vec<PeerOf>, holders: &HashSet<DataPlaneId>) {
        for peer in gone {
            if holders.is_empty() {
                self.say(peer);
            } else {
                self.left.entry(peer).or_default().extend(holders);
            }
        }
    }

    /// Peers came and went before a data plane was told of them: nothing is in flight to those that it doesn't drain anyway.
    pub(super) fn never_told(&mut self, upstream: &UpstreamName, peers: BTreeSet<PeerKey>) {
        for peer in peers {
            let peer = (upstream.clone(), peer);
            if !self.left.contains_key(&peer) {
                self.say(peer);
            }
        }
    }

    /// Takes a data plane's word that it has nothing in flight to a peer.
    pub(super) fn drained(&mut self, id: DataPlaneId, peer: &PeerOf) {
        let Some(holders) = self.left.get_mut(peer) else { return };
        if holders.remove(&id) && holders.is_empty() {
            self.left.remove(peer);
            self.say(peer.clone());
        }
    }

    /// A data plane has ended, and its requests in flight with it.
    pub(super) fn ended(&mut self, id: DataPlaneId) {
        let peers: Vec<PeerOf> = self.left.keys().cloned().collect();
        for peer in peers {
            self.drained(id, &peer);
        }
    }

    fn say(&self, (upstream, peer): PeerOf) {
        // Nobody may be left to hear it.
        drop(self.notices.send(TrafficNotice::Drained { upstream, peer }));
    }
}

/// The peers of one upstream that a new set hasn't any more.
pub(super) fn gone(upstream: &UpstreamName, old: &PeerSet, new: &PeerSet) -> Vec<PeerOf> {
    peers::left(&old.peers, new).map(|peer| (upstream.clone(), peer.key.clone())).collect()
}

/// The peers of all upstreams that a new plan hasn't any more.
pub(super) fn all_gone(old: &Plan, new: &Plan) -> Vec<PeerOf> {
    let none = PeerSet::default();
    let now = |name: &UpstreamName| {
        new.upstreams.iter().find(|upstream| upstream.name == *name).map_or(&none, |upstream| &upstream.peers)
    };
    let upstreams = old.upstreams.iter();
    upstreams.flat_map(|upstream| gone(&upstream.name, &upstream.peers, now(&upstream.name))).collect()
}
