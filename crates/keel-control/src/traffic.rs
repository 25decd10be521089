//! The data plane's parent: sockets, the plan in effect, and the process that serves it.
//!
//! One task owns all of it and takes requests in order, so that an update of peers never overtakes the plan it
//! belongs to. A data plane that dies is replaced at once with the plan and the peers in effect; its sockets stay
//! open here, so that a client sees a late answer at worst. A change that a running process can't take (its number
//! of workers, its user) starts a new one beside the old one, which then finishes what it has.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use keel_model::{Address, DataPlaneStatus, Order, PeerKey, PeerSet, Plan, Report, UpstreamName, User};
use keel_sys::channel::DESCRIPTORS_MAX;
use keel_tree::beneath::{self, Links};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    data_plane::{DataPlane, DataPlaneEvent, DataPlaneId},
    inbox::{Asked, Inbox, Request, inbox},
    sockets::{ListenError, Sharing, Sockets},
};

/// How long a data plane may take to prepare a plan.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to answer a question.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command's end waits for it to take what was ordered.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to end when it is told to end at once, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// A data plane that ends within this time of its start counts as failing at once.
const EARLY_DEATH: Duration = Duration::from_secs(1);
/// Longest wait before the next start of a data plane that keeps failing at once. The first restart never waits.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

/// Why a plan was not taken. The plan before it is still in effect.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Sockets that can't be opened.
    #[error("{}", listen_text(.0))]
    Listen(Vec<ListenError>),
    /// A log file that can't be opened.
    #[error("can't open the log file {}", path.display())]
    Log {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The data plane said no.
    #[error("the data plane refuses the configuration: {0}")]
    Refused(String),
    /// No data plane could be started, or it ended while preparing.
    #[error("the data plane {0}")]
    DataPlane(String),
}

fn listen_text(errors: &[ListenError]) -> String {
    let text = |error: &ListenError| match &error.culprit {
        Some(culprit) => format!("{error}: {}, held by {culprit}", error.source),
        None => format!("{error}: {}", error.source),
    };
    errors.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// What happens in the data plane that others may need to know.
#[derive(Debug)]
pub enum TrafficNotice {
    /// A peer that left its upstream has nothing in flight.
    Drained {
        /// Whose peer.
        upstream: UpstreamName,
        /// Which peer.
        peer: PeerKey,
    },
    /// A connection to an instance broke: whether it still listens is to be looked at.
    Doubted {
        /// Which start of which instance.
        incarnation: u64,
    },
    /// Failures have excluded a peer for a while.
    Excluded {
        /// Whose peer.
        upstream: UpstreamName,
        /// Which peer.
        peer: PeerKey,
    },
    /// A data plane died, and with it all that was in flight. Another one is being started.
    DataPlaneLost,
    /// A data plane serves the plan in effect.
    Serving {
        /// Its process id.
        pid: u32,
    },
}

/// How the data plane's process is started: the program and what comes before its own arguments.
#[derive(Clone, Debug)]
pub struct DataPlaneCommand {
    /// The program; normally this one, even if its file has been replaced since.
    pub program: PathBuf,
    /// The name it shows in `ps`.
    pub name: String,
    /// The project's own folder: new logs in it are for its owner alone. Others are as nginx makes them.
    pub private_logs: Option<PathBuf>,
}

impl Default for DataPlaneCommand {
    fn default() -> Self {
        Self { program: own_program(), name: "evenkeel: data plane".into(), private_logs: None }
    }
}

/// Gives a path by which this very program can be started again: its own, so that `ps` shows its name, unless another
/// file lies there by now.
pub fn own_program() -> PathBuf {
    let by_link = || PathBuf::from("/proc/self/exe");
    let Ok(path) = std::env::current_exe() else { return by_link() };
    let is_this = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let (file, this) = (std::fs::metadata(path).ok()?, std::fs::metadata("/proc/self/exe").ok()?);
        Some((file.dev(), file.ino()) == (this.dev(), this.ino()))
    };
    if is_this(&path) == Some(true) { path } else { by_link() }
}

/// A handle to the task; cheap to clone.
#[derive(Clone, Debug)]
pub struct Traffic {
    inbox: Inbox,
}

