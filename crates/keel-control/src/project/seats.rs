//! The services in nginx's seat: which of several has it, what their containers would read, and what names mean there.
//!
//! Evenkeel takes the place of the one that proxies to other services. The others are static sites for the most part:
//! Evenkeel serves them, too, each under its own name and ports, unless the container engine runs them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Component, Path, PathBuf},
};

use keel_compose::{ImageTexts, MountSource, Project, SeatImage, Service, is_named_seat};
use keel_diag::{Diagnostic, Sources, Span};
use keel_model::{Address, Driver, Peer, Protocol, Upstream};
use keel_nginx::{Configuration, ServerAddress, ServerEntry, UpstreamSource};

use super::{
    joined::Seat,
    process::path_map,
    seat::{ImageFiles, own_port},
};

/// The folder of a project's state that has the sockets which containers have for themselves.
pub(super) const SOCKETS: &str = "sockets";

/// A service in nginx's seat and what its container would read.
pub(super) struct Balancer<'a> {
    pub(super) service: &'a Service,
    pub(super) seat: Seat,
    pub(super) image: SeatImage,
    /// `None` if its configuration has errors.
    pub(super) configuration: Option<Configuration>,
    /// What is to be said about all of it, causes first.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The `listen` directives that stay closed, as written.
    pub(super) closed: Vec<String>,
    /// Whether the files that could be read have something of a proxy, or none could.
    may_proxy: bool,
}

impl<'a> Balancer<'a> {
    /// Reads what the service's container would.
    pub(super) fn read(
        place: &str,
        service: &'a Service,
        volumes: &BTreeMap<String, PathBuf>,
        sources: &mut Sources,
    ) -> Self {
        let texts = ImageTexts {
            main: keel_nginx::IMAGE_NGINX_CONF,
            site: keel_nginx::IMAGE_DEFAULT_CONF,
            page: keel_nginx::IMAGE_PAGE,
            error_page: keel_nginx::IMAGE_ERROR_PAGE,
        };
        let mut image = SeatImage::of(service, texts, volumes);
        let options = keel_nginx::Options {
            prefix: image.invocation.prefix.clone(),
            conf_path: image.invocation.conf_path.clone(),
            globals: image.invocation.globals.clone(),
        };
        let loaded = keel_nginx::load(&options, &ImageFiles { files: &image.files }, sources);
        let is_closed =
            |found: &&Diagnostic| matches!(found.code, "nginx::unsupported-tls" | "nginx::unsupported-quic");
        let labels = loaded.diagnostics.iter().filter(is_closed).flat_map(|found| &found.labels);
        let written =
            |label: &keel_diag::Label| directive_around(sources.text(label.span.source), label.span);
        let closed = labels.map(written).collect();
        let mut texts = loaded.dump.iter().map(|(_, text)| text);
        let may_proxy = loaded.dump.is_empty() || texts.any(|text| text.contains("_pass"));
        let mut diagnostics = std::mem::take(&mut image.diagnostics);
        diagnostics.extend(loaded.diagnostics);
        let name = &service.name.value;
        let seat = Seat { service: name.clone(), address: keel_runner::seat_address(place, name) };
        Self { service, seat, image, configuration: loaded.configuration, diagnostics, closed, may_proxy }
    }

    /// Whether a `server` line or `proxy_pass` names another service. A configuration with errors that may be the
    /// balancer's is: no other service takes its place, and its errors decide.
    fn proxies(&self, project: &Project) -> bool {
        let Some(configuration) = &self.configuration else { return self.may_proxy };
        let upstreams = configuration.upstreams.iter();
        let mut names =
            upstreams.flat_map(|upstream| &upstream.servers).filter_map(|server| match &server.address {
                ServerAddress::Name { host, .. } => Some(host),
                ServerAddress::Ip(_) | ServerAddress::Unix(_) => None,
            });
        let own = &self.service.name.value;
        names.any(|name| project.service_named(name).is_some_and(|found| found.name.value != *own))
    }
}

