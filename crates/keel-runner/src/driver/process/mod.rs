//! Instances as local processes, each with a loopback address, files and a name of its own.
//!
//! Where the kernel refuses a part (no user namespaces, a filter with a listener in force already), the instance runs
//! without it and its status says so: without the trap it is given `$PORT`, a free port of 127.0.0.1.

mod address;
mod build;
mod census;
mod cgroup;
mod child;
mod content;
mod doctor;
mod environment;
mod homes;
mod hosts;
mod launch;
mod leftovers;
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
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use keel_model::{ProcessSpec, Run, Service, ServiceName};
use keel_sys::{
    children,
    claim::Claim,
    guardian::Guardian,
    mark::FileId,
    proc,
    process::{kill_group, pidfd_send_signal},
    sock_diag::SockDiag,
};
use tokio::sync::{mpsc::UnboundedSender, watch};

pub use self::doctor::{Finding, doctor};
use self::{
    address::{Addresses, Free},
    census::Family,
    cgroup::Cgroups,
    homes::{Home, Homes, Ports},
    hosts::Hosts,
    leftovers::{RunRecord, remove_tree},
    listening::{Hearing, Watcher},
    spawner::Spawner,
    trap::{Found, Traps},
};
pub(crate) use self::{
    build::{build, take_in_content},
    homes::first_tcp,
    leftovers::end_leftovers,
};
pub(in crate::driver) use self::{census::members_of_group, child::Child};
use super::{DriverNews, Facts, output::Output};
use crate::{
    Health,
    error::at,
    supervisor::{Event, Incarnation},
};

const SIGKILL: i32 = 9;
/// What `ps` says of one life at most, in bytes.
const NOTE_BYTES_MAX: usize = 1 << 10;
/// How long after an instance became ready its ports on wildcard addresses are looked for.
const ESCAPED_AFTER: Duration = Duration::from_millis(250);
/// How long after its end a guardian is replaced.
const GUARDIAN_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The driver.
#[derive(Clone, Debug)]
pub(crate) struct ProcessDriver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    project: String,
    state_dir: PathBuf,
    spawner: Spawner,
    traps: Traps,
    homes: Arc<Homes>,
    watcher: Watcher,
    guardian: Mutex<Guardian>,
    /// What a later run is to know of this one.
    record: RunRecord,
    /// The project's `nsswitch.conf`, where the host has one.
    nsswitch: Option<PathBuf>,
    hosts: Mutex<Hosts>,
    addresses: Mutex<Addresses>,
    /// Addresses of services that had no ready instance, each with its claim.
    vacancies: Mutex<BTreeMap<ServiceName, (Ipv4Addr, Option<Claim>)>>,
    output: Arc<Output>,
    cgroups: Option<Cgroups>,
    /// Why the kernel doesn't give us a namespace, and a trap.
    refused: Mutex<Refused>,
    lives: Mutex<BTreeMap<Incarnation, Living>>,
    /// Held while they are written down.
    writing: Mutex<()>,
    /// Lives that have ended and of which something is left.
    burials: watch::Sender<usize>,
    told: UnboundedSender<DriverNews>,
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

