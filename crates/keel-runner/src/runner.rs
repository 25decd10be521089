//! The handle to the runner.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use keel_model::{Run, Service, ServiceName};
use tokio::sync::{mpsc, oneshot};

use crate::{
    BuildError, Exec, ExecRequest, Follower, InstanceStatus, LogLine, Notice, Past, Recreate,
    driver::{Drivers, Output, Rebuild, docker, process},
    error::{Error, at},
    event_loop::{EventLoop, Request},
    supervisor::{Command, CommandError, CommandId, Ending},
};

/// What a runner needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project's name; names of containers and networks follow from it.
    pub project: String,
    /// What tells the project from others of its name; addresses follow from it. Default the name.
    pub place: String,
    /// A folder of the project's own: files of instances, what they print, what is built.
    pub state_dir: PathBuf,
    /// How long a drain may take where a command says nothing. Default 30 s.
    pub drain_timeout_default: Duration,
}

impl Settings {
    /// Makes settings with defaults.
    pub fn new(project: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        let project = project.into();
        Self {
            place: project.clone(),
            project,
            state_dir: state_dir.into(),
            drain_timeout_default: Duration::from_secs(30),
        }
    }
}

/// How services are applied.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// Replace instances whose service didn't change, too.
    pub force_recreate: bool,
    /// Do build steps again that are done.
    pub build: bool,
    /// Start and change only these and what they depend on; the rest is only known from then on.
    pub only: Option<Vec<ServiceName>>,
}

/// The handle to a runner; cheap to clone. When the last one is dropped all instances end at once.
#[derive(Clone, Debug)]
pub struct Runner {
    requests: mpsc::UnboundedSender<Request>,
    output: Arc<Output>,
    containers: docker::ContainerDriver,
    processes: process::ProcessDriver,
    /// What builds of services contained when they were last made.
    contents: Arc<Mutex<BTreeMap<ServiceName, String>>>,
    state_dir: Arc<Path>,
    /// Held for as long as the runner lives.
    _lock: Arc<File>,
}

/// Starts a runner on the current tokio runtime, ends what an earlier one left behind, and gives what it will tell.
///
/// # Errors
/// When the state folder can't be used or is in use, or the system refuses what no instance can do without.
pub fn start(settings: Settings) -> Result<(Runner, mpsc::UnboundedReceiver<Notice>), Error> {
    let Settings { project, place, state_dir, drain_timeout_default } = settings;
    let unusable = |source| Error::StateDir { path: state_dir.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state_dir).map_err(unusable)?;
    // Instances enter it through mounts: it must be named from the root.
    let state_dir = state_dir.canonicalize().map_err(unusable)?;
    let lock = lock(&state_dir)?;
    let logs = state_dir.join("logs");
    let output = Output::new(logs.clone()).map_err(|source| Error::StateDir { path: logs, source })?;
    let output = Arc::new(output);
    let (told, hears) = mpsc::unbounded_channel();
    let containers = docker::ContainerDriver::new(&project, &state_dir, Arc::clone(&output), told.clone());
    let processes = process::ProcessDriver::start(&place, &state_dir, Arc::clone(&output), told.clone());
    let driver = Drivers::of(processes.map_err(Error::System)?, containers);
    let (notices, noticed) = mpsc::unbounded_channel();
    let (requests, received) = mpsc::unbounded_channel();
    let (containers, processes) = (driver.containers().clone(), driver.processes().clone());
    let event_loop = EventLoop::new(drain_timeout_default, driver, notices, told);
    tokio::spawn(event_loop.run(received, hears));
    let (contents, state_dir) = (Arc::default(), state_dir.into());
    let runner =
        Runner { requests, output, containers, processes, contents, state_dir, _lock: Arc::new(lock) };
    Ok((runner, noticed))
}

/// The address on which the balancer's seat of a project is found by its instances. The same on every run.
pub fn seat_address(place: &str, service: &str) -> Option<IpAddr> {
    process::seat_address(place, service)
}

/// Ends processes and containers of a project that an earlier runner left behind, and removes its files and networks.
/// Whether there was anything to end.
///
/// # Errors
/// When there is a runner, or the engine can't be asked.
pub async fn end_leftovers(project: &str, state_dir: &Path) -> Result<bool, Error> {
    let processes = match state_dir.is_dir() {
        true => {
            let _lock = lock(state_dir)?;
            process::end_leftovers(state_dir)
        }
        false => false,
    };
    Ok(docker::end_leftovers(project, state_dir).await? || processes)
}