impl Traffic {
    /// Starts the task on the current tokio runtime. It serves nothing until a plan is applied.
    pub fn start(
        command: DataPlaneCommand,
        sharing: Sharing,
    ) -> (Self, mpsc::UnboundedReceiver<TrafficNotice>) {
        let (inbox, asked) = inbox();
        let (notices, receiver) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let task = Task {
            command,
            sharing,
            sockets: Sockets::default(),
            plan: None,
            generation: 0,
            serving: None,
            leaving: Vec::new(),
            drains: HashMap::new(),
            starts: 0,
            failures: 0,
            restart_at: None,
            events,
            sender,
            put_off: VecDeque::new(),
            notices,
        };
        tokio::spawn(task.run(asked));
        (Self { inbox }, receiver)
    }

    /// Puts a plan into effect: opens sockets and logs, prepares, commits. Its peer sets must be filled.
    ///
    /// # Errors
    /// When any of that fails; then nothing has changed.
    pub async fn apply(&self, plan: Plan) -> Result<(), ApplyError> {
        self.ask(|reply| Request::Apply(Box::new(plan), reply))
            .await
            .unwrap_or_else(|| Err(ApplyError::DataPlane("is shutting down".into())))
    }

    /// Replaces the peers of an upstream, after all earlier requests.
    pub fn set_peers(&self, upstream: UpstreamName, set: PeerSet) {
        self.inbox.put(Request::Peers(upstream, set));
    }

    /// Returns when the data plane has taken everything that was asked before.
    pub async fn settle(&self) {
        // Orders are taken in turn, so an answer to the last one speaks for all.
        drop(self.ask(|reply| Request::Status(SETTLE_TIMEOUT, reply)).await);
    }

    /// Asks for counts; `None` if no data plane answers in time.
    pub async fn status(&self) -> Option<DataPlaneStatus> {
        self.ask(|reply| Request::Status(STATUS_TIMEOUT, reply)).await.flatten()
    }

    /// Opens all log files anew.
    ///
    /// # Errors
    /// When one can't be opened; the data plane then goes on with the old ones.
    pub async fn reopen_logs(&self) -> Result<(), ApplyError> {
        self.ask(Request::ReopenLogs).await.unwrap_or(Ok(()))
    }

    /// Closes the listeners, lets what is in flight finish, and returns when the data plane has ended.
    pub async fn quit(&self) {
        self.ask(Request::Quit).await;
    }

    /// Ends the data plane at once.
    pub async fn stop(&self) {
        self.ask(Request::Stop).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.put(request(reply));
        answer.await.ok()
    }
}

/// A peer and whose it is.
type PeerOf = (UpstreamName, PeerKey);

struct Serving {
    data_plane: DataPlane,
    since: Instant,
}

struct Task {
    command: DataPlaneCommand,
    sharing: Sharing,
    sockets: Sockets,
    /// The plan in effect, with the peers in effect.
    plan: Option<Plan>,
    /// The last generation handed out.
    generation: u64,
    serving: Option<Serving>,
    /// Data planes that were told to quit.
    leaving: Vec<DataPlane>,
    /// Peers that left, and the data planes that may still have requests in flight to them.
    drains: HashMap<PeerOf, HashSet<DataPlaneId>>,
    starts: u64,
    /// Starts in a row that ended at once.
    failures: u32,
    restart_at: Option<Instant>,
    events: mpsc::UnboundedReceiver<DataPlaneEvent>,
    sender: mpsc::UnboundedSender<DataPlaneEvent>,
    /// Events that came while another one was waited for.
    put_off: VecDeque<DataPlaneEvent>,
    notices: mpsc::UnboundedSender<TrafficNotice>,
}

impl Task {
    async fn run(mut self, mut requests: Asked) {
        loop {
            while let Some(event) = self.put_off.pop_front() {
                self.handle(event).await;
            }
            let restart_at = self.restart_at;
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.handle(event).await,
                () = sleep_until(restart_at) => self.restart().await,
                request = requests.next() => match request {
                    Some(Request::Quit(reply)) => {
                        return self.end(Order::Quit, reply, &mut requests).await;
                    }
                    Some(Request::Stop(reply)) => {
                        return self.end(Order::Stop, reply, &mut requests).await;
                    }
                    Some(request) => self.answer(request).await,
                    None => {
                        let (reply, _) = oneshot::channel();
                        return self.end(Order::Stop, reply, &mut requests).await;
                    }
                },
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Apply(plan, reply) => {
                let outcome = self.apply(*plan).await;
                drop(reply.send(outcome));
            }
            Request::Peers(upstream, set) => self.set_peers(upstream, set).await,
            Request::Status(patience, reply) => {
                let status = self.status(patience).await;
                drop(reply.send(status));
            }
            Request::ReopenLogs(reply) => drop(reply.send(self.reopen_logs().await)),
            Request::Quit(reply) | Request::Stop(reply) => drop(reply),
        }
    }

