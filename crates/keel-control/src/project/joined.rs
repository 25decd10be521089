//! Both files as one: what runs, and how traffic reaches it.

mod lowered;
mod published_ports;

pub(super) use published_ports::Written;

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use keel_compose::{Project, balancer_seats, is_balancer_seat};
use keel_diag::{Diagnostic, Severity, Sources, Span};
use keel_model::{Address, Driver, DriverChoice, HostPort, Plan, Protocol, Run, Service, ServiceName};
use keel_nginx::{Files, HostFiles, MainSettings};

use self::lowered::{add_balanced_ports, digest, drop_missing_dependencies, lower, seat_as_service};
use super::{
    container::{Publisher, container_spec},
    left_out::{self, LeftOut, left_out},
    merge::append,
    place::{Identity, place},
    process::process_spec,
    published::ChosenPorts,
    readable,
    seat::{name_unserved, place_listeners},
    seats::{self, Balancer, SeatNames},
    texts::SeatTexts,
    tree::Placement,
};
use crate::{
    configuration::{MissingUser, settle_user},
    peers::Binding,
    resolve::{Known, ServiceNames, bind, settle_syslog},
    resolvers::{Surroundings, settle_resolvers},
};

/// Where a project's files are, and the folders that Evenkeel may use.
#[derive(Clone, Debug)]
pub struct ProjectOptions {
    /// Which Compose files.
    pub compose: keel_compose::Options,
    /// Holds a folder for each project: logs, spooled bodies.
    pub state: PathBuf,
    /// Holds what can be made again: virtual environments.
    pub cache: PathBuf,
}

/// What came of reading a project's files.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The texts that the diagnostics point into.
    pub sources: Sources,
    /// Everything that is to be said about them, errors in single services included.
    pub diagnostics: Vec<Diagnostic>,
    /// What can be put into effect; `None` if an error concerns the whole.
    pub joined: Option<Joined>,
}

/// Both files, resolved.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The project's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The Compose files in effect.
    pub files: Vec<PathBuf>,
    /// The data plane's plan; peer sets are empty until instances are known.
    pub plan: Plan,
    /// What each upstream's servers stand for.
    pub bindings: Vec<Binding>,
    /// What is to run.
    pub services: Vec<Service>,
    /// Further names that all instances know (`extra_hosts`).
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Services that no active profile enables, with the number of instances they get when they are started by name.
    pub dormant: BTreeMap<ServiceName, u32>,
    /// Services that an engine would run, if one answered. Those that it runs already stay.
    pub without_engine: Vec<ServiceName>,
    /// Services of the files that a profile enables, or need none, and that aren't run; why is among the diagnostics.
    pub not_run: Vec<ServiceName>,
    /// The balancer's seat, if a service has it.
    pub seat: Option<Seat>,
    /// Other services of nginx that Evenkeel serves: static sites, as a rule.
    pub sites: Vec<Seat>,
    /// Those that can't be served for errors in their files.
    pub faulty_sites: Vec<String>,
    /// Texts of their images that are served.
    pub texts: SeatTexts,
    /// Ports of this host where the files leave the choice.
    pub(super) ports: ChosenPorts,
    /// The folder of sockets that their containers have for themselves.
    pub(super) sockets: PathBuf,
    /// Which line of the Compose file publishes which address.
    pub published_at: BTreeMap<Address, Span>,
    /// The nginx.conf that Evenkeel wrote for published ports, if it did.
    pub written_configuration: Option<String>,
}

/// The balancer's seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The service.
    pub service: String,
    /// Its own loopback address, where instances reach it.
    pub address: Option<IpAddr>,
}

impl Reading {
    /// Whether something in the files can't be run as they say.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|one| one.severity == Severity::Error)
    }
}

impl Joined {
    /// The addresses that clients may use, as they are shown: without the balancers' own.
    pub fn client_addresses(&self) -> Vec<String> {
        let listeners = self.plan.listeners.iter().map(|listener| &listener.address);
        listeners.filter(|address| !self.is_own(address)).map(ToString::to_string).collect()
    }

    /// Whether an address is a balancer's own, which only this project's services use.
    pub fn is_own(&self, address: &Address) -> bool {
        let address = match address {
            Address::Unix(path) => return path.starts_with(&self.sockets),
            Address::Tcp(address) => address,
        };
        self.seat.iter().chain(&self.sites).any(|seat| seat.address == Some(address.ip()))
    }
}

