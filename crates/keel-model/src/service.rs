//! Services and how one instance of them is run.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ContainerSpec;

/// The name of a Compose service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceName(pub String);

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Compose service as the runner sees it: resolved, mapped to this host, free of file formats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// How many instances should run.
    pub replicas: u32,
    /// A fixed name for its one instance (`container_name`); forbids more than one.
    pub instance_name: Option<String>,
    /// Whether a single instance has the service's bare name, too.
    pub numbering: Numbering,
    /// How an instance is run.
    pub run: Run,
    /// The ports an instance listens on, as known from the files. The first TCP port is `$PORT`.
    pub ports: Vec<Port>,
    /// Further names under which it is found (network aliases, container name, hostname).
    pub aliases: Vec<String>,
    /// Whether it is well; without one an instance is ready when it listens.
    pub healthcheck: Option<Healthcheck>,
    /// Whether an instance with a healthcheck must listen on the first TCP port to be ready, too. Not where nobody balances
    /// the service and only its image names the port: a worker made of a server's image serves nobody.
    pub must_listen: bool,
    /// What happens when an instance ends by itself.
    pub restart: RestartPolicy,
    /// What must hold before it is started.
    pub depends_on: Vec<Dependency>,
    /// How it is told to end.
    pub stop: Stop,
    /// A digest over everything that, when changed, asks for new instances.
    pub digest: String,
}

/// Which instances have a number in their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Numbering {
    /// Those of a service that has several.
    #[default]
    Several,
    /// All: another service's instance may have the bare name.
    All,
}

/// How an instance is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each service, and none on the path of a request"
)]
pub enum Run {
    /// As local processes.
    Process(ProcessSpec),
    /// As containers.
    Container(Box<ContainerSpec>),
    /// Not by Evenkeel: it is found at this address (`x-process.address`).
    External(SocketAddr),
}

/// A command to run as a local process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program and its arguments, paths mapped to this host.
    pub argv: Vec<String>,
    /// What the file declares, later than the defaults that the driver sets.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub working_dir: PathBuf,
    /// What must be built before: in order.
    pub build: Vec<BuildStep>,
    /// Paths of the container and where they are on this host, longest first.
    pub path_map: Vec<(PathBuf, PathBuf)>,
    /// Folders put in front of PATH (a virtual environment's `bin`).
    pub path_prefix: Vec<PathBuf>,
    /// The machine's name as it sees it; without one the instance's name.
    pub hostname: Option<String>,
    /// Whom it runs as; without one as Evenkeel does.
    pub user: Option<ProcessUser>,
}

/// The user that a process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUser {
    /// The login name, if this host knows the user.
    pub name: Option<String>,
    /// The home folder.
    pub home: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A step of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildStep {
    /// `x-process.build`: a command line for `sh -c`, run in this folder.
    Shell {
        /// The command line.
        command: String,
        /// Where it runs.
        working_dir: PathBuf,
    },
    /// The image that the service's `build` would be: nothing is done for it, but a change of what it would contain asks for
    /// new instances.
    Context {
        /// The build.
        build: crate::ImageBuild,
        /// What its Dockerfile takes from the context, as patterns; `.` for all of it.
        patterns: Vec<String>,
    },
    /// `RUN pip install ...`: arguments of pip, run in a virtual environment that is made if need be.
    Pip {
        /// Everything after `pip install`, of each such line.
        installs: Vec<Vec<String>>,
        /// Where the environment is; its name holds a digest of everything that goes into it.
        venv: PathBuf,
        /// Where pip runs.
        working_dir: PathBuf,
    },
}

/// A port that an instance listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Its number in the container.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they name themselves")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// `healthcheck`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// The program and its arguments; CMD-SHELL has become `sh -c`.
    pub argv: Vec<String>,
    /// Between two checks. Default 30 s.
    pub interval: Duration,
    /// How long one may take. Default 30 s.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy. Default 3.
    pub retries: u32,
    /// After the start, how long failures don't count. Default 0.
    pub start_period: Duration,
    /// Between two checks within `start_period` until the first success. Without one Evenkeel asks more often.
    pub start_interval: Option<Duration>,
}

/// `restart` and `deploy.restart_policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When.
    pub condition: RestartCondition,
    /// How often at most; `None` for no limit.
    pub attempts_max: Option<u32>,
    /// How long to wait before a restart, at least. Default 0, and from the second in a row on the back-off.
    pub delay: Duration,
    /// How long an instance must run for its start to count as a success.
    pub window: Duration,
}

/// When an instance that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never (`no`, `none`).
    Never,
    /// When it failed.
    OnFailure,
    /// However it ended (`always`, `unless-stopped`, `any`).
    Always,
}

/// One entry of `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// On whom.
    pub service: ServiceName,
    /// What must hold.
    pub condition: DependencyCondition,
    /// Whether this service is started all the same when that one can't be (`required: false`).
    pub required: bool,
    /// Whether this service restarts when that one does.
    pub restart: bool,
}

/// The three conditions of `depends_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DependencyCondition {
    /// An instance has been started.
    Started,
    /// An instance is healthy.
    Healthy,
    /// It has ended with status 0.
    Completed,
}

/// How an instance is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal's number. Default SIGTERM.
    pub signal: i32,
    /// How long until SIGKILL. Default 10 s.
    pub grace_period: Duration,
}