/// The directive that a place stands in.
fn directive_around(text: &str, span: Span) -> String {
    let (start, end) = (span.start as usize, span.end as usize);
    let before = text.get(..start).and_then(|before| before.rfind([';', '{', '}']));
    let after = text.get(end..).and_then(|after| after.find(';'));
    let whole = before.map_or(0, |at| at + 1)..after.map_or(text.len(), |at| end + at);
    text.get(whole).unwrap_or_default().trim().to_owned()
}

/// Chooses who has the seat: the one whose label says so, else the one that proxies to other services, else the first that
/// publishes a port. Gives its index.
pub(super) fn choose(project: &Project, balancers: &[Balancer<'_>]) -> Option<usize> {
    let rank = |(at, one): &(usize, &Balancer<'_>)| {
        let proxies = one.proxies(project);
        let publishes = !one.service.ports.is_empty();
        (is_named_seat(one.service), proxies && publishes, proxies, publishes, std::cmp::Reverse(*at))
    };
    balancers.iter().enumerate().max_by_key(rank).map(|(at, _)| at)
}

/// Finds the folders of this host that named volumes are: where a process that mounts one has a folder of this project.
pub(super) fn volume_folders(project: &Project) -> BTreeMap<String, PathBuf> {
    let mut folders = BTreeMap::new();
    let processes = project.services.values().filter(|service| {
        service.driver == Driver::Process && (service.dockerfile.is_some() || service.process.is_some())
    });
    for service in processes {
        let map = path_map(service, &mut Vec::new());
        for mount in &service.volumes {
            if let MountSource::Named(name) = &mount.source
                && let Some(folder) = map.map(&mount.target)
            {
                folders.entry(name.clone()).or_insert(folder);
            }
        }
    }
    folders
}

/// What names mean in the containers of balancers, beside the services that have instances.
#[derive(Debug, Default)]
pub(super) struct SeatNames {
    /// Balancers that Evenkeel serves, by each of their names.
    served: BTreeMap<String, IpAddr>,
    /// Services that are found somewhere, by each of their names.
    elsewhere: BTreeMap<String, SocketAddr>,
}

impl SeatNames {
    pub(super) fn of(project: &Project, served: &[&Balancer<'_>]) -> Self {
        let names = |service: &Service| -> Vec<String> {
            let all = std::iter::once(service.name.value.as_str()).chain(service.aliases());
            all.map(str::to_ascii_lowercase).collect()
        };
        let mut places = Self::default();
        for one in served {
            let Some(address) = one.seat.address else { continue };
            for name in names(one.service) {
                places.served.entry(name).or_insert(address);
            }
        }
        for service in project.services.values().filter(|service| service.driver == Driver::Process) {
            let Some(address) = service.process.as_ref().and_then(|own| own.address.as_ref()) else {
                continue;
            };
            for name in names(service) {
                places.elsewhere.entry(name).or_insert(address.value);
            }
        }
        places
    }

    /// Puts addresses in place of the names that have some, in one balancer's configuration.
    pub(super) fn settle(&self, balancer: &Balancer<'_>, configuration: &mut Configuration, state: &Path) {
        let ports: Vec<u16> =
            configuration.plan.listeners.iter().map(|listener| listener.declared_port).collect();
        for upstream in &mut configuration.upstreams {
            let servers = std::mem::take(&mut upstream.servers);
            upstream.servers =
                servers.into_iter().flat_map(|server| self.server(balancer, server, &ports, state)).collect();
        }
        for listener in &mut configuration.plan.listeners {
            if let Address::Unix(path) = &mut listener.address {
                *path = socket_place(balancer, path, state);
            }
        }
    }

    fn server(
        &self,
        balancer: &Balancer<'_>,
        server: ServerEntry,
        ports: &[u16],
        state: &Path,
    ) -> Vec<ServerEntry> {
        let at = |address: SocketAddr| ServerEntry { address: ServerAddress::Ip(address), ..server.clone() };
        match &server.address {
            ServerAddress::Unix(path) => {
                let address = ServerAddress::Unix(socket_place(balancer, path, state));
                vec![ServerEntry { address, ..server }]
            }
            // Its own loopback is its own address here.
            ServerAddress::Ip(address) if address.ip().is_loopback() && ports.contains(&address.port()) => {
                match balancer.seat.address.filter(|_| !shares_network(balancer.service)) {
                    Some(own) => vec![at(SocketAddr::new(own, own_port(address.port())))],
                    None => vec![server],
                }
            }
            ServerAddress::Ip(_) => vec![server],
            ServerAddress::Name { host, port } => {
                let host = host.to_ascii_lowercase();
                let given =
                    balancer.service.extra_hosts.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&host));
                let given: Vec<ServerEntry> =
                    given.map(|(_, address)| at(SocketAddr::new(address.value, *port))).collect();
                if !given.is_empty() {
                    return given;
                }
                let own = balancer.seat.address.filter(|_| host == "localhost" && ports.contains(port));
                let served = self.served.get(&host).copied().or(own);
                if let Some(address) = served {
                    return vec![at(SocketAddr::new(address, own_port(*port)))];
                }
                match self.elsewhere.get(&host) {
                    Some(address) => vec![at(*address)],
                    None => vec![server],
                }
            }
        }
    }
}

