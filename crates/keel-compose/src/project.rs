//! What a Compose project says, typed and resolved, each value with its place.
//!
//! This mirrors the files, not the way anything is run: mapping paths to this host and choosing a driver are
//! `keel-control`'s. What the specification leaves to defaults is answered by methods here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use indexmap::IndexMap;
use keel_diag::Span;
use keel_model::{
    Confinement, DependencyCondition, Driver, DriverChoice, Port, Protocol, RestartCondition, RestartPolicy,
    Stop,
};

use crate::{
    Dockerfile, Spanned,
    healthcheck::{HealthTest, Healthcheck},
    ports::PortMapping,
};

/// A project: all its files joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Its name, lower case.
    pub name: String,
    /// The folder that relative paths start from: the first file's. Absolute.
    pub folder: PathBuf,
    /// The files it was read from, in the order they were merged. Absolute.
    pub files: Vec<PathBuf>,
    /// The services in the files' order, disabled ones included.
    pub services: IndexMap<String, Service>,
    /// The networks declared at top level.
    pub networks: IndexMap<String, Network>,
    /// The named volumes declared at top level.
    pub volumes: IndexMap<String, NamedVolume>,
    /// The configs declared at top level.
    pub configs: IndexMap<String, Config>,
    /// The secrets declared at top level.
    pub secrets: IndexMap<String, Config>,
    /// The variables that `${...}` saw: .env below the shell's.
    pub variables: BTreeMap<String, String>,
    /// The profiles that are active.
    pub profiles: Vec<String>,
    /// What chooses the driver of services that don't say: `--driver`, else `x-driver` at top level.
    pub driver: DriverChoice,
    /// Whether no error concerns the project as a whole. Errors within one service are [`Service::faulty`].
    pub sound: bool,
}

impl Project {
    /// Whether an instance of another service is called, or may be called, as this service is. Then all instances
    /// of this one are numbered, so that no two ever share a name.
    pub fn has_namesake(&self, service: &Service) -> bool {
        let name = service.name.value.as_str();
        let may_be_called_so = |other: &Service| match &other.container_name {
            Some(container) => container.value == name,
            None => number_after(name, &other.name.value).is_some(),
        };
        self.services.values().any(|other| other.name.value != name && may_be_called_so(other))
    }

    /// Finds a service by its name, one of its aliases, its container name or its host name, in this order.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        let by = |has: fn(&Service, &str) -> bool| self.services.values().find(|service| has(service, name));
        self.services.get(name).or_else(|| by(|service, name| service.aliases().any(|alias| alias == name)))
    }
}

/// A network declared at top level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where its key stands.
    pub span: Span,
    /// Its own name, where one is given.
    pub name: Option<Spanned<String>>,
    /// Whether it is made by somebody else.
    pub external: bool,
}

/// A volume declared at top level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedVolume {
    /// Where its key stands.
    pub span: Span,
    /// Its own name, where one is given.
    pub name: Option<Spanned<String>>,
    /// Whether it is made by somebody else.
    pub external: bool,
}

/// A config or secret declared at top level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where its key stands.
    pub span: Span,
    /// Where its content is; `None` for one made by somebody else.
    pub origin: Option<Origin>,
}