/// How long a state folder that is in use is waited for. A process that is killed gives up what it held piece by piece, and
/// `down` uses the folder for a moment where nothing runs.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_ASK_EVERY: Duration = Duration::from_millis(10);

fn lock(state_dir: &Path) -> Result<File, Error> {
    let since = Instant::now();
    loop {
        match try_lock(state_dir) {
            Err(Error::InUse { .. }) if since.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(LOCK_ASK_EVERY);
            }
            outcome => return outcome,
        }
    }
}

fn try_lock(state_dir: &Path) -> Result<File, Error> {
    let path = state_dir.join("lock");
    let unusable = |source| Error::StateDir { path: state_dir.to_owned(), source };
    let options = File::options().create(true).read(true).write(true).truncate(false).mode(0o600).open(&path);
    let file = options.map_err(at(&path)).map_err(unusable)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let mine = std::process::id().to_string();
            std::fs::write(&path, mine).map_err(at(&path)).map_err(unusable)?;
            Ok(file)
        }
        Err(rustix::io::Errno::AGAIN) => {
            let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            Err(Error::InUse { path: state_dir.to_owned(), pid })
        }
        Err(error) => Err(unusable(io::Error::from(error))),
    }
}

impl Runner {
    /// Runs these services and no others: starts what is new, replaces what changed (one instance at a time), ends
    /// what is gone. Builds first what has to be built. Returns when all that is ready, or can't be.
    ///
    /// # Errors
    /// Builds that failed (their services stay as they were), or instances that didn't become ready.
    pub async fn apply(&self, services: Vec<Service>, options: ApplyOptions) -> Result<(), Error> {
        self.begin_apply(services, options).await?.end().await
    }

    /// Does the part of [`apply`](Self::apply) that has an order: what is begun later comes after it.
    ///
    /// # Errors
    /// When the runner has ended. What else fails is told at the end.
    pub async fn begin_apply(&self, services: Vec<Service>, options: ApplyOptions) -> Result<Begun, Error> {
        let ApplyOptions { force_recreate, build, only } = options;
        // Building takes its time: what is stopped meanwhile was said later.
        let asked = self.ask(|reply| Request::LastCommand { reply }).await?;
        let mut services = services;
        self.containers.end_leftovers().await;
        let mut only: Option<BTreeSet<ServiceName>> = only.map(|names| with_dependencies(&services, names));
        let is_meant = |only: &Option<BTreeSet<ServiceName>>, name: &ServiceName| {
            only.as_ref().is_none_or(|only| only.contains(name))
        };
        let mut failures = Vec::new();
        let rebuild = if build { Rebuild::All } else { Rebuild::Missing };
        let all: BTreeSet<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
        for service in &mut services {
            if service.replicas == 0 || !is_meant(&only, &service.name) {
                // What the image says counts all the same where it is there, so that nothing seems changed later.
                self.containers.learn(service).await;
                continue;
            }
            if let Err(error) = self.build(service, rebuild).await {
                failures.push(error);
                only.get_or_insert_with(|| all.clone()).remove(&service.name);
            }
        }
        let services = services.into_iter().map(Arc::new).collect();
        let recreate = if force_recreate { Recreate::All } else { Recreate::Changed };
        self.begin(Command::Apply { services, only, recreate }, Some(asked), failures)
    }

    /// Does what has yet to be built of services before they are started by name.
    async fn build_named(&self, names: &[String]) -> Result<(), Error> {
        let services = self.ask(|reply| Request::Services { names: names.to_vec(), reply }).await?;
        let mut failures = Vec::new();
        for service in services {
            let mut service = Service::clone(&service);
            match self.build(&mut service, Rebuild::Missing).await {
                Ok(()) => drop(self.requests.send(Request::Learned { service: Arc::new(service) })),
                Err(error) => failures.push(error),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::Build { failures, rest: None }) }
    }

