//! What the servers of an upstream stand for: addresses that stay, or services whose instances come and go.

use std::collections::BTreeMap;

use keel_model::{Address, Peer, PeerKey, PeerSet, ServiceName, UpstreamName};
use keel_runner::PoolInstance;
use serde::Serialize;

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
}

impl Binding {
    /// Gives the services whose instances are peers here.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.entries.iter().flat_map(|entry| match entry {
            Entry::Fixed(_) => [].as_slice(),
            Entry::Services { services, .. } => services,
        })
    }

    /// Makes the peers of this moment.
    pub fn peer_set(&self, pools: &Pools) -> PeerSet {
        let mut set = PeerSet { managed: self.services().next().is_some(), ..PeerSet::default() };
        for entry in &self.entries {
            match entry {
                Entry::Fixed(peers) => set.peers.extend(peers.iter().cloned()),
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

fn instance_peer(instance: &PoolInstance, port: u16, like: &Peer) -> Option<Peer> {
    let address = Address::Tcp(instance.socket_address(port)?);
    Some(Peer {
        key: PeerKey { address, incarnation: instance.incarnation },
        instance: Some(instance.name.clone()),
        ..like.clone()
    })
}
