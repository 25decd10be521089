//! The peers of one upstream and the way to choose among them, shared by all workers.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU64},
    time::Instant,
};

use arc_swap::ArcSwap;
use keel_model::{Peer, PeerSet, PeerStatus, Upstream, UpstreamName};

use crate::{
    Drained, PeerState, Pick, PolicyError, Registry,
    outlier::{Limits, Outlier},
    policy::{Choice, Policy},
    tier::{Roster, RosterPeer, Tier},
};

/// Sets of available peers that one pick looks at before it gives up; each is out of date only because another thread
/// changed it just then.
const STALE_SETS_MAX: usize = 100;

/// The peers of one upstream. There is one for each upstream's name, from its first configuration to its last request.
pub struct Group {
    id: u64,
    me: Weak<Group>,
    name: UpstreamName,
    registry: Registry,
    drained: Drained,
    current: ArcSwap<Current>,
    /// Held while `current` is replaced.
    replacing: Mutex<()>,
    retry_turn: Arc<AtomicU64>,
}

/// A group at one moment.
struct Current {
    version: u64,
    policy: Arc<dyn Policy>,
    primary: Tier,
    backup: Tier,
    /// When a peer that failures exclude is due for a probe.
    recheck_at: Option<Instant>,
    starting: bool,
    managed: bool,
}

/// A request that wants a peer.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The time.
    pub now: Instant,
    /// The client's address: 4 or 16 octets, none for a unix socket.
    pub client_key: &'a [u8],
    /// What the algorithm goes by, where that is a text of the request; empty for none.
    pub key: &'a [u8],
    /// Peers that this request has been to, the last one last.
    pub tried: &'a [Arc<PeerState>],
    /// Whether this is its first attempt.
    pub attempt: Attempt,
    /// A random number.
    pub random: u64,
}

impl Ask<'_> {
    pub(crate) fn has_tried(&self, state: &Arc<PeerState>) -> bool {
        self.tried.iter().any(|tried| Arc::ptr_eq(tried, state))
    }
}

/// Which attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The first: takes its turn in the rotation.
    First,
    /// A later one, after others failed: leaves the rotation alone.
    Retry,
}

/// Why there is no peer for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPeer {
    /// The upstream has no peer.
    Empty {
        /// Whether Evenkeel is starting an instance of it.
        starting: bool,
        /// Whether its peers are instances that Evenkeel runs.
        managed: bool,
    },
    /// The request has been to every peer that is available.
    AllTried,
    /// Each is excluded by its failures, or `down`.
    AllExcluded {
        /// When the first of them is given a request again.
        until: Option<Instant>,
        /// Whether Evenkeel is starting an instance of it.
        starting: bool,
        /// Whether its peers are instances that Evenkeel runs.
        managed: bool,
    },
    /// At least one has as many requests in flight as it may; the others are excluded.
    AllBusy,
}

impl Group {
    /// Finds or makes the group of an upstream and lets it follow this configuration at once. See
    /// [`Registry::prepare`] for a way in two steps.
    ///
    /// # Errors
    /// When the configured policy can't be used.
    pub fn new(upstream: &Upstream, registry: &Registry, drained: Drained) -> Result<Arc<Self>, PolicyError> {
        Ok(registry.prepare(upstream, drained)?.commit())
    }

    pub(crate) fn empty(
        id: u64,
        name: UpstreamName,
        registry: Registry,
        policy: Arc<dyn Policy>,
        drained: Drained,
    ) -> Arc<Self> {
        let retry_turn = Arc::new(AtomicU64::new(0));
        let tier = || Tier::publish(None, Roster::default(), retry_turn.clone());
        let current = Current {
            version: 0,
            policy,
            primary: tier(),
            backup: tier(),
            recheck_at: None,
            starting: false,
            managed: false,
        };
        let current = ArcSwap::from_pointee(current);
        let replacing = Mutex::new(());
        Arc::new_cyclic(|me| Self {
            id,
            me: me.clone(),
            name,
            registry,
            drained,
            current,
            replacing,
            retry_turn,
        })
    }

    /// The upstream's name.
    pub fn name(&self) -> &UpstreamName {
        &self.name
    }

    /// A number that changes with each publication, 0 before the first.
    pub fn version(&self) -> u64 {
        self.current.load().version
    }

    /// Whether any of its peers is an instance that Evenkeel runs, so that one that died will be replaced.
    pub fn is_managed(&self) -> bool {
        self.current.load().managed
    }

    /// Replaces the peers. Those that are no longer among them take no request any more; `drained` is told of each as
    /// soon as it has none in flight, some of them before this returns.
    pub fn publish(&self, set: &PeerSet) {
        self.replace(None, set);
    }

