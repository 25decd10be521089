//! Which endpoints of a Service can take requests: slices in, a pool out. No I/O and no clock.
//!
//! A Service's endpoints lie in slices of a hundred or so, which the cluster changes one by one and fills up as it likes:
//! an endpoint may be in two of them for a moment. So each is counted, and a change of one slice costs what is in that
//! slice, however many there are. The order of events between slices doesn't matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

/// Some endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Its name, which no other slice of its namespace has.
    pub name: String,
    /// The ports that all of its endpoints have; TCP alone.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of the endpoints in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Its name in the Service; empty where that has one port without a name.
    pub name: String,
    /// Its number in the pod.
    pub number: u16,
}

/// An address and what the cluster says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses: one, as a rule.
    pub addresses: Vec<IpAddr>,
    /// What it is: the pod's name.
    pub name: Option<String>,
    /// Tells it from what had this address before: the pod's uid.
    pub uid: Option<String>,
    /// What it can do.
    pub state: EndpointState,
}

/// What an endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It takes requests.
    Ready,
    /// It was told to end, and still answers.
    Leaving,
    /// It starts, is unwell, or has ended.
    Away,
}

impl EndpointState {
    /// Reads the conditions `ready`, `serving` and `terminating`. One that isn't said means what an API without it means.
    pub fn of(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Self {
        let is_leaving = terminating == Some(true);
        let is_ready = ready.unwrap_or(true);
        match (is_leaving, is_ready, serving.unwrap_or(is_ready)) {
            // A Service that publishes addresses which aren't ready says `ready` of leaving ones, too.
            (false, true, _) => Self::Ready,
            (true, _, true) => Self::Leaving,
            (false, false, _) | (true, _, false) => Self::Away,
        }
    }
}

/// Which port of the endpoints is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// This one, whether the Service names it or not.
    Number(u16),
    /// The one that the Service calls so.
    Name(String),
}

/// What happened to slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These are all there are.
    Listed(Vec<Slice>),
    /// This one is new or has changed.
    Put(Slice),
    /// The one of this name is gone.
    Gone(String),
}

/// Whether an event changed who takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// It did.
    Changed,
    /// The pool is what it was.
    Same,
}

/// One that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Where it is.
    pub address: SocketAddr,
    /// Tells it from what had this address before.
    pub incarnation: u64,
}

/// The endpoints of one port of one Service.
#[derive(Clone, Debug)]
pub struct Pool {
    choice: PortChoice,
    /// Who is in each slice.
    slices: BTreeMap<String, Vec<Entry>>,
    ready: Tier,
    leaving: Tier,
}

/// What one endpoint of a slice adds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    member: Member,
    name: Option<String>,
    state: EndpointState,
}

/// Members of one state, each with the number of slices that have it.
#[derive(Clone, Debug, Default)]
struct Tier {
    members: BTreeMap<Member, Counted>,
    /// How many of them have an IPv4 address.
    ipv4: usize,
    changed: bool,
}

#[derive(Clone, Debug)]
struct Counted {
    slices: u32,
    name: Option<String>,
}

impl Tier {
    fn add(&mut self, entry: &Entry) {
        let counted = self.members.entry(entry.member.clone()).or_insert_with(|| {
            self.changed = true;
            self.ipv4 += usize::from(entry.member.address.is_ipv4());
            Counted { slices: 0, name: entry.name.clone() }
        });
        counted.slices += 1;
    }

    fn remove(&mut self, entry: &Entry) {
        let Some(counted) = self.members.get_mut(&entry.member) else { return };
        counted.slices = counted.slices.saturating_sub(1);
        if counted.slices == 0 {
            self.members.remove(&entry.member);
            self.changed = true;
            self.ipv4 -= usize::from(entry.member.address.is_ipv4());
        }
    }
}

impl Pool {
    /// Makes an empty one.
    pub fn new(choice: PortChoice) -> Self {
        Self { choice, slices: BTreeMap::new(), ready: Tier::default(), leaving: Tier::default() }
    }

