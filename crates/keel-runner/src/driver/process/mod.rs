//! Instances as local processes, each with a loopback address, files and a name of its own.
//!
//! Where the kernel refuses a part (no user namespaces, a filter with a listener in force already), the instance runs
//! without it and its status says so: without the trap it is given `$PORT`, a free port of 127.0.0.1.

mod address;
mod build;
mod census;
mod cgroup;
mod child;
mod doctor;
mod environment;
mod homes;
mod hosts;
mod launch;
mod listening;
mod rules;
mod session;
mod spawner;
mod surroundings;
mod trap;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keel_model::{ProcessSpec, Run, Service};
use keel_sys::{
    guardian::Guardian,
    process::{kill_group, pidfd_send_signal},
    sock_diag::SockDiag,
};
use tokio::sync::mpsc::UnboundedSender;

use self::{
    address::Addresses,
    census::Family,
    cgroup::Cgroups,
    homes::{Home, Homes},
    hosts::Hosts,
    listening::Watcher,
    spawner::Spawner,
    surroundings::Overlays,
    trap::Traps,
};
pub use self::{
    build::BuildError,
    doctor::{Finding, doctor},
};
pub(crate) use self::{build::build, homes::first_tcp};
pub(in crate::driver) use self::{census::members_of_group, child::Child};
use super::{Facts, Told, output::Output};
use crate::{
    Health,
    supervisor::{Event, Incarnation},
};

const SIGKILL: i32 = 9;
/// How long after an instance became ready its ports on wildcard addresses are looked for.
const ESCAPED_AFTER: Duration = Duration::from_millis(250);

/// The driver.
#[derive(Clone, Debug)]
pub(crate) struct Driver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    project: String,
    state_dir: PathBuf,
    spawner: Spawner,
    traps: Traps,
    homes: Arc<Homes>,
    watcher: Watcher,
    guardian: Guardian,
    overlays: Overlays,
    hosts: Mutex<Hosts>,
    addresses: Mutex<Addresses>,
    output: Arc<Output>,
    cgroups: Option<Cgroups>,
    /// Why the kernel doesn't give us a namespace, and a trap.
    refused: Mutex<Refused>,
    lives: Mutex<BTreeMap<Incarnation, Living>>,
    /// Held while they are written down.
    writing: Mutex<()>,
    told: UnboundedSender<Told>,
}

#[derive(Clone, Debug, Default)]
struct Refused {
    namespace: Option<String>,
    trap: Option<String>,
}

/// A process that runs as an instance, or as a one-off of a service.
#[derive(Clone, Debug)]
struct Living {
    name: String,
    spec: Arc<Service>,
    pid: i32,
    pidfd: Arc<OwnedFd>,
    family: Family,
    environment: BTreeMap<OsString, OsString>,
    /// Whether it has a mount namespace of its own.
    namespace: bool,
    cgroup: Option<PathBuf>,
    folder: PathBuf,
    note: Option<String>,
    health: Option<Health>,
}

impl Driver {
    /// Prepares everything that instances share, and ends what an earlier run left behind.
    pub(crate) fn start(
        project: &str,
        state_dir: &Path,
        output: Arc<Output>,
        told: UnboundedSender<Told>,
    ) -> io::Result<Self> {
        // The guardian is forked first, from as small a process as there will be.
        let guardian = Guardian::start()?;
        census::end_leftovers(&state_dir.join("instances"));
        keel_sys::process::set_subreaper()?;
        let run = state_dir.join("run");
        let _ = std::fs::remove_dir_all(&run);
        std::fs::create_dir_all(&run)?;
        let hosts = Hosts::create(&state_dir.join("hosts"))?;
        let nsswitch = match std::fs::read_to_string("/etc/nsswitch.conf") {
            Ok(host) => {
                let path = state_dir.join("nsswitch.conf");
                std::fs::write(&path, hosts::nsswitch(&host))?;
                Some(path)
            }
            Err(_) => None,
        };
        let overlays = Overlays { hosts: hosts.path().to_owned(), nsswitch };
        let homes = Arc::new(Homes::default());
        let tell = told.clone();
        let watcher = Watcher::start(Arc::clone(&homes), move |incarnation| {
            let _ = tell.send(Told::Event(Event::Listening { incarnation }));
        })?;
        let bound = watcher.clone();
        let traps = Traps::start(Arc::clone(&homes), Box::new(move |incarnation| bound.bound(incarnation)))?;
        Ok(Self(Arc::new(Inner {
            project: project.into(),
            state_dir: state_dir.into(),
            spawner: Spawner::start()?,
            traps,
            homes,
            watcher,
            guardian,
            overlays,
            hosts: Mutex::new(hosts),
            addresses: Mutex::default(),
            output,
            cgroups: Cgroups::open(project).ok(),
            refused: Mutex::default(),
            lives: Mutex::default(),
            writing: Mutex::default(),
            told,
        })))
    }