    async fn build(&self, service: &mut Service, rebuild: Rebuild) -> Result<(), BuildError> {
        let name = service.name.clone();
        let progress = |text: String| {
            let _ = self.requests.send(Request::Progress { service: name.clone(), text });
        };
        match service.run {
            Run::Container(_) => self.containers.build(service, rebuild, &progress).await,
            Run::Process(_) | Run::External(_) => {
                process::build(service, &self.state_dir.join("built"), rebuild, progress).await?;
                self.take_in_content(service, rebuild).await
            }
        }
    }

    /// Takes in what a build of a service contains: what the last one did, unless all is built again.
    async fn take_in_content(&self, service: &mut Service, rebuild: Rebuild) -> Result<(), BuildError> {
        let contents = || self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let known = contents().get(&service.name).filter(|_| rebuild == Rebuild::Missing).cloned();
        let content = match process::take_in_content(service, known).await {
            Err(error) if rebuild == Rebuild::Missing => {
                tracing::debug!("what {} is made of isn't known: {error}", service.name);
                return Ok(());
            }
            content => content?,
        };
        if let Some(content) = content {
            contents().insert(service.name.clone(), content);
        }
        Ok(())
    }

    /// Starts what doesn't run of these services and instances, and what they depend on. Returns when it is ready.
    ///
    /// # Errors
    /// An unknown name, or instances that didn't become ready.
    pub async fn start(&self, names: Vec<String>) -> Result<(), Error> {
        let asked = self.ask(|reply| Request::LastCommand { reply }).await?;
        self.build_named(&names).await?;
        self.begin(Command::Start { names }, Some(asked), Vec::new())?.end().await
    }

    /// Takes services and instances out of the pool, lets them finish, ends them. Returns when they have ended.
    ///
    /// # Errors
    /// An unknown name.
    pub async fn stop(&self, names: Vec<String>, ending: Ending) -> Result<(), Error> {
        self.command(Command::Stop { names, ending }).await
    }

    /// Replaces instances one at a time, the replacement first. `ending` is for each that is replaced.
    ///
    /// # Errors
    /// An unknown name, or a replacement that didn't become ready; the one it was to replace then goes on.
    pub async fn restart(&self, names: Vec<String>, ending: Ending) -> Result<(), Error> {
        self.command(Command::Restart { names, ending }).await
    }

    /// Sends a signal without a drain. What is killed isn't started again; then it returns when they have ended.
    ///
    /// # Errors
    /// An unknown name.
    pub async fn kill(&self, names: Vec<String>, signal: i32) -> Result<(), Error> {
        self.command(Command::Kill { names, signal }).await
    }

    /// Runs that many instances of a service. Returns when they are ready, and those beyond have ended.
    ///
    /// # Errors
    /// An unknown name, a number that can't be, or instances that didn't become ready.
    pub async fn scale(&self, service: ServiceName, replicas: u32) -> Result<(), Error> {
        self.begin_scale(service, replicas).await?.end().await
    }

    /// Does the part of [`scale`](Self::scale) that has an order: what is begun later comes after it.
    ///
    /// # Errors
    /// A build that failed. What else fails is told at the end.
    pub async fn begin_scale(&self, service: ServiceName, replicas: u32) -> Result<Begun, Error> {
        let asked = self.ask(|reply| Request::LastCommand { reply }).await?;
        if replicas > 0 {
            self.build_named(std::slice::from_ref(&service.0)).await?;
        }
        self.begin(Command::Scale { service, replicas }, Some(asked), Vec::new())
    }

    /// Ends all instances, those that depend on others first, and removes networks that were made for containers.
    /// Returns when that is done.
    ///
    /// # Errors
    /// When the runner has ended.
    pub async fn down(&self, ending: Ending) -> Result<(), Error> {
        let outcome = self.command(Command::Down { ending }).await;
        self.containers.tear_down().await;
        let processes = self.processes.clone();
        // It waits for the last of them, and mustn't keep the rest waiting.
        let _ = tokio::task::spawn_blocking(move || processes.close()).await;
        self.output.flush().await;
        outcome
    }

    /// Ends all containers at once: they wouldn't end with this process, as local processes do.
    pub async fn abandon(&self) {
        self.containers.abandon().await;
        self.output.flush().await;
    }