    async fn handle(&mut self, event: DataPlaneEvent) {
        match event {
            DataPlaneEvent::Report(id, Report::Drained { upstream, peer }) => {
                self.drained(id, &(upstream, peer));
            }
            DataPlaneEvent::Report(_, Report::Excluded { upstream, peer }) => {
                drop(self.notices.send(TrafficNotice::Excluded { upstream, peer }));
            }
            DataPlaneEvent::Report(_, Report::Doubted { incarnation }) => {
                drop(self.notices.send(TrafficNotice::Doubted { incarnation }));
            }
            DataPlaneEvent::Report(..) => {}
            DataPlaneEvent::Ended(id, status) => {
                self.leaving.retain(|data_plane| data_plane.id() != id);
                self.nothing_in_flight(id);
                if let Some(lost) = self.serving.take_if(|serving| serving.data_plane.id() == id) {
                    self.lost(&lost, status).await;
                }
            }
        }
    }

    async fn lost(&mut self, lost: &Serving, status: Option<std::process::ExitStatus>) {
        let status = status.map_or_else(|| "for an unknown reason".to_owned(), |status| status.to_string());
        tracing::error!(pid = lost.data_plane.pid(), "the data plane ended ({status}); starting another");
        drop(self.notices.send(TrafficNotice::DataPlaneLost));
        self.failures = if lost.since.elapsed() < EARLY_DEATH { self.failures + 1 } else { 0 };
        self.schedule_restart().await;
    }

    async fn schedule_restart(&mut self) {
        if self.failures <= 1 {
            return self.restart().await;
        }
        let delay =
            Duration::from_millis(50).saturating_mul(1 << self.failures.min(10)).min(RESTART_DELAY_MAX);
        self.restart_at = Some(Instant::now() + delay);
    }

    async fn restart(&mut self) {
        self.restart_at = None;
        let Some(plan) = self.plan.clone() else { return };
        if let Err(error) = self.start_beside(&plan, BTreeMap::new()).await {
            tracing::error!("no data plane: {error}");
            self.failures += 1;
            let delay = Duration::from_millis(100).saturating_mul(1 << self.failures.min(8));
            self.restart_at = Some(Instant::now() + delay.min(RESTART_DELAY_MAX));
        }
    }

    async fn apply(&mut self, mut plan: Plan) -> Result<(), ApplyError> {
        self.generation += 1;
        plan.generation = self.generation;
        let opened = self.sockets.open_missing(&plan.listeners, self.sharing).map_err(ApplyError::Listen)?;
        let same_process = self.plan.as_ref().is_some_and(|old| same_process(old, &plan));
        let holders = self.data_planes().map(DataPlane::id).collect();
        match &self.serving {
            Some(_) if same_process => self.change_in_place(&plan, opened).await?,
            _ => self.start_beside(&plan, opened).await?,
        }
        self.sockets.retain(&plan.listeners);
        let old = self.plan.replace(plan);
        let gone = self.plan.iter().zip(&old).flat_map(|(new, old)| all_gone(old, new)).collect();
        self.track(gone, &holders);
        self.restart_at = None;
        Ok(())
    }