/// A project's Compose files, read; what they name isn't yet.
#[derive(Debug)]
pub struct LoadedFiles<'a> {
    options: &'a ProjectOptions,
    sources: Sources,
    loaded: keel_compose::Loaded,
}

impl ProjectOptions {
    /// Reads the Compose files.
    pub fn load(&self) -> LoadedFiles<'_> {
        let mut sources = Sources::default();
        let loaded = keel_compose::load(&self.compose, &mut sources);
        LoadedFiles { options: self, sources, loaded }
    }

    /// Reads and joins the files.
    pub fn read(&self) -> Reading {
        self.load().join()
    }
}

impl LoadedFiles<'_> {
    /// Reads what the Compose files name, and joins all of it.
    pub fn join(self) -> Reading {
        let Self { options, sources, loaded } = self;
        let mut reading = Reading { sources, diagnostics: loaded.diagnostics, joined: None };
        if let Some(project) = loaded.project.filter(|project| project.sound) {
            let place = place(&project.name, &project.folder);
            let state = options.state.join(&place);
            // Asked once, and only if it matters: one that is silent takes its time.
            let engine = LazyCell::new(keel_engine::answers as fn() -> bool);
            let reader = Joiner {
                project: &project,
                place: &place,
                chosen: ChosenPorts::of(&state),
                state,
                cache: &options.cache,
                reading: &mut reading,
                published_at: BTreeMap::new(),
                balanced: BTreeSet::new(),
                left_out: left_out(&project, || *engine),
                engine: &engine,
            };
            let joined = reader.join();
            reading.joined = joined;
        }
        reading
    }

    /// Says which project is meant, even if much in the files is wrong.
    ///
    /// # Errors
    /// When there is neither a Compose file nor a name.
    pub fn identity(&self) -> io::Result<Identity> {
        let Self { options, loaded, .. } = self;
        let project = loaded.project.as_ref();
        let folder = project.map(|project| &project.folder).or(loaded.likely_folder.as_ref());
        let from_environment = || options.compose.environment.get("COMPOSE_PROJECT_NAME").cloned();
        let given = options.compose.project_name.clone().or_else(from_environment);
        let name = project.map(|project| &project.name).or(loaded.likely_name.as_ref());
        match name.cloned().or(given.filter(|name| !name.is_empty())) {
            Some(name) => Ok(Identity { name, folder: folder.cloned() }),
            None => {
                let first = loaded.diagnostics.iter().find(|one| one.severity == Severity::Error);
                let message =
                    first.map_or_else(|| "no Compose file here".to_owned(), |one| one.message.clone());
                Err(io::Error::new(io::ErrorKind::NotFound, message))
            }
        }
    }
}

/// The configurations of all balancers, joined.
#[derive(Default)]
struct Served {
    /// The seat, then the others that are served.
    seats: Vec<Seat>,
    loaded: Option<(keel_nginx::Configuration, MainSettings)>,
    texts: SeatTexts,
    /// Those that can't be served.
    faulty: Vec<String>,
}

struct Joiner<'a> {
    project: &'a Project,
    place: &'a str,
    state: PathBuf,
    cache: &'a Path,
    reading: &'a mut Reading,
    published_at: BTreeMap<Address, Span>,
    /// The services that nginx.conf names.
    balanced: BTreeSet<ServiceName>,
    /// The services that have only an image and that nobody runs.
    left_out: LeftOut,
    /// Ports of this host where the files leave the choice.
    chosen: ChosenPorts,
    /// Whether a container engine answers.
    engine: &'a LazyCell<bool, fn() -> bool>,
}

