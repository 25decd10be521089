//! From a service to a running process: surroundings, environment, trap, and what to do where one is refused.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    net::Ipv4Addr,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use keel_model::{ProcessSpec, Service};
use keel_sys::{
    process::{kill_group, pidfd_open},
    sandbox::{Group, Namespace, Sandbox, SpawnError, Spawned, Step, TrapMode, User, c_path},
};

use super::{
    Living, ProcessDriver, SIGKILL,
    census::Family,
    child::wait_for,
    environment, first_tcp,
    homes::Role,
    hosts::Owner,
    lock, process_of,
    surroundings::{self, Overlays, Surroundings},
    trap::Whose,
};
use crate::{
    driver::output::{self, Stream},
    error::at,
    supervisor::{Event, Incarnation},
};

/// The standard streams for a child, made anew for each attempt.
pub(super) struct Stdio3 {
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

/// What is started.
pub(super) struct Order<'a> {
    pub(super) incarnation: Incarnation,
    pub(super) name: &'a str,
    pub(super) spec: &'a Arc<Service>,
    /// In place of the service's own command.
    pub(super) argv: Option<&'a [String]>,
    pub(super) group: Group,
}

impl ProcessDriver {
    pub(super) async fn launch_instance(
        &self,
        incarnation: Incarnation,
        name: String,
        spec: Arc<Service>,
    ) -> Result<(), String> {
        let sink = self.0.output.open(&spec.name.0, &name);
        let mut pipes: Option<(OwnedFd, OwnedFd)> = None;
        let order = Order { incarnation, name: &name, spec: &spec, argv: None, group: Group::Process };
        let pid = self
            .start_process(&order, || {
                let (stdout, stdout_end) = io::pipe()?;
                let (stderr, stderr_end) = io::pipe()?;
                pipes = Some((stdout.into(), stderr.into()));
                Ok(Stdio3 { stdin: Stdio::null(), stdout: stdout_end.into(), stderr: stderr_end.into() })
            })
            .await?;
        if let Some((stdout, stderr)) = pipes {
            tokio::spawn(output::drain(stdout, Stream::Stdout, sink.clone()));
            tokio::spawn(output::drain(stderr, Stream::Stderr, sink));
        }
        self.tell(Event::Started { incarnation });
        if first_tcp(&spec.ports).is_some() {
            self.0.watcher.watch(incarnation);
        }
        self.await_end(incarnation, pid);
        Ok(())
    }

    /// Says when a life has ended, and buries it.
    fn await_end(&self, incarnation: Incarnation, pid: i32) {
        let driver = self.clone();
        let Some(living) = self.living(incarnation) else { return };
        tokio::spawn(async move {
            let exit = wait_for(pid, living.pidfd).await;
            let _ = kill_group(pid, SIGKILL);
            driver.begin_burial();
            driver.tell(Event::Exited { incarnation, exit });
            let _ = tokio::task::spawn_blocking(move || driver.bury(incarnation)).await;
        });
    }

    /// Starts a process in surroundings of its own and enters it among the living.
    pub(super) async fn start_process(
        &self,
        order: &Order<'_>,
        mut stdio: impl FnMut() -> io::Result<Stdio3>,
    ) -> Result<i32, String> {
        let process = process_of(order.spec).ok_or("it isn't run here")?;
        let folder = self.0.state_dir.join("run").join(format!("{}-{}", order.name, order.incarnation));
        let mut with_cgroup = self.0.cgroups.is_some();
        // Each refusal switches one thing off, and there are three.
        for _ in 0..4 {
            let refused = lock(&self.0.refused).clone();
            // The refusal may have come to light, here or at another's start, after this one was given an address.
            if refused.trap.is_some() && self.0.homes.get(order.incarnation).is_some_and(|home| home.own) {
                self.unsettle(order.incarnation);
                self.settle(order.incarnation, order.name, order.spec);
            }
            let group_name = format!("{}-{}", order.name, order.incarnation);
            let cgroup = self.0.cgroups.as_ref().filter(|_| with_cgroup).map(|all| all.make(&group_name));
            let (cgroup, cgroup_procs) = cgroup.and_then(Result::ok).unzip();
            let mut remains = Remains { cgroup, folder: folder.clone() };
            let mut prepared = None;
            if refused.namespace.is_none() {
                let surroundings = self.surroundings(order, process, &folder);
                prepared =
                    Some(surroundings.map_err(|error| format!("its files can't be prepared: {error}"))?);
            }
            let private_tmp = prepared.as_ref().is_some_and(|prepared| prepared.private_tmp);
            let environment = self.environment_of(order, process, private_tmp);
            let command = self.command(order, process, &environment, &mut stdio)?;
            let namespace = prepared.is_some();
            let sandbox = Sandbox {
                working_dir: c_path(&process.working_dir).ok(),
                namespace: prepared.map_or(Namespace::Inherit, |prepared| Namespace::New(prepared.namespace)),
                trap: if refused.trap.is_some() { TrapMode::Off } else { TrapMode::On },
                cgroup: cgroup_procs,
                group: order.group,
                user: user_of(process),
            };
            let program = PathBuf::from(command.get_program());
            let error = match self.0.spawner.spawn(command, sandbox).await {
                Ok(spawned) => {
                    let life =
                        Life { environment, namespace, cgroup: remains.cgroup.clone(), folder: &folder };
                    let pid = self.enter(order, spawned, life)?;
                    remains.keep();
                    return Ok(pid);
                }
                Err(error) => error,
            };
            drop(remains);
            match error.step {
                Step::Cgroup => with_cgroup = false,
                Step::Command => return Err(not_started(&program, process, &error.source)),
                step => self.learn(step, error)?,
            }
        }
        Err("it can't be started".into())
    }

