//! A running project: instances on one side, traffic on the other, and what passes between them.
//!
//! One task carries news: a pool that changed becomes a new peer set; a peer that has drained lets its instance be
//! stopped. Commands don't pass through it, so that a stop that drains for half a minute delays nothing else; only
//! putting files into effect is one at a time. What changes the record of how many instances are wanted (`up`, `start`,
//! `scale`) tells the runner before the next one looks at that record ([`RunningProject::changing`]); nobody waits there
//! for instances.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keel_model::{Address, DataPlaneStatus, FollowedName, PeerKey, PeerSet, Plan, ServiceName, UpstreamName};
use keel_runner::{Ending, Notice, Runner};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, broadcast, mpsc, oneshot, watch};

use super::{command::InEffect, joined::Joined};
use crate::{
    configuration::{create_temp_folders, fill_peers},
    discovery::{Discovery, followed},
    peers::{Binding, Pool, Pools},
    traffic::{ApplyError, Traffic, TrafficNotice},
};

/// Events kept for a slow listener; what it misses beyond that it is told in number.
const EVENTS_MAX: usize = 1024;

/// How long requests in flight get when everything ends, unless the user says otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Something that a person who watches wants to see.
#[derive(Clone, Debug)]
pub enum ProjectEvent {
    /// From the runner.
    Runner(Notice),
    /// The data plane died and another takes its place.
    DataPlaneLost,
    /// A data plane serves.
    Serving {
        /// Its process id.
        pid: u32,
    },
}