    /// Gives the running data plane a new plan.
    async fn change_in_place(
        &mut self,
        plan: &Plan,
        opened: BTreeMap<Address, OwnedFd>,
    ) -> Result<(), ApplyError> {
        let Some(serving) = &self.serving else {
            return Err(ApplyError::DataPlane("is gone".into()));
        };
        let id = serving.data_plane.id();
        let (order, descriptors) = prepare_order(plan, opened.iter(), &self.command)?;
        serving.data_plane.tell(order, descriptors).await;
        match self.await_prepared(id, plan.generation).await {
            Err(ApplyError::Refused(reason)) => return Err(ApplyError::Refused(reason)),
            Err(error) => return Err(self.give_up_on_serving(error)),
            Ok(()) => {}
        }
        if let Some(serving) = &self.serving {
            serving.data_plane.tell(Order::Commit { generation: plan.generation }, Vec::new()).await;
        }
        let committed = |report: &Report| matches!(report, Report::Committed { generation } if *generation == plan.generation);
        match self.await_report(id, committed).await {
            Ok(_) => {
                self.sockets.add(opened);
                Ok(())
            }
            Err(error) => Err(self.give_up_on_serving(error)),
        }
    }

    /// Ends a data plane that holds nobody knows which plan; its end brings another with the plan in effect.
    fn give_up_on_serving(&mut self, error: ApplyError) -> ApplyError {
        if let Some(serving) = &self.serving {
            serving.data_plane.kill();
        }
        error
    }

    /// Starts a data plane with this plan and every socket, then lets the one before it finish.
    async fn start_beside(
        &mut self,
        plan: &Plan,
        opened: BTreeMap<Address, OwnedFd>,
    ) -> Result<(), ApplyError> {
        let wanted = |address: &Address| plan.listeners.iter().any(|listener| listener.address == *address);
        let mut sockets = BTreeMap::new();
        for (address, socket) in self.sockets.iter().filter(|(address, _)| wanted(address)) {
            let socket =
                socket.try_clone_to_owned().map_err(|error| ApplyError::DataPlane(error.to_string()))?;
            sockets.insert(address.clone(), socket);
        }
        let all = sockets.iter().chain(opened.iter());
        let (order, descriptors) = prepare_order(plan, all, &self.command)?;
        self.starts += 1;
        let id = DataPlaneId(self.starts);
        let mut command = Command::new(&self.command.program);
        std::os::unix::process::CommandExt::arg0(&mut command, &self.command.name);
        command.arg("data-plane");
        let data_plane = DataPlane::spawn(id, command, self.sender.clone())
            .map_err(|error| ApplyError::DataPlane(format!("can't be started: {error}")))?;
        data_plane.tell(order, descriptors).await;
        if let Err(error) = self.await_prepared(id, plan.generation).await {
            // It serves nobody yet.
            data_plane.kill();
            return Err(error);
        }
        data_plane.tell(Order::Commit { generation: plan.generation }, Vec::new()).await;
        self.sockets.add(opened);
        drop(self.notices.send(TrafficNotice::Serving { pid: data_plane.pid() }));
        let previous = self.serving.replace(Serving { data_plane, since: Instant::now() });
        if let Some(previous) = previous {
            previous.data_plane.tell(Order::Quit, Vec::new()).await;
            self.leaving.push(previous.data_plane);
        }
        Ok(())
    }

    async fn await_prepared(&mut self, id: DataPlaneId, generation: u64) -> Result<(), ApplyError> {
        let decided = |report: &Report| match report {
            Report::Prepared { generation: g } | Report::Refused { generation: g, .. } => *g == generation,
            _ => false,
        };
        match self.await_report(id, decided).await? {
            Report::Refused { reason, .. } => Err(ApplyError::Refused(reason)),
            _ => Ok(()),
        }
    }

    /// Waits for one report of one data plane; everything else that comes is handled afterwards.
    async fn await_report(
        &mut self,
        id: DataPlaneId,
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<Report, ApplyError> {
        self.await_report_for(id, PREPARE_TIMEOUT, wanted).await
    }

    async fn await_report_for(
        &mut self,
        id: DataPlaneId,
        patience: Duration,
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<Report, ApplyError> {
        let deadline = Instant::now() + patience;
        loop {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(DataPlaneEvent::Report(from, report))) if from == id && wanted(&report) => {
                    return Ok(report);
                }
                Ok(Some(event)) => {
                    let ended = matches!(&event, DataPlaneEvent::Ended(from, _) if *from == id);
                    self.put_off.push_back(event);
                    if ended {
                        return Err(ApplyError::DataPlane(
                            "ended while it prepared the configuration".into(),
                        ));
                    }
                }
                Ok(None) | Err(_) => return Err(ApplyError::DataPlane("doesn't answer".into())),
            }
        }
    }