impl<'a> Joiner<'a> {
    fn join(mut self) -> Option<Joined> {
        let project = self.project;
        let balancers = self.balancers();
        let has_seat = !balancers.is_empty();
        let served = self.serve(balancers);
        let seat = served.seats.first().cloned();
        let sites: Vec<Seat> = served.seats.iter().skip(1).cloned().collect();
        let names = service_names(project, &served.seats);
        let mut loaded = match has_seat {
            true => served.loaded,
            false => self.read_loose_nginx(),
        };
        let nginx_failed = loaded.is_none() && (has_seat || self.has_loose_nginx());
        self.balanced = balanced(&names, loaded.as_ref());
        let (mut services, dormant) = self.services(&served.seats);
        let extra_hosts = self.extra_hosts(&served.seats);
        let said = left_out::diagnose(project, &self.left_out, |name| self.balanced.contains(name));
        self.reading.diagnostics.extend(said);
        let is_served = |name: &str| served.seats.iter().any(|seat| seat.service == name);
        let nothing_runs = services.iter().all(|service| is_served(&service.name.0))
            && (loaded.is_none() || !self.balanced.is_empty());
        let running: BTreeSet<&ServiceName> =
            services.iter().map(|service| &service.name).filter(|name| !is_served(&name.0)).collect();
        let written_configuration = self.direct_ports(&running, &mut loaded);
        // The causes stand before it.
        if nothing_runs && !nginx_failed {
            let message = "no service can be run here";
            self.reading.diagnostics.push(Diagnostic::error("join::nothing-runs", message));
        }
        let (mut configuration, main) = loaded.filter(|_| !nginx_failed && !nothing_runs)?;
        let known = Known { services: names, resolver: None };
        let (mut bindings, problems) = bind(&configuration.upstreams, &known);
        bindings.iter_mut().for_each(Binding::leave_docker_dns);
        let unknown_name = problems.iter().any(|problem| problem.severity == Severity::Error);
        self.reading.diagnostics.extend(problems);
        let syslog = settle_syslog(&mut configuration.plan, &configuration.syslog_names, &known);
        self.reading.diagnostics.extend(syslog);
        let resolvers = settle_resolvers(&mut configuration.plan, &known, Surroundings::Host);
        self.reading.diagnostics.extend(resolvers);
        settle_user(&mut configuration.plan, &main, MissingUser::MeansNobody);
        self.name_unreadable(&configuration.plan, seat.as_ref());
        if unknown_name {
            return None;
        }
        add_balanced_ports(&mut services, &bindings);
        self.name_what_is_on_this_host(&mut services);
        // Everything is known of them by now.
        services.iter_mut().for_each(|service| service.digest = digest(service));
        let is_run = |name: &str| services.iter().any(|service| service.name.0 == name);
        let enabled = project.services.values().filter(|service| service.enabled);
        let names = enabled.map(|service| service.name.value.clone()).filter(|name| !is_run(name));
        let not_run = names.map(ServiceName).collect();
        Some(Joined {
            not_run,
            name: project.name.clone(),
            folder: project.folder.clone(),
            files: project.files.clone(),
            plan: configuration.plan,
            bindings,
            services,
            extra_hosts,
            dormant,
            without_engine: left_out::without_engine(&self.left_out),
            seat,
            sites,
            faulty_sites: served.faulty,
            texts: served.texts,
            ports: self.chosen,
            sockets: self.state.join(seats::SOCKETS),
            published_at: self.published_at,
            written_configuration,
        })
    }

    /// Warns of files that the data plane's user, if it has one of its own, can't read.
    fn name_unreadable(&mut self, plan: &Plan, seat: Option<&Seat>) {
        let Some(diagnostic) = readable::name_unreadable(plan) else { return };
        let service = seat.and_then(|seat| self.project.services.get(&seat.service));
        self.reading.diagnostics.push(match service {
            Some(service) => diagnostic.at(service.name.span, "such a request is answered with 403"),
            None => diagnostic,
        });
    }

    fn errors(&self) -> usize {
        self.reading.diagnostics.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// Reads what the containers in nginx's seat would; the one whose place Evenkeel takes comes first. Those that the
    /// engine runs are left to it.
    fn balancers(&mut self) -> Vec<Balancer<'a>> {
        let project = self.project;
        let volumes = seats::volume_folders(project);
        let services = balancer_seats(project).into_iter().filter(|service| !service.faulty);
        let answers = self.engine;
        let sources = &mut self.reading.sources;
        let mut found: Vec<Balancer<'a>> =
            services.map(|service| Balancer::read(self.place, service, &volumes, sources)).collect();
        let Some(chosen) = seats::choose(project, &found) else { return Vec::new() };
        let mut balancers = vec![found.remove(chosen)];
        let engine = |service: &keel_compose::Service| match service.driver {
            Driver::Process => false,
            Driver::Docker => service.driver_choice != DriverChoice::Auto || **answers,
        };
        balancers.extend(found.into_iter().filter(|one| !engine(one.service)));
        balancers
    }