    fn surroundings(
        &self,
        order: &Order<'_>,
        process: &ProcessSpec,
        folder: &Path,
    ) -> io::Result<Surroundings> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let hosts = folder.join("hosts");
        let address = self.address(order.incarnation).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let names = std::iter::once(order.name).chain(process.hostname.as_deref());
        let own = Owner { names: names.map(str::to_owned).collect(), address };
        lock(&self.0.hosts).open(order.incarnation, &hosts, own).map_err(at(&hosts))?;
        let overlays = Overlays { hosts: &hosts, nsswitch: self.0.nsswitch.as_deref() };
        surroundings::prepare(process, overlays, folder, order.name)
    }

    /// Notes what the kernel refuses, for this attempt and all later ones.
    fn learn(&self, step: Step, error: SpawnError) -> Result<(), String> {
        match step {
            Step::Namespace | Step::Mount => {
                tracing::info!("instances have no files of their own: {}", error.source);
                lock(&self.0.refused).namespace = Some(error.source.to_string());
            }
            Step::Trap => {
                tracing::info!("instances have no addresses of their own: {}", error.source);
                lock(&self.0.refused).trap = Some(error.source.to_string());
            }
            Step::WorkingDir => {
                return Err(format!("its working directory can't be entered: {}", error.source));
            }
            Step::User => {
                return Err(format!("it can't run as the user that it is given: {}", error.source));
            }
            Step::Command | Step::Setup | Step::Cgroup => {
                return Err(format!("its command can't be started: {}", error.source));
            }
        }
        Ok(())
    }

    fn environment_of(
        &self,
        order: &Order<'_>,
        process: &ProcessSpec,
        private_tmp: bool,
    ) -> BTreeMap<OsString, OsString> {
        let listed = first_tcp(&order.spec.ports);
        let home = self.0.homes.get(order.incarnation).filter(|home| !home.own);
        let port = home.and_then(|home| home.ready_at()).map(|address| address.port()).or(listed);
        let own = environment::Identity { instance: order.name, port, private_tmp };
        let mut environment = environment::environment(std::env::vars_os(), &own, process);
        let mark = self.0.record.value(order.incarnation);
        environment.insert(super::leftovers::VARIABLE.into(), mark.into());
        environment
    }

    fn command(
        &self,
        order: &Order<'_>,
        process: &ProcessSpec,
        environment: &BTreeMap<OsString, OsString>,
        stdio: &mut impl FnMut() -> io::Result<Stdio3>,
    ) -> Result<Command, String> {
        let argv = order.argv.unwrap_or(&process.argv);
        let (program, arguments) = argv.split_first().ok_or("it has no command")?;
        let path = environment.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
        let found = environment::find_program(program, &process.working_dir, &path, process.user.as_ref())?;
        let Stdio3 { stdin, stdout, stderr } =
            stdio().map_err(|error| format!("it gets no streams: {error}"))?;
        let mut command = Command::new(&found);
        if found.file_name() == Some(std::ffi::OsStr::new(program)) {
            command.arg0(program);
        }
        command.args(arguments).env_clear().envs(environment).stdin(stdin).stdout(stdout).stderr(stderr);
        Ok(command)
    }

    fn enter(&self, order: &Order<'_>, spawned: Spawned, life: Life<'_>) -> Result<i32, String> {
        let Spawned { mut child, trap } = spawned;
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        let watched = pidfd_open(pid).and_then(|pidfd| {
            if let Some(trap) = trap {
                let whose = Whose { incarnation: order.incarnation, role: Role::Instance };
                self.0.traps.add(trap, whose)?;
            }
            Ok(pidfd)
        });
        let pidfd = watched.map_err(|error| {
            let _ = kill_group(pid, SIGKILL);
            let _ = keel_sys::children::wait(&mut child);
            format!("it was lost right after its start: {error}")
        })?;
        let family = Family::of(pid, self.0.record.life_mark(order.incarnation));
        let living = Living {
            name: order.name.into(),
            spec: Arc::clone(order.spec),
            pid,
            pidfd: Arc::new(pidfd),
            family: family.clone(),
            environment: life.environment,
            namespace: life.namespace,
            cgroup: life.cgroup,
            folder: life.folder.to_owned(),
            note: self.shortcomings(order.spec),
            health: None,
        };
        lock(&self.0.lives).insert(order.incarnation, living);
        self.0.homes.inhabit(order.incarnation, family.clone());
        self.guard(&family);
        Ok(pid)
    }

    /// Says what an instance has to do without.
    fn shortcomings(&self, spec: &Service) -> Option<String> {
        let refused = lock(&self.0.refused).clone();
        let trap = refused.trap.filter(|_| first_tcp(&spec.ports).is_some());
        let trap = trap.map(|why| format!("no address of its own, must listen on $PORT: {why}"));
        let hostname = process_of(spec).is_some_and(|process| process.hostname.is_some());
        let what = if hostname { "names of services, its hostname included," } else { "names of services" };
        let names = refused.namespace.map(|why| format!("{what} don't resolve in it: {why}"));
        let all: Vec<String> = trap.into_iter().chain(names).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Says which program couldn't be started, and why.
pub(super) fn not_started(program: &Path, process: &ProcessSpec, error: &io::Error) -> String {
    let closed = (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| environment::why_closed(program, process.user.as_ref()))
        .flatten();
    match closed {
        Some(why) => format!("{} can't be started: {why}", program.display()),
        None => format!("{} can't be started: {error}", program.display()),
    }
}

/// The user that a child becomes.
pub(super) fn user_of(process: &ProcessSpec) -> Option<User> {
    let user = process.user.as_ref()?;
    Some(User { uid: user.uid, gid: user.gid, groups: user.groups.clone() })
}

struct Life<'a> {
    environment: BTreeMap<OsString, OsString>,
    namespace: bool,
    cgroup: Option<std::path::PathBuf>,
    folder: &'a Path,
}