    pub(crate) fn replace(&self, policy: Option<Arc<dyn Policy>>, set: &PeerSet) {
        let replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let states = self.registry.claim(&self.name, &set.peers, self.id, &self.drained);
        let version = before.version + 1;
        let (mut primary, mut backup) = (Vec::new(), Vec::new());
        for (peer, state) in set.peers.iter().zip(&states) {
            let tier = if peer.backup { &mut backup } else { &mut primary };
            let place = u32::try_from(tier.len()).unwrap_or(u32::MAX);
            tier.push(Arc::new(self.entry(peer, state, set, version, place)));
        }
        forgive_if_nobody_is_left(primary.iter().chain(&backup));
        let tier =
            |before, entries| Tier::publish(Some(before), Roster::new(entries), self.retry_turn.clone());
        let current = Current {
            version,
            policy: policy.unwrap_or_else(|| before.policy.clone()),
            primary: tier(&before.primary, primary),
            backup: tier(&before.backup, backup),
            recheck_at: None,
            starting: set.starting,
            managed: set.managed,
        };
        self.current.store(Arc::new(current.rechecked()));
        drop(replacing);
        let leaving: Vec<_> = before.entries().map(|entry| entry.state.clone()).collect();
        self.registry.close(&leaving, &states, self.id);
    }

    fn entry(
        &self,
        peer: &Peer,
        state: &Arc<PeerState>,
        set: &PeerSet,
        version: u64,
        place: u32,
    ) -> RosterPeer {
        // As in nginx: with only one peer there is nothing to gain by excluding it.
        let may_exclude = peer.max_fails > 0 && set.peers.len() > 1;
        let limits = Limits { max_fails: peer.max_fails, fail_timeout: peer.fail_timeout };
        RosterPeer {
            state: state.clone(),
            group: self.me.clone(),
            version,
            backup: peer.backup,
            place,
            name: peer.instance.as_ref().unwrap_or(&peer.name).as_str().into(),
            weight: peer.weight.max(1),
            max_conns: peer.max_conns,
            limits: may_exclude.then_some(limits),
            is_watched: peer.is_watched,
            down: peer.down,
        }
    }

    /// Picks a peer for one attempt of a request.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn pick(&self, ask: &Ask<'_>) -> Result<Pick, NoPeer> {
        for _ in 0..STALE_SETS_MAX {
            let current = self.current.load();
            if current.recheck_at.is_some_and(|at| ask.now > at) {
                drop(current);
                self.recheck(ask.now);
                continue;
            }
            match current.choose(ask) {
                Choice::Picked { pick, changed } => {
                    if changed {
                        drop(current);
                        self.refresh(pick.entry(), Some(ask.now));
                    }
                    return Ok(pick);
                }
                Choice::Stale(entry) => {
                    drop(current);
                    self.refresh(&entry, Some(ask.now));
                }
                Choice::Nobody => return Err(current.why_nobody(ask)),
            }
        }
        Err(NoPeer::AllBusy)
    }

    /// The peers as published last, backup ones behind the others.
    pub fn peers(&self) -> Vec<Arc<PeerState>> {
        self.current.load().entries().map(|entry| entry.state.clone()).collect()
    }

    /// How many peers a request can be tried on: all that are not `down`, backup ones included. nginx allows so
    /// many attempts where `proxy_next_upstream_tries` doesn't say less.
    pub fn tries(&self) -> usize {
        self.current.load().entries().filter(|entry| !entry.down).count()
    }

    /// The counts of the peers as published last.
    pub fn status(&self) -> Vec<PeerStatus> {
        let status = |entry: &Arc<RosterPeer>| {
            let counts = entry.state.counts();
            PeerStatus {
                upstream: self.name.clone(),
                peer: entry.state.key().clone(),
                instance: entry.state.instance().map(String::from),
                first_attempts: counts.first_attempts,
                retries: counts.retries,
                failures: counts.failures,
                in_flight: entry.state.in_flight(),
                excluded: entry.state.is_excluded(entry.limits),
                traffic: entry.state.traffic(),
            }
        };
        self.current.load().entries().map(status).collect()
    }

    /// Lets all in that are due for a probe.
    fn recheck(&self, now: Instant) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let tier = |tier: &Tier| {
            let entries = (0..).zip(&tier.roster.entries);
            tier.with_available(
                entries.filter(|(_, entry)| entry.is_available(Some(now))).map(|(place, _)| place).collect(),
            )
        };
        let after = before.with_tiers(tier(&before.primary), tier(&before.backup));
        self.current.store(Arc::new(after.rechecked()));
    }

    /// Excludes a peer unless it is the last one available, or is excluded already; says whether it was.
    pub(crate) fn exclude_unless_last(&self, entry: &Arc<RosterPeer>, limits: Limits, now: Instant) -> bool {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let is_other = |other: &&Arc<RosterPeer>| !Arc::ptr_eq(&other.state, &entry.state);
        if !current.entries().filter(is_other).any(|other| other.may_serve(Some(now))) {
            return false;
        }
        let was_settled = entry.state.with_outlier(|outlier| {
            let was_settled = outlier.has_settled(limits);
            outlier.exclude(limits, now);
            was_settled
        });
        self.take_in_or_out(entry, Some(now));
        !was_settled
    }

    /// Takes a peer into the set of available ones, or out of it, as it is now.
    pub(crate) fn refresh(&self, entry: &Arc<RosterPeer>, now: Option<Instant>) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_in_or_out(entry, now);
    }

    /// Does that for who holds the lock.
    fn take_in_or_out(&self, entry: &Arc<RosterPeer>, now: Option<Instant>) {
        let before = self.current.load_full();
        let Some(entry) = before.locate(entry) else { return };
        let tier = if entry.backup { &before.backup } else { &before.primary };
        let mut available = tier.available.clone();
        match (available.binary_search(&entry.place), entry.is_available(now)) {
            (Ok(position), false) => drop(available.remove(position)),
            (Err(position), true) => available.insert(position, entry.place),
            (Ok(_), true) | (Err(_), false) => return,
        }
        let same = |tier: &Tier| tier.with_available(tier.available.clone());
        let changed = tier.with_available(available);
        let after = match entry.backup {
            false => before.with_tiers(changed, same(&before.backup)),
            true => before.with_tiers(same(&before.primary), changed),
        };
        // Only failures set a time at which to look again.
        let after =
            if entry.state.fails() == 0 && before.recheck_at.is_none() { after } else { after.rechecked() };
        self.current.store(Arc::new(after));
    }
}