    /// Gives a life an address, before it is started, so that its name resolves by then.
    pub(crate) fn settle(&self, incarnation: Incarnation, name: &str, spec: &Service) {
        let listed = spec.ports.clone();
        let own = || {
            let mut diag = SockDiag::open().ok();
            let taken: BTreeSet<IpAddr> = diag
                .as_mut()
                .and_then(|diag| diag.all_listeners().ok())
                .map(|all| all.into_iter().map(|one| one.address.ip()).collect())
                .unwrap_or_default();
            lock(&self.0.addresses).take(&self.0.project, name, |address| taken.contains(&address))
        };
        let refused = lock(&self.0.refused).trap.is_some();
        let home = match if refused { None } else { own() } {
            Some(address) => Home::new(address, listed),
            None => Home::shared(listed, free_port()),
        };
        self.0.homes.insert(incarnation, home);
    }

    /// Starts the process of a life that was settled. Says [`Event::Started`] or [`Event::StartFailed`], and in time
    /// [`Event::Exited`].
    pub(crate) fn launch(&self, incarnation: Incarnation, name: String, spec: Arc<Service>) {
        let driver = self.clone();
        tokio::spawn(async move {
            if let Err(why) = driver.launch_instance(incarnation, name, spec).await {
                driver.unsettle(incarnation);
                driver.tell(Event::StartFailed { incarnation, why });
            }
        });
    }

    /// Writes which names stand for which addresses.
    pub(crate) fn write_hosts(&self, names: &BTreeMap<String, Vec<IpAddr>>) {
        if let Err(error) = lock(&self.0.hosts).write(names) {
            tracing::warn!("names of instances can't be written: {error}");
        }
    }

