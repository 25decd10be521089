//! What the servers of an upstream stand for: addresses that stay, services whose instances come and go, names that are
//! followed.

use std::collections::{BTreeMap, BTreeSet};

use keel_model::{
    Address, FollowedName, Peer, PeerKey, PeerSet, Plan, ResolverSource, ServiceName, UpstreamName,
};
use keel_runner::PoolInstance;
use serde::Serialize;

use crate::located::{Located, Names};

/// The instances of one service that can take requests.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Ready instances, in the order of their numbers.
    pub instances: Vec<PoolInstance>,
    /// Whether another is on its way.
    pub starting: bool,
}

/// All pools, by service.
pub type Pools = BTreeMap<ServiceName, Pool>;

/// What the `server` lines of one upstream stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// Which upstream.
    pub upstream: UpstreamName,
    /// Its entries in the file's order.
    pub entries: Vec<Entry>,
}

/// What one `server` line stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Entry {
    /// Addresses known at load.
    Fixed(Vec<Peer>),
    /// All instances of these services, now and later.
    Services {
        /// Which services: more than one when they share an alias.
        services: Vec<ServiceName>,
        /// The port in the container.
        port: u16,
        /// Parameters that every instance's peer gets.
        like: Peer,
    },
    /// All addresses of this name, now and later.
    Name {
        /// The name.
        name: FollowedName,
        /// Parameters that every peer gets.
        like: Peer,
    },
}

impl Binding {
    /// The services whose instances are peers here.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.entries.iter().flat_map(|entry| match entry {
            Entry::Fixed(_) | Entry::Name { .. } => [].as_slice(),
            Entry::Services { services, .. } => services,
        })
    }

    /// The names whose addresses are peers here.
    pub fn names(&self) -> impl Iterator<Item = &FollowedName> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Name { name, .. } => Some(name),
            Entry::Fixed(_) | Entry::Services { .. } => None,
        })
    }

    /// Asks the system's DNS servers instead of Docker's own, which is in containers only. Inside one that is the same.
    pub(crate) fn leave_docker_dns(&mut self) {
        for entry in &mut self.entries {
            if let Entry::Name { name, .. } = entry
                && let ResolverSource::Servers(servers) = &name.resolver.source
                && servers.iter().all(|server| server.host == "127.0.0.11")
            {
                name.resolver.source = ResolverSource::System;
            }
        }
    }

    /// Makes the peers of this moment.
    pub fn peer_set(&self, pools: &Pools, names: &Names) -> PeerSet {
        let mut set = PeerSet { managed: self.services().next().is_some(), ..PeerSet::default() };
        for entry in &self.entries {
            match entry {
                Entry::Fixed(peers) => set.peers.extend(peers.iter().cloned()),
                Entry::Name { name, like } => {
                    let found = names.get(name).into_iter().flatten();
                    set.peers.extend(found.map(|one| located_peer(one, like)));
                }
                Entry::Services { services, port, like } => {
                    for pool in services.iter().filter_map(|service| pools.get(service)) {
                        set.starting |= pool.starting;
                        set.peers
                            .extend(pool.instances.iter().filter_map(|one| instance_peer(one, *port, like)));
                    }
                }
            }
        }
        set
    }
}

/// The peers of `old` that a new set hasn't any more.
pub(crate) fn left<'a>(old: &'a [Peer], new: &'a PeerSet) -> impl Iterator<Item = &'a Peer> {
    old.iter().filter(|peer| new.peers.iter().all(|other| other.key != peer.key))
}

/// Fills in the peers of every upstream that a binding names.
pub(crate) fn fill_peers(plan: &mut Plan, bindings: &[Binding], pools: &Pools, names: &Names) {
    for upstream in &mut plan.upstreams {
        if let Some(binding) = bindings.iter().find(|binding| binding.upstream == upstream.name) {
            upstream.peers = binding.peer_set(pools, names);
        }
    }
}

/// The names that these bindings want followed.
pub(crate) fn followed(bindings: &[Binding]) -> BTreeSet<FollowedName> {
    bindings.iter().flat_map(Binding::names).cloned().collect()
}

fn instance_peer(instance: &PoolInstance, port: u16, like: &Peer) -> Option<Peer> {
    let address = Address::Tcp(instance.socket_address(port)?);
    Some(Peer {
        key: PeerKey { address, incarnation: instance.incarnation },
        instance: Some(instance.name.clone()),
        is_watched: instance.is_watched,
        ..like.clone()
    })
}

fn located_peer(located: &Located, like: &Peer) -> Peer {
    let key = PeerKey { address: Address::Tcp(located.address), incarnation: located.incarnation };
    let mut peer = Peer { key, instance: located.instance.clone(), ..like.clone() };
    if let Some(record) = located.record {
        // A weight in the file is meant.
        peer.weight = if like.weight == 1 { record.weight } else { like.weight };
        peer.backup |= record.is_backup;
    }
    peer
}