/// Forgets the failures of the instances that Evenkeel watches where they exclude all peers of a new set: failures never
/// exclude the last peer available, whether it is the last by an exclusion or because the others have left.
fn forgive_if_nobody_is_left<'a>(entries: impl Iterator<Item = &'a Arc<RosterPeer>> + Clone) {
    if entries.clone().any(|entry| entry.may_serve(None)) {
        return;
    }
    for entry in entries.filter(|entry| entry.is_watched) {
        entry.state.with_outlier(|outlier| *outlier = Outlier::default());
    }
}

impl Current {
    fn entries(&self) -> impl Iterator<Item = &Arc<RosterPeer>> {
        self.primary.roster.entries.iter().chain(&self.backup.roster.entries)
    }

    fn with_tiers(&self, primary: Tier, backup: Tier) -> Self {
        Self { policy: self.policy.clone(), primary, backup, ..*self }
    }

    fn rechecked(self) -> Self {
        let recheck_at = self.primary.recheck_at().into_iter().chain(self.backup.recheck_at()).min();
        Self { recheck_at, ..self }
    }

    /// Finds the entry that stands now for the same peer.
    fn locate(&self, entry: &Arc<RosterPeer>) -> Option<&Arc<RosterPeer>> {
        if entry.version == self.version {
            let tier = if entry.backup { &self.backup } else { &self.primary };
            return tier.roster.entry(entry.place);
        }
        self.entries().find(|now| Arc::ptr_eq(&now.state, &entry.state))
    }

    fn choose(&self, ask: &Ask<'_>) -> Choice {
        match self.policy.choose(ask, &self.primary) {
            Choice::Nobody => self.policy.choose(ask, &self.backup),
            choice => choice,
        }
    }

    fn why_nobody(&self, ask: &Ask<'_>) -> NoPeer {
        let &Self { starting, managed, recheck_at, .. } = self;
        if self.entries().next().is_none() {
            NoPeer::Empty { starting, managed }
        } else if self
            .primary
            .available()
            .chain(self.backup.available())
            .any(|entry| ask.has_tried(&entry.state))
        {
            NoPeer::AllTried
        } else if self.entries().any(|entry| !entry.down && entry.is_busy()) {
            NoPeer::AllBusy
        } else {
            NoPeer::AllExcluded { until: recheck_at, starting, managed }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let states: Vec<_> = self.current.load().entries().map(|entry| entry.state.clone()).collect();
        self.registry.close(&states, &[], self.id);
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