fn shares_network(service: &Service) -> bool {
    service.network_mode.as_ref().is_some_and(|mode| mode.value == "host")
}

/// Where a path of a balancer's container is that is nowhere else on this host: a socket's. `..` ends at the
/// container's root.
fn own_path(state: &Path, seat: &str, path: &Path) -> PathBuf {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => drop(below.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    state.join(SOCKETS).join(seat).join(below)
}

/// The place of a socket: in the folder of this host that is mounted there, else in one of Evenkeel's own.
fn socket_place(balancer: &Balancer<'_>, path: &Path, state: &Path) -> PathBuf {
    let name = &balancer.service.name.value;
    balancer.image.files.place(path).unwrap_or_else(|| own_path(state, name, path))
}

/// Finds a conflict with the seat's configuration: an upstream of the same name with other settings.
pub(super) fn clash<'c>(
    configuration: &Configuration,
    added: &'c Configuration,
) -> Option<&'c UpstreamSource> {
    let old: Vec<_> = configuration.plan.upstreams.iter().zip(&configuration.upstreams).collect();
    let mut new = added.plan.upstreams.iter().zip(&added.upstreams);
    // Their servers with all parameters, but not where they are written.
    let servers = |source: &UpstreamSource| -> Vec<(ServerAddress, Peer, bool, Option<String>)> {
        let servers = source.servers.iter();
        servers
            .map(|server| {
                (server.address.clone(), server.peer.clone(), server.resolve, server.port_name.clone())
            })
            .collect()
    };
    let differs = |(upstream, source): &(&Upstream, &UpstreamSource)| {
        old.iter().any(|(known, known_source)| {
            known.name == upstream.name && (known != upstream || servers(known_source) != servers(source))
        })
    };
    new.find(differs).map(|(_, source)| source)
}