/// Where the content of a file in a container comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file or folder of this host. Absolute.
    Host(PathBuf),
    /// Text that stands in the Compose file, a variable or a Dockerfile.
    Text(String),
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name; the place is its key's.
    pub name: Spanned<String>,
    /// Whether one of its profiles is active, or it has none.
    pub enabled: bool,
    /// Whether an error concerns it: it can't be run as it is, the others can.
    pub faulty: bool,
    /// `image`.
    pub image: Option<Spanned<String>>,
    /// `build`.
    pub build: Option<Build>,
    /// Its Dockerfile's final stage, where `build` leads to one that could be read.
    pub dockerfile: Option<Dockerfile>,
    /// `command`, split into words; empty where the file clears the image's.
    pub command: Option<Spanned<Vec<String>>>,
    /// `entrypoint`, split into words; empty where the file clears the image's.
    pub entrypoint: Option<Spanned<Vec<String>>>,
    /// `env_file` and then `environment`, resolved.
    pub environment: IndexMap<String, Spanned<String>>,
    /// The files of `env_file` that were read. Absolute.
    pub env_files: Vec<PathBuf>,
    /// `working_dir`.
    pub working_dir: Option<Spanned<String>>,
    /// `ports`, ranges spread.
    pub ports: Vec<PortMapping>,
    /// `expose`, ranges spread.
    pub expose: Vec<Spanned<Port>>,
    /// `depends_on`, and what `links` implies.
    pub depends_on: Vec<DependsOn>,
    /// `healthcheck`.
    pub healthcheck: Option<Healthcheck>,
    /// `restart`.
    pub restart: Option<Spanned<RestartPolicy>>,
    /// `deploy.restart_policy`; counts where `restart` is not given.
    pub deploy_restart: Option<Spanned<RestartPolicy>>,
    /// `deploy.replicas`.
    pub deploy_replicas: Option<Spanned<u32>>,
    /// `deploy.update_config`.
    pub deploy_update: Option<UpdateConfig>,
    /// Where `deploy.mode: global` stands.
    pub deploy_global: Option<Span>,
    /// `deploy.resources.reservations`.
    pub reservations: Reservations,
    /// `scale`.
    pub scale: Option<Spanned<u32>>,
    /// `stop_signal` as a number.
    pub stop_signal: Option<Spanned<i32>>,
    /// `stop_grace_period`.
    pub stop_grace_period: Option<Spanned<Duration>>,
    /// `container_name`.
    pub container_name: Option<Spanned<String>>,
    /// `hostname`.
    pub hostname: Option<Spanned<String>>,
    /// `network_mode`.
    pub network_mode: Option<Spanned<String>>,
    /// `networks` with the aliases in each.
    pub networks: IndexMap<String, NetworkAttachment>,
    /// Names that other services gave it with `links`.
    pub link_aliases: Vec<Spanned<String>>,
    /// `extra_hosts`: names and what they stand for, `host-gateway` being this host.
    pub extra_hosts: Vec<(String, Spanned<IpAddr>)>,
    /// `volumes`.
    pub volumes: Vec<Mount>,
    /// `configs`.
    pub configs: Vec<ConfigMount>,
    /// `secrets`.
    pub secrets: Vec<ConfigMount>,
    /// `profiles`.
    pub profiles: Vec<Spanned<String>>,
    /// `labels`.
    pub labels: IndexMap<String, Spanned<String>>,
    /// What runs its instances: `--driver`, else its `x-driver`, else the top level's.
    pub driver: Driver,
    /// The choice that this follows from.
    pub driver_choice: DriverChoice,
    /// Names of `extra_hosts` that stand for `host-gateway`.
    pub gateway_hosts: Vec<String>,
    /// `user`.
    pub user: Option<Spanned<String>>,
    /// Limits and rights, for a container.
    pub confinement: Confinement,
    /// `x-process`.
    pub process: Option<Process>,
}

/// The number of an instance of this service that has this name: 2 of `app-2`.
pub(crate) fn number_after(name: &str, service: &str) -> Option<u32> {
    let number = name.strip_prefix(service)?.strip_prefix('-')?;
    number.parse().ok().filter(|_| !number.starts_with(['0', '+']))
}

impl Service {
    /// How many instances should run: `scale`, else `deploy.replicas`, else 1.
    pub fn replicas(&self) -> u32 {
        self.scale.as_ref().or(self.deploy_replicas.as_ref()).map_or(1, |count| count.value)
    }

