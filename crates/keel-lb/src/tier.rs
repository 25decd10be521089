//! The peers of one tier (primary or backup): all of them, and which are available.
//!
//! A [`Roster`] changes with each publication. A [`Tier`] changes whenever a peer becomes available or ceases to be.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use crate::{
    Ask, Attempt, Group, PeerState,
    outlier::{Admission, Limits},
    peer::Refusal,
    pick::Pick,
    policy::Choice,
    rotation::{Carry, Rotation},
};

/// A peer as one publication has it: what is remembered of it, and its settings.
pub(crate) struct RosterPeer {
    pub(crate) state: Arc<PeerState>,
    pub(crate) group: Weak<Group>,
    /// Which publication.
    pub(crate) version: u64,
    pub(crate) backup: bool,
    /// Its place in the roster.
    pub(crate) place: u32,
    /// The name of its instance, or its text in the file.
    pub(crate) name: Arc<str>,
    pub(crate) weight: u32,
    /// 0 for no limit.
    pub(crate) max_conns: u32,
    /// `None` where failures never exclude it.
    pub(crate) limits: Option<Limits>,
    /// Whether it is known without its failures that it can't be connected to.
    pub(crate) is_watched: bool,
    pub(crate) down: bool,
}

impl RosterPeer {
    pub(crate) fn is_busy(&self) -> bool {
        self.max_conns != 0 && self.state.in_flight() >= self.max_conns
    }

    /// Whether it may take part. Without a time, one that failures once excluded stays out.
    pub(crate) fn is_available(&self, now: Option<Instant>) -> bool {
        !self.is_busy() && self.may_serve(now)
    }

    /// Whether it may take part once it isn't busy.
    pub(crate) fn may_serve(&self, now: Option<Instant>) -> bool {
        if self.down || self.state.is_closed() {
            return false;
        }
        match (self.limits, now) {
            (Some(limits), Some(now)) if self.state.fails() != 0 => {
                !matches!(self.state.outlier().admission(limits, now), Admission::Excluded { .. })
            }
            (limits, _) => !self.state.is_excluded(limits),
        }
    }

    /// When it is due for a probe, if failures alone exclude it.
    fn recheck_at(&self) -> Option<Instant> {
        let limits = self.limits.filter(|_| self.state.fails() != 0 && !self.down)?;
        self.state.outlier().excluded_until(limits)
    }

    /// Sends a request there, unless it has become unavailable since the tier was made.
    pub(crate) fn take(self: &Arc<Self>, ask: &Ask<'_>) -> Choice {
        let in_flight = match self.state.enter(self.max_conns) {
            Ok(in_flight) => in_flight,
            Err(Refusal::Closed | Refusal::Busy) => return Choice::Stale(self.clone()),
        };
        let mut changed = self.max_conns != 0 && in_flight >= self.max_conns;
        let mut pick = Pick::new(self.clone());
        if let Some(limits) = self.limits.filter(|_| self.state.fails() != 0) {
            let admission = self.state.with_outlier(|outlier| {
                let admission = outlier.admission(limits, ask.now);
                if !matches!(admission, Admission::Excluded { .. }) {
                    outlier.on_pick(limits, ask.now);
                }
                admission
            });
            match admission {
                Admission::Available => {}
                Admission::ProbeDue => changed = true,
                Admission::Excluded { .. } => return Choice::Stale(self.clone()),
            }
        }
        pick.begin(ask.attempt);
        Choice::Picked { pick, changed }
    }
}

/// All peers of a tier in the file's order.
#[derive(Default)]
pub(crate) struct Roster {
    pub(crate) entries: Vec<Arc<RosterPeer>>,
    /// Sums of the weights up to and with each peer.
    pub(crate) cumulative_weights: Vec<u64>,
}

impl Roster {
    pub(crate) fn new(entries: Vec<Arc<RosterPeer>>) -> Self {
        let mut sum = 0;
        let add = |entry: &Arc<RosterPeer>| {
            sum += u64::from(entry.weight);
            sum
        };
        let cumulative_weights = entries.iter().map(add).collect();
        Self { entries, cumulative_weights }
    }

    pub(crate) fn entry(&self, place: u32) -> Option<&Arc<RosterPeer>> {
        self.entries.get(place as usize)
    }

    fn weight(&self, place: u32) -> u32 {
        self.entry(place).map_or(1, |entry| entry.weight)
    }

    fn same_as(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self
                .entries
                .iter()
                .zip(&other.entries)
                .all(|(one, another)| Arc::ptr_eq(&one.state, &another.state) && one.weight == another.weight)
    }
}

/// A tier at one moment.
pub(crate) struct Tier {
    pub(crate) roster: Arc<Roster>,
    /// Places of the available peers, ascending.
    pub(crate) available: Vec<u32>,
    rotation: Arc<Rotation>,
    /// Counts retries of the whole group, to spread them.
    retry_turn: Arc<AtomicU64>,
}

