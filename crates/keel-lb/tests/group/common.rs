//! Upstreams for tests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use keel_lb::{Ask, Attempt, Drained, Group, NoPeer, PeerState, Pick, Registry};
use keel_model::{Address, Peer, PeerSet, PolicyConfig, Template, Upstream, UpstreamKeepalive, UpstreamName};

/// A peer called `name`, at a port of its own.
pub(crate) fn peer(name: &str) -> Peer {
    let port = name.bytes().fold(1000, |port: u16, byte| port.wrapping_mul(31).wrapping_add(u16::from(byte)));
    Peer::new(Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))), name)
}

pub(crate) fn set(peers: impl IntoIterator<Item = Peer>) -> PeerSet {
    PeerSet { peers: peers.into_iter().collect(), ..PeerSet::default() }
}

/// Peers with nginx's defaults, one for each word.
pub(crate) fn named(names: &str) -> PeerSet {
    set(names.split_whitespace().map(peer))
}

pub(crate) fn upstream(policy: &str, peers: PeerSet) -> Upstream {
    let mut words = policy.split(' ').map(String::from);
    let name = words.next().unwrap();
    Upstream {
        name: UpstreamName("app".into()),
        policy: PolicyConfig {
            key: (name == "hash").then(Template::default),
            name,
            parameters: words.collect(),
        },
        keepalive: UpstreamKeepalive::default(),
        zone: None,
        peers,
    }
}

/// A group, its registry, a clock that only tests move, and who was drained.
pub(crate) struct Rig {
    pub(crate) registry: Registry,
    pub(crate) group: Arc<Group>,
    pub(crate) start: Instant,
    pub(crate) seconds: AtomicU32,
    pub(crate) drained: Arc<Mutex<Vec<u16>>>,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "a test's time begins somewhere")]
    pub(crate) fn new(policy: &str, peers: PeerSet) -> Self {
        let registry = Registry::new();
        let drained = Arc::new(Mutex::new(Vec::new()));
        let group = Group::new(&upstream(policy, peers), &registry, note(&drained)).unwrap();
        Self { registry, group, start: Instant::now(), seconds: AtomicU32::new(0), drained }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds.load(SeqCst).into())
    }

    pub(crate) fn pass(&self, seconds: u32) {
        self.seconds.fetch_add(seconds, SeqCst);
    }

    pub(crate) fn first(&self) -> Result<Pick, NoPeer> {
        self.pick(&[], Attempt::First)
    }

    pub(crate) fn retry(&self, tried: &[Arc<PeerState>]) -> Result<Pick, NoPeer> {
        self.pick(tried, Attempt::Retry)
    }

    fn pick(&self, tried: &[Arc<PeerState>], attempt: Attempt) -> Result<Pick, NoPeer> {
        self.group.pick(&Ask {
            now: self.now(),
            client_key: &[192, 0, 2, 7],
            key: b"",
            tried,
            attempt,
            random: 4,
        })
    }

    /// The names of the peers that `count` requests go to, one after the other.
    pub(crate) fn sequence(&self, count: usize) -> String {
        (0..count).map(|_| self.first().map_or("-".into(), |pick| pick.name().to_owned())).collect()
    }
}

/// Notes the ports of peers that are drained.
pub(crate) fn note(drained: &Arc<Mutex<Vec<u16>>>) -> Drained {
    let drained = drained.clone();
    Arc::new(move |_, key| {
        let Address::Tcp(address) = &key.address else { panic!("{key:?}") };
        drained.lock().unwrap().push(address.port());
    })
}

pub(crate) fn port(peer: &Peer) -> u16 {
    let Address::Tcp(address) = &peer.key.address else { panic!("{peer:?}") };
    address.port()
}
