//! What is said over the control socket: HTTP/1.1 with JSON, under `/v1`.
//!
//! A command that takes its time answers with one JSON object a line ([`Message`]): what happens on the way, and as the
//! last line its outcome. New fields may appear within a version; a field never changes its meaning.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// `GET /v1/project`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectInfo {
    /// The project's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What stays of its folder when it is moved.
    #[serde(default)]
    pub folder_id: Option<FolderId>,
    /// Whether some of it runs in a container engine, where names have no folder.
    #[serde(default = "is_assumed")]
    pub has_containers: bool,
    /// The Compose files in effect.
    pub files: Vec<PathBuf>,
    /// The supervisor's process.
    pub pid: u32,
    /// The supervisor's version.
    pub version: String,
    /// Addresses that clients connect to.
    pub listeners: Vec<String>,
    /// The service whose seat Evenkeel takes, if any.
    pub balancer: Option<String>,
    /// Whether everything is being ended: the supervisor takes no command any more.
    #[serde(default)]
    pub is_ending: bool,
}

/// A folder, by whatever path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// What a supervisor of an earlier version doesn't say.
fn is_assumed() -> bool {
    true
}

/// `GET /v1/instances`: one of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// `starting`, `ready`, `unhealthy`, `draining`, `stopping`, `exited` or `crash-loop`.
    pub state: String,
    /// The process it runs as.
    pub pid: Option<u32>,
    /// Its own address.
    pub address: Option<String>,
    /// Its ports.
    pub ports: Vec<String>,
    /// Seconds since the state holds.
    pub since_s: u64,
    /// How often it was started again because it had ended.
    pub restarts: u32,
    /// How its last process ended.
    pub exit: Option<String>,
    /// What its last healthcheck printed, if that failed.
    pub health: Option<String>,
    /// What else should be known.
    pub note: Option<String>,
    /// First attempts given to it since it started.
    pub requests: u64,
    /// Requests in flight to it.
    pub in_flight: u32,
    /// Attempts that failed.
    pub failures: u64,
}

/// `GET /v1/balancer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerInfo {
    /// The nginx.conf of a balancer alone.
    pub configuration: Option<PathBuf>,
    /// The project that it belongs to, under `up`.
    pub project: Option<String>,
    /// The supervisor's process.
    pub pid: u32,
    /// The supervisor's version.
    pub version: String,
    /// Addresses that clients connect to.
    pub listeners: Vec<String>,
    /// Counts since the start of the data plane; `None` where none answers.
    pub counts: Option<Counts>,
}

/// What a data plane has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Which configuration is in effect; each that takes effect has the next number.
    pub generation: u64,
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Connections of clients that are open now.
    pub active: u64,
    /// Requests read from clients.
    pub requests: u64,
    /// Requests that wait for an instance now.
    pub queued: u64,
    /// Panics, each of which cost one connection.
    pub panics: u64,
}

/// `GET /v1/peers`: one of a list, by upstream and in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its upstream.
    pub upstream: String,
    /// Its address.
    pub address: String,
    /// What the file calls it.
    pub name: String,
    /// The instance behind it, where that is known.
    pub instance: Option<String>,
    /// Its share among the others.
    pub weight: u32,
    /// Whether it is used only when no other is available.
    pub backup: bool,
    /// `up`, `excluded` by its failures for a while, or `down` as the file says.
    pub state: String,
    /// Requests in flight to it.
    pub in_flight: u32,
    /// First attempts given to it.
    pub requests: u64,
    /// Retries given to it.
    pub retries: u64,
    /// Attempts that failed.
    pub failures: u64,
}

/// What `POST /v1/up` asks for. The files are read by the supervisor, with these as the caller's surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpRequest {
    /// Where the files are and which count.
    pub files: FileChoice,
    /// Replace instances even if nothing about them changed.
    pub force_recreate: bool,
    /// Run builds again.
    pub build: bool,
    /// Numbers of instances that differ from the files'.
    pub scale: Vec<(String, u32)>,
    /// Only these services and what they depend on.
    pub services: Vec<String>,
}

/// Which files make up a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChoice {
    /// The folder in which they are looked for.
    pub folder: PathBuf,
    /// `-f`, in order; what Compose looks for where empty.
    pub files: Vec<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--profile`.
    pub profiles: Vec<String>,
    /// `--env-file`.
    pub env_files: Vec<PathBuf>,
    /// The caller's environment, for `${...}`.
    pub environment: std::collections::BTreeMap<String, String>,
    /// `--driver`.
    #[serde(default)]
    pub driver: Option<keel_model::DriverChoice>,
}

/// What `POST /v1/{start,stop,restart,kill,scale,down}` ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRequest {
    /// Services or instances; all where empty.
    pub names: Vec<String>,
    /// Seconds that what is in flight may take before an instance is told to end. Default 30, or 0 where `timeout_s` is.
    pub drain_timeout_s: Option<u64>,
    /// Seconds that an instance has from its stop signal on before it is killed. Default its `stop_grace_period`.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// The signal's number, for `kill`.
    pub signal: Option<i32>,
    /// Services and how many instances each should have, for `scale`.
    pub scale: Vec<(String, u32)>,
}

impl InstanceRequest {
    /// How long what is to end may take. Who gives it no time at all wants no drain either.
    pub fn ending(&self) -> keel_runner::Ending {
        let drain_s = self.drain_timeout_s.or(self.timeout_s.filter(|timeout_s| *timeout_s == 0));
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        keel_runner::Ending { drain: seconds(drain_s), grace: seconds(self.timeout_s) }
    }
}

/// One line of the answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// A line of a build, a step begun.
    Progress {
        /// The service it is for.
        service: String,
        /// The line.
        text: String,
    },
    /// An instance's state changed.
    State {
        /// Which instance.
        instance: String,
        /// Its state now.
        state: String,
        /// What else should be known.
        note: Option<String>,
    },
    /// Something to be known, from the files or from the way.
    Warning {
        /// As it is shown to a person.
        text: String,
    },
    /// Output of an instance.
    Output {
        /// Which instance.
        instance: String,
        /// The line without its end.
        line: String,
    },
    /// Lines, or other messages, that were left out here because they came faster than the client took them.
    LeftOut {
        /// How many.
        lines: u64,
    },
    /// It is done. The last line.
    Done,
    /// It failed. The last line.
    Failed(Failure),
    /// What a later version says; not to be shown.
    #[serde(other)]
    Unknown,
}

/// Why a command failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong, as it is shown to a person.
    pub text: String,
    /// What can be done.
    pub hints: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_at_all_is_no_drain_either() {
        let check = |timeout_s: Option<u64>, drain_timeout_s: Option<u64>, drain: Option<u64>| {
            let request = InstanceRequest { timeout_s, drain_timeout_s, ..InstanceRequest::default() };
            let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
            let expect = keel_runner::Ending { drain: seconds(drain), grace: seconds(timeout_s) };
            assert_eq!(request.ending(), expect);
        };
        check(None, None, None);
        check(Some(5), None, None);
        check(Some(0), None, Some(0));
        check(Some(0), Some(7), Some(7));
        check(None, Some(7), Some(7));
    }
}
