//! The system under test: a second copy of the user's project, under its own name and ports, started by this same program.
//! It ends with the case, also when the case fails.

mod command;
mod override_file;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde::Deserialize;
use tempfile::TempDir;

pub(crate) use self::command::Begun;
use self::{
    command::Followed,
    override_file::{Builds, Override},
};
use crate::{
    Error, Options, Stop,
    configuration::{self, Tuning},
    foreign::Foreign,
    guard::{self, Guard},
    ledger::{Ledger, Source},
    peer::{self, Script},
    port::{Port, free_ports, free_ports_of},
    process::{Group, all_of, children, end_all_of, has_word, lives},
    subject::Subject,
    unread::Unread,
    work::Work,
};

/// How long a command on the system may take.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(180);
/// The file that says which peer is the odd one.
const ROLE: &str = "role";
/// How long to wait between two looks at something that has no other way to be seen.
const GLANCE: Duration = Duration::from_millis(5);

/// What a case needs other than the project as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// Changes of nginx.conf.
    pub(crate) tuning: Tuning,
    /// The drill's own peers instead of the project's programs.
    pub(crate) peers: Option<Script>,
    /// Where these listen.
    pub(crate) port: PeerPort,
    /// What `up` prints to.
    pub(crate) terminal: Terminal,
}

/// Which port the drill's peers have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PeerPort {
    /// That of their service.
    #[default]
    Own,
    /// A free one, under which clients reach the balancer as well, on all addresses.
    Published,
    /// A free one, which a foreign process then has on all addresses.
    Foreign,
}

/// What `up` prints to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// Nothing: it goes to the background.
    #[default]
    None,
    /// A pipe that nobody reads; it stays in the foreground.
    Unread,
}

/// What every system of a drill has in common.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// This program.
    pub(crate) program: PathBuf,
    /// A folder that instances see as well.
    pub(crate) work: PathBuf,
    /// Where the first listener goes, if that matters to somebody.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) stop: Stop,
}

impl Ground {
    pub(crate) fn of(options: &Options, work: &Work) -> Self {
        Self {
            program: options.program.clone(),
            work: work.0.clone(),
            listen: options.listen.filter(|_| options.nginx.is_none()),
            stop: options.stop.clone(),
        }
    }
}

/// A running copy of the project. Ended when dropped.
#[derive(Debug)]
pub(crate) struct System {
    ground: Ground,
    name: String,
    arguments: Vec<String>,
    runtime: TempDir,
    ledger: PathBuf,
    output: Option<Followed>,
    /// Ends the system if this process can't.
    guard: Option<Guard>,
    phase: Phase,
    has_containers: bool,
    /// `up` in the foreground.
    unread: Option<Unread>,
    /// Somebody else on the port of the peers.
    foreign: Option<Foreign>,
    /// The port of the peers, where it isn't their service's.
    pub(crate) peer_port: Option<u16>,
    /// Where clients reach each port that `listen` names.
    pub(crate) listeners: BTreeMap<u16, SocketAddr>,
    /// Keeps other drills from these ports.
    _held: Vec<Port>,
    /// What was written for it, by file name.
    pub(crate) files: BTreeMap<String, String>,
}

/// How far a system has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `up` hasn't said that it is up; there may be nobody yet to hear a `down`.
    Starting,
    Up,
}

/// One line of `evenkeel ps --format json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) state: String,
    pub(crate) pid: Option<i32>,
    pub(crate) address: Option<String>,
}

impl Instance {
    /// Whether it takes requests, in a process that isn't one of these dead ones. One whose death is known of and
    /// hasn't been carried through is called ready, without a process.
    pub(crate) fn is_back(&self, dead: &[Pid]) -> bool {
        let lives = |pid: i32| dead.iter().all(|dead| dead.as_raw_nonzero().get() != pid);
        self.state == "ready" && self.pid.is_some_and(lives)
    }
}