    /// Puts the balancers' listeners and paths on this host and joins their configurations.
    fn serve(&mut self, balancers: Vec<Balancer<'a>>) -> Served {
        let all: Vec<&Balancer<'_>> = balancers.iter().collect();
        let places = SeatNames::of(self.project, &all);
        let mut served = Served { texts: SeatTexts::below(&self.state), ..Served::default() };
        for mut balancer in balancers {
            let service = balancer.service;
            self.reading.diagnostics.append(&mut balancer.diagnostics);
            let is_seat = served.seats.is_empty();
            if is_seat {
                served.seats.push(balancer.seat.clone());
            }
            let Some(mut configuration) = balancer.configuration.take() else {
                served.faulty.push(service.name.value.clone());
                continue;
            };
            let settled = self.with_chosen_ports(service);
            let unserved = name_unserved(&configuration.plan, &settled, &balancer.closed);
            self.reading.diagnostics.extend(unserved);
            self.reading.diagnostics.extend(seats::name_udp(service));
            places.settle(&balancer, &mut configuration, &self.state);
            let own = balancer.seat.address;
            place_listeners(&mut configuration.plan, &settled, own, &mut self.published_at);
            let files = &balancer.image.files;
            let placement = Placement { seat: &service.name.value, files: Some(files), state: &self.state };
            placement.apply(&mut configuration.plan, &mut served.texts);
            match &mut served.loaded {
                None if is_seat => {
                    let main = configuration.main.clone();
                    served.loaded = Some((configuration, main));
                }
                // The seat's own errors come first.
                None => continue,
                Some((seat, _)) => {
                    if let Err(diagnostic) = self.add_site(seat, configuration, service) {
                        self.reading.diagnostics.push(*diagnostic);
                        served.faulty.push(service.name.value.clone());
                        continue;
                    }
                    served.seats.push(balancer.seat.clone());
                }
            }
        }
        served
    }

    /// A service as it is published: with a port of this host where the file leaves the choice.
    fn with_chosen_ports(&mut self, service: &keel_compose::Service) -> keel_compose::Service {
        let mut settled = service.clone();
        for mapping in &mut settled.ports {
            if let Some(chosen) = self.chosen.settle(self.project, &service.name.value, mapping) {
                *mapping = chosen;
            }
        }
        settled
    }

    /// Adds another balancer's configuration to the seat's.
    fn add_site(
        &self,
        seat: &mut keel_nginx::Configuration,
        site: keel_nginx::Configuration,
        service: &keel_compose::Service,
    ) -> Result<(), Box<Diagnostic>> {
        let name = &service.name.value;
        let problem = |message: String| {
            Box::new(Diagnostic::error("join::site", message).at(service.name.span, "not served"))
        };
        if let Some(upstream) = seats::clash(seat, &site) {
            let upstream = &upstream.name.0;
            return Err(Box::new(
                problem(format!(
                    "`{name}` isn't served: another configuration has an upstream `{upstream}`, too"
                ))
                .help("give one of the upstreams another name"),
            ));
        }
        let taken = |listener: &keel_model::Listener| {
            seat.plan.listeners.iter().any(|one| one.address == listener.address)
        };
        if let Some(listener) = site.plan.listeners.iter().find(|listener| taken(listener)) {
            let address = &listener.address;
            return Err(Box::new(
                problem(format!("`{name}` isn't served: {address} is published twice"))
                    .help("publish one of them under another port"),
            ));
        }
        append(seat, site).map_err(|error| problem(format!("`{name}` isn't served: {error}")))
    }

    /// Where an nginx.conf lies in the folder although no service has nginx's seat.
    fn loose_nginx(&self) -> PathBuf {
        self.project.folder.join("nginx.conf")
    }

    fn has_loose_nginx(&self) -> bool {
        self.loose_nginx().exists()
    }

    fn read_loose_nginx(&mut self) -> Option<(keel_nginx::Configuration, MainSettings)> {
        let options = keel_nginx::Options {
            prefix: self.project.folder.clone(),
            conf_path: self.loose_nginx(),
            globals: Vec::new(),
        };
        let mut configuration =
            if self.has_loose_nginx() { self.load_nginx(&options, &HostFiles) } else { None }?;
        let main = configuration.main.clone();
        let placement = Placement { seat: "balancer", files: None, state: &self.state };
        placement.apply(&mut configuration.plan, &mut SeatTexts::default());
        Some((configuration, main))
    }