impl ProcessDriver {
    /// Prepares everything that instances share, and ends what an earlier run left behind.
    pub(crate) fn start(
        project: &str,
        state_dir: &Path,
        output: Arc<Output>,
        told: UnboundedSender<DriverNews>,
    ) -> io::Result<Self> {
        end_leftovers(state_dir);
        let cgroups = Cgroups::open(project).ok();
        let record = RunRecord::new(cgroups.as_ref().map(|all| all.folder().to_owned()));
        let nsswitch = make_nsswitch(state_dir)?;
        // The guardian is forked before anything is started, from as small a process as there will be.
        let guardian = start_guardian(&record, state_dir, cgroups.as_ref())?;
        keel_sys::process::set_subreaper()?;
        let run = state_dir.join("run");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&run).map_err(at(&run))?;
        let instances = state_dir.join("instances");
        record.write(&instances, std::iter::empty()).map_err(at(&instances))?;
        let homes = Arc::new(Homes::default());
        let tell = told.clone();
        let watcher = Watcher::start(Arc::clone(&homes), move |incarnation, hearing| {
            let _ = tell.send(DriverNews::Event(match hearing {
                Hearing::Listens => Event::Listening { incarnation },
                Hearing::IsDeaf => Event::Deaf { incarnation },
            }));
        })?;
        let (bound, tell) = (watcher.clone(), told.clone());
        let on_found = move |incarnation, found| match found {
            Found::Bound(ports) => {
                if ports == Ports::Changed {
                    let _ = tell.send(DriverNews::Event(Event::Moved { incarnation }));
                }
                bound.bound(incarnation);
            }
            Found::Remark(text) => drop(tell.send(DriverNews::Remark(incarnation, text))),
            Found::Obstacle(why) => drop(tell.send(DriverNews::Obstacle(incarnation, why))),
        };
        let traps = Traps::start(Arc::clone(&homes), Box::new(on_found))?;
        let driver = Self(Arc::new(Inner {
            project: project.into(),
            state_dir: state_dir.into(),
            spawner: Spawner::start()?,
            traps,
            homes,
            watcher,
            guardian: Mutex::new(guardian),
            record,
            nsswitch,
            hosts: Mutex::new(Hosts::new()),
            addresses: Mutex::default(),
            vacancies: Mutex::default(),
            output,
            cgroups,
            refused: Mutex::default(),
            lives: Mutex::default(),
            writing: Mutex::default(),
            burials: watch::Sender::new(0),
            told,
        }));
        tokio::spawn(guard_the_guardian(Arc::downgrade(&driver.0)));
        Ok(driver)
    }

    /// Returns when nothing is left of the lives that have ended: no process, no files.
    pub(crate) async fn buried(&self) {
        // The sender lives as long as this does.
        let _ = self.0.burials.subscribe().wait_for(|left| *left == 0).await;
    }

    /// Removes what lives of this run had in common, when none is left.
    pub(crate) fn close(&self) {
        if lock(&self.0.lives).is_empty() {
            let _one_at_a_time = lock(&self.0.writing);
            if let Some(cgroups) = &self.0.cgroups {
                cgroup::remove(cgroups.folder());
            }
            let _ = std::fs::remove_file(self.0.state_dir.join("instances"));
        }
    }

    /// Gives a life an address, before it is started, so that its name resolves by then.
    pub(crate) fn settle(&self, incarnation: Incarnation, name: &str, spec: &Service) {
        let own = || {
            let mut diag = SockDiag::open().ok();
            let taken: BTreeSet<IpAddr> = diag
                .as_mut()
                .and_then(|diag| diag.all_listeners().ok())
                .map(|all| all.into_iter().map(|one| one.address.ip()).collect())
                .unwrap_or_default();
            let claim = |address: Ipv4Addr| match taken.contains(&address.into()) {
                true => Free::No,
                false => claim(address),
            };
            lock(&self.0.addresses).take(&self.0.project, name, claim)
        };
        let refused = lock(&self.0.refused).trap.is_some();
        let home = match if refused { None } else { own() } {
            Some(address) => Home::new(address, spec),
            None => Home::shared(spec, free_port()),
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

    /// An address at which nobody answers, for the name of a service that has no ready instance: the name
    /// resolves, and connections are refused, as by a container that doesn't listen yet. `None` where the address is in
    /// use, or there is no trap to refuse them.
    pub(crate) fn vacancy(&self, service: &ServiceName) -> Option<IpAddr> {
        if lock(&self.0.refused).trap.is_some() {
            return None;
        }
        let mut vacancies = lock(&self.0.vacancies);
        if let Some((address, _)) = vacancies.get(service) {
            return Some((*address).into());
        }
        let address = address::address_of_service(&self.0.project, "vacancy", &service.0);
        let Free::Yes(claim) = claim(address) else { return None };
        vacancies.insert(service.clone(), (address, claim));
        self.0.homes.add_vacancy(address, service.clone());
        Some(address.into())
    }

    /// Looks whether a life that serves listens still: requests fail there.
    pub(crate) fn doubt(&self, incarnation: Incarnation) {
        if self.living(incarnation).is_some_and(|living| first_tcp(&living.spec.ports).is_some()) {
            self.0.watcher.doubt(incarnation);
        }
    }

    /// Writes which names stand for which addresses.
    pub(crate) fn write_hosts(&self, names: &BTreeMap<String, Vec<IpAddr>>) {
        self.0.homes.set_named(names.values().flatten().copied());
        if let Err(error) = lock(&self.0.hosts).write(names) {
            tracing::warn!("names of instances can't be written: {error}");
        }
    }

    /// The address of a life.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<IpAddr> {
        self.0.homes.get(incarnation).map(|home| home.address.into())
    }

    /// What is known of a life.
    pub(crate) fn facts(&self, incarnation: Incarnation) -> Option<Facts> {
        let home = self.0.homes.get(incarnation)?;
        let living = lock(&self.0.lives).get(&incarnation).cloned();
        Some(Facts {
            pid: living.as_ref().and_then(|living| u32::try_from(living.pid).ok()),
            address: home.address.into(),
            ports_shown: home.shown(),
            is_watched: home.own && !home.is_on_wildcard,
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

    /// Finds out why an instance isn't ready, and says it.
    pub(crate) fn tell_slow(&self, incarnation: Incarnation, instance: String) {
        let driver = self.clone();
        tokio::task::spawn_blocking(move || {
            let Some(why) = driver.why_slow(incarnation) else { return };
            let _ = driver.0.told.send(DriverNews::Slow { instance, why });
        });
    }

    fn why_slow(&self, incarnation: Incarnation) -> Option<String> {
        let living = self.living(incarnation)?;
        let passes = living.health.as_ref().is_some_and(|health| health.passed);
        if living.spec.healthcheck.is_some() && !passes {
            return Some(match living.health {
                Some(health) if health.output.trim().is_empty() => {
                    "its healthcheck fails and prints nothing".into()
                }
                Some(health) => format!("its healthcheck fails: {}", health.output.trim()),
                None => "its first healthcheck hasn't ended yet".into(),
            });
        }
        let port = first_tcp(&living.spec.ports)?;
        let ready_at = self.0.homes.get(incarnation)?.ready_at()?;
        why_deaf(port, ready_at, &listening(&living.family))
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

    /// Notes something about a life that its status shows.
    /// Adds to what `ps` says of a life. False if that is there already, or enough is.
    pub(crate) fn note(&self, incarnation: Incarnation, text: &str) -> bool {
        if let Some(living) = lock(&self.0.lives).get_mut(&incarnation) {
            let note = living.note.get_or_insert_default();
            if note.contains(text) || note.len() >= NOTE_BYTES_MAX {
                return false;
            }
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(text);
        }
        let _ = self.0.told.send(DriverNews::Noted(incarnation));
        true
    }

    fn living(&self, incarnation: Incarnation) -> Option<Living> {
        lock(&self.0.lives).get(&incarnation).cloned()
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the runner is gone.
        let _ = self.0.told.send(DriverNews::Event(event));
    }

    fn unsettle(&self, incarnation: Incarnation) {
        lock(&self.0.hosts).forget(incarnation);
        if let Some(home) = self.0.homes.remove(incarnation) {
            lock(&self.0.addresses).release(home.address);
        }
    }

    /// Notes a process for the guardian and for a later run.
    fn guard(&self, family: &Family) {
        // The next guardian learns all lives when it starts.
        if let Err(error) = lock(&self.0.guardian).watch(family.pid, family.namespace()) {
            tracing::debug!("the guardian can't be told: {error}");
        }
        self.write_down();
    }

    /// Has another guardian take the place of one that was killed.
    fn guardian_has_ended(&self) -> bool {
        let pid = i32::try_from(lock(&self.0.guardian).pid()).unwrap_or(0);
        match keel_sys::process::exit_of_unreaped(pid) {
            Ok(exit) => exit.is_some(),
            // It was reaped.
            Err(error) => error.raw_os_error() == Some(rustix::io::Errno::CHILD.raw_os_error()),
        }
    }

    fn replace_guardian(&self) -> io::Result<(u32, u32)> {
        let new = start_guardian(&self.0.record, &self.0.state_dir, self.0.cgroups.as_ref())?;
        let mut guardian = lock(&self.0.guardian);
        let old = std::mem::replace(&mut *guardian, new);
        for living in lock(&self.0.lives).values() {
            guardian.watch(living.family.pid, living.family.namespace())?;
        }
        Ok((old.pid(), guardian.pid()))
    }

    fn write_down(&self) {
        let _one_at_a_time = lock(&self.0.writing);
        let families: Vec<Family> =
            lock(&self.0.lives).values().map(|living| living.family.clone()).collect();
        if let Err(error) = self.0.record.write(&self.0.state_dir.join("instances"), families.iter()) {
            tracing::warn!("what runs can't be written down: {error}");
        }
    }

    /// Notes that something is left of a life, until [`bury`](Self::bury) has removed it.
    fn begin_burial(&self) {
        self.0.burials.send_modify(|left| *left += 1);
    }

    /// Ends the processes left of a life whose main process has ended, reaps that, and removes the life's files.
    fn bury(&self, incarnation: Incarnation) {
        self.remove_remains(incarnation);
        self.0.burials.send_modify(|left| *left = left.saturating_sub(1));
    }

    fn remove_remains(&self, incarnation: Incarnation) {
        let Some(living) = lock(&self.0.lives).remove(&incarnation) else { return };
        self.0.watcher.forget(incarnation);
        if let Some(cgroup) = &living.cgroup {
            cgroup::kill(cgroup);
        }
        living.family.end();
        // From here on its number may be another's.
        let _ = lock(&self.0.guardian).forget(living.family.pid);
        let _ = children::reap(living.pid);
        if let Some(cgroup) = &living.cgroup {
            cgroup::remove(cgroup);
        }
        self.write_down();
        if let Err(error) = remove_tree(&living.folder) {
            tracing::warn!("{} can't be removed: {error}", living.folder.display());
        }
        self.unsettle(incarnation);
    }
}

fn start_guardian(record: &RunRecord, state_dir: &Path, cgroups: Option<&Cgroups>) -> io::Result<Guardian> {
    let kill = cgroups.and_then(Cgroups::open_kill);
    let file = FileId::of(&state_dir.join(leftovers::MARK_FILE)).ok();
    Guardian::start(&record.mark(file), kill.as_ref().map(AsFd::as_fd))
}

/// Makes the `nsswitch.conf` that all instances see, where the host has one. The file stays the same one from run to run.
fn make_nsswitch(state_dir: &Path) -> io::Result<Option<PathBuf>> {
    let Ok(host) = std::fs::read_to_string("/etc/nsswitch.conf") else { return Ok(None) };
    let path = state_dir.join(leftovers::MARK_FILE);
    std::fs::write(&path, hosts::nsswitch(&host)).map_err(at(&path))?;
    // Every user reads it, under any umask of this process.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(at(&path))?;
    Ok(Some(path))
}

/// Watches over the process that watches over this one.
async fn guard_the_guardian(driver: Weak<Inner>) {
    loop {
        let Some(pidfd) = driver.upgrade().map(|driver| lock(&driver.guardian).pidfd()) else { return };
        match pidfd {
            Ok(pidfd) => child::until_ended(pidfd).await,
            Err(error) => tracing::warn!("the guardian can't be watched: {error}"),
        }
        tokio::time::sleep(GUARDIAN_AGAIN_AFTER).await;
        let Some(driver) = driver.upgrade().map(ProcessDriver) else { return };
        // Another one in the place of one that lives would have that one end everything.
        if !driver.guardian_has_ended() {
            continue;
        }
        match driver.replace_guardian() {
            Ok((old, new)) => tracing::warn!("the guardian (pid {old}) was killed; pid {new} takes over"),
            Err(error) => tracing::error!("the guardian was killed, and there can't be another: {error}"),
        }
    }
}

/// An address for a name that no instance has; nobody else's as far as the name decides it.
pub(crate) fn seat_address(project: &str, service: &str) -> Option<IpAddr> {
    Some(address::address_of_service(project, "seat", service).into())
}

/// Claims an address for all to see. Where the kernel refuses the names of claims, it is had without.
fn claim(address: Ipv4Addr) -> Free {
    match Claim::new(address) {
        Ok(claim) => Free::Yes(Some(claim)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Free::No,
        Err(error) => {
            tracing::debug!("{address} can't be claimed: {error}");
            Free::Yes(None)
        }
    }
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

/// A port that nobody has on 127.0.0.1; somebody may before it is used.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|listener| listener.local_addr()).map_or(0, |address| address.port())
}

/// Says why an instance that listens at `found` isn't ready; `None` when it listens where it is looked for, which will be
/// noticed in a moment.
fn why_deaf(port: u16, ready_at: SocketAddr, found: &[SocketAddr]) -> Option<String> {
    let elsewhere: Vec<String> = found.iter().map(ToString::to_string).collect();
    match found {
        [] => Some(format!("it runs and doesn't listen on port {port} yet")),
        found if found.contains(&ready_at) => None,
        _ => Some(format!("it listens on {}, not on port {port}", elsewhere.join(", "))),
    }
}

/// Where the processes of a life listen.
fn listening(family: &Family) -> Vec<SocketAddr> {
    let sockets = family.members().into_iter().filter_map(|pid| proc::sockets_of(pid).ok());
    let inodes: BTreeSet<u64> = sockets.flatten().collect();
    let all = SockDiag::open().and_then(|mut diag| diag.all_listeners()).unwrap_or_default();
    all.into_iter().filter(|one| inodes.contains(&one.inode)).map(|one| one.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_listens_where_it_should_is_not_said_to_listen_elsewhere() {
        let check = |found: &[&str], expect: Option<&str>| {
            let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
            let ready_at = "127.1.2.3:5000".parse().unwrap();
            assert_eq!(why_deaf(5000, ready_at, &found).as_deref(), expect, "{found:?}");
        };
        check(&[], Some("it runs and doesn't listen on port 5000 yet"));
        check(&["127.1.2.3:5000"], None);
        check(&["127.1.2.3:9000", "127.1.2.3:5000"], None);
        check(&["127.1.2.3:9000"], Some("it listens on 127.1.2.3:9000, not on port 5000"));
    }
}