    /// Takes an event.
    pub fn apply(&mut self, event: Event) -> Effect {
        let had_ready = !self.ready.members.is_empty();
        match event {
            Event::Put(slice) => self.put(slice),
            Event::Gone(name) => self.replace(name, Vec::new()),
            Event::Listed(slices) => {
                let named: BTreeSet<&str> = slices.iter().map(|slice| slice.name.as_str()).collect();
                let known = self.slices.keys();
                let gone: Vec<String> =
                    known.filter(|name| !named.contains(name.as_str())).cloned().collect();
                slices.into_iter().for_each(|slice| self.put(slice));
                gone.into_iter().for_each(|name| self.replace(name, Vec::new()));
            }
        }
        let ready = std::mem::take(&mut self.ready.changed);
        let leaving = std::mem::take(&mut self.leaving.changed);
        let has_ready = !self.ready.members.is_empty();
        // Those that leave count only where nobody is ready.
        let changed = ready || (leaving && !(had_ready && has_ready));
        if changed { Effect::Changed } else { Effect::Same }
    }

    /// Who takes requests, in the order of addresses: who is ready; where nobody is, who leaves and still answers. A
    /// pod with addresses of both kinds is one, under the older kind.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Option<&str>)> {
        let tier = if self.ready.members.is_empty() { &self.leaving } else { &self.ready };
        let any_kind = tier.ipv4 == 0;
        let members = tier.members.iter().filter(move |(member, _)| any_kind || member.address.is_ipv4());
        members.map(|(member, counted)| (member, counted.name.as_deref()))
    }

    /// A number that is asked for and that no slice names, though they name others: then nobody may listen there.
    pub fn undeclared(&self, slice: &Slice) -> Option<u16> {
        match self.choice {
            PortChoice::Number(number) if !slice.ports.is_empty() => {
                slice.ports.iter().all(|port| port.number != number).then_some(number)
            }
            PortChoice::Number(_) | PortChoice::Name(_) => None,
        }
    }

    fn put(&mut self, slice: Slice) {
        let port = match &self.choice {
            PortChoice::Number(number) => Some(*number),
            PortChoice::Name(name) => {
                slice.ports.iter().find(|port| port.name == *name).map(|port| port.number)
            }
        };
        let entries = port.map(|port| entries(&slice, port)).unwrap_or_default();
        self.replace(slice.name, entries);
    }

    /// Puts entries in place of a slice's. New ones come first: one that stays is never gone in between.
    fn replace(&mut self, name: String, entries: Vec<Entry>) {
        for entry in &entries {
            if let Some(tier) = self.tier(entry.state) {
                tier.add(entry);
            }
        }
        let old = match entries.is_empty() {
            true => self.slices.remove(&name),
            false => self.slices.insert(name, entries),
        };
        for entry in old.iter().flatten() {
            if let Some(tier) = self.tier(entry.state) {
                tier.remove(entry);
            }
        }
    }

    fn tier(&mut self, state: EndpointState) -> Option<&mut Tier> {
        match state {
            EndpointState::Ready => Some(&mut self.ready),
            EndpointState::Leaving => Some(&mut self.leaving),
            EndpointState::Away => None,
        }
    }
}

fn entries(slice: &Slice, port: u16) -> Vec<Entry> {
    let entries = slice.endpoints.iter().filter(|endpoint| endpoint.state != EndpointState::Away);
    let entry = |endpoint: &Endpoint, ip: IpAddr| Entry {
        member: Member {
            address: SocketAddr::new(ip, port),
            incarnation: incarnation(endpoint.uid.as_deref()),
        },
        name: endpoint.name.clone(),
        state: endpoint.state,
    };
    entries.flat_map(|endpoint| endpoint.addresses.iter().map(move |ip| entry(endpoint, *ip))).collect()
}