    /// Gives the address of a life.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<IpAddr> {
        self.0.homes.get(incarnation).map(|home| home.address.into())
    }

    /// Gives what is known of a life.
    pub(crate) fn facts(&self, incarnation: Incarnation) -> Option<Facts> {
        let home = self.0.homes.get(incarnation)?;
        let living = lock(&self.0.lives).get(&incarnation).cloned();
        Some(Facts {
            pid: living.as_ref().and_then(|living| u32::try_from(living.pid).ok()),
            address: home.address.into(),
            ports_shown: home.shown(),
            ports: home.ports,
            health: living.as_ref().and_then(|living| living.health.clone()),
            note: living.and_then(|living| living.note),
        })
    }

    /// Sends a signal to the main process of a life; to its group where that is a shell, which passes none on.
    pub(crate) fn signal(&self, incarnation: Incarnation, signal: i32) {
        let Some(living) = self.living(incarnation) else { return };
        let sent = match is_shell(&living.spec) {
            true => kill_group(living.pid, signal),
            false => pidfd_send_signal(&living.pidfd, signal),
        };
        if let Err(error) = sent {
            tracing::debug!("{} wasn't sent signal {signal}: {error}", living.name);
        }
    }

    /// Ends all processes of a life.
    pub(crate) fn kill_all(&self, incarnation: Incarnation) {
        let Some(living) = self.living(incarnation) else { return };
        let _ = pidfd_send_signal(&living.pidfd, SIGKILL);
        let _ = kill_group(living.pid, SIGKILL);
        if let Some(cgroup) = &living.cgroup {
            cgroup::kill(cgroup);
        }
    }

    /// Ends everything that runs.
    pub(crate) fn end_all(&self) {
        let all: Vec<Incarnation> = lock(&self.0.lives).keys().copied().collect();
        all.into_iter().for_each(|incarnation| self.kill_all(incarnation));
    }

    /// Reaps what was orphaned within instances and has ended.
    pub(crate) fn reap_orphans(&self) {
        let groups: BTreeSet<i32> = lock(&self.0.lives).values().map(|living| living.pid).collect();
        census::reap_orphans(&groups);
    }

    /// Finds out why an instance isn't ready, and says it.
    pub(crate) fn tell_slow(&self, incarnation: Incarnation, instance: String) {
        let driver = self.clone();
        tokio::task::spawn_blocking(move || {
            let Some(why) = driver.why_slow(incarnation) else { return };
            let _ = driver.0.told.send(Told::Slow { instance, why });
        });
    }

    fn why_slow(&self, incarnation: Incarnation) -> Option<String> {
        let living = self.living(incarnation)?;
        if living.spec.healthcheck.is_some() {
            return Some(match living.health {
                Some(health) if health.output.trim().is_empty() => {
                    "its healthcheck fails and prints nothing".into()
                }
                Some(health) => format!("its healthcheck fails: {}", health.output.trim()),
                None => "its first healthcheck hasn't ended yet".into(),
            });
        }
        let port = first_tcp(&living.spec.ports)?;
        let elsewhere: Vec<String> = listening(&living.family).iter().map(ToString::to_string).collect();
        Some(match elsewhere.is_empty() {
            true => format!("it runs and doesn't listen on port {port} yet"),
            false => format!("it listens on {}, not on port {port}", elsewhere.join(", ")),
        })
    }

    /// Looks for ports that an instance has on a wildcard address all the same, and notes them.
    pub(crate) fn note_escaped(&self, incarnation: Incarnation) {
        let driver = self.clone();
        tokio::spawn(async move {
            // It reads all of /proc: not while the first requests come in.
            tokio::time::sleep(ESCAPED_AFTER).await;
            drop(tokio::task::spawn_blocking(move || driver.look_for_escaped(incarnation)));
        });
    }

    fn look_for_escaped(&self, incarnation: Incarnation) {
        let Some(living) = self.living(incarnation) else { return };
        let own = self.0.homes.get(incarnation).is_some_and(|home| home.own);
        let escaped =
            listening(&living.family).into_iter().filter(|at| at.ip().to_canonical().is_unspecified());
        let escaped: Vec<String> = escaped.map(|at| at.to_string()).collect();
        if own && !escaped.is_empty() {
            self.note(
                incarnation,
                &format!("also listens on {}, for all of this machine", escaped.join(", ")),
            );
        }
    }

    fn note(&self, incarnation: Incarnation, text: &str) {
        if let Some(living) = lock(&self.0.lives).get_mut(&incarnation) {
            let note = living.note.get_or_insert_default();
            if note.contains(text) {
                return;
            }
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(text);
        }
        let _ = self.0.told.send(Told::Noted(incarnation));
    }

    fn living(&self, incarnation: Incarnation) -> Option<Living> {
        lock(&self.0.lives).get(&incarnation).cloned()
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the runner is gone.
        let _ = self.0.told.send(Told::Event(event));
    }

    fn unsettle(&self, incarnation: Incarnation) {
        if let Some(home) = self.0.homes.remove(incarnation) {
            lock(&self.0.addresses).release(home.address);
        }
    }

    /// Notes a process for the guardian and for a later run.
    fn guard(&self, family: &Family) {
        if let Err(error) = self.0.guardian.watch(family.pid, family.namespace()) {
            tracing::warn!("the guardian is gone: {error}");
        }
        self.write_down();
    }

    fn write_down(&self) {
        let _one_at_a_time = lock(&self.0.writing);
        let families: Vec<Family> =
            lock(&self.0.lives).values().map(|living| living.family.clone()).collect();
        if let Err(error) = census::write_down(&self.0.state_dir.join("instances"), families.iter()) {
            tracing::warn!("what runs can't be written down: {error}");
        }
    }

    /// Ends whatever is left of a life whose main process has ended, and gives back what it had.
    fn bury(&self, incarnation: Incarnation) {
        let Some(living) = lock(&self.0.lives).remove(&incarnation) else { return };
        self.0.watcher.forget(incarnation);
        if let Some(cgroup) = &living.cgroup {
            cgroup::kill(cgroup);
        }
        living.family.end();
        if let Some(cgroup) = &living.cgroup {
            cgroup::remove(cgroup);
        }
        let _ = self.0.guardian.forget(living.family.pid);
        self.write_down();
        let _ = std::fs::remove_dir_all(&living.folder);
        self.unsettle(incarnation);
    }
}

/// Gives an address for a name that no instance has; nobody else's as far as the name decides it.
pub(crate) fn seat_address(project: &str, service: &str) -> Option<IpAddr> {
    Addresses::default().take(project, &format!("seat/{service}"), |_| false).map(IpAddr::V4)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn process_of(spec: &Service) -> Option<&ProcessSpec> {
    match &spec.run {
        Run::Process(process) => Some(process),
        Run::Container(_) | Run::External(_) => None,
    }
}

fn is_shell(spec: &Service) -> bool {
    let program = process_of(spec).and_then(|process| process.argv.first());
    let name = program.and_then(|program| program.rsplit('/').next());
    matches!(name, Some("sh" | "bash" | "dash" | "ash" | "zsh"))
}

/// Gives a port that nobody has on 127.0.0.1; somebody may before it is used.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|listener| listener.local_addr()).map_or(0, |address| address.port())
}

/// Gives where the processes of a life listen.
fn listening(family: &Family) -> Vec<SocketAddr> {
    let mut inodes = BTreeSet::new();
    for pid in family.members() {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for link in descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inodes.extend(inode.and_then(|text| text.parse::<u64>().ok()));
        }
    }
    let all = SockDiag::open().and_then(|mut diag| diag.all_listeners()).unwrap_or_default();
    all.into_iter().filter(|one| inodes.contains(&one.inode)).map(|one| one.address).collect()
}