impl System {
    /// Starts the project. `number` tells the systems of one drill apart.
    pub(crate) fn up(
        subject: &Subject,
        ground: &Ground,
        setup: &Setup,
        number: usize,
    ) -> Result<Self, Error> {
        let io = |source| Error::io("the drill's folder can't be made", source);
        let runtime = tempfile::Builder::new().prefix("evenkeel-drill").tempdir().map_err(io)?;
        let folder = ground.work.join(number.to_string());
        let ledger = make_ledger(&folder).map_err(io)?;
        let name = format!("{}-drill-{}-{number}", subject.joined.name, std::process::id());
        let Ports { listeners, peer_port, held } = Ports::choose(subject, ground, setup)?;
        let foreign = match (setup.port, peer_port) {
            (PeerPort::Foreign, Some(port)) => Some(Foreign::start(port).map_err(io)?),
            _ => None,
        };
        let tuning = Tuning { port: peer_port, ..setup.tuning.clone() };
        let mut conf = configuration::tuned(&subject.configuration, &subject.route.upstream, &tuning);
        if subject.joined.seat.is_none() {
            // Its ports are those that the project publishes on this host, where it may be running.
            configuration::place_listens(&mut conf, &listeners);
        }
        let conf = configuration::text(&conf);
        let (conf_path, override_path) = (folder.join("nginx.conf"), folder.join("override.yaml"));
        let plan = Override {
            subject,
            ground,
            setup,
            ledger: &ledger,
            folder: &folder,
            conf: &conf_path,
            peer_port,
        };
        let text = plan.text(&listeners, if number == 0 { Builds::Done } else { Builds::LeftOut })?;
        std::fs::write(&conf_path, &conf).map_err(io)?;
        std::fs::write(&override_path, &text).map_err(io)?;
        // A report doesn't say where this machine has them.
        let shown = |text: &str| {
            let text = text.replace(&*folder.to_string_lossy(), "DRILL");
            text.replace(&*ground.program.to_string_lossy(), "evenkeel")
        };
        let files = BTreeMap::from([
            ("nginx.conf".to_owned(), shown(&conf)),
            ("override.yaml".to_owned(), shown(&text)),
        ]);
        let mut system = Self {
            ground: ground.clone(),
            arguments: arguments(subject, &name, &override_path),
            name,
            runtime,
            ledger,
            output: None,
            guard: None,
            phase: Phase::Starting,
            has_containers: subject.driver() != "process",
            unread: None,
            foreign,
            peer_port,
            listeners,
            _held: held,
            files,
        };
        system.guard = Some(system.guarded().map_err(io)?);
        match setup.terminal {
            Terminal::None => system.run(&["up", "-d"]).map(drop)?,
            Terminal::Unread => system.up_unread(subject)?,
        }
        system.phase = Phase::Up;
        Ok(system)
    }

    /// Runs `up` in the foreground, and waits until all instances are ready: nobody reads what it says of that.
    fn up_unread(&mut self, subject: &Subject) -> Result<(), Error> {
        let unread = Unread::start(self.command(&["up"]));
        self.unread = Some(unread.map_err(|source| Error::io("`up` can't be run", source))?);
        let is_up = |instances: Vec<Instance>| {
            let ready = |name: &str| {
                let own = instances.iter().filter(|one| one.service == name && one.state == "ready");
                u32::try_from(own.count()).unwrap_or(u32::MAX)
            };
            subject.services.iter().all(|service| ready(&service.name) >= service.replicas)
        };
        let deadline = Instant::now() + COMMAND_TIME_MAX;
        // Before it listens for commands there is nobody to answer.
        while !self.instances().is_ok_and(is_up) {
            self.ground.stop.check()?;
            let ended = self.unread.as_mut().is_some_and(|up| !up.runs());
            if ended || Instant::now() > deadline {
                let said = self.unread.as_mut().map(Unread::text).unwrap_or_default();
                return Err(Error::Command { command: "up".to_owned(), said: said.trim().to_owned() });
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// `up` in the foreground.
    pub(crate) fn unread(&mut self) -> Result<&mut Unread, Error> {
        self.unread.as_mut().ok_or_else(|| Error::Fault("`up` isn't in the foreground".to_owned()))
    }

    /// Runs a command as a user would type it, and gives its output.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String, Error> {
        let failed = |said: String| Error::Command { command: words.join(" "), said };
        let output = self.begin(words)?.wait(COMMAND_TIME_MAX)?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        String::from_utf8(output.stdout).map_err(|_| failed("it printed no text".to_owned()))
    }

    fn guarded(&self) -> std::io::Result<Guard> {
        let words = ["down", "-t", "0"].map(str::to_owned);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let down = guard::Down {
            program: self.ground.program.clone(),
            words: self.arguments.iter().cloned().chain(words).collect(),
            environment: self.environment().map(|(name, path)| (name.to_owned(), text(&path))).to_vec(),
        };
        let folders = vec![self.runtime.path().to_owned(), self.ground.work.clone()];
        let order = guard::Order { marks: self.marks(), down: Some(down), folders };
        Guard::start(&self.ground.program, &order)
    }

    /// Words one of which is on the command line of all that belongs to the system, peers included.
    fn marks(&self) -> Vec<String> {
        vec![self.name.clone(), self.ledger.to_string_lossy().into_owned()]
    }

    /// The variables by which the system's own folders are found.
    fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("XDG_RUNTIME_DIR", self.runtime.path().to_owned()),
            ("XDG_STATE_HOME", self.runtime.path().join("state")),
        ]
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.ground.program);
        command
            .args(&self.arguments)
            .args(words)
            .stdin(Stdio::null())
            .envs(self.environment())
            .env("NO_COLOR", "1");
        // A terminal's Ctrl-C is the drill's to act on.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    }

