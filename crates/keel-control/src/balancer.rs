//! The balancer that `serve` and `up` both hold: a plan in effect, and for each upstream the peers of this moment.
//!
//! Peers follow two things: names, asked of DNS and the engine, and pools, which the runner fills where there is one. A plan
//! takes effect with the peers that are known then; each change after that replaces the set of the upstreams that it is
//! about. Nothing here reads files, runs instances or answers anybody.

mod departures;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keel_model::{Address, DataPlaneStatus, FollowedName, PeerKey, PeerSet, Plan, ServiceName, UpstreamName};
use tokio::sync::mpsc;

use self::departures::Departures;
pub use self::departures::{Departure, InstanceStart};
use crate::{
    discovery::Discovery,
    peers::{Binding, Pool, Pools, fill_peers, followed},
    sockets::Sharing,
    traffic::{ApplyError, DataPlaneCommand, Traffic, TrafficNotice},
};

/// A balancer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Balancer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    traffic: Traffic,
    first_names: FirstNames,
    following: Mutex<Following>,
}

/// How a balancer begins.
#[derive(Clone, Debug)]
pub struct BalancerSettings {
    /// How its data plane's process is started.
    pub command: DataPlaneCommand,
    /// Who may listen on the same ports.
    pub sharing: Sharing,
    /// What the first configuration does about names.
    pub first_names: FirstNames,
}

/// Whether the first configuration waits, bounded, for the addresses of its names. Later ones always wait for those of new
/// names: the peers before them serve meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstNames {
    /// It does.
    Awaited,
    /// It takes effect without: the name server may be one of the services that start behind it.
    ComeLater,
}

/// What happens in a balancer that its holder may need to know.
#[derive(Debug)]
pub enum BalancerNotice {
    /// An instance whose departure was waited for has nothing in flight.
    Drained(InstanceStart),
    /// A connection to an instance broke: whether it still listens is to be looked at.
    Doubted {
        /// Which start of which instance.
        incarnation: u64,
    },
    /// A data plane died, and with it all that was in flight. Another one is being started.
    DataPlaneLost,
    /// A data plane serves the plan in effect.
    Serving {
        /// Its process id.
        pid: u32,
    },
}

/// What comes from the data plane and from followed names.
#[derive(Debug)]
pub struct BalancerNews {
    balancer: Balancer,
    traffic: mpsc::UnboundedReceiver<TrafficNotice>,
    names: mpsc::UnboundedReceiver<FollowedName>,
}

/// What is followed, and what has come of it.
#[derive(Debug)]
struct Following {
    discovery: Discovery,
    bindings: Vec<Binding>,
    /// What the plan in effect listens on.
    listeners: Vec<Address>,
    /// The peers of each upstream of the plan in effect, as the data plane was told last.
    sets: PeerSets,
    pools: Pools,
    departures: Departures,
}

/// The peers of each upstream.
pub type PeerSets = BTreeMap<UpstreamName, PeerSet>;

impl Balancer {
    /// Starts one on the current tokio runtime. It serves nothing until a plan is applied. Peers change only while somebody
    /// asks for its news.
    pub fn start(settings: BalancerSettings) -> (Self, BalancerNews) {
        let (traffic, notices) = Traffic::start(settings.command, settings.sharing);
        let (discovery, names) = Discovery::new();
        let following = Following {
            discovery,
            bindings: Vec::new(),
            listeners: Vec::new(),
            sets: PeerSets::new(),
            pools: Pools::new(),
            departures: Departures::default(),
        };
        let following = Mutex::new(following);
        let shared = Shared { traffic, first_names: settings.first_names, following };
        let balancer = Self { shared: Arc::new(shared) };
        let news = BalancerNews { balancer: balancer.clone(), traffic: notices, names };
        (balancer, news)
    }

