//! Where each life lives and what it holds there; shared with the thread that answers trapped calls.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keel_model::{Protocol, Service, ServiceName};
use keel_sys::{
    claim, proc,
    sock_diag::{Listening, SockDiag},
};

use super::{
    census::{Family, Holding},
    rules::{self, Meaning},
};
use crate::supervisor::Incarnation;

/// Sockets of one port that are remembered: servers that share a port among many processes have one each.
const HOLDS_MAX: usize = 256;

/// Where one life lives.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Whose instance it is.
    service: ServiceName,
    pub(super) address: Ipv4Addr,
    /// The ports that the file lists.
    pub(super) listed: Vec<keel_model::Port>,
    /// TCP ports that the service has in a container: those listed, and those that its healthcheck asks.
    container_ports: Arc<BTreeSet<u16>>,
    /// Which port took the place of which.
    pub(super) ports: BTreeMap<u16, u16>,
    /// Stream ports that were bound, by the port asked for.
    held: BTreeMap<u16, VecDeque<Hold>>,
    /// UDP ports that the file doesn't list and that were bound.
    held_udp: BTreeMap<u16, Hold>,
    /// Whether the address is its own. Otherwise it is on 127.0.0.1 and serves `$PORT`.
    pub(super) own: bool,
    /// Whether it was seen to listen on a wildcard address, past the trap.
    pub(super) is_on_wildcard: bool,
    /// Its processes, once they run.
    family: Option<Family>,
}

/// A socket that was bound for a process of the instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) process: i32,
    pub(super) descriptor: i32,
    pub(super) inode: u64,
}

impl Hold {
    /// Whether the descriptor still is that socket.
    fn is_open(&self) -> bool {
        proc::socket_at(self.process, self.descriptor) == Some(self.inode)
    }
}

/// Whether a bind changed where an instance's ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    Same,
    Changed,
}

/// Where a life was seen to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// At the address where it is looked for.
    There,
    /// On a wildcard address, which answers there too.
    OnWildcard,
}

impl Home {
    pub(super) fn new(address: Ipv4Addr, spec: &Service) -> Self {
        let listed = spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.number);
        let asked = spec.healthcheck.iter().flat_map(|check| rules::ports_asked(&check.argv));
        Self {
            service: spec.name.clone(),
            address,
            listed: spec.ports.clone(),
            container_ports: Arc::new(listed.chain(asked).collect()),
            ports: BTreeMap::new(),
            held: BTreeMap::new(),
            held_udp: BTreeMap::new(),
            own: true,
            is_on_wildcard: false,
            family: None,
        }
    }

    /// A home on the host's own loopback address, behind another port than the one listed.
    pub(super) fn shared(spec: &Service, port: u16) -> Self {
        let first = first_tcp(&spec.ports);
        let ports = first.map(|first| (first, port)).into_iter().collect();
        Self { ports, own: false, ..Self::new(Ipv4Addr::LOCALHOST, spec) }
    }

    /// The port that it is ready on, once that listens.
    pub(super) fn ready_at(&self) -> Option<SocketAddr> {
        let port = first_tcp(&self.listed)?;
        Some(self.socket_address(port))
    }

    /// Where a port of it is.
    pub(super) fn socket_address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, self.ports.get(&port).copied().unwrap_or(port)))
    }

    /// Whether a socket that would take connections to `at` is held by a process of this life.
    pub(super) fn owns(&self, taker: &Listening, at: SocketAddr) -> Option<Seen> {
        let seen = if taker.address == at { Seen::There } else { Seen::OnWildcard };
        if self.held.values().flatten().any(|hold| hold.inode == taker.inode) {
            return Some(seen);
        }
        match self.family.as_ref().map(|family| family.holds(taker.inode)) {
            Some(Holding::Yes) => Some(seen),
            // Its descriptors can't be looked at: at an address of its own there is nobody else.
            Some(Holding::Unknown) if seen == Seen::There || !self.own => Some(seen),
            Some(Holding::Unknown | Holding::No) | None => None,
        }
    }

    /// Its ports as a person reads them.
    pub(super) fn shown(&self) -> Vec<String> {
        let protocol = |port: &keel_model::Port| if port.protocol == Protocol::Udp { "/udp" } else { "" };
        let actual = |port: &keel_model::Port| match self.ports.get(&port.number) {
            Some(actual) => format!(" (as {actual})"),
            None => String::new(),
        };
        self.listed.iter().map(|port| format!("{}{}{}", port.number, protocol(port), actual(port))).collect()
    }
}