    /// Every further name it is found under: network aliases, links, container name, host name.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        let networks = self.networks.values().flat_map(|network| &network.aliases);
        networks
            .chain(&self.link_aliases)
            .chain(&self.container_name)
            .chain(&self.hostname)
            .map(|name| name.value.as_str())
    }

    /// What happens when an instance ends by itself: `restart`, else `deploy.restart_policy`, else nothing.
    pub fn restart_policy(&self) -> RestartPolicy {
        let given = self.restart.as_ref().or(self.deploy_restart.as_ref());
        given.map_or(NEVER, |policy| policy.value.clone())
    }

    /// How an instance is told to end; the Dockerfile's STOPSIGNAL counts where the file has none.
    pub fn stop(&self) -> Stop {
        const SIGTERM: i32 = 15;
        let built = self.dockerfile.as_ref().and_then(|dockerfile| dockerfile.stop_signal.as_ref());
        let signal = self.stop_signal.as_ref().or(built).map_or(SIGTERM, |signal| signal.value);
        let grace_period =
            self.stop_grace_period.as_ref().map_or(Duration::from_secs(10), |period| period.value);
        Stop { signal, grace_period }
    }

    /// Its healthcheck, fields that the file leaves out taken from the Dockerfile's HEALTHCHECK and then from the
    /// specification's defaults. `None` where there is none or it is disabled.
    pub fn effective_healthcheck(&self) -> Option<keel_model::Healthcheck> {
        let built = self.dockerfile.as_ref().and_then(|dockerfile| dockerfile.healthcheck.as_ref());
        let own = self.healthcheck.as_ref();
        let layers = [own, built];
        let layers = || layers.into_iter().flatten();
        let argv = layers().find_map(|check| check.test.as_ref()).and_then(HealthTest::argv)?;
        let pick = |field: fn(&Healthcheck) -> Option<Duration>, seconds: u64| {
            layers().find_map(field).filter(|d| !d.is_zero()).unwrap_or(Duration::from_secs(seconds))
        };
        Some(keel_model::Healthcheck {
            argv,
            interval: pick(|check| check.interval, 30),
            timeout: pick(|check| check.timeout, 30),
            retries: layers().find_map(|check| check.retries).filter(|n| *n > 0).unwrap_or(3),
            start_period: pick(|check| check.start_period, 0),
            start_interval: layers().find_map(|check| check.start_interval).filter(|d| !d.is_zero()),
        })
    }

    /// The ports an instance listens on, as far as the files tell: the targets of `ports`, then `expose`, then the
    /// Dockerfile's EXPOSE, each once.
    pub fn container_ports(&self) -> Vec<Port> {
        let built = self.dockerfile.iter().flat_map(|dockerfile| &dockerfile.expose);
        let mapped =
            self.ports.iter().map(|mapping| Port { number: mapping.target, protocol: mapping.protocol });
        let mut ports = Vec::new();
        for port in mapped.chain(self.expose.iter().chain(built).map(|port| port.value)) {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    /// Whether the file itself, not only the image, names a TCP port of the service.
    pub fn declares_tcp_port(&self) -> bool {
        let mapped = self.ports.iter().map(|mapping| mapping.protocol);
        mapped
            .chain(self.expose.iter().map(|port| port.value.protocol))
            .any(|protocol| protocol == Protocol::Tcp)
    }

    /// The folder its commands run in on this host, unless a path map says otherwise: the build context, else the
    /// project's folder.
    pub fn host_folder<'a>(&'a self, project: &'a Project) -> &'a Path {
        self.build.as_ref().map_or(&project.folder, |build| &build.context.value)
    }
}

/// What `restart: no` means.
pub(crate) const NEVER: RestartPolicy = RestartPolicy {
    condition: RestartCondition::Never,
    attempts_max: None,
    delay: Duration::ZERO,
    window: Duration::ZERO,
};

/// `build`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Where it stands.
    pub span: Span,
    /// `context`. Absolute.
    pub context: Spanned<PathBuf>,
    /// `dockerfile`, default `Dockerfile`. Absolute.
    pub dockerfile: Spanned<PathBuf>,
    /// `dockerfile_inline`, in place of a file.
    pub dockerfile_inline: Option<Spanned<String>>,
    /// `args`, those without a value taken from the environment.
    pub args: IndexMap<String, Spanned<String>>,
    /// `target`: the stage that counts.
    pub target: Option<Spanned<String>>,
}

/// One entry of `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependsOn {
    /// On whom.
    pub service: Spanned<String>,
    /// What must hold.
    pub condition: DependencyCondition,
    /// Whether this service is started all the same when that one can't be (`required: false`).
    pub required: bool,
    /// Whether this service restarts when that one does.
    pub restart: bool,
}

/// `deploy.update_config`. What is not given is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateConfig {
    /// Where it stands.
    pub span: Span,
    /// How many instances are replaced at a time; 0 for all.
    pub parallelism: Option<u32>,
    /// How long to wait between two groups.
    pub delay: Option<Duration>,
    /// What comes first.
    pub order: Option<UpdateOrder>,
    /// `failure_action`.
    pub failure_action: Option<Spanned<String>>,
}

/// `update_config.order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOrder {
    /// The replacement starts before the old instance stops.
    StartFirst,
    /// The old instance stops first.
    StopFirst,
}

/// `deploy.resources.reservations`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    /// `memory` in bytes.
    pub memory_bytes: Option<i64>,
    /// `cpus` in billionths of a core.
    pub nano_cpus: Option<i64>,
}

/// One entry of a service's `networks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// Where it stands.
    pub span: Span,
    /// `aliases`.
    pub aliases: Vec<Spanned<String>>,
}

/// One entry of a service's `volumes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it stands.
    pub span: Span,
    /// What is mounted.
    pub source: MountSource,
    /// Where in the container.
    pub target: String,
    /// `:ro`.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A file or folder of this host. Absolute.
    Bind(PathBuf),
    /// A named volume.
    Named(String),
    /// A volume without a name, or memory.
    Anonymous,
}

/// One entry of a service's `configs` or `secrets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMount {
    /// Where it stands.
    pub span: Span,
    /// The config's name at top level.
    pub source: String,
    /// Where in the container. Absolute.
    pub target: String,
    /// Where its content is, as the top level says.
    pub origin: Option<Origin>,
}

/// `x-process`: how a service runs as a local process. Evenkeel's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where it stands.
    pub span: Span,
    /// `command`, split into words.
    pub command: Option<Spanned<Vec<String>>>,
    /// `build`: a line for `sh -c`.
    pub build: Option<Spanned<String>>,
    /// `address`: where the service is found instead of being run.
    pub address: Option<Spanned<SocketAddr>>,
    /// `environment`: on top of the service's, here only.
    pub environment: IndexMap<String, Spanned<String>>,
}