    fn load_nginx(
        &mut self,
        options: &keel_nginx::Options,
        files: &dyn Files,
    ) -> Option<keel_nginx::Configuration> {
        let loaded = keel_nginx::load(options, files, &mut self.reading.sources);
        self.reading.diagnostics.extend(loaded.diagnostics);
        loaded.configuration
    }

    /// Gathers `extra_hosts`. All instances share one `/etc/hosts`, so a name has one meaning for all of them.
    fn extra_hosts(&mut self, seats: &[Seat]) -> Vec<(String, IpAddr)> {
        let mut hosts = BTreeMap::<String, (&str, BTreeSet<IpAddr>)>::new();
        for service in self.project.services.values() {
            let own = &service.name.value;
            // A container has a file of its own.
            if seats.iter().any(|seat| seat.service == *own) || service.driver == Driver::Docker {
                continue;
            }
            for (name, address) in &service.extra_hosts {
                let (of, known) = hosts.entry(name.clone()).or_insert((own, BTreeSet::new()));
                let other = if self.project.services.contains_key(name) {
                    Some(format!("`{name}` is a service, too"))
                } else {
                    let differs = of != own && !known.contains(&address.value);
                    differs.then(|| format!("`{name}` stands for another address in `{of}`"))
                };
                match other {
                    Some(message) => self.reading.diagnostics.push(
                        Diagnostic::error("process::extra-hosts", message)
                            .at(address.span, "instances share the meaning of names")
                            .help("give one of them another name"),
                    ),
                    None => drop(known.insert(address.value)),
                }
            }
        }
        let pairs = hosts.into_iter().flat_map(|(name, (_, addresses))| {
            addresses.into_iter().map(move |address| (name.clone(), address))
        });
        pairs.collect()
    }

    fn services(&mut self, seats: &[Seat]) -> (Vec<Service>, BTreeMap<ServiceName, u32>) {
        let mut services = Vec::new();
        let mut dormant = BTreeMap::new();
        for service in self.project.services.values() {
            let name = ServiceName(service.name.value.clone());
            if let Some(seat) = seats.iter().find(|seat| seat.service == name.0) {
                services.extend(seat_as_service(self.project, service, seat));
                continue;
            }
            // A balancer that Evenkeel doesn't serve is the engine's, or has errors.
            if service.faulty || (is_balancer_seat(service) && service.driver == Driver::Process) {
                continue;
            }
            if self.left_out.contains_key(&name) {
                continue;
            }
            let Some(run) = self.run(service) else { continue };
            let replicas = service.replicas();
            if !service.enabled {
                dormant.insert(name.clone(), replicas);
            }
            let replicas = if service.enabled { replicas } else { 0 };
            let lowered = lower(self.project, service, run, replicas);
            services.push(lowered);
        }
        drop_missing_dependencies(&mut services);
        (services, dormant)
    }

    fn run(&mut self, service: &keel_compose::Service) -> Option<Run> {
        if service.driver == Driver::Docker {
            let spec = container_spec(self.project, service, self.publisher(service));
            return Some(Run::Container(Box::new(spec)));
        }
        let address = service.process.as_ref().and_then(|own| own.address.as_ref());
        match address {
            Some(address) => Some(Run::External(address.value)),
            None => process_spec(self.project, service, self.cache, &mut self.reading.diagnostics)
                .map(Run::Process),
        }
    }

    /// Tells who answers on the ports that a service publishes. What is made elsewhere, runs once and is named in no
    /// nginx.conf may speak anything — it is a database, as a rule —, so its ports are passed through as they are.
    fn publisher(&self, service: &keel_compose::Service) -> Publisher {
        let is_image_only = service.driver == Driver::Docker && service.build.is_none();
        let is_balanced = self.balanced.iter().any(|name| name.0 == service.name.value);
        match is_image_only && service.replicas() <= 1 && !is_balanced {
            true => Publisher::Engine,
            false => Publisher::Evenkeel,
        }
    }