    /// Puts a plan into effect, with the peers that its bindings have now. One at a time.
    ///
    /// # Errors
    /// When it can't be; then nothing has changed.
    pub async fn apply(&self, mut plan: Plan, bindings: &[Binding]) -> Result<(), ApplyError> {
        self.await_names(bindings).await;
        let before = {
            let mut following = self.following();
            fill_peers(&mut plan, bindings, &following.pools, &following.discovery.names());
            // Noted before: word of their last request may come before the outcome does.
            following.note_departures(&plan);
            following.sets.clone()
        };
        let outcome = self.shared.traffic.apply(plan.clone()).await;
        let mut following = self.following();
        match &outcome {
            Ok(()) => {
                following.bindings = bindings.to_vec();
                following.listeners =
                    plan.listeners.iter().map(|listener| listener.address.clone()).collect();
                following.take_sets(&plan, &before);
                // Pools may have changed while the data plane prepared.
                following.publish(&self.shared.traffic, |_| true);
            }
            Err(_) => following.nobody_left(),
        }
        let in_effect = followed(&following.bindings);
        following.discovery.retain(&in_effect);
        outcome
    }

    /// Follows the names of bindings, and waits for their addresses where that is called for.
    async fn await_names(&self, bindings: &[Binding]) {
        let names = followed(bindings);
        let answers = {
            let mut following = self.following();
            following.discovery.follow(&names);
            let is_first = following.bindings.is_empty();
            let waits = !is_first || self.shared.first_names == FirstNames::Awaited;
            let new = &names - &followed(&following.bindings);
            waits.then(|| following.discovery.first_answers(&new))
        };
        if let Some(answers) = answers {
            answers.await;
        }
    }

    /// Counts services that are about to be started as starting, so that the first requests wait for them.
    pub fn expect<'a>(&self, services: impl Iterator<Item = &'a ServiceName>) {
        let mut following = self.following();
        for service in services {
            let pool = following.pools.entry(service.clone());
            pool.or_insert_with(|| Pool { starting: true, ..Pool::default() });
        }
    }

    /// Takes the instances of a service that can take requests now.
    pub fn set_pool(&self, service: &ServiceName, pool: Pool) {
        let mut following = self.following();
        following.pools.insert(service.clone(), pool);
        let is_meant = |binding: &Binding| binding.services().any(|one| one == service);
        following.publish(&self.shared.traffic, is_meant);
    }

    /// Says whether an instance that has left the pools still has requests in flight. Where it has,
    /// [`BalancerNotice::Drained`] tells of their end.
    pub fn await_departure(&self, start: &InstanceStart) -> Departure {
        self.following().departures.await_end(start)
    }

    /// The addresses that clients may use.
    pub fn listeners(&self) -> Vec<Address> {
        self.following().listeners.clone()
    }

    /// The peers of each upstream at this moment.
    pub fn peers(&self) -> PeerSets {
        self.following().sets.clone()
    }

    /// Asks the data plane for its counts; `None` if none answers in time.
    pub async fn status(&self) -> Option<DataPlaneStatus> {
        self.shared.traffic.status().await
    }

    /// Returns when the data plane has taken everything that was said before.
    pub async fn settle(&self) {
        self.shared.traffic.settle().await;
    }

    /// Opens all log files anew.
    ///
    /// # Errors
    /// When one can't be opened; the data plane then goes on with the old ones.
    pub async fn reopen_logs(&self) -> Result<(), ApplyError> {
        self.shared.traffic.reopen_logs().await
    }

    /// Closes the listeners, and returns when what is in flight has finished.
    pub async fn quit(&self) {
        self.shared.traffic.quit().await;
    }

    /// Ends the data plane at once.
    pub async fn stop(&self) {
        self.shared.traffic.stop().await;
    }

    /// Closes the listeners and lets what is in flight finish, for so long at most. Gives the instances whose departure was
    /// waited for.
    pub async fn end(&self, limit: Duration) -> Vec<InstanceStart> {
        if tokio::time::timeout(limit, self.quit()).await.is_err() {
            self.stop().await;
        }
        self.following().departures.traffic_ended()
    }

    fn following(&self) -> MutexGuard<'_, Following> {
        self.shared.following.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BalancerNews {
    /// Waits until something has happened that the balancer's holder may need to know, and does what follows from the
    /// rest. Nothing that has come before waits while this does. May be cancelled.
    pub async fn next(&mut self) -> BalancerNotice {
        loop {
            let notice = tokio::select! {
                biased;
                Some(notice) = self.traffic.recv() => self.balancer.traffic_says(notice),
                Some(name) = self.names.recv() => {
                    self.balancer.name_changed(&name);
                    None
                }
                // The data plane has been told to end.
                else => std::future::pending().await,
            };
            if let Some(notice) = notice {
                return notice;
            }
        }
    }
}

