//! The task: what is asked, what data planes do, and what follows from both.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Read,
    os::fd::OwnedFd,
    process::Command,
    time::Duration,
};

use keel_model::{Address, DataPlaneStatus, Order, Plan, Report, Secret};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    ApplyError, DataPlaneCommand, TrafficNotice,
    data_plane::{DataPlane, DataPlaneEvent, DataPlaneId},
    drains::{self, Drains},
    inbox::{Asked, PeersUpdate, Request},
    log_files::open_logs,
    order::prepare_order,
};
use crate::sockets::{Sharing, Sockets};

/// How long a data plane may take to prepare a plan.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to end when it is told to end at once, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// A data plane that ends within this time of its start counts as failing at once.
const EARLY_DEATH: Duration = Duration::from_secs(1);
/// Longest wait before the next start of a data plane that keeps failing at once. The first restart never waits.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

struct Serving {
    data_plane: DataPlane,
    since: Instant,
}

/// The task.
pub(super) struct Task {
    command: DataPlaneCommand,
    sharing: Sharing,
    sockets: Sockets,
    /// The plan in effect, with the peers in effect.
    plan: Option<Plan>,
    /// What keys of session tickets are made of, over all reloads and data planes.
    ticket_seed: Secret,
    /// The last generation handed out.
    generation: u64,
    serving: Option<Serving>,
    /// Data planes that were told to quit.
    leaving: Vec<DataPlane>,
    drains: Drains,
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

/// Makes what keys of session tickets are made of. Without randomness it is empty, and each data plane has its own.
fn seed() -> Secret {
    let mut seed = vec![0; 32];
    let filled = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
    if filled.is_ok() { Secret::new(seed) } else { Secret::default() }
}

impl Task {
    /// Makes one that serves nothing.
    pub(super) fn new(
        command: DataPlaneCommand,
        sharing: Sharing,
        notices: mpsc::UnboundedSender<TrafficNotice>,
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            command,
            sharing,
            sockets: Sockets::default(),
            plan: None,
            ticket_seed: seed(),
            generation: 0,
            serving: None,
            leaving: Vec::new(),
            drains: Drains::new(notices.clone()),
            starts: 0,
            failures: 0,
            restart_at: None,
            events,
            sender,
            put_off: VecDeque::new(),
            notices,
        }
    }

    /// Does what is asked until it is told to end, or nobody can ask any more.
    pub(super) async fn run(mut self, mut requests: Asked) {
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
            Request::Peers(update) => self.set_peers(update).await,
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
                self.drains.drained(id, &(upstream, peer));
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
                self.drains.ended(id);
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
        plan.ticket_seed = self.ticket_seed.clone();
        let opened = self.sockets.open_missing(&plan.listeners, self.sharing).map_err(ApplyError::Listen)?;
        let same_process = self.plan.as_ref().is_some_and(|old| same_process(old, &plan));
        let holders = self.data_planes().map(DataPlane::id).collect();
        match &self.serving {
            Some(_) if same_process => match self.change_in_place(&plan, &opened).await {
                Ok(()) => self.sockets.add(opened),
                // The plan isn't lost with a process that somebody killed meanwhile. If the plan is what it died of, the
                // next one dies, too, and the plan before stays.
                Err(ApplyError::Ended) => {
                    tracing::error!("{}; starting another with it", ApplyError::Ended);
                    self.start_beside(&plan, opened).await?;
                }
                Err(error) => return Err(error),
            },
            _ => self.start_beside(&plan, opened).await?,
        }
        self.sockets.retain(&plan.listeners);
        let old = self.plan.replace(plan);
        let gone = self.plan.iter().zip(&old).flat_map(|(new, old)| drains::all_gone(old, new)).collect();
        self.drains.track(gone, &holders);
        self.restart_at = None;
        Ok(())
    }

    /// Gives the running data plane a new plan.
    async fn change_in_place(
        &mut self,
        plan: &Plan,
        opened: &BTreeMap<Address, OwnedFd>,
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
            Ok(_) => Ok(()),
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
                        return Err(ApplyError::Ended);
                    }
                }
                Ok(None) | Err(_) => return Err(ApplyError::DataPlane("doesn't answer".into())),
            }
        }
    }

    async fn set_peers(&mut self, update: PeersUpdate) {
        let PeersUpdate { upstream, set, skipped } = update;
        let known =
            self.plan.as_mut().and_then(|plan| plan.upstreams.iter_mut().find(|u| u.name == upstream));
        let Some(known) = known else { return self.drains.never_told(&upstream, skipped) };
        let is_news = known.peers != set;
        let old = std::mem::replace(&mut known.peers, set.clone());
        let gone = drains::gone(&upstream, &old, &set);
        let holders = self.data_planes().map(DataPlane::id).collect();
        self.drains.track(gone, &holders);
        self.drains.never_told(&upstream, skipped);
        if !is_news {
            return;
        }
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
                    Request::Peers(update) => self.set_peers(update).await,
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
                self.drains.ended(id);
            }
            DataPlaneEvent::Report(id, Report::Drained { upstream, peer }) => {
                self.drains.drained(id, &(upstream, peer));
            }
            DataPlaneEvent::Report(..) => {}
        }
    }

    /// Every data plane that may have requests in flight.
    fn data_planes(&self) -> impl Iterator<Item = &DataPlane> {
        self.serving.iter().map(|serving| &serving.data_plane).chain(&self.leaving)
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

/// Whether a running data plane can take the new plan: what is fixed at its start is as it was.
fn same_process(old: &Plan, new: &Plan) -> bool {
    let fixed = |plan: &Plan| {
        let process = &plan.process;
        (process.workers, process.worker_connections, process.user.clone(), process.open_files_max)
    };
    fixed(old) == fixed(new)
}
