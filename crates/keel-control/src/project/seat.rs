//! The balancer's seat: nginx's files as its container would see them, and its addresses on this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use keel_compose::{Origin, PortMapping, SeatFiles, Service};
use keel_diag::{Diagnostic, Span};
use keel_model::{
    AccessLog, Address, ErrorLog, Listener, LogDestination, Part, Plan, Protocol, Root, Scope, Template,
};

use super::placed::{PlacedFile, image_path};

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

/// Gives the addresses of this host that a mapping publishes a port on; without an address of its own all of them, as
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

/// Gives the port that stands for a port of a balancer at its own address: another one where this user may not bind it.
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

/// Puts every path of a plan where it is on this host. What the container has for itself alone — logs, spool folders —
/// goes below `state`; so does a document root that is no single folder of this host. Gives the files to put there.
pub(super) fn place_paths(plan: &mut Plan, seat: &str, files: &SeatFiles, state: &Path) -> Vec<PlacedFile> {
    let mut place = Placement { seat, files, state, assembled: BTreeSet::new() };
    place.error_logs(&mut plan.process.error_logs);
    if plan.process.error_logs.is_empty() {
        plan.process.error_logs =
            vec![ErrorLog { path: Some(place.log("error")), level: keel_model::LogLevel::Error }];
    }
    for server in &mut plan.servers {
        place.scope(&mut server.scope);
        place.locations(&mut server.locations);
    }
    place.placed()
}

struct Placement<'a> {
    seat: &'a str,
    files: &'a SeatFiles,
    state: &'a Path,
    /// Paths of the container that are no single folder or file of this host.
    assembled: BTreeSet<PathBuf>,
}

impl Placement<'_> {
    fn locations(&mut self, locations: &mut [keel_model::Location]) {
        for location in locations {
            self.scope(&mut location.scope);
            self.locations(&mut location.locations);
        }
    }

    fn scope(&mut self, scope: &mut Scope) {
        match &mut scope.core.root {
            Root::Root(path) | Root::Alias(path) => self.root(path),
        }
        scope.core.client_body_temp_path = self.state.join("spool/client_body");
        scope.proxy.upstream.temp_path = self.state.join("spool/proxy");
        self.error_logs(&mut scope.core.error_logs);
        for log in &mut scope.log.logs {
            self.access_log(log);
        }
    }

    fn root(&mut self, template: &mut Template) {
        if let Some(Part::Literal(path)) = template.parts.first_mut() {
            let trailing = path.ends_with('/') && path.len() > 1;
            let mut placed = self.path(path).to_string_lossy().into_owned();
            if trailing {
                placed.push('/');
            }
            *path = placed;
        }
    }

    fn path(&mut self, container: &str) -> PathBuf {
        let path = Path::new(container);
        match self.files.find(path) {
            Some(Origin::Host(host)) if host.is_file() => return host,
            _ => {}
        }
        if let Some(folder) = self.files.single_folder(path) {
            return folder;
        }
        self.assembled.insert(path.to_owned());
        self.image(path)
    }

    /// Gives where a path of the container is that is nowhere else on this host.
    fn image(&self, path: &Path) -> PathBuf {
        image_path(self.state, self.seat, path)
    }

    fn placed(&self) -> Vec<PlacedFile> {
        let single =
            |path: &PathBuf| if self.files.find(path).is_some() { vec![path.clone()] } else { Vec::new() };
        let below = |path: &PathBuf| {
            let files = self.files.below(path);
            if files.is_empty() { single(path) } else { files }
        };
        let files = self.assembled.iter().flat_map(below);
        files
            .filter_map(|path| Some(PlacedFile { path: self.image(&path), origin: self.files.find(&path)? }))
            .collect()
    }

    fn access_log(&self, log: &mut AccessLog) {
        let placed = match &log.destination {
            LogDestination::File(path) => match path.as_literal() {
                Some(path) if self.files.place(Path::new(path)).is_some() => self.log_file(path),
                _ => self.log("access"),
            },
            LogDestination::Stdout | LogDestination::Stderr => self.log("access"),
        };
        log.destination = LogDestination::File(Template::literal(placed.to_string_lossy()));
    }

    fn error_logs(&self, logs: &mut [ErrorLog]) {
        for log in logs {
            let mounted = log.path.as_ref().filter(|path| self.files.place(path).is_some());
            log.path = Some(
                mounted.map_or_else(|| self.log("error"), |path| self.log_file(&path.to_string_lossy())),
            );
        }
    }

    /// Gives the place of a log in a folder that is mounted.
    fn log_file(&self, container: &str) -> PathBuf {
        self.files.place(Path::new(container)).unwrap_or_else(|| self.image(Path::new(container)))
    }

    /// Where the log goes that the image sends to the container's output.
    fn log(&self, kind: &str) -> PathBuf {
        self.state.join(format!("{}.{kind}.log", self.seat))
    }
}