/// The first TCP port of a list: `$PORT`.
pub(crate) fn first_tcp(listed: &[keel_model::Port]) -> Option<u16> {
    listed.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.number)
}

/// All homes.
#[derive(Debug, Default)]
pub(super) struct Homes {
    homes: Mutex<BTreeMap<Incarnation, Home>>,
    meanings: Mutex<Meanings>,
}

/// Loopback addresses of this project that are no instance's.
#[derive(Debug, Default)]
struct Meanings {
    vacancies: BTreeMap<Ipv4Addr, ServiceName>,
    others: BTreeSet<Ipv4Addr>,
}

impl Homes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meanings(&self) -> MutexGuard<'_, Meanings> {
        self.meanings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, incarnation: Incarnation, home: Home) {
        self.lock().insert(incarnation, home);
    }

    pub(super) fn remove(&self, incarnation: Incarnation) -> Option<Home> {
        self.lock().remove(&incarnation)
    }

    pub(super) fn get(&self, incarnation: Incarnation) -> Option<Home> {
        self.lock().get(&incarnation).cloned()
    }

    /// Notes the processes of a life.
    pub(super) fn inhabit(&self, incarnation: Incarnation, family: Family) {
        if let Some(home) = self.lock().get_mut(&incarnation) {
            home.family = Some(family);
        }
    }

    /// Notes how a life was seen to listen.
    pub(super) fn saw(&self, incarnation: Incarnation, seen: Seen) {
        if let Some(home) = self.lock().get_mut(&incarnation) {
            home.is_on_wildcard = seen == Seen::OnWildcard;
        }
    }

    /// Notes an address that stands for a service without a ready instance.
    pub(super) fn add_vacancy(&self, address: Ipv4Addr, service: ServiceName) {
        self.meanings().vacancies.insert(address, service);
    }

    /// Notes the addresses that names stand for, which may be others' than instances'.
    pub(super) fn set_named(&self, named: impl Iterator<Item = IpAddr>) {
        let own: BTreeSet<Ipv4Addr> = self.lock().values().map(|home| home.address).collect();
        let mut meanings = self.meanings();
        let others = named.filter_map(|address| match address {
            IpAddr::V4(address) if address.is_loopback() && address != Ipv4Addr::LOCALHOST => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        meanings.others = others
            .filter(|address| !own.contains(address) && !meanings.vacancies.contains_key(address))
            .collect();
    }

    /// Notes that a stream port was bound; `actual` where it became another one.
    pub(super) fn hold(&self, incarnation: Incarnation, port: u16, hold: Hold, actual: Option<u16>) -> Ports {
        let mut homes = self.lock();
        let Some(home) = homes.get_mut(&incarnation) else { return Ports::Same };
        let holds = home.held.entry(port).or_default();
        if holds.len() >= HOLDS_MAX {
            holds.pop_front();
        }
        holds.push_back(hold);
        let before = match actual {
            Some(actual) => home.ports.insert(port, actual),
            None => home.ports.remove(&port),
        };
        if before == actual { Ports::Same } else { Ports::Changed }
    }

    /// Notes that a UDP port was bound that the file doesn't list.
    pub(super) fn hold_udp(&self, incarnation: Incarnation, port: u16, hold: Hold) {
        if let Some(home) = self.lock().get_mut(&incarnation) {
            home.held_udp.insert(port, hold);
        }
    }

    /// The sockets that hold a UDP port which no file lists.
    pub(super) fn udp_holds(&self, port: u16) -> Vec<Hold> {
        let homes = self.lock();
        homes
            .values()
            .filter_map(|home| home.held_udp.get(&port))
            .filter(|hold| hold.is_open())
            .copied()
            .collect()
    }

    /// What the rules ask about, as it is now.
    pub(super) fn view(&self, incarnation: Incarnation, role: Role) -> Option<Tenant<'_>> {
        let home = self.get(incarnation)?;
        Some(Tenant { homes: self, home, role })
    }
}

