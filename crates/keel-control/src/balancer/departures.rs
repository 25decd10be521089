//! Instances that left upstreams and may still have requests in flight there.
//!
//! The data plane speaks of peers, one for each upstream that an instance is in; who stops instances waits for the last of
//! them. Only instances that Evenkeel runs are noted: nobody waits for others.

use std::collections::{HashMap, HashSet};

use keel_model::{Peer, PeerKey, PeerSet, UpstreamName};

use crate::peers::left;

/// An instance, and which start of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceStart {
    /// Its name.
    pub instance: String,
    /// Which start.
    pub incarnation: u64,
}

/// Whether an instance that left has requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It may have; it will be said when not.
    InFlight,
    /// It has none.
    Over,
}

/// All departures that are going on.
#[derive(Debug, Default)]
pub(super) struct Departures {
    leaving: HashMap<InstanceStart, Leaving>,
    traffic_is_over: bool,
}

#[derive(Debug, Default)]
struct Leaving {
    /// Where requests may still be in flight.
    upstreams: HashSet<(UpstreamName, PeerKey)>,
    /// Whether somebody waits for word.
    awaited: bool,
}

impl Departures {
    /// Notes the instances that a new set hasn't any more.
    pub(super) fn note(&mut self, upstream: &UpstreamName, old: &[Peer], new: &PeerSet) {
        if self.traffic_is_over {
            return;
        }
        for peer in left(old, new) {
            if let Some(start) = start_of(peer) {
                let leaving = self.leaving.entry(start).or_default();
                leaving.upstreams.insert((upstream.clone(), peer.key.clone()));
            }
        }
    }

    /// These peers haven't left after all: the sets without them weren't taken.
    pub(super) fn stay(&mut self, upstream: &UpstreamName, set: &PeerSet) {
        for peer in &set.peers {
            let Some(start) = start_of(peer) else { continue };
            let Some(leaving) = self.leaving.get_mut(&start) else { continue };
            leaving.upstreams.remove(&(upstream.clone(), peer.key.clone()));
            if leaving.upstreams.is_empty() {
                self.leaving.remove(&start);
            }
        }
    }

    /// Waits for the end of an instance's requests.
    pub(super) fn await_end(&mut self, start: &InstanceStart) -> Departure {
        match self.leaving.get_mut(start) {
            Some(leaving) if !leaving.upstreams.is_empty() => {
                leaving.awaited = true;
                Departure::InFlight
            }
            _ => {
                self.leaving.remove(start);
                Departure::Over
            }
        }
    }

    /// Hears that a peer has nothing in flight; gives the instance whose departure that ends, if somebody waits for it.
    pub(super) fn drained(&mut self, upstream: &UpstreamName, peer: &PeerKey) -> Option<InstanceStart> {
        let drained = (upstream.clone(), peer.clone());
        let (start, leaving) =
            self.leaving.iter_mut().find(|(_, leaving)| leaving.upstreams.contains(&drained))?;
        leaving.upstreams.remove(&drained);
        if !leaving.upstreams.is_empty() {
            return None;
        }
        let (start, awaited) = (start.clone(), leaving.awaited);
        self.leaving.remove(&start);
        awaited.then_some(start)
    }

    /// Nothing is in flight any more; gives those that somebody waits for.
    pub(super) fn traffic_ended(&mut self) -> Vec<InstanceStart> {
        self.traffic_is_over = true;
        let leaving = self.leaving.drain().filter(|(_, leaving)| leaving.awaited);
        leaving.map(|(start, _)| start).collect()
    }
}

fn start_of(peer: &Peer) -> Option<InstanceStart> {
    Some(InstanceStart { instance: peer.instance.clone()?, incarnation: peer.key.incarnation })
}

#[cfg(test)]
mod tests {
    use keel_model::Address;

    use super::*;

    fn start() -> InstanceStart {
        InstanceStart { instance: "app-1".into(), incarnation: 7 }
    }

    fn peer(port: u16) -> Peer {
        let mut peer = Peer::new(Address::Tcp(([127, 0, 0, 1], port).into()), "app");
        peer.key.incarnation = 7;
        Peer { instance: Some("app-1".into()), ..peer }
    }

    fn upstream(name: &str) -> UpstreamName {
        UpstreamName(name.into())
    }

    /// The instance has left two upstreams.
    fn leaving() -> Departures {
        let mut departures = Departures::default();
        departures.note(&upstream("a"), &[peer(1)], &PeerSet::default());
        departures.note(&upstream("b"), &[peer(2)], &PeerSet::default());
        departures
    }

    #[test]
    fn a_departure_ends_with_the_last_upstream() {
        let mut departures = leaving();
        assert_eq!(departures.await_end(&start()), Departure::InFlight);
        assert_eq!(departures.drained(&upstream("a"), &peer(1).key), None);
        assert_eq!(departures.drained(&upstream("a"), &peer(1).key), None);
        assert_eq!(departures.drained(&upstream("b"), &peer(2).key), Some(start()));
        assert_eq!(departures.await_end(&start()), Departure::Over);
    }

    #[test]
    fn nobody_is_told_who_does_not_wait_and_who_comes_late_waits_for_nothing() {
        let mut departures = leaving();
        assert_eq!(departures.drained(&upstream("a"), &peer(1).key), None);
        assert_eq!(departures.drained(&upstream("b"), &peer(2).key), None);
        assert_eq!(departures.await_end(&start()), Departure::Over);
    }

    #[test]
    fn a_plan_that_is_refused_lets_nobody_leave() {
        let mut departures = leaving();
        let peers = |port| PeerSet { peers: vec![peer(port)], ..PeerSet::default() };
        departures.stay(&upstream("a"), &peers(1));
        departures.stay(&upstream("b"), &peers(2));
        assert_eq!(departures.await_end(&start()), Departure::Over);
    }

    #[test]
    fn the_end_of_all_traffic_ends_every_departure() {
        let mut departures = leaving();
        departures.await_end(&start());
        assert_eq!(departures.traffic_ended(), [start()]);
        departures.note(&upstream("a"), &[peer(1)], &PeerSet::default());
        assert_eq!(departures.await_end(&start()), Departure::Over);
    }
}