/// Why a project's files could not be put into effect.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The traffic side: sockets, logs, the data plane. Nothing has changed.
    #[error(transparent)]
    Traffic(#[from] ApplyError),
    /// The instances. Traffic follows the new files already.
    #[error(transparent)]
    Runner(#[from] keel_runner::Error),
    /// A folder for bodies could not be made.
    #[error("can't create a folder for temporary files")]
    TempFolder(#[source] crate::configuration::FileError),
    /// A folder for a socket of the balancer's could not be made.
    #[error("can't create a folder for a socket")]
    SocketFolder(#[source] io::Error),
    /// Everything is being ended meanwhile.
    #[error("the project is being stopped")]
    Ending,
}

/// A running project; cheap to clone.
#[derive(Clone, Debug)]
pub struct RunningProject {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runner: Runner,
    traffic: Traffic,
    state: Mutex<State>,
    /// Held while files are put into effect.
    applying: AsyncMutex<()>,
    /// Held from a look at what is in effect until the runner has taken what follows from it.
    changing: AsyncMutex<()>,
    events: broadcast::Sender<ProjectEvent>,
    /// Answered when all news so far have been carried.
    carried: mpsc::UnboundedSender<oneshot::Sender<()>>,
    in_effect: Mutex<Option<InEffect>>,
    /// Whether everything is being ended, so that nothing may begin.
    ending: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    discovery: Discovery,
    bindings: Vec<Binding>,
    /// Current peers of each binding, as the data plane was told last.
    sets: BTreeMap<UpstreamName, PeerSet>,
    pools: Pools,
    drains: Drains,
}

impl RunningProject {
    /// Brings runner and traffic together on the current tokio runtime. Nothing runs until [`up`](Self::up).
    pub fn start(
        runner: Runner,
        notices: mpsc::UnboundedReceiver<Notice>,
        traffic: Traffic,
        traffic_notices: mpsc::UnboundedReceiver<TrafficNotice>,
    ) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (carried, asked) = mpsc::unbounded_channel();
        let (discovery, names) = Discovery::new();
        let shared = Shared {
            runner,
            traffic,
            state: Mutex::new(State {
                discovery,
                bindings: Vec::new(),
                sets: BTreeMap::new(),
                pools: Pools::new(),
                drains: Drains::default(),
            }),
            applying: AsyncMutex::new(()),
            changing: AsyncMutex::new(()),
            events,
            carried,
            in_effect: Mutex::new(None),
            ending: watch::Sender::new(false),
        };
        let project = Self { shared: Arc::new(shared) };
        tokio::spawn(project.clone().carry_news(notices, traffic_notices, names, asked));
        project
    }

    /// Has traffic follow files. A failure changes nothing.
    pub(super) async fn apply_traffic(
        &self,
        joined: &Joined,
        only: &[ServiceName],
    ) -> Result<(), ProjectError> {
        create_temp_folders(&joined.plan).map_err(ProjectError::TempFolder)?;
        make_socket_folders(joined).map_err(ProjectError::SocketFolder)?;
        let answers = {
            let mut state = self.state();
            let names = followed(&joined.bindings);
            state.discovery.follow(&names);
            // At the first start nobody is served yet, and the name server may be one of the project's own services.
            let in_effect = followed(&state.bindings);
            let new = if state.bindings.is_empty() { BTreeSet::new() } else { &names - &in_effect };
            state.discovery.first_answers(&new)
        };
        answers.await;
        let mut plan = joined.plan.clone();
        {
            let mut state = self.state();
            state.expect_new(joined, only);
            fill_peers(&mut plan, &joined.bindings, &state.pools, &state.discovery.names());
        }
        let outcome = self.shared.traffic.apply(plan.clone()).await;
        let mut state = self.state();
        if outcome.is_ok() {
            state.bindings.clone_from(&joined.bindings);
        }
        let in_effect = followed(&state.bindings);
        state.discovery.retain(&in_effect);
        outcome?;
        state.take_sets(&plan);
        // Pools may have changed while the data plane prepared.
        state.publish(&self.shared.traffic, |_| true);
        Ok(())
    }

    /// Held while files are put into effect, until the instances have reached their state.
    pub(super) async fn applying(&self) -> AsyncMutexGuard<'_, ()> {
        self.shared.applying.lock().await
    }

    /// Held from a look at what is in effect until the runner has taken what follows from it.
    pub(super) async fn changing(&self) -> AsyncMutexGuard<'_, ()> {
        self.shared.changing.lock().await
    }

    /// Does something, unless everything is being ended before it is done.
    pub(super) async fn unless_ending<T, E: From<ProjectError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut ending = self.shared.ending.subscribe();
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => Err(ProjectError::Ending.into()),
            outcome = work => outcome,
        }
    }

    /// Returns when traffic follows everything that the runner has said so far. Every command ends with this, so that
    /// what its caller sees next is what he asked for.
    pub async fn settle(&self) {
        let (reply, answer) = oneshot::channel();
        if self.shared.carried.send(reply).is_ok() {
            drop(answer.await);
        }
        self.shared.traffic.settle().await;
    }

    /// The runner: instances, logs, commands.
    pub fn runner(&self) -> &Runner {
        &self.shared.runner
    }

    /// The traffic side.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// Asks the data plane for its counts.
    pub async fn status(&self) -> Option<DataPlaneStatus> {
        self.shared.traffic.status().await
    }

    /// Listens to what happens from now on.
    pub fn events(&self) -> broadcast::Receiver<ProjectEvent> {
        self.shared.events.subscribe()
    }

    /// Ends the project: listeners first, then what is in flight, then the instances, dependents before what they depend on.
    /// What is being put into effect meanwhile is given up, builds included.
    pub async fn down(&self, ending: Ending) -> Result<(), keel_runner::Error> {
        self.shared.ending.send_replace(true);
        let limit = ending.drain.unwrap_or(DRAIN_TIMEOUT);
        if tokio::time::timeout(limit, self.shared.traffic.quit()).await.is_err() {
            self.shared.traffic.stop().await;
        }
        self.state().drains.traffic_ended(&self.shared.runner);
        self.shared.runner.down(ending).await
    }

    /// Whether everything is being ended.
    pub fn is_ending(&self) -> bool {
        *self.shared.ending.borrow()
    }

    async fn carry_news(
        self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut traffic_notices: mpsc::UnboundedReceiver<TrafficNotice>,
        mut names: mpsc::UnboundedReceiver<FollowedName>,
        mut asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    ) {
        loop {
            // Traffic's side may end before the runner's: `down` stops instances when no traffic is left.
            let event = tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => {
                        self.runner_says(&notice);
                        ProjectEvent::Runner(notice)
                    }
                    None => return,
                },
                Some(notice) = traffic_notices.recv() => match self.traffic_says(notice) {
                    Some(event) => event,
                    None => continue,
                },
                Some(name) = names.recv() => {
                    self.state().name_changed(&name, &self.shared.traffic);
                    continue;
                }
                // Last: an answer means that all earlier news have been passed on.
                Some(reply) = asked.recv() => {
                    _ = reply.send(());
                    continue;
                }
            };
            // Nobody listening is fine.
            drop(self.shared.events.send(event));
        }
    }

    fn runner_says(&self, notice: &Notice) {
        let mut state = self.state();
        match notice {
            Notice::Pool { service, instances, starting } => {
                let pool = Pool { instances: instances.clone(), starting: *starting };
                state.pool_changed(service, pool, &self.shared.traffic);
            }
            Notice::Draining { instance, incarnation } => {
                state.drains.draining(instance, *incarnation, &self.shared.runner);
            }
            _ => {}
        }
    }

    fn traffic_says(&self, notice: TrafficNotice) -> Option<ProjectEvent> {
        match notice {
            TrafficNotice::Drained { upstream, peer } => {
                self.state().drains.drained(&upstream, &peer, &self.shared.runner);
                None
            }
            TrafficNotice::Doubted { incarnation } => {
                self.shared.runner.doubted(incarnation);
                None
            }
            TrafficNotice::Excluded { upstream, peer } => {
                let state = self.state();
                state.discovery.doubt(&state.bindings, &upstream, &peer);
                None
            }
            TrafficNotice::DataPlaneLost => Some(ProjectEvent::DataPlaneLost),
            TrafficNotice::Serving { pid } => Some(ProjectEvent::Serving { pid }),
        }
    }

    pub(super) fn files_in_effect(&self) -> &Mutex<Option<InEffect>> {
        &self.shared.in_effect
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the folders of sockets that only the balancer's container would have. The data plane's group may pass them and the
/// state folder, and nobody else.
fn make_socket_folders(joined: &Joined) -> io::Result<()> {
    let paths = joined.plan.listeners.iter().filter_map(|listener| match &listener.address {
        Address::Unix(path) => path.parent().filter(|folder| folder.starts_with(&joined.sockets)),
        Address::Tcp(_) => None,
    });
    let group = joined.plan.process.user.as_ref().map(|user| user.gid);
    for folder in paths {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let own = joined.sockets.parent();
        for folder in folder.ancestors().take_while(|folder| own.is_some_and(|own| folder.starts_with(own))) {
            if let Some(group) = group {
                std::os::unix::fs::chown(folder, None, Some(group))?;
                std::fs::set_permissions(folder, Permissions::from_mode(0o710))?;
            }
        }
    }
    Ok(())
}

impl State {
    /// Counts services that are about to be started as starting, so that the first requests wait for them.
    fn expect_new(&mut self, joined: &Joined, only: &[ServiceName]) {
        for service in joined.services.iter().filter(|service| service.replicas > 0) {
            let is_meant = only.is_empty() || only.contains(&service.name);
            if is_meant && !self.pools.contains_key(&service.name) {
                self.pools.insert(service.name.clone(), Pool { starting: true, ..Pool::default() });
            }
        }
    }

    fn pool_changed(&mut self, service: &ServiceName, pool: Pool, traffic: &Traffic) {
        self.pools.insert(service.clone(), pool);
        self.publish(traffic, |binding| binding.services().any(|one| one == service));
    }

    fn name_changed(&mut self, name: &FollowedName, traffic: &Traffic) {
        self.publish(traffic, |binding| binding.names().any(|one| one == name));
    }

    /// Takes over the peer sets that a plan brought along.
    fn take_sets(&mut self, plan: &Plan) {
        let sets: BTreeMap<_, _> =
            plan.upstreams.iter().map(|upstream| (upstream.name.clone(), upstream.peers.clone())).collect();
        let none = PeerSet::default();
        for (upstream, old) in std::mem::replace(&mut self.sets, sets) {
            let new = self.sets.get(&upstream).unwrap_or(&none);
            self.drains.compare(&upstream, old, new);
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
            self.drains.compare(&binding.upstream, old, &set);
            traffic.set_peers(binding.upstream.clone(), set);
        }
    }
}

/// Instances that left upstreams and may still have requests in flight there.
#[derive(Debug, Default)]
struct Drains {
    leaving: HashMap<(String, u64), Leaving>,
    traffic_is_over: bool,
}

#[derive(Debug, Default)]
struct Leaving {
    /// Where requests may still be in flight.
    upstreams: HashSet<(UpstreamName, PeerKey)>,
    /// Whether the runner waits for word.
    awaited: bool,
}

impl Drains {
    /// Notes the instances that a new set hasn't any more.
    fn compare(&mut self, upstream: &UpstreamName, old: PeerSet, new: &PeerSet) {
        if self.traffic_is_over {
            return;
        }
        let left = old.peers.into_iter().filter(|peer| new.peers.iter().all(|other| other.key != peer.key));
        for peer in left {
            if let Some(instance) = peer.instance {
                let leaving = self.leaving.entry((instance, peer.key.incarnation)).or_default();
                leaving.upstreams.insert((upstream.clone(), peer.key));
            }
        }
    }

    fn draining(&mut self, instance: &str, incarnation: u64, runner: &Runner) {
        let key = (instance.to_owned(), incarnation);
        match self.leaving.get_mut(&key) {
            Some(leaving) if !leaving.upstreams.is_empty() => leaving.awaited = true,
            _ => {
                self.leaving.remove(&key);
                runner.drained(instance, incarnation);
            }
        }
    }

    fn drained(&mut self, upstream: &UpstreamName, peer: &PeerKey, runner: &Runner) {
        let drained = (upstream.clone(), peer.clone());
        self.leaving.retain(|(instance, incarnation), leaving| {
            let is_last = leaving.upstreams.remove(&drained) && leaving.upstreams.is_empty();
            if is_last && leaving.awaited {
                runner.drained(instance, *incarnation);
            }
            !is_last
        });
    }

    fn traffic_ended(&mut self, runner: &Runner) {
        self.traffic_is_over = true;
        for ((instance, incarnation), leaving) in self.leaving.drain() {
            if leaving.awaited {
                runner.drained(&instance, incarnation);
            }
        }
    }
}