    async fn set_peers(&mut self, upstream: UpstreamName, set: PeerSet) {
        let known =
            self.plan.as_mut().and_then(|plan| plan.upstreams.iter_mut().find(|u| u.name == upstream));
        let Some(known) = known else { return };
        if known.peers == set {
            return;
        }
        let gone = gone(&upstream, &known.peers, &set);
        known.peers = set.clone();
        let holders = self.data_planes().map(DataPlane::id).collect();
        self.track(gone, &holders);
        for data_plane in self.data_planes() {
            data_plane.tell(Order::Peers { upstream: upstream.clone(), set: set.clone() }, Vec::new()).await;
        }
    }

    async fn status(&mut self, patience: Duration) -> Option<DataPlaneStatus> {
        let serving = self.serving.as_ref()?;
        let id = serving.data_plane.id();
        serving.data_plane.tell(Order::Status, Vec::new()).await;
        let report = self.await_report_for(id, patience, |report| matches!(report, Report::Status(_))).await;
        match report {
            Ok(Report::Status(status)) => Some(*status),
            _ => None,
        }
    }

    async fn reopen_logs(&mut self) -> Result<(), ApplyError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        for data_plane in self.data_planes() {
            let (logs, descriptors) = open_logs(plan, &self.command)?;
            data_plane.tell(Order::ReopenLogs { logs }, descriptors).await;
        }
        Ok(())
    }

    /// Closes the listeners and ends every data plane. A graceful end can be cut short by [`Request::Stop`], and
    /// follows changes of peers until it is over.
    async fn end(&mut self, order: Order, reply: oneshot::Sender<()>, requests: &mut Asked) {
        let mut replies = vec![reply];
        self.leaving.extend(self.serving.take().map(|serving| serving.data_plane));
        tell_all(&self.leaving, &order).await;
        self.sockets.close();
        while let Some(event) = self.put_off.pop_front() {
            self.handle_while_ending(event);
        }
        let mut kill_at = matches!(order, Order::Stop).then(|| Instant::now() + STOP_TIMEOUT);
        while !self.leaving.is_empty() {
            tokio::select! {
                Some(event) = self.events.recv() => self.handle_while_ending(event),
                () = sleep_until(kill_at) => {
                    self.leaving.iter().for_each(DataPlane::kill);
                    kill_at = None;
                }
                Some(request) = requests.next() => match request {
                    Request::Peers(upstream, set) => self.set_peers(upstream, set).await,
                    Request::Quit(reply) => replies.push(reply),
                    Request::Stop(reply) => {
                        tell_all(&self.leaving, &Order::Stop).await;
                        kill_at.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
                        replies.push(reply);
                    }
                    Request::Apply(..) | Request::Status(..) | Request::ReopenLogs(_) => {}
                },
            }
        }
        replies.into_iter().for_each(|reply| _ = reply.send(()));
    }

    fn handle_while_ending(&mut self, event: DataPlaneEvent) {
        match event {
            DataPlaneEvent::Ended(id, _) => {
                self.leaving.retain(|data_plane| data_plane.id() != id);
                self.nothing_in_flight(id);
            }
            DataPlaneEvent::Report(id, Report::Drained { upstream, peer }) => {
                self.drained(id, &(upstream, peer));
            }
            DataPlaneEvent::Report(..) => {}
        }
    }

    /// Gives every data plane that may have requests in flight.
    fn data_planes(&self) -> impl Iterator<Item = &DataPlane> {
        self.serving.iter().map(|serving| &serving.data_plane).chain(&self.leaving)
    }

    /// Waits for word from these data planes on peers that left.
    fn track(&mut self, gone: Vec<PeerOf>, holders: &HashSet<DataPlaneId>) {
        for peer in gone {
            if holders.is_empty() {
                self.say_drained(peer);
            } else {
                self.drains.entry(peer).or_default().extend(holders);
            }
        }
    }

    fn drained(&mut self, id: DataPlaneId, peer: &PeerOf) {
        let Some(holders) = self.drains.get_mut(peer) else { return };
        if holders.remove(&id) && holders.is_empty() {
            self.drains.remove(peer);
            self.say_drained(peer.clone());
        }
    }

    /// A data plane is gone, and its requests in flight with it.
    fn nothing_in_flight(&mut self, id: DataPlaneId) {
        let peers: Vec<PeerOf> = self.drains.keys().cloned().collect();
        for peer in peers {
            self.drained(id, &peer);
        }
    }

    fn say_drained(&self, (upstream, peer): PeerOf) {
        drop(self.notices.send(TrafficNotice::Drained { upstream, peer }));
    }
}