    /// Begins a command.
    pub(crate) fn begin(&self, words: &[&str]) -> Result<Begun, Error> {
        let io = |source| Error::io(format!("`{}` can't be run", words.join(" ")), source);
        Begun::start(self.command(words), words.join(" "), &self.ground.stop).map_err(io)
    }

    /// Whether a command ends well within a time.
    pub(crate) fn answers(&self, words: &[&str], within: Duration) -> Result<bool, Error> {
        match self.begin(words)?.wait(within) {
            Ok(output) => Ok(output.status.success()),
            Err(Error::TooSlow(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The instances, those of the seat and of other services included.
    pub(crate) fn instances(&self) -> Result<Vec<Instance>, Error> {
        let text = self.run(&["ps", "--format", "json"])?;
        serde_json::from_str(&text).map_err(|error| Error::io("`ps` can't be understood", error.into()))
    }

    /// The instances of these services that take requests.
    pub(crate) fn ready(&self, services: &BTreeSet<&str>) -> Result<Vec<Instance>, Error> {
        let mut instances = self.instances()?;
        instances.retain(|one| one.state == "ready" && services.contains(one.service.as_str()));
        Ok(instances)
    }

    /// Waits until something is true of the instances.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        time: Duration,
        holds: impl Fn(&[Instance]) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + time;
        while !holds(&self.instances()?) {
            self.ground.stop.check()?;
            if Instant::now() > deadline {
                return Err(Error::TooSlow(format!("waited {} s in vain until {what}", time.as_secs())));
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Finds the processes of instances. One that is dead already is no fault that was played.
    pub(crate) fn groups(&self, names: &[String]) -> Result<Vec<Group>, Error> {
        let instances = self.instances()?;
        let group = |name: &String| {
            let found = instances.iter().find(|one| one.name == *name).and_then(|one| one.pid);
            let group = found.and_then(Pid::from_raw).and_then(Group::of);
            group.ok_or_else(|| Error::Fault(format!("{name} has no process that lives")))
        };
        names.iter().map(group).collect()
    }

    fn supervisor(&self) -> Result<u32, Error> {
        let lock = lock_in(&self.runtime.path().join("evenkeel"));
        let text = lock.and_then(|lock| std::fs::read_to_string(lock).ok()).unwrap_or_default();
        text.trim().parse().map_err(|_| Error::Fault("the supervisor isn't to be found".to_owned()))
    }

    /// The data plane's process: the supervisor's child that serves connections.
    pub(crate) fn data_plane(&self) -> Result<Pid, Error> {
        let helpers = children(self.supervisor()?).into_iter().filter_map(pid);
        let data_plane = helpers.into_iter().find(|pid| has_word(*pid, "data-plane"));
        data_plane.ok_or_else(|| Error::Fault("the data plane isn't to be found".to_owned()))
    }

    /// The processes of Evenkeel's own: the supervisor, and its children but for instances and their healthchecks.
    pub(crate) fn own_processes(&self) -> Result<Vec<Pid>, Error> {
        let instances: BTreeSet<i32> = self.instances()?.into_iter().filter_map(|one| one.pid).collect();
        let is_own = |pid: &Pid| {
            let is_peer = [peer::COMMAND, peer::READY_COMMAND].iter().any(|word| has_word(*pid, word));
            !is_peer && !instances.contains(&pid.as_raw_nonzero().get())
        };
        let supervisor = self.supervisor()?;
        let children = children(supervisor).into_iter().filter_map(pid).filter(is_own);
        Ok(pid(supervisor).into_iter().chain(children).filter(|pid| lives(*pid)).collect())
    }

    /// The processes of the drill's peers that belong to no instance: neither one's main process nor of its children.
    pub(crate) fn leftovers(&self) -> Result<Vec<Pid>, Error> {
        let mains: Vec<i32> = self.instances()?.into_iter().filter_map(|one| one.pid).collect();
        let mut own: BTreeSet<i32> = mains.iter().copied().collect();
        let mut to_see = mains;
        while let Some(next) = to_see.pop().and_then(|pid| u32::try_from(pid).ok()) {
            let below = children(next).into_iter().filter_map(|pid| i32::try_from(pid).ok());
            to_see.extend(below.filter(|pid| own.insert(*pid)));
        }
        Ok(self.peers().into_iter().filter(|pid| !own.contains(&pid.as_raw_nonzero().get())).collect())
    }

    /// The processes of the drill's peers that live.
    pub(crate) fn peers(&self) -> Vec<Pid> {
        all_of(&self.ledger.to_string_lossy())
    }

    /// Reads what instances print from now on; it is the ledger of apps that keep none.
    pub(crate) fn follow_output(&mut self) -> Result<(), Error> {
        self.output = Some(Followed::start(self.command(&["logs", "-f"]))?);
        Ok(())
    }

    /// The name of the peer that behaves differently from all others, once it has begun.
    pub(crate) fn odd_one(&self) -> Result<String, Error> {
        let role = self.ledger.with_file_name(ROLE);
        let name = std::fs::read_to_string(role).unwrap_or_default();
        if name.is_empty() {
            Err(Error::Fault("no peer took the odd one's part".to_owned()))
        } else {
            Ok(name)
        }
    }

    /// What instances noted so far.
    pub(crate) fn ledger(&self, source: Source) -> Result<Ledger, Error> {
        let mut ledger = match source {
            Source::File => {
                Ledger::read(&self.ledger).map_err(|error| Error::io("the ledger can't be read", error))?
            }
            Source::Output => self.output.as_ref().map_or_else(Ledger::default, Followed::ledger),
            Source::None => Ledger::default(),
        };
        if let Some(foreign) = &self.foreign {
            ledger.add(&foreign.noted());
        }
        Ok(ledger)
    }

    fn down(&mut self) {
        self.output = None;
        let mut command = self.command(&["down", "-t", "0"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let deadline = Instant::now() + Duration::from_secs(30);
        if self.phase == Phase::Up
            && let Ok(mut child) = command.spawn()
        {
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(2));
            }
            drop(child.kill());
            drop(child.wait());
        }
        // What didn't obey, was only starting, or was left by a supervisor that was killed.
        self.marks().iter().for_each(|mark| end_all_of(mark));
        self.unread = None;
        if self.has_containers {
            // They outlive their supervisor. Every call to the engine is bounded.
            let mut command = self.command(&["down"]);
            drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
        }
        self.guard = None;
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.down();
    }
}

/// The ports of a system.
struct Ports {
    /// Where clients reach each port that `listen` names.
    listeners: BTreeMap<u16, SocketAddr>,
    /// The peers' port, where it isn't their service's.
    peer_port: Option<u16>,
    /// Keeps other drills from them.
    held: Vec<Port>,
}

impl Ports {
    /// Chooses free ones, but for the listener that has its address from the user.
    fn choose(subject: &Subject, ground: &Ground, setup: &Setup) -> Result<Self, Error> {
        let ports = subject.listen_ports();
        let mut listeners = BTreeMap::new();
        let mut held = free_ports(ports.len())?;
        for (port, free) in ports.iter().zip(&held) {
            let fixed = ground.listen.filter(|_| *port == subject.route.listen);
            listeners.insert(*port, fixed.unwrap_or(free.address));
        }
        let moved = free_ports_of(Ipv4Addr::UNSPECIFIED, usize::from(setup.port != PeerPort::Own))?;
        let mut peer_port = moved.first().map(|port| port.address.port());
        held.extend(moved);
        if setup.port == PeerPort::Published
            && let Some(free) = peer_port
        {
            let port = ground.listen.map_or(free, |fixed| fixed.port());
            peer_port = Some(port);
            listeners.insert(subject.route.listen, (Ipv4Addr::UNSPECIFIED, port).into());
        }
        Ok(Self { listeners, peer_port, held })
    }
}

/// Makes the folder of a system and in it an empty ledger, which containers of any user may write.
fn make_ledger(folder: &Path) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let ledger = folder.join("ledger");
    std::fs::write(&ledger, "")?;
    let everybody = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&ledger, everybody(0o666))?;
    std::fs::set_permissions(folder, everybody(0o777))?;
    Ok(ledger)
}

/// The options by which commands find the system.
fn arguments(subject: &Subject, name: &str, override_path: &Path) -> Vec<String> {
    let compose = &subject.options.compose;
    let mut arguments = vec!["-p".to_owned(), name.to_owned()];
    let mut add = |flag: &str, value: &Path| {
        arguments.extend([flag.to_owned(), value.to_string_lossy().into_owned()]);
    };
    for file in subject.files() {
        add("-f", file);
    }
    add("-f", override_path);
    add("--project-directory", &subject.joined.folder);
    for file in &compose.env_files {
        add("--env-file", file);
    }
    for profile in &compose.profiles {
        add("--profile", Path::new(profile));
    }
    arguments
}

pub(crate) fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// The lock of the only supervisor that has its runtime files in a folder.
fn lock_in(runtime: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(runtime).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|kind| kind == "lock"))
}