impl Balancer {
    fn traffic_says(&self, notice: TrafficNotice) -> Option<BalancerNotice> {
        match notice {
            TrafficNotice::Drained { upstream, peer } => {
                self.following().departures.drained(&upstream, &peer).map(BalancerNotice::Drained)
            }
            TrafficNotice::Excluded { upstream, peer } => {
                self.following().doubt(&upstream, &peer);
                None
            }
            TrafficNotice::Doubted { incarnation } => Some(BalancerNotice::Doubted { incarnation }),
            TrafficNotice::DataPlaneLost => Some(BalancerNotice::DataPlaneLost),
            TrafficNotice::Serving { pid } => Some(BalancerNotice::Serving { pid }),
        }
    }

    fn name_changed(&self, name: &FollowedName) {
        let is_meant = |binding: &Binding| binding.names().any(|one| one == name);
        self.following().publish(&self.shared.traffic, is_meant);
    }
}

impl Following {
    /// Has a peer that was found by name and that failed looked at: whether it is there at all.
    fn doubt(&self, upstream: &UpstreamName, peer: &PeerKey) {
        let Address::Tcp(address) = peer.address else { return };
        let bindings = self.bindings.iter().filter(|binding| binding.upstream == *upstream);
        self.discovery.doubt(bindings.flat_map(Binding::names), address);
    }

    /// Notes who leaves when this plan takes effect.
    fn note_departures(&mut self, plan: &Plan) {
        for (upstream, old) in &self.sets {
            self.departures.note(upstream, &old.peers, &set_in(plan, upstream));
        }
    }

    /// Takes over the peer sets that a plan brought along. `before` are those of the moment it was made.
    fn take_sets(&mut self, plan: &Plan, before: &PeerSets) {
        let sets = plan.upstreams.iter().map(|upstream| (upstream.name.clone(), upstream.peers.clone()));
        for (upstream, old) in std::mem::replace(&mut self.sets, sets.collect()) {
            // Who was there before is noted, and may be gone for good by now.
            let is_noted = |key: &PeerKey| {
                before.get(&upstream).is_some_and(|set| set.peers.iter().any(|peer| peer.key == *key))
            };
            let joined: Vec<_> = old.peers.into_iter().filter(|peer| !is_noted(&peer.key)).collect();
            self.departures.note(&upstream, &joined, &set_in(plan, &upstream));
        }
    }

    /// A plan wasn't taken: who would have left it stays.
    fn nobody_left(&mut self) {
        for (upstream, set) in &self.sets {
            self.departures.stay(upstream, set);
        }
    }

    /// Makes the peers of this moment for the upstreams that are meant.
    fn publish(&mut self, traffic: &Traffic, is_meant: impl Fn(&Binding) -> bool) {
        let names = self.discovery.names();
        for binding in self.bindings.iter().filter(|binding| is_meant(binding)) {
            let set = binding.peer_set(&self.pools, &names);
            let old = self.sets.insert(binding.upstream.clone(), set.clone()).unwrap_or_default();
            // Sent even if it is as it was: one made for the plan before may have been sent meanwhile. `Traffic` drops
            // repeats.
            self.departures.note(&binding.upstream, &old.peers, &set);
            traffic.set_peers(binding.upstream.clone(), set);
        }
    }
}

fn set_in(plan: &Plan, upstream: &UpstreamName) -> PeerSet {
    let found = plan.upstreams.iter().find(|one| one.name == *upstream);
    found.map(|upstream| upstream.peers.clone()).unwrap_or_default()
}