async fn tell_all(data_planes: &[DataPlane], order: &Order) {
    for data_plane in data_planes {
        data_plane.tell(order.clone(), Vec::new()).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Gives the peers of one upstream that a new set hasn't any more.
fn gone(upstream: &UpstreamName, old: &PeerSet, new: &PeerSet) -> Vec<PeerOf> {
    let stays = |key: &PeerKey| new.peers.iter().any(|peer| peer.key == *key);
    let left = old.peers.iter().map(|peer| &peer.key).filter(|key| !stays(key));
    left.map(|key| (upstream.clone(), key.clone())).collect()
}

/// Gives the peers of all upstreams that a new plan hasn't any more.
fn all_gone(old: &Plan, new: &Plan) -> Vec<PeerOf> {
    let none = PeerSet::default();
    let now = |name: &UpstreamName| {
        new.upstreams.iter().find(|upstream| upstream.name == *name).map_or(&none, |upstream| &upstream.peers)
    };
    old.upstreams
        .iter()
        .flat_map(|upstream| gone(&upstream.name, &upstream.peers, now(&upstream.name)))
        .collect()
}

/// Whether a running data plane can take the new plan: what is fixed at its start is as it was.
fn same_process(old: &Plan, new: &Plan) -> bool {
    let fixed = |plan: &Plan| {
        let process = &plan.process;
        (process.workers, process.worker_connections, process.user.clone(), process.open_files_max)
    };
    fixed(old) == fixed(new)
}

/// Makes the order that carries a plan, its sockets and its logs.
fn prepare_order<'a>(
    plan: &Plan,
    sockets: impl Iterator<Item = (&'a Address, &'a OwnedFd)>,
    command: &DataPlaneCommand,
) -> Result<(Order, Vec<OwnedFd>), ApplyError> {
    let mut addresses = Vec::new();
    let mut descriptors = Vec::new();
    for (address, socket) in sockets {
        addresses.push(address.clone());
        descriptors.push(socket.try_clone().map_err(|error| ApplyError::DataPlane(error.to_string()))?);
    }
    let (logs, files) = open_logs(plan, command)?;
    descriptors.extend(files);
    let (folders, files): (Vec<PathBuf>, Vec<OwnedFd>) = open_tree_folders(plan).into_iter().unzip();
    descriptors.extend(files);
    if descriptors.len() > DESCRIPTORS_MAX {
        let text = format!(
            "it has {} listeners, logs and mounted folders together; {DESCRIPTORS_MAX} are the most",
            descriptors.len()
        );
        return Err(ApplyError::Refused(text));
    }
    Ok((Order::Prepare { plan: Box::new(plan.clone()), sockets: addresses, logs, folders }, descriptors))
}

/// Opens the folders in which the plan's trees have their files, as mounts do: the way to them may be closed to the data
/// plane's user. One that isn't there may come later.
fn open_tree_folders(plan: &Plan) -> Vec<(PathBuf, OwnedFd)> {
    let folders = plan.tree_folders().into_iter();
    folders.filter_map(|folder| beneath::open_real_folder(&folder).ok().map(|open| (folder, open))).collect()
}

fn open_logs(plan: &Plan, command: &DataPlaneCommand) -> Result<(Vec<PathBuf>, Vec<OwnedFd>), ApplyError> {
    let (paths, folders) = (plan.log_paths(), plan.tree_folders());
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        let is_private = command.private_logs.as_ref().is_some_and(|folder| path.starts_with(folder));
        let readers = if is_private { LogReaders::Owner } else { LogReaders::Everybody };
        let user = plan.process.user.as_ref();
        // What a project's mount holds, its instances may have put there: no link in it is followed.
        let folder = folders.iter().rev().find(|folder| path.starts_with(folder));
        let opened = match folder.and_then(|folder| Some((folder, path.strip_prefix(folder).ok()?))) {
            Some((folder, below)) => open_log_beneath(folder, below, user, readers),
            None => open_log(path, user, readers),
        };
        let file = opened.map_err(|source| ApplyError::Log { path: path.clone(), source })?;
        files.push(file.into());
    }
    Ok((paths, files))
}