fn incarnation(uid: Option<&str>) -> u64 {
    let Some(uid) = uid else { return 0 };
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{EndpointState::*, *};

    fn endpoint(host: u8, state: EndpointState) -> Endpoint {
        let uid = format!("uid-{host}");
        Endpoint {
            addresses: vec![[10, 0, 0, host].into()],
            name: Some(format!("app-{host}")),
            uid: Some(uid),
            state,
        }
    }

    fn slice(name: &str, endpoints: &[(u8, EndpointState)]) -> Slice {
        let ports = vec![SlicePort { name: "http".into(), number: 5000 }];
        let endpoints = endpoints.iter().map(|(host, state)| endpoint(*host, *state)).collect();
        Slice { name: name.into(), ports, endpoints }
    }

    fn hosts(pool: &Pool) -> Vec<u8> {
        let last = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        pool.members().map(|(member, _)| last(member.address)).collect()
    }

    #[test]
    fn conditions_mean_what_the_api_says() {
        let check = |ready, serving, terminating, expect: EndpointState| {
            assert_eq!(
                EndpointState::of(ready, serving, terminating),
                expect,
                "{ready:?} {serving:?} {terminating:?}"
            );
        };
        let (yes, no) = (Some(true), Some(false));
        check(yes, yes, no, Ready);
        check(None, None, None, Ready);
        check(no, no, no, Away);
        check(no, yes, no, Away);
        check(no, yes, yes, Leaving);
        check(no, no, yes, Away);
        // publishNotReadyAddresses.
        check(yes, yes, yes, Leaving);
        check(yes, no, yes, Away);
        // Before `serving` there was.
        check(no, None, None, Away);
        check(yes, None, None, Ready);
    }

    #[test]
    fn follows_slices() {
        let mut pool = Pool::new(PortChoice::Number(5000));
        let mut check = |event: Event, effect: Effect, expect: &[u8]| {
            let shown = format!("{event:?}");
            assert_eq!((pool.apply(event), hosts(&pool)), (effect, expect.to_vec()), "after {shown}");
        };
        let put = |name, endpoints: &[_]| Event::Put(slice(name, endpoints));
        check(Event::Listed(vec![]), Effect::Same, &[]);
        check(put("a", &[(1, Ready), (2, Away)]), Effect::Changed, &[1]);
        check(put("a", &[(1, Ready), (2, Away)]), Effect::Same, &[1]);
        check(put("a", &[(1, Ready), (2, Ready)]), Effect::Changed, &[1, 2]);
        // Leaving: out at once, while another is ready.
        check(put("a", &[(1, Leaving), (2, Ready)]), Effect::Changed, &[2]);
        check(put("a", &[(1, Away), (2, Ready)]), Effect::Same, &[2]);
        // One moves from a slice to another, and is in both for a moment.
        check(put("b", &[(2, Ready)]), Effect::Same, &[2]);
        check(Event::Gone("a".into()), Effect::Same, &[2]);
        // Nobody is ready: who leaves and still answers is used.
        check(put("b", &[(2, Leaving), (3, Away)]), Effect::Changed, &[2]);
        check(put("b", &[(2, Leaving), (3, Ready)]), Effect::Changed, &[3]);
        // Listed anew: what is the same changes nothing, what is missing goes.
        check(Event::Listed(vec![slice("c", &[(3, Ready)])]), Effect::Same, &[3]);
        check(Event::Listed(vec![]), Effect::Changed, &[]);
        check(Event::Gone("never".into()), Effect::Same, &[]);
    }

    #[test]
    fn a_pod_with_the_address_of_another_is_another() {
        let mut pool = Pool::new(PortChoice::Number(5000));
        let mut one = slice("a", &[(1, Ready)]);
        assert_eq!(pool.apply(Event::Put(one.clone())), Effect::Changed);
        let before: Vec<Member> = pool.members().map(|(member, _)| member.clone()).collect();
        one.endpoints[0].uid = Some("another".into());
        assert_eq!(pool.apply(Event::Put(one)), Effect::Changed);
        let after: Vec<Member> = pool.members().map(|(member, _)| member.clone()).collect();
        assert_eq!((before.len(), after.len()), (1, 1));
        assert_ne!(before, after);
    }

    #[test]
    fn a_ports_name_stands_for_its_number() {
        let mut pool = Pool::new(PortChoice::Name("http".into()));
        let mut one = slice("a", &[(1, Ready)]);
        one.ports.push(SlicePort { name: "metrics".into(), number: 9000 });
        assert_eq!(pool.apply(Event::Put(one.clone())), Effect::Changed);
        let ports: Vec<u16> = pool.members().map(|(member, _)| member.address.port()).collect();
        assert_eq!(ports, [5000]);
        one.ports.remove(0);
        assert_eq!(pool.apply(Event::Put(one.clone())), Effect::Changed);
        assert_eq!(pool.members().count(), 0);
        assert_eq!(Pool::new(PortChoice::Number(5000)).undeclared(&one), Some(5000));
        assert_eq!(Pool::new(PortChoice::Number(9000)).undeclared(&one), None);
    }

    #[test]
    fn a_pod_of_both_kinds_of_addresses_is_one() {
        let mut pool = Pool::new(PortChoice::Number(5000));
        let mut newer = slice("v6", &[(1, Ready)]);
        newer.endpoints[0].addresses = vec!["fd00::1".parse().expect("is an address")];
        assert_eq!(pool.apply(Event::Put(newer)), Effect::Changed);
        assert_eq!(pool.members().count(), 1);
        assert_eq!(pool.apply(Event::Put(slice("v4", &[(1, Ready)]))), Effect::Changed);
        assert!(pool.members().all(|(member, _)| member.address.is_ipv4()) && pool.members().count() == 1);
    }

    fn any_slice() -> impl Strategy<Value = Slice> {
        let state = prop_oneof![Just(Ready), Just(Leaving), Just(Away)];
        let endpoints = prop::collection::vec((0..6_u8, state), 0..5);
        (0..3_u8, endpoints).prop_map(|(name, endpoints)| slice(&name.to_string(), &endpoints))
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => any_slice().prop_map(Event::Put),
            1 => (0..3_u8).prop_map(|name| Event::Gone(name.to_string())),
            1 => prop::collection::vec(any_slice(), 0..3).prop_map(|mut slices| {
                slices.sort_by(|a, b| a.name.cmp(&b.name));
                slices.dedup_by(|a, b| a.name == b.name);
                Event::Listed(slices)
            }),
        ]
    }

    /// What the pool must be, worked out from all slices anew.
    fn expected(slices: &BTreeMap<String, Slice>) -> Vec<u8> {
        let with = |state| -> BTreeSet<u8> {
            let endpoints = slices.values().flat_map(|slice| &slice.endpoints);
            let meant = endpoints.filter(|endpoint| endpoint.state == state);
            meant
                .filter_map(|endpoint| match endpoint.addresses.first() {
                    Some(IpAddr::V4(ip)) => Some(ip.octets()[3]),
                    _ => None,
                })
                .collect()
        };
        let ready = with(Ready);
        let chosen = if ready.is_empty() { with(Leaving) } else { ready };
        chosen.into_iter().collect()
    }

    proptest! {
        #[test]
        fn is_what_all_slices_say(events in prop::collection::vec(any_event(), 0..40)) {
            let mut pool = Pool::new(PortChoice::Number(5000));
            let mut slices = BTreeMap::<String, Slice>::new();
            let mut before = Vec::new();
            for event in events {
                match &event {
                    Event::Put(slice) => drop(slices.insert(slice.name.clone(), slice.clone())),
                    Event::Gone(name) => drop(slices.remove(name)),
                    Event::Listed(all) => {
                        slices = all.iter().map(|slice| (slice.name.clone(), slice.clone())).collect();
                    }
                }
                let effect = pool.apply(event);
                let now = hosts(&pool);
                prop_assert_eq!(&now, &expected(&slices));
                // What hasn't changed isn't published; the other way round costs little.
                if effect == Effect::Same {
                    prop_assert_eq!(&now, &before);
                }
                before = now;
            }
        }
    }
}
