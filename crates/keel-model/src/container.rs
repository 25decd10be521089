//! Services that run as containers: what the engine is asked for.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Port, ServiceName};

/// What runs the instances of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// Evenkeel itself, as local processes.
    Process,
    /// A container engine.
    Docker,
}

/// `--driver` and `x-driver`: what chooses the driver of each service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverChoice {
    /// Everything runs as local processes.
    #[default]
    Process,
    /// Everything runs in the engine.
    Docker,
    /// What has an image and nothing else runs in the engine, the rest as local processes.
    Auto,
}

impl DriverChoice {
    /// All names that it goes by.
    pub const NAMES: [&str; 3] = ["process", "docker", "auto"];
}

/// A text that is no choice of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("process, docker or auto")]
pub struct NotADriver;

impl FromStr for DriverChoice {
    type Err = NotADriver;

    fn from_str(text: &str) -> Result<Self, NotADriver> {
        match text {
            "process" => Ok(Self::Process),
            "docker" => Ok(Self::Docker),
            "auto" => Ok(Self::Auto),
            _ => Err(NotADriver),
        }
    }
}

/// A container to run as an instance. What is `None` is as the image says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The image's name: the file's, or the one that a build gives.
    pub image: String,
    /// How the image is made; `None` where it is pulled.
    pub build: Option<ImageBuild>,
    /// The image's id once it is known, so that another content asks for new instances.
    pub image_id: Option<String>,
    /// `entrypoint`; empty to clear the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `command`.
    pub command: Option<Vec<String>>,
    /// What the file declares, on top of the image's.
    pub environment: BTreeMap<String, String>,
    /// `working_dir`.
    pub working_dir: Option<String>,
    /// `user`.
    pub user: Option<String>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `stop_signal`.
    pub stop_signal: Option<i32>,
    /// What is mounted.
    pub mounts: Vec<ContainerMount>,
    /// The networks that it is in; requests go to its address in the first.
    pub networks: Vec<ContainerNetwork>,
    /// All labels but those that tell one instance from another.
    pub labels: BTreeMap<String, String>,
    /// The healthcheck that the engine runs.
    pub healthcheck: ContainerHealthcheck,
    /// Names with their addresses (`extra_hosts`).
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// Names of what runs on this host and not in the engine: they lead to this host.
    pub names_on_host: Vec<String>,
    /// Ports under which this host then answers for those services; one service each.
    pub host_ports: Vec<HostPort>,
    /// Ports that the engine itself publishes, for what Evenkeel doesn't balance.
    pub published: Vec<PublishedPort>,
    /// Whether a replacement may run beside the one that it replaces.
    pub handover: Handover,
    /// Limits and rights.
    pub confinement: Confinement,
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageBuild {
    /// The folder that is sent to the engine.
    pub context: PathBuf,
    /// Where its Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// The stage that counts.
    pub target: Option<String>,
}

/// Where a Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DockerfileSource {
    /// In this file.
    File(PathBuf),
    /// In the Compose file (`dockerfile_inline`).
    Text(String),
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// What.
    pub source: ContainerMountSource,
    /// Where. Absolute.
    pub target: String,
    /// Whether it can't be written to.
    pub read_only: bool,
}

/// What is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerMountSource {
    /// A file or folder of this host; a folder is made where nothing is.
    Bind(PathBuf),
    /// A volume by its name in the engine.
    Volume {
        /// The name in the engine.
        name: String,
        /// The name in the file, for its label; `None` for one that others make.
        key: Option<String>,
    },
    /// A volume of the instance's own.
    Anonymous,
}

/// A network that a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerNetwork {
    /// Its name in the engine.
    pub name: String,
    /// Its name in the file, for its label; `None` for one that others make.
    pub key: Option<String>,
    /// Further names of the service in it.
    pub aliases: Vec<String>,
}

/// `healthcheck` as the engine takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerHealthcheck {
    /// None but the image's own.
    Image,
    /// None at all.
    Off,
    /// This one; what is `None` is the image's, else the engine's default.
    Own {
        /// `["CMD", ..]` or `["CMD-SHELL", line]`.
        test: Option<Vec<String>>,
        /// Between two checks.
        interval: Option<Duration>,
        /// How long one may take.
        timeout: Option<Duration>,
        /// Failures in a row that make it unhealthy.
        retries: Option<u32>,
        /// After the start, how long failures don't count.
        start_period: Option<Duration>,
        /// Between two checks within `start_period`.
        start_interval: Option<Duration>,
    },
}

/// A port of this host, as containers see it, and the service behind it that isn't run in the engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The port.
    pub port: u16,
    /// The service.
    pub service: ServiceName,
}

/// What a name of `extra_hosts` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAddress {
    /// This address.
    Address(IpAddr),
    /// `host-gateway`: this host.
    Host,
}

/// A port that the engine publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The host's address; all of them where none is given.
    pub host_ip: Option<IpAddr>,
    /// The host's port; any free one where none is given.
    pub host_port: Option<u16>,
    /// The container's.
    pub port: Port,
}

/// Whether two containers of an instance may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handover {
    /// A replacement starts first.
    Overlap,
    /// The old one ends first: both would write to one volume, or want one port of the host.
    OneAtATime,
}

/// What a container may do, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// `init`.
    pub init: Option<bool>,
    /// `read_only`.
    pub read_only: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `tty`.
    pub tty: bool,
    /// `cap_add`.
    pub cap_add: Vec<String>,
    /// `cap_drop`.
    pub cap_drop: Vec<String>,
    /// `security_opt`.
    pub security_opt: Vec<String>,
    /// `group_add`.
    pub group_add: Vec<String>,
    /// `dns`.
    pub dns: Vec<String>,
    /// `tmpfs`: paths with their options.
    pub tmpfs: BTreeMap<String, String>,
    /// `sysctls`.
    pub sysctls: BTreeMap<String, String>,
    /// `shm_size` in bytes.
    pub shm_bytes: Option<i64>,
    /// `mem_limit` in bytes.
    pub memory_bytes: Option<i64>,
    /// `cpus` in billionths of a core.
    pub nano_cpus: Option<i64>,
    /// `pids_limit`.
    pub pids_max: Option<i64>,
}