    /// Tells containers what isn't in the engine: its names lead to this host, where each port stands for one service.
    fn name_what_is_on_this_host(&mut self, services: &mut [Service]) {
        let is_container = |service: &&Service| matches!(service.run, Run::Container(_));
        let (inside, outside): (Vec<&Service>, Vec<&Service>) = services.iter().partition(is_container);
        let named = outside.iter().flat_map(|service| {
            std::iter::once(service.name.0.clone()).chain(service.aliases.iter().cloned())
        });
        let names: BTreeSet<String> = named.collect();
        let needs = |name: &ServiceName| {
            inside.iter().find(|one| one.depends_on.iter().any(|dependency| dependency.service == *name))
        };
        // A service that a container depends on gets its port before all others.
        let (needed, others): (Vec<&&Service>, Vec<&&Service>) =
            outside.iter().partition(|service| needs(&service.name).is_some());
        let mut ports = BTreeMap::<u16, ServiceName>::new();
        let mut refused = Vec::new();
        for service in needed.into_iter().chain(others) {
            for port in ports_on_host(service) {
                let holder = ports.entry(port).or_insert_with(|| service.name.clone());
                if let (true, Some(by)) = (*holder != service.name, needs(&service.name)) {
                    refused.push((service.name.clone(), by.name.clone(), port, holder.clone()));
                }
            }
        }
        for (service, by, port, holder) in refused {
            let message = format!("the container `{by}` doesn't reach port {port} of `{service}`");
            let span = self.project.services.get(&service.0).map(|service| service.name.span);
            let diagnostic = Diagnostic::warning("join::one-port", message);
            let label = format!("a local process; for containers, port {port} of this host is `{holder}`'s");
            let diagnostic = span.map_or(diagnostic.clone(), |span| diagnostic.at(span, label));
            self.reading.diagnostics.push(diagnostic.help("run it in the engine, too, or on another port"));
        }
        let ports: Vec<HostPort> =
            ports.into_iter().map(|(port, service)| HostPort { port, service }).collect();
        for service in services {
            if let Run::Container(spec) = &mut service.run {
                spec.names_on_host = names.iter().cloned().collect();
                spec.host_ports.clone_from(&ports);
            }
        }
    }

    fn has_faulty_service(&self) -> bool {
        self.project.services.values().any(|service| service.faulty)
    }
}

/// Collects the names under which services are found: their own, then aliases, which several may share.
fn service_names(project: &Project, seats: &[Seat]) -> ServiceNames {
    let mut names = ServiceNames::new();
    let is_seat =
        |service: &keel_compose::Service| seats.iter().any(|seat| seat.service == service.name.value);
    let services = || project.services.values().filter(|service| !is_seat(service));
    for service in services() {
        let name = ServiceName(service.name.value.clone());
        names.insert(service.name.value.to_ascii_lowercase(), vec![name]);
    }
    for service in services() {
        for alias in service.aliases() {
            let named = names.entry(alias.to_ascii_lowercase()).or_default();
            let name = ServiceName(service.name.value.clone());
            let is_service = project.services.contains_key(alias);
            if !is_service && !named.contains(&name) {
                named.push(name);
            }
        }
    }
    // What Compose calls the containers.
    for service in services().filter(|service| service.container_name.is_none()) {
        for ordinal in 1..=service.replicas().max(1) {
            for between in ["-", "_"] {
                let container = format!("{}{between}{}{between}{ordinal}", project.name, service.name.value);
                let name = ServiceName(service.name.value.clone());
                names.entry(container.to_ascii_lowercase()).or_insert_with(|| vec![name]);
            }
        }
    }
    names
}

/// The TCP ports under which what runs on this host is reached.
fn ports_on_host(service: &Service) -> Vec<u16> {
    match &service.run {
        Run::External(address) => vec![address.port()],
        Run::Process(_) | Run::Container(_) => {
            let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            tcp.map(|port| port.number).collect()
        }
    }
}

/// The services that an nginx.conf names.
fn balanced(
    names: &ServiceNames,
    loaded: Option<&(keel_nginx::Configuration, MainSettings)>,
) -> BTreeSet<ServiceName> {
    let upstreams = loaded.into_iter().flat_map(|(configuration, _)| &configuration.upstreams);
    let hosts = upstreams.flat_map(|upstream| &upstream.servers).filter_map(|server| match &server.address {
        keel_nginx::ServerAddress::Name { host, .. } => names.get(&host.to_ascii_lowercase()),
        _ => None,
    });
    hosts.flatten().cloned().collect()
}