/// The socket that a connection to this address would reach.
pub(super) fn taker_of(address: SocketAddr) -> std::io::Result<Option<Listening>> {
    SockDiag::open()?.taker_of(address)
}

/// What a process of a life is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the instance, or a command of a user in it.
    Instance,
    /// It finds out whether the instance is well.
    Healthcheck,
}

/// One life as the rules see it.
#[derive(Debug)]
pub(super) struct Tenant<'a> {
    homes: &'a Homes,
    pub(super) home: Home,
    role: Role,
}

impl Tenant<'_> {
    /// Whether a socket listens at a port of its own address.
    pub(super) fn listens(&self, port: u16) -> bool {
        let address = self.home.socket_address(port);
        taker_of(address).is_ok_and(|taker| taker.is_some_and(|taker| taker.address == address))
    }

    /// Whether a socket of it holds this UDP port, which the file doesn't list.
    pub(super) fn holds_udp(&self, port: u16) -> bool {
        self.home.held_udp.get(&port).is_some_and(Hold::is_open)
    }

    /// The home of the instance that has an address.
    pub(super) fn home_at(&self, address: Ipv4Addr) -> Option<Home> {
        if address == self.home.address {
            return Some(self.home.clone());
        }
        self.homes.lock().values().find(|home| home.own && home.address == address).cloned()
    }

    /// The port that took the place of `port` at its own address.
    pub(super) fn actual_port(&self, port: u16) -> u16 {
        self.home.ports.get(&port).copied().unwrap_or(port)
    }
}

impl rules::Instance for Tenant<'_> {
    fn address(&self) -> Ipv4Addr {
        self.home.address
    }

    fn holds(&self, port: u16) -> bool {
        // Bound and not yet listening is nowhere to be asked: whether the descriptor still is that socket tells.
        let held = self.home.held.get(&port);
        held.is_some_and(|holds| holds.iter().rev().any(Hold::is_open) || self.listens(port))
    }

    fn lists_udp(&self, port: u16) -> bool {
        self.home.listed.iter().any(|listed| listed.protocol == Protocol::Udp && listed.number == port)
    }

    fn has_container_port(&self, port: u16) -> bool {
        self.home.container_ports.contains(&port)
    }

    fn meaning_of(&self, address: Ipv4Addr) -> Meaning {
        let is_own = |service: &ServiceName| self.role == Role::Healthcheck && *service == self.home.service;
        if address == self.home.address {
            return Meaning::Own;
        }
        let at = |home: &&Home| home.own && home.address == address;
        if let Some(home) = self.homes.lock().values().find(at) {
            return if is_own(&home.service) { Meaning::Own } else { Meaning::Instance };
        }
        let meanings = self.homes.meanings();
        match meanings.vacancies.get(&address) {
            Some(service) if is_own(service) => Meaning::Own,
            Some(_) => Meaning::Vacancy,
            None if meanings.others.contains(&address) => Meaning::Named,
            None if claim::is_claimed(address.into()) => Meaning::Stranger,
            None => Meaning::Machine,
        }
    }

    fn is_this_machines(&self, address: IpAddr) -> bool {
        // The kernel gives a socket no address that it hasn't.
        UdpSocket::bind((address, 0)).is_ok()
    }
}