/// Names the published ports that are not for TCP: HTTP/3 is not there yet.
pub(super) fn name_udp(service: &Service) -> impl Iterator<Item = Diagnostic> {
    let udp = service.ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.map(|mapping| {
        let message = format!("port {}/udp stays closed: HTTP/3 is not there yet", mapping.target);
        Diagnostic::warning("join::unused-port", message)
            .at(mapping.span, "clients use HTTP/1.1 over TCP instead")
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::{super::ProjectOptions, *};

    /// All that is said about a folder's files, with the labels' texts.
    fn says(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let options = ProjectOptions {
            compose: keel_compose::Options {
                folder: folder.path().into(),
                ..keel_compose::Options::default()
            },
            state: folder.path().join("state"),
            cache: folder.path().join("cache"),
        };
        let reading = options.read();
        let mut said = String::new();
        for one in &reading.diagnostics {
            // Writing to a String can't fail.
            _ = writeln!(said, "{:?}[{}]: {}", one.severity, one.code, one.message);
            for label in &one.labels {
                let place = reading.sources.text(label.span.source);
                let place = place.get(label.span.start as usize..label.span.end as usize).unwrap_or_default();
                _ = writeln!(said, "  `{place}`: {}", label.text);
            }
            one.help.iter().for_each(|help| _ = writeln!(said, "  help: {help}"));
        }
        said.replace(&folder.path().display().to_string(), "FOLDER")
    }

    const WORKER: &str = "services:\n  app: {build: {dockerfile_inline: FROM a}, command: sleep 9";

    #[test]
    fn a_socket_stays_in_its_folder() {
        let check = |path: &str, expect: &str| {
            assert_eq!(own_path(Path::new("/s"), "web", Path::new(path)), Path::new(expect), "{path}");
        };
        check("/run/a.sock", "/s/sockets/web/run/a.sock");
        check("/../../etc", "/s/sockets/web/etc");
        check("/a/../b", "/s/sockets/web/b");
    }

    #[test]
    fn causes_come_first_and_each_kind_once() {
        let two = format!(
            "{WORKER}, depends_on: [db]}}\n  db: {{image: postgres, ports: ['5432:5432']}}\n  cache: {{image: redis}}\n"
        );
        insta::assert_snapshot!(says(&[("compose.yaml", &two)]), @r"
        Error[process::image-only]: `cache`, `db` have only an image, so they aren't run
          `redis`: meant for a container
          `postgres`: meant for a container; `app` will miss it; port 5432 isn't opened for it
          help: a container engine runs it with `evenkeel up --driver auto`, or `x-driver: auto` in the file
          help: or say where it is found, or what runs on this host instead:
            cache:
              x-process:
                address: 127.0.0.1:5432      # or `command: ...`
        ");
        insta::assert_snapshot!(says(&[("compose.yaml", "services: {a: {image: x, command: rm -rf /}}")]), @r"
        Warning[process::image-only]: `a` has only an image, so it isn't run
          `x`: meant for a container
          help: a container engine runs it with `evenkeel up --driver auto`, or `x-driver: auto` in the file
          help: or say where it is found, or what runs on this host instead:
            a:
              x-process:
                address: 127.0.0.1:5432      # or `command: ...`
        Error[join::nothing-runs]: no service can be run here
        ");
    }

    #[test]
    fn a_published_port_that_nobody_serves_is_an_error() {
        let seat = format!(
            "{WORKER}}}\n  lb: {{image: nginx, ports: ['80:80', '443:443', '9:8080'], volumes: ['./d.conf:/etc/nginx/conf.d/default.conf']}}\n"
        );
        let conf = "server { listen 80; listen 443 quic; location / { proxy_pass http://app:1; } }";
        insta::assert_snapshot!(says(&[("compose.yaml", &seat), ("d.conf", conf)]), @r"
        Warning[nginx::unsupported-quic]: HTTP/3 is not there yet; `443` stays closed
          `quic`: nothing listens here
        Error[join::unused-port]: nothing listens on port 443
          `'443:443'`: published, but its `listen 443` stays closed
        Error[join::unused-port]: nothing listens on port 8080
          `'9:8080'`: published, but nginx's configuration has no `listen 8080`
        ");
    }

    #[test]
    fn what_is_not_run_in_the_balancers_place_is_named() {
        let seat = |command: &str| {
            format!("{WORKER}}}\n  lb:\n    image: nginx\n    ports: ['80:80']\n    command: {command}\n")
        };
        insta::assert_snapshot!(says(&[("compose.yaml", &seat("[sh, -c, 'make-conf > /x; wait-for-it app:1; nginx']"))]), @r"
        Warning[join::command-waits]: `wait-for-it app:1` isn't run in the balancer's place
          `[sh, -c, 'make-conf > /x; wait-for-it app:1; nginx']`: it waits for others, or reloads now and then
          help: requests wait for instances by themselves; `evenkeel reload` reads files again
        Error[join::command-not-run]: `make-conf > /x` isn't run in the balancer's place
          `[sh, -c, 'make-conf > /x; wait-for-it app:1; nginx']`: nothing is run there: what it would change stays unchanged
          help: write what it makes into a file and mount that
        ");
        assert_eq!(says(&[("compose.yaml", &seat("nginx -g 'daemon off;'"))]), "");
    }
}
