//! Drills: failure cases played under load, and the proof of what happened.
//!
//! A case does something to a running system while requests come in, and says which outcomes are allowed. Afterwards the
//! drill compares what clients sent with what instances received, request by request; it trusts no balancer's own counts.
//! [`results`] is what a drill found; the other modules find it or show it.
//!
//! The system is a second copy of the user's project, started under another name by this same program, and driven by the
//! commands that users type. The judging code shares nothing with the system: load generator, peers and comparison are
//! written for the drill alone.

#![forbid(unsafe_code)]

mod cases;
mod checksum;
mod configuration;
mod cutter;
mod drill;
mod foreign;
mod front;
pub mod generator;
pub mod guard;
pub mod ledger;
mod load;
pub mod nginx;
pub mod peer;
mod port;
mod process;
pub mod reconcile;
pub mod record;
pub mod report;
pub mod results;
mod seed;
mod stage;
mod subject;
mod system;
pub mod terminal;
mod timeline;
mod unread;
pub mod verdict;
mod work;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use keel_control::project::ProjectOptions;

pub use cases::{CASES, Case};
pub use drill::{CaseNews, Ended, run};
pub use load::COMMAND as LOAD_COMMAND;

/// What a drill is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which project.
    pub project: ProjectOptions,
    /// This program, which runs the project, the load generator and the peers.
    pub program: PathBuf,
    /// Names of cases; all where empty.
    pub cases: Vec<String>,
    /// Requests of each case, about.
    pub requests: u32,
    /// Client connections at most.
    pub connections: u32,
    /// Requests each second.
    pub rate: f64,
    /// What the order of events comes from.
    pub seed: u64,
    /// What balances instead of Evenkeel, if anything.
    pub nginx: Option<nginx::Nginx>,
    /// Whether exhaustive cases take samples.
    pub is_short: bool,
    /// The path that is asked for, where the shortest balanced location isn't the right one.
    pub path: Option<String>,
    /// Where the system listens, instead of a free port.
    pub listen: Option<SocketAddr>,
    /// Where clients connect, if not to the system itself: somebody in between.
    pub via: Option<SocketAddr>,
    /// Set when the user wants to end.
    pub stop: Stop,
}

/// The user's wish to end, which everything that waits looks at.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// The flag that ends a drill when it is set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Why a drill can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user has ended it.
    #[error("ended before all cases were played")]
    Interrupted,
    /// The project can't be tried.
    #[error("{0}")]
    Project(String),
    /// What a case was to do couldn't be done: the process was gone already, say. It hasn't been played then.
    #[error("the fault didn't come about: {0}")]
    Fault(String),
    /// A command on the system failed.
    #[error("`evenkeel {command}` failed: {said}")]
    Command {
        /// Its words.
        command: String,
        /// What it said.
        said: String,
    },
    /// Something didn't come in time.
    #[error("{0}")]
    TooSlow(String),
    /// The load generator is gone.
    #[error("the load generator has ended")]
    GeneratorEnded,
    /// The machine refused something.
    #[error("{what}")]
    Io {
        /// What couldn't be done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}