impl Tier {
    /// Makes the tier of a new publication out of the one before it. What failures exclude stays out; the next pick
    /// lets it in if it is due.
    pub(crate) fn publish(before: Option<&Tier>, roster: Roster, retry_turn: Arc<AtomicU64>) -> Self {
        let roster = Arc::new(roster);
        let is_available = |place: &u32| roster.entry(*place).is_some_and(|entry| entry.is_available(None));
        let available: Vec<u32> = (0..).take(roster.entries.len()).filter(is_available).collect();
        if let Some(before) = before.filter(|before| before.roster.same_as(&roster)) {
            return before.with(roster, available);
        }
        let carry = before.and_then(|before| before.carry_to(&roster));
        let rotation = Arc::new(Rotation::new(&available, |place| roster.weight(place), carry.as_ref()));
        Self { roster, available, rotation, retry_turn }
    }

    /// Makes the tier with another set of available peers.
    pub(crate) fn with_available(&self, available: Vec<u32>) -> Self {
        self.with(self.roster.clone(), available)
    }

    fn with(&self, roster: Arc<Roster>, available: Vec<u32>) -> Self {
        let rotation = if available == self.available {
            self.rotation.clone()
        } else {
            let carry = self.rotation.carry(&self.available);
            Arc::new(Rotation::new(&available, |place| roster.weight(place), carry.as_ref()))
        };
        Self { roster, available, rotation, retry_turn: self.retry_turn.clone() }
    }

    /// Says where the rotation stands in terms of another roster.
    fn carry_to(&self, roster: &Roster) -> Option<Carry> {
        let identity = |entry: &Arc<RosterPeer>| Arc::as_ptr(&entry.state) as usize;
        let places: HashMap<usize, u32> = roster.entries.iter().map(identity).zip(0..).collect();
        let translate = |next: u32| {
            let (before, from) = self.roster.entries.split_at_checked(next as usize)?;
            from.iter().chain(before).find_map(|entry| places.get(&identity(entry)).copied())
        };
        let mut carry = self.rotation.carry(&self.available)?;
        carry.next = translate(carry.next)?;
        for class in &mut carry.classes {
            class.next = translate(class.next)?;
        }
        Some(carry)
    }

    pub(crate) fn has(&self, place: u32) -> bool {
        self.available.binary_search(&place).is_ok()
    }

    /// The earliest time at which a peer is due for a probe.
    pub(crate) fn recheck_at(&self) -> Option<Instant> {
        (0..)
            .zip(&self.roster.entries)
            .filter_map(|(place, entry)| entry.recheck_at().filter(|_| !self.has(place)))
            .min()
    }

    pub(crate) fn available(&self) -> impl DoubleEndedIterator<Item = &Arc<RosterPeer>> {
        self.available.iter().filter_map(|&place| self.roster.entry(place))
    }

    /// The available peers that the request has not been to.
    pub(crate) fn untried<'a>(
        &'a self,
        ask: &'a Ask<'_>,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<RosterPeer>> {
        self.available().filter(|entry| !ask.has_tried(&entry.state))
    }

    /// The peer whose turn it is: for a first attempt by the rotation, for a retry aside from it.
    pub(crate) fn turn(&self, ask: &Ask<'_>) -> Option<&Arc<RosterPeer>> {
        match ask.attempt {
            Attempt::First if ask.tried.is_empty() => self.roster.entry(self.rotation.next(&self.available)?),
            Attempt::First | Attempt::Retry => self.retry_turn(ask),
        }
    }

    /// The peer for a retry: the first one is spread over all the others by weight, so that no neighbour of a
    /// peer that fails gets all its requests; from there it goes on in order.
    fn retry_turn(&self, ask: &Ask<'_>) -> Option<&Arc<RosterPeer>> {
        let last = ask
            .tried
            .last()
            .and_then(|last| self.roster.entries.iter().position(|entry| Arc::ptr_eq(&entry.state, last)));
        let last = last.and_then(|place| u32::try_from(place).ok());
        let split = last.map_or(0, |last| self.available.partition_point(|place| *place <= last));
        let (before, after) = self.available.split_at_checked(split)?;
        let untried = || {
            let entries = after.iter().chain(before).filter_map(|&place| self.roster.entry(place));
            entries.filter(|entry| !ask.has_tried(&entry.state))
        };
        if ask.tried.len() > 1 {
            return untried().next();
        }
        let total: u64 = untried().map(|entry| u64::from(entry.weight)).sum();
        let mut point = self.retry_turn.fetch_add(1, Relaxed).checked_rem(total)?;
        untried().find(|entry| match point.checked_sub(u64::from(entry.weight)) {
            None => true,
            Some(rest) => {
                point = rest;
                false
            }
        })
    }
}