/// What is made for a life before it begins; removed again if it doesn't.
struct Remains {
    cgroup: Option<PathBuf>,
    folder: PathBuf,
}

impl Remains {
    /// The life has begun: they are removed at its end.
    fn keep(&mut self) {
        (self.cgroup, self.folder) = (None, PathBuf::new());
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            super::cgroup::remove(cgroup);
        }
        if !self.folder.as_os_str().is_empty()
            && let Err(error) = super::remove_tree(&self.folder)
        {
            tracing::warn!("{} can't be removed: {error}", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{DriverNews, Output};

    #[tokio::test]
    async fn a_refusal_found_by_another_counts_for_one_that_has_an_address_already() {
        let folder = tempfile::tempdir().unwrap();
        let output = Arc::new(Output::new(folder.path().join("logs")).unwrap());
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let driver = ProcessDriver::start("late-refusal", folder.path(), output, told).unwrap();
        let mut spec = crate::supervisor::test_service("app", 1);
        if let keel_model::Run::Process(process) = &mut spec.run {
            process.argv = ["sleep", "1000"].map(str::to_owned).into();
        }
        let spec = Arc::new(spec);
        driver.settle(1, "app", &spec);
        lock(&driver.0.refused).trap = Some("another found out".into());
        driver.launch(1, "app".into(), spec);
        while !matches!(hears.recv().await.unwrap(), DriverNews::Event(Event::Started { .. })) {}
        let home = driver.0.homes.get(1).unwrap();
        let port = home.ready_at().unwrap().port();
        assert!(!home.own && port != 5000, "{home:?}");
        let environment = driver.living(1).unwrap().environment;
        assert_eq!(environment[std::ffi::OsStr::new("PORT")], *port.to_string());
        driver.end_all();
    }
}