    /// How all instances stand, by service and number.
    ///
    /// # Errors
    /// When the runner has ended.
    pub async fn instances(&self) -> Result<Vec<InstanceStatus>, Error> {
        self.ask(|reply| Request::Instances { reply }).await
    }

    /// Says that nothing is in flight any more to an instance that drains.
    pub fn drained(&self, _instance: &str, incarnation: u64) {
        let _ = self.requests.send(Request::Drained { incarnation });
    }

    /// Says that requests fail at an instance: it is looked at once whether it listens.
    pub fn doubted(&self, incarnation: u64) {
        let _ = self.requests.send(Request::Doubted { incarnation });
    }

    /// Makes names resolve in all instances, beside those of services and instances; replaces the ones set before.
    pub fn set_names(&self, names: Vec<(String, IpAddr)>) {
        let _ = self.requests.send(Request::SetNames { names });
    }

    /// The last lines that these services and instances printed (of all of them if no name is given; all that is
    /// kept without a number), by time, and who hears what they print from then on: no line twice, none between them.
    ///
    /// # Errors
    /// An unknown name.
    pub async fn logs(&self, names: Vec<String>, tail: Option<usize>) -> Result<(Past, Follower), Error> {
        let all = names.is_empty();
        let found = self.ask(|reply| Request::Names { names: names.clone(), reply }).await??;
        // Instances may come later: they are followed by the name of their service.
        let instances: BTreeSet<String> = found.iter().map(|of| of.instance.clone()).collect();
        let is_meant = move |line: &LogLine| {
            all || instances.contains(&line.instance)
                || names.iter().any(|name| *name == line.service || *name == line.instance)
        };
        let (past, follower) = self.output.follow(&found, tail, is_meant);
        Ok((past.get().await, follower))
    }

    /// Whether anything that an instance printed is kept.
    pub fn has_printed(&self, instance: &str) -> bool {
        self.output.has_any(instance)
    }

    /// Runs a command in an instance: its environment, names, files and address.
    ///
    /// # Errors
    /// An unknown name, an instance that doesn't run, or a command that can't be started.
    pub async fn exec(&self, request: ExecRequest) -> Result<Exec, Error> {
        self.ask(|reply| Request::Exec { request, reply }).await?
    }

    /// Runs a command, or the service's own if there is none, once, as an instance that gets no requests.
    ///
    /// # Errors
    /// An unknown name, or a command that can't be started.
    pub async fn run_once(&self, request: ExecRequest) -> Result<Exec, Error> {
        self.ask(|reply| Request::RunOnce { request, reply }).await?
    }

    /// Has a command done. What it ended has left nothing behind by then.
    async fn command(&self, command: Command) -> Result<(), Error> {
        let outcome = self.begin(command, None, Vec::new())?.end().await;
        self.processes.buried().await;
        outcome
    }

    /// `asked` is the last command that had been given when this one was; `None` for now.
    fn begin(
        &self,
        command: Command,
        asked: Option<CommandId>,
        failures: Vec<BuildError>,
    ) -> Result<Begun, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Command { command, asked, reply }).map_err(|_| Error::Ended)?;
        Ok(Begun { failures, answer })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)
    }
}

/// A command that the runner has taken and not yet brought to its end.
#[derive(Debug)]
#[must_use = "how it ends is told by its end"]
pub struct Begun {
    failures: Vec<BuildError>,
    answer: oneshot::Receiver<Result<(), CommandError>>,
}

impl Begun {
    /// Returns when the state is reached that was asked for.
    ///
    /// # Errors
    /// Those of the command.
    pub async fn end(self) -> Result<(), Error> {
        let Self { failures, answer } = self;
        let done = answer.await.map_err(|_| Error::Ended)?;
        match failures.is_empty() {
            true => Ok(done?),
            false => Err(Error::Build { failures, rest: done.err() }),
        }
    }
}

fn with_dependencies(services: &[Service], names: Vec<ServiceName>) -> BTreeSet<ServiceName> {
    let mut all = BTreeSet::new();
    let mut open = names;
    while let Some(name) = open.pop() {
        let service = services.iter().find(|service| service.name == name);
        if all.insert(name) {
            let depends_on = service.map(|service| service.depends_on.as_slice()).unwrap_or_default();
            open.extend(depends_on.iter().map(|dependency| dependency.service.clone()));
        }
    }
    all
}
