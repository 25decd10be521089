//! What outlasts a configuration: the groups and the states of peers, by name.
//!
//! References are weak, so that unused entries vanish. A peer that left and comes back under the same key
//! while its last requests still run gets a new state with clean counts; its key counts as drained only once none of
//! its states has a request in flight.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use keel_model::{Peer, PeerKey, PeerSet, Upstream, UpstreamName};

use crate::{
    Drained, Group, PeerState,
    peer::Identity,
    policy::{self, Policy, PolicyError},
};

/// Remembers groups and peers by name. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    group_ids: AtomicU64,
    upstreams: Mutex<HashMap<UpstreamName, UpstreamEntry>>,
}

#[derive(Default)]
struct UpstreamEntry {
    group: Weak<Group>,
    peers: HashMap<PeerKey, PeerEntry>,
}

#[derive(Default)]
struct PeerEntry {
    /// Held by every state of this key.
    undrained: Arc<AtomicU32>,
    /// One for each time the key stands in the set.
    states: Vec<Weak<PeerState>>,
}

/// A group that is ready to follow a new configuration.
#[derive(Debug)]
pub struct Prepared {
    group: Arc<Group>,
    policy: Arc<dyn Policy>,
    set: PeerSet,
}

impl Registry {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds or makes the group of an upstream, without changing what it does now. `drained` is told of peers that
    /// leave it; a group that is there already keeps the one it has.
    ///
    /// # Errors
    /// When the configured policy can't be used.
    pub fn prepare(&self, upstream: &Upstream, drained: Drained) -> Result<Prepared, PolicyError> {
        let policy = policy::build(&upstream.policy)?;
        let mut upstreams = self.lock();
        upstreams.retain(|_, entry| {
            entry.group.strong_count() > 0 || entry.peers.values().any(PeerEntry::is_used)
        });
        let entry = upstreams.entry(upstream.name.clone()).or_default();
        let group = entry.group.upgrade().unwrap_or_else(|| {
            let id = self.inner.group_ids.fetch_add(1, Relaxed);
            Group::empty(id, upstream.name.clone(), self.clone(), policy.clone(), drained)
        });
        entry.group = Arc::downgrade(&group);
        Ok(Prepared { group, policy, set: upstream.peers.clone() })
    }

    /// The states of `peers`, known ones as they are, for the group `owner`.
    pub(crate) fn claim(
        &self,
        upstream: &UpstreamName,
        peers: &[Peer],
        owner: u64,
        drained: &Drained,
    ) -> Vec<Arc<PeerState>> {
        let mut upstreams = self.lock();
        let entry = upstreams.entry(upstream.clone()).or_default();
        let mut seen: HashMap<&PeerKey, usize> = HashMap::new();
        let mut states = Vec::with_capacity(peers.len());
        for peer in peers {
            let occurrence = seen.entry(&peer.key).or_default();
            let known = entry.peers.entry(peer.key.clone()).or_default();
            let identity = Identity {
                upstream: upstream.clone(),
                key: peer.key.clone(),
                name: peer.name.clone(),
                instance: peer.instance.clone(),
            };
            states.push(known.claim(*occurrence, identity, owner, drained));
            *occurrence += 1;
        }
        entry.peers.retain(|_, peer| peer.is_used());
        states
    }

    /// Closes those of `states` that are still `owner`'s and not among `kept`.
    pub(crate) fn close(&self, states: &[Arc<PeerState>], kept: &[Arc<PeerState>], owner: u64) {
        let kept: HashSet<usize> = kept.iter().map(|state| Arc::as_ptr(state) as usize).collect();
        let leaves = |state: &&Arc<PeerState>| {
            !kept.contains(&(Arc::as_ptr(state) as usize)) && state.owner.load(Acquire) == owner
        };
        // Another group may claim them only before or after, not in between; what closing tells is told unlocked.
        let upstreams = self.lock();
        let leaving: Vec<_> = states.iter().filter(leaves).collect();
        for state in &leaving {
            state.owner.store(u64::MAX, Release);
        }
        drop(upstreams);
        leaving.into_iter().for_each(|state| state.close());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UpstreamName, UpstreamEntry>> {
        self.inner.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

impl PeerEntry {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.undrained) > 1
    }

    fn claim(
        &mut self,
        occurrence: usize,
        identity: Identity,
        owner: u64,
        drained: &Drained,
    ) -> Arc<PeerState> {
        if self.states.len() <= occurrence {
            self.states.resize(occurrence + 1, Weak::new());
        }
        let known = self.states.get(occurrence).and_then(Weak::upgrade);
        let is_leaving = |state: &PeerState| state.is_closed() || state.owner.load(Acquire) == u64::MAX;
        if let Some(state) = known.filter(|state| !is_leaving(state) && state.identity == identity) {
            state.owner.store(owner, Release);
            return state;
        }
        let state = Arc::new(PeerState::new(identity, owner, self.undrained.clone(), drained.clone()));
        if let Some(place) = self.states.get_mut(occurrence) {
            *place = Arc::downgrade(&state);
        }
        state
    }
}

impl Prepared {
    /// The group, which until [`commit`](Self::commit) is as it was (a new one is empty).
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Lets the group follow the new configuration.
    pub fn commit(self) -> Arc<Group> {
        self.group.replace(Some(self.policy), &self.set);
        self.group
    }
}
