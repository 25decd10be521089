//! The balancer's seat: nginx's files as its container would see them, and its addresses on this host.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use keel_compose::{Origin, PortMapping, SeatFiles, Service};
use keel_diag::{Diagnostic, Span};
use keel_model::{
    AccessLog, Address, ErrorLog, Listener, LogDestination, Part, Plan, Protocol, Root, Scope, Template,
};

/// The file system that nginx would see in its container.
pub(super) struct ImageFiles<'a> {
    pub(super) files: &'a SeatFiles,
}

impl keel_nginx::Files for ImageFiles<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.find(path) {
            Some(Origin::Host(host)) => std::fs::read(host),
            Some(Origin::Text(text)) => Ok(text.into_bytes()),
            // The image's own, unless the project brings one.
            None if path == Path::new("/etc/nginx/nginx.conf") => {
                Ok(keel_nginx::IMAGE_NGINX_CONF.as_bytes().to_vec())
            }
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let (Some(folder), Some(name)) =
            (pattern.parent(), pattern.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let Ok(name) = glob::Pattern::new(name) else { return Vec::new() };
        let matches = |path: &PathBuf| {
            path.file_name()
                .and_then(|file| file.to_str())
                .is_some_and(|file| !file.starts_with('.') && name.matches(file))
        };
        self.files.list(folder).into_iter().filter(matches).collect()
    }

    fn shown(&self, path: &Path) -> PathBuf {
        match self.files.find(path) {
            Some(Origin::Host(host)) => host,
            _ => path.to_owned(),
        }
    }
}

/// Puts every `listen` of the seat on the addresses that clients use: where it is published, and the seat's own.
/// Notes in `published_at` which line publishes which address.
pub(super) fn place_listeners(
    plan: &mut Plan,
    seat: &Service,
    own: Option<IpAddr>,
    published_at: &mut BTreeMap<Address, Span>,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut placed: Vec<Listener> = Vec::new();
    let mut place = |address: SocketAddr, listener: &Listener| {
        let address = Address::Tcp(address);
        if placed.iter().all(|other| other.address != address) {
            placed.push(Listener { address, by_local_address: Vec::new(), ..listener.clone() });
        }
    };
    let tcp: Vec<&PortMapping> = seat.ports.iter().filter(|port| port.protocol == Protocol::Tcp).collect();
    for listener in &plan.listeners {
        let Address::Tcp(declared) = listener.address else { continue };
        for mapping in tcp.iter().filter(|mapping| mapping.target == declared.port()) {
            for address in published(mapping) {
                published_at.entry(Address::Tcp(address)).or_insert(mapping.span);
                place(address, listener);
            }
        }
        if let Some(own) = own.filter(|_| may_bind(declared.port())) {
            place(SocketAddr::new(own, declared.port()), listener);
        }
    }
    for mapping in &tcp {
        let listens = |listener: &Listener| listener.declared_port == mapping.target;
        if !plan.listeners.iter().any(listens) {
            let target = mapping.target;
            diagnostics.push(
                Diagnostic::warning("join::unused-port", format!("nothing listens on port {target}"))
                    .at(mapping.span, format!("published, but nginx.conf has no `listen {target}`")),
            );
        } else if mapping.published.is_none() {
            diagnostics.push(
                Diagnostic::error("join::no-published-port", "no port of this host is free for this one")
                    .at(mapping.span, "leaves the choice")
                    .help(format!("write \"8080:{}\"", mapping.target)),
            );
        }
    }
    plan.listeners = placed;
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

/// Whether this user may bind a port.
fn may_bind(port: u16) -> bool {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    port >= first_free || rustix::process::geteuid().is_root()
}

/// Puts every path of a plan where it is on this host. What the container has for itself alone — logs, spool folders —
/// goes below `state`; a document root that nothing is mounted to is empty.
pub(super) fn place_paths(plan: &mut Plan, seat: &str, files: &SeatFiles, state: &Path) {
    let place = Placement { seat, files, state };
    place.error_logs(&mut plan.process.error_logs);
    if plan.process.error_logs.is_empty() {
        plan.process.error_logs =
            vec![ErrorLog { path: Some(place.log("error")), level: keel_model::LogLevel::Error }];
    }
    for server in &mut plan.servers {
        place.scope(&mut server.scope);
        place.locations(&mut server.locations);
    }
}

struct Placement<'a> {
    seat: &'a str,
    files: &'a SeatFiles,
    state: &'a Path,
}

impl Placement<'_> {
    fn locations(&self, locations: &mut [keel_model::Location]) {
        for location in locations {
            self.scope(&mut location.scope);
            self.locations(&mut location.locations);
        }
    }

    fn scope(&self, scope: &mut Scope) {
        match &mut scope.core.root {
            Root::Root(path) | Root::Alias(path) => self.root(path),
        }
        scope.core.client_body_temp_path = self.state.join("spool/client_body");
        scope.proxy.temp_path = self.state.join("spool/proxy");
        self.error_logs(&mut scope.core.error_logs);
        for log in &mut scope.log.logs {
            self.access_log(log);
        }
    }

    fn root(&self, template: &mut Template) {
        if let Some(Part::Literal(path)) = template.parts.first_mut() {
            let trailing = path.ends_with('/') && path.len() > 1;
            let mut placed = self.path(path).to_string_lossy().into_owned();
            if trailing {
                placed.push('/');
            }
            *path = placed;
        }
    }

    fn path(&self, container: &str) -> PathBuf {
        match self.files.find(Path::new(container)) {
            Some(Origin::Host(host)) => host,
            _ => self.state.join("image").join(container.trim_start_matches('/')),
        }
    }

    fn access_log(&self, log: &mut AccessLog) {
        let placed = match &log.destination {
            LogDestination::File(path) => match path.as_literal() {
                Some(path) if self.files.find(Path::new(path)).is_some() => self.path(path),
                _ => self.log("access"),
            },
            LogDestination::Stdout | LogDestination::Stderr => self.log("access"),
        };
        log.destination = LogDestination::File(Template::literal(placed.to_string_lossy()));
    }

    fn error_logs(&self, logs: &mut [ErrorLog]) {
        for log in logs {
            let mounted = log.path.as_ref().filter(|path| self.files.find(path).is_some());
            log.path =
                Some(mounted.map_or_else(|| self.log("error"), |path| self.path(&path.to_string_lossy())));
        }
    }

    /// Where the log goes that the image sends to the container's output.
    fn log(&self, kind: &str) -> PathBuf {
        self.state.join(format!("{}.{kind}.log", self.seat))
    }
}
