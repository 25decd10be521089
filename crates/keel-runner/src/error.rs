//! What can go wrong between the runner and who uses it.

use std::{
    io,
    path::{Path, PathBuf},
};

use keel_model::ServiceName;

use crate::supervisor::CommandError;

/// Why the runner couldn't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder can't be used.
    #[error("can't use {}", path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another runner uses the folder.
    #[error("{} is in use by another evenkeel{}", path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other's process, where that can be known.
        pid: Option<u32>,
    },
    /// What it needs of the system is refused.
    #[error("can't run instances on this machine")]
    System(#[source] io::Error),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Services couldn't be built; the others were applied.
    #[error("{}", all(failures, rest.as_ref()))]
    Build {
        /// Each of them.
        failures: Vec<BuildError>,
        /// What became of the others, if that failed too.
        rest: Option<CommandError>,
    },
    /// The instance doesn't run.
    #[error("{name} isn't running")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// A command in an instance couldn't be started.
    #[error("{0}")]
    Exec(String),
    /// The container engine didn't do what it was asked for.
    #[error("{0}")]
    Engine(String),
    /// The runner has ended.
    #[error("the runner has ended")]
    Ended,
}

/// Names the path in what the system says about it.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn all(failures: &[BuildError], rest: Option<&CommandError>) -> String {
    let rest = rest.map(ToString::to_string);
    failures.iter().map(ToString::to_string).chain(rest).collect::<Vec<_>>().join("\n")
}

/// Why a service couldn't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A command failed.
    #[error("building {service} failed: `{command}`: {how}{}", shown(lines))]
    Failed {
        /// Whose build.
        service: ServiceName,
        /// The command.
        command: String,
        /// How it ended.
        how: String,
        /// Its last lines.
        lines: Vec<String>,
    },
    /// The engine didn't do its part.
    #[error("{service}: {why}")]
    Engine {
        /// Whose image.
        service: ServiceName,
        /// Why, and what can be done about it.
        why: String,
    },
    /// Something around the command failed.
    #[error("building {service} failed: {source}")]
    Io {
        /// Whose build.
        service: ServiceName,
        /// What the system said.
        source: io::Error,
    },
}

fn shown(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}
