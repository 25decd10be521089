//! Where each life lives and what it holds there; shared with the thread that answers trapped calls.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use keel_model::Protocol;
use keel_sys::sock_diag::SockDiag;

use super::rules;
use crate::supervisor::Incarnation;

/// Where one life lives.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) address: Ipv4Addr,
    /// The ports that the file lists.
    pub(super) listed: Vec<keel_model::Port>,
    /// Which port took the place of which.
    pub(super) ports: BTreeMap<u16, u16>,
    /// Stream ports that were bound, by the port asked for.
    held: BTreeMap<u16, Hold>,
    /// Whether the address is its own. Otherwise it is on 127.0.0.1 and serves `$PORT`.
    pub(super) own: bool,
}

/// A socket that was bound for a process of the instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) process: i32,
    pub(super) descriptor: i32,
    pub(super) inode: u64,
}

impl Home {
    pub(super) fn new(address: Ipv4Addr, listed: Vec<keel_model::Port>) -> Self {
        Self { address, listed, ports: BTreeMap::new(), held: BTreeMap::new(), own: true }
    }

    /// A home on the host's own loopback address, behind another port than the one listed.
    pub(super) fn shared(listed: Vec<keel_model::Port>, port: u16) -> Self {
        let first = first_tcp(&listed);
        let ports = first.map(|first| (first, port)).into_iter().collect();
        Self { ports, own: false, ..Self::new(Ipv4Addr::LOCALHOST, listed) }
    }

    /// Gives the port that it is ready on, once that listens.
    pub(super) fn ready_at(&self) -> Option<SocketAddr> {
        let port = first_tcp(&self.listed)?;
        Some(SocketAddr::from((self.address, self.ports.get(&port).copied().unwrap_or(port))))
    }

    /// Gives its ports as a person reads them.
    pub(super) fn shown(&self) -> Vec<String> {
        let protocol = |port: &keel_model::Port| if port.protocol == Protocol::Udp { "/udp" } else { "" };
        let actual = |port: &keel_model::Port| match self.ports.get(&port.number) {
            Some(actual) => format!(" (as {actual})"),
            None => String::new(),
        };
        self.listed.iter().map(|port| format!("{}{}{}", port.number, protocol(port), actual(port))).collect()
    }
}

/// Gives the first TCP port of a list: `$PORT`.
pub(crate) fn first_tcp(listed: &[keel_model::Port]) -> Option<u16> {
    listed.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.number)
}

/// All homes.
#[derive(Debug, Default)]
pub(super) struct Homes(Mutex<BTreeMap<Incarnation, Home>>);

impl Homes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Home>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Notes that a stream port was bound; `actual` where it became another one.
    pub(super) fn hold(&self, incarnation: Incarnation, port: u16, hold: Hold, actual: Option<u16>) {
        if let Some(home) = self.lock().get_mut(&incarnation) {
            home.held.insert(port, hold);
            match actual {
                Some(actual) => drop(home.ports.insert(port, actual)),
                None => drop(home.ports.remove(&port)),
            }
        }
    }

    /// Gives what the rules ask about, as it is now.
    pub(super) fn view(&self, incarnation: Incarnation) -> Option<Tenant<'_>> {
        let home = self.get(incarnation)?;
        Some(Tenant { homes: self, home })
    }
}

/// One life as the rules see it.
#[derive(Debug)]
pub(super) struct Tenant<'a> {
    homes: &'a Homes,
    pub(super) home: Home,
}

impl Tenant<'_> {
    /// Whether a socket listens at a port of its own address.
    pub(super) fn listens(&self, port: u16) -> bool {
        let port = self.home.ports.get(&port).copied().unwrap_or(port);
        let address = SocketAddr::from((self.home.address, port));
        SockDiag::open().and_then(|mut diag| diag.listeners_at(address)).is_ok_and(|found| !found.is_empty())
    }
}

impl rules::Instance for Tenant<'_> {
    fn address(&self) -> Ipv4Addr {
        self.home.address
    }

    fn holds(&self, port: u16) -> bool {
        // Bound and not yet listening is nowhere to be asked: whether the descriptor still is that socket tells.
        let bound = |hold: &Hold| {
            let path = format!("/proc/{}/fd/{}", hold.process, hold.descriptor);
            let link = std::fs::read_link(path).unwrap_or_default();
            link.to_string_lossy() == format!("socket:[{}]", hold.inode)
        };
        self.home.held.get(&port).is_some_and(|hold| bound(hold) || self.listens(port))
    }

    fn lists_udp(&self, port: u16) -> bool {
        self.home.listed.iter().any(|listed| listed.protocol == Protocol::Udp && listed.number == port)
    }

    fn actual_port(&self, address: Ipv4Addr, port: u16) -> Option<u16> {
        if address == self.home.address {
            return self.home.ports.get(&port).copied();
        }
        let homes = self.homes.lock();
        homes.values().find(|home| home.own && home.address == address)?.ports.get(&port).copied()
    }
}
