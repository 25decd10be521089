//! What does what the supervisor decides: local processes and containers, side by side.
//!
//! The machine knows one driver. Which of the two a life belongs to follows from its service and stays with the life, so
//! that a service can change from one to the other by an ordinary replacement.

pub(crate) mod docker;
mod exec;
mod followers;
mod log_writer;
mod output;
mod past;
pub(crate) mod process;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use keel_model::{HostPort, Run, Service, ServiceName};

pub(crate) use self::output::Output;
pub use self::{
    exec::{Exec, ExecOutput, ExecRequest, TerminalSize},
    followers::{Follower, LogNews},
    output::{LogLine, Stream},
    past::Past,
};
use crate::{
    Error, Health,
    supervisor::{Event, Incarnation, ProbeNumber},
};

/// Which build steps are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// Those that haven't been done.
    Missing,
    /// All.
    All,
}

/// What the driver tells of its own accord.
#[derive(Debug)]
pub(crate) enum DriverNews {
    /// Something for the machine.
    Event(Event),
    /// Something about an instance is known now that its status shows.
    Noted(Incarnation),
    /// Something to note about a local process.
    Remark(Incarnation, String),
    /// What may keep a local process from starting.
    Obstacle(Incarnation, String),
    /// Why an instance is slow.
    Slow { instance: String, why: String },
}

/// What the rest may know of a life.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) pid: Option<u32>,
    pub(crate) address: IpAddr,
    pub(crate) ports: BTreeMap<u16, u16>,
    pub(crate) ports_shown: Vec<String>,
    /// Whether the kernel is asked if it listens, exactly there.
    pub(crate) is_watched: bool,
    pub(crate) health: Option<Health>,
    pub(crate) note: Option<String>,
}

/// A life that is to begin.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) incarnation: Incarnation,
    /// The instance's name.
    pub(crate) name: String,
    /// Its number in the service, from 1.
    pub(crate) ordinal: u32,
    pub(crate) spec: Arc<Service>,
}

/// Both drivers.
#[derive(Clone, Debug)]
pub(crate) struct Drivers {
    processes: process::ProcessDriver,
    containers: docker::ContainerDriver,
}

impl Drivers {
    /// Joins those for processes and for containers.
    pub(crate) fn of(processes: process::ProcessDriver, containers: docker::ContainerDriver) -> Self {
        Self { processes, containers }
    }

    /// The one for containers.
    pub(crate) fn containers(&self) -> &docker::ContainerDriver {
        &self.containers
    }

    /// Prepares a life before any of those that begin with it is started, so that its name resolves by then.
    pub(crate) fn settle(&self, birth: &Birth) {
        match birth.spec.run {
            Run::Container(_) => self.containers.settle(birth),
            Run::Process(_) | Run::External(_) => {
                self.processes.settle(birth.incarnation, &birth.name, &birth.spec);
            }
        }
    }

    /// Starts a life that was settled. Says [`Event::Started`], [`Event::StartFailed`] or [`Event::StartUnasked`], and in time
    /// [`Event::Exited`].
    pub(crate) fn launch(&self, birth: Birth) {
        match birth.spec.run {
            Run::Container(_) => self.containers.launch(birth),
            Run::Process(_) | Run::External(_) => {
                self.processes.launch(birth.incarnation, birth.name, birth.spec);
            }
        }
    }

    /// Tells local processes which names stand for which addresses, and containers where what they reach through this
    /// host is found. Among themselves containers have the engine's DNS.
    pub(crate) fn write_hosts(
        &self,
        names: &BTreeMap<String, Vec<IpAddr>>,
        behind: BTreeMap<HostPort, Vec<SocketAddr>>,
    ) {
        self.processes.write_hosts(names);
        self.containers.lead(behind);
    }

    /// An address at which nobody answers, for the name of a service that has no ready instance.
    pub(crate) fn vacancy(&self, service: &ServiceName) -> Option<IpAddr> {
        self.processes.vacancy(service)
    }

    /// Looks whether a local process that serves listens still: requests fail there.
    pub(crate) fn doubt(&self, incarnation: Incarnation) {
        if !self.containers.has(incarnation) {
            self.processes.doubt(incarnation);
        }
    }

    /// The address of a life, once it has one.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<IpAddr> {
        match self.containers.has(incarnation) {
            true => self.containers.address(incarnation),
            false => self.processes.address(incarnation),
        }
    }

    /// What is known of a life.
    pub(crate) fn facts(&self, incarnation: Incarnation) -> Option<Facts> {
        match self.containers.has(incarnation) {
            true => self.containers.facts(incarnation),
            false => self.processes.facts(incarnation),
        }
    }

    /// Runs the healthcheck of a life once, or where a container has none looks whether it listens; says
    /// [`Event::Probed`].
    pub(crate) fn probe(&self, incarnation: Incarnation, number: ProbeNumber) {
        match self.containers.has(incarnation) {
            true => self.containers.probe(incarnation, number),
            false => self.processes.probe(incarnation, number),
        }
    }

    /// Sends a signal to the main process of a life.
    pub(crate) fn signal(&self, incarnation: Incarnation, signal: i32) {
        match self.containers.has(incarnation) {
            true => self.containers.signal(incarnation, signal),
            false => self.processes.signal(incarnation, signal),
        }
    }

    /// Ends all processes of a life.
    pub(crate) fn kill_all(&self, incarnation: Incarnation) {
        match self.containers.has(incarnation) {
            true => self.containers.kill_all(incarnation),
            false => self.processes.kill_all(incarnation),
        }
    }

    /// Ends every local process. Containers end with [`docker::ContainerDriver::tear_down`], which takes its time.
    pub(crate) fn end_all(&self) {
        self.processes.end_all();
    }

    /// The one for local processes.
    pub(crate) fn processes(&self) -> &process::ProcessDriver {
        &self.processes
    }

    /// Finds out why an instance isn't ready, and says it.
    pub(crate) fn tell_slow(&self, incarnation: Incarnation, instance: String) {
        match self.containers.has(incarnation) {
            true => self.containers.tell_slow(incarnation, instance),
            false => self.processes.tell_slow(incarnation, instance),
        }
    }

    /// Looks for ports that a local process has on a wildcard address all the same, and notes them.
    pub(crate) fn note_escaped(&self, incarnation: Incarnation) {
        if !self.containers.has(incarnation) {
            self.processes.note_escaped(incarnation);
        }
    }

    /// Notes something about a local process that its status shows. False if that is there already, or enough is.
    pub(crate) fn note(&self, incarnation: Incarnation, text: &str) -> bool {
        self.processes.note(incarnation, text)
    }

    /// Runs a command in a running instance.
    pub(crate) async fn exec(&self, incarnation: Incarnation, request: ExecRequest) -> Result<Exec, Error> {
        match self.containers.has(incarnation) {
            true => self.containers.exec(incarnation, request).await,
            false => self.processes.exec(incarnation, request).await,
        }
    }

    /// Runs a service's command, or another in its place, as an instance of its own.
    pub(crate) async fn run_once(&self, birth: Birth, request: ExecRequest) -> Result<Exec, Error> {
        let Birth { incarnation, name, spec, .. } = birth.clone();
        match spec.run {
            Run::Container(_) => self.containers.run_once(birth, request).await,
            Run::Process(_) | Run::External(_) => {
                self.processes.run_once(incarnation, name, &spec, request).await
            }
        }
    }
}
