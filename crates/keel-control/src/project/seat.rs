//! The balancer's seat: nginx's files as its container would see them, and its addresses on this host.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use keel_compose::{Origin, PortMapping, SeatFiles, Service};
use keel_diag::{Diagnostic, Span};
use keel_model::{Address, Listener, Plan, Protocol};

/// The file system that nginx would see in its container.
pub(super) struct ImageFiles<'a> {
    pub(super) files: &'a SeatFiles,
}

impl keel_nginx::Files for ImageFiles<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.read(path)
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let matches = |pattern: &str, name: &str| {
            glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name))
        };
        self.files.matching(pattern, &matches)
    }

    fn shown(&self, path: &Path) -> PathBuf {
        match self.files.find(path) {
            Some(Origin::Host(host)) => host,
            _ => path.to_owned(),
        }
    }
}

/// Puts every `listen` of a balancer on the addresses that clients use: where it is published, and its own.
/// Notes in `published_at` which line publishes which address.
pub(super) fn place_listeners(
    plan: &mut Plan,
    service: &Service,
    own: Option<IpAddr>,
    published_at: &mut BTreeMap<Address, Span>,
) {
    let mut placed: Vec<Listener> = Vec::new();
    let mut place = |address: Address, listener: &Listener| {
        if placed.iter().all(|other| other.address != address) {
            placed.push(Listener { address, by_local_address: Vec::new(), ..listener.clone() });
        }
    };
    for listener in &plan.listeners {
        let Address::Tcp(declared) = listener.address else {
            place(listener.address.clone(), listener);
            continue;
        };
        for mapping in tcp(service).filter(|mapping| mapping.target == declared.port()) {
            for address in published(mapping) {
                published_at.entry(Address::Tcp(address)).or_insert(mapping.span);
                place(Address::Tcp(address), listener);
            }
        }
        if let Some(own) = own {
            place(Address::Tcp(SocketAddr::new(own, own_port(declared.port()))), listener);
        }
    }
    plan.listeners = placed;
}

fn tcp(service: &Service) -> impl Iterator<Item = &PortMapping> {
    service.ports.iter().filter(|port| port.protocol == Protocol::Tcp)
}

/// Names the published ports on which nobody answers. `closed` has the `listen` directives that are not honoured.
pub(super) fn name_unserved(plan: &Plan, service: &Service, closed: &[String]) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for mapping in tcp(service) {
        let target = mapping.target;
        let is_it = |word: &str| word.rsplit(':').next() == Some(target.to_string().as_str());
        if plan.listeners.iter().any(|listener| listener.declared_port == target) {
            if mapping.published.is_none() {
                diagnostics.push(
                    Diagnostic::error("join::no-published-port", "no port of this host is free for this one")
                        .at(mapping.span, "leaves the choice")
                        .help(format!("write \"8080:{target}\"")),
                );
            }
            continue;
        }
        let is_closed = closed.iter().any(|listen| listen.split_whitespace().any(is_it));
        let label = match is_closed {
            true => format!("published, but its `listen {target}` stays closed"),
            false => format!("published, but nginx's configuration has no `listen {target}`"),
        };
        diagnostics.push(
            Diagnostic::error("join::unused-port", format!("nothing listens on port {target}"))
                .at(mapping.span, label),
        );
    }
    diagnostics
}

/// The addresses of this host that a mapping publishes a port on; without an address of its own all of them, as
/// Docker does.
pub(super) fn published(mapping: &PortMapping) -> Vec<SocketAddr> {
    let Some(port) = mapping.published.map(|range| range.first) else { return Vec::new() };
    match mapping.host_ip {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None => {
            let mut addresses = vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)];
            if Path::new("/proc/net/if_inet6").exists() {
                addresses.push(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
            }
            addresses
        }
    }
}

/// The port that stands for a port of a balancer at its own address: another one where this user may not bind it.
pub(super) fn own_port(port: u16) -> u16 {
    const BESIDE: u16 = 10_000;
    if may_bind(port) { port } else { port.saturating_add(BESIDE) }
}

/// Whether this user may bind a port.
fn may_bind(port: u16) -> bool {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    port >= first_free || rustix::process::geteuid().is_root()
}