/// Who may read a log that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReaders {
    /// Mode 0600, also where it was there before.
    Owner,
    /// Mode 0644, as nginx makes it.
    Everybody,
}

/// Opens a log for appending; a new one belongs to the data plane's user, so that log rotation by it can work. Neither
/// opening nor writing waits for somebody to read a pipe.
///
/// # Errors
/// When it can't be opened, or is a pipe that nobody reads.
pub fn open_log(path: &Path, user: Option<&User>, readers: LogReaders) -> io::Result<File> {
    use rustix::fs::OFlags;
    let is_new = !path.exists();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mode = if readers == LogReaders::Owner { 0o600 } else { 0o644 };
    let opened = OpenOptions::new().create(true).append(true).mode(mode).custom_flags(flags).open(path);
    settle_log(opened, is_new, user, readers)
}

/// Opens a log in a folder that is never left, as [`open_log`] does.
fn open_log_beneath(
    folder: &Path,
    below: &Path,
    user: Option<&User>,
    readers: LogReaders,
) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let folder = beneath::open_real_folder(folder)?;
    let is_new = beneath::kind(folder.as_fd(), below).is_err();
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = if readers == LogReaders::Owner { 0o600 } else { 0o644 };
    let opened = beneath::open(folder.as_fd(), below, flags, Mode::from(mode), Links::Refused);
    settle_log(opened.map(File::from).map_err(io::Error::from), is_new, user, readers)
}

fn settle_log(
    opened: io::Result<File>,
    is_new: bool,
    user: Option<&User>,
    readers: LogReaders,
) -> io::Result<File> {
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
            io::Error::other("it is a pipe or socket, and nobody reads it")
        }
        _ => error,
    })?;
    if readers == LogReaders::Owner && file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    if let Some(user) = user.filter(|_| is_new) {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_refused_and_one_with_is_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = open_log(&path, None, LogReaders::Everybody).unwrap_err();
        assert!(error.to_string().contains("nobody reads it"), "{error}");
        let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = open_log(&path, None, LogReaders::Everybody).unwrap();
        assert!(rustix::fs::fcntl_getfl(&log).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn a_link_in_a_mount_is_no_log() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("mount/sub")).unwrap();
        std::fs::write(at("victim"), "kept").unwrap();
        std::os::unix::fs::symlink("../victim", at("mount/link.log")).unwrap();
        std::os::unix::fs::symlink("..", at("mount/dir")).unwrap();
        let place = |below: &str| keel_model::FileLayer {
            path: "/logs".into(),
            kind: keel_model::FileLayerKind::Mounted,
            place: Some(keel_model::HostPlace { folder: at("mount"), below: below.into() }),
        };
        let open = |name: &str| {
            let trees = vec![keel_model::FileTree { name: "web".into(), layers: vec![place("")] }];
            let mut plan = Plan { trees, ..Plan::default() };
            plan.process.error_logs = vec![keel_model::ErrorLog {
                destination: keel_model::ErrorDestination::File(at("mount").join(name)),
                level: keel_model::LogLevel::Error,
            }];
            open_logs(&plan, &DataPlaneCommand::default()).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!((open("new.log"), open("sub/new.log")), (Ok(()), Ok(())));
        for link in ["link.log", "dir/victim", "dir/new"] {
            assert!(open(link).is_err(), "{link}");
        }
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "kept");
        assert!(!at("new").exists());
    }

    #[test]
    fn logs_of_a_project_are_for_its_owner_and_others_are_as_in_nginx() {
        let folder = tempfile::tempdir().unwrap();
        let check = |readers: LogReaders, expect: u32| {
            let path = folder.path().join("log");
            for before in [None, Some(0o644)] {
                if let Some(mode) = before {
                    std::fs::write(&path, "").unwrap();
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                }
                let file = open_log(&path, None, readers).unwrap();
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, expect, "{before:?}");
                std::fs::remove_file(&path).unwrap();
            }
        };
        check(LogReaders::Owner, 0o600);
        check(LogReaders::Everybody, 0o644);
    }
}
