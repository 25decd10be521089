//! The task that brings machine and driver together: events in, actions out, in one order.
//!
//! Never busy: work that takes time happens in tasks of the driver's, which report back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use keel_model::{HostPort, Run, Service, ServiceName};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    Exec, ExecRequest, InstanceState, InstanceStatus, Notice, PoolInstance,
    driver::{Birth, DriverNews, Drivers, Facts},
    error::Error,
    named::Named,
    supervisor::{Action, Command, CommandError, CommandId, Event, Incarnation, SlotId, Supervisor, View},
};

/// How often a service that others run is asked whether it accepts connections.
const EXTERNAL_EVERY: Duration = Duration::from_millis(100);
/// How long one such attempt may take.
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Orphans are looked for this long after a child's end was signalled, many ends at once.
const REAP_AFTER: Duration = Duration::from_millis(500);

/// Something asked of the runner.
#[derive(Debug)]
pub(crate) enum Request {
    Command {
        command: Command,
        /// The last one that had been taken when this one was asked for; `None` for just now.
        asked: Option<CommandId>,
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// The number of the last command.
    LastCommand {
        reply: oneshot::Sender<CommandId>,
    },
    Drained {
        incarnation: Incarnation,
    },
    /// Requests fail at an instance.
    Doubted {
        incarnation: Incarnation,
    },
    Instances {
        reply: oneshot::Sender<Vec<InstanceStatus>>,
    },
    /// The services and names of the instances that names stand for; of all if there are none.
    Names {
        names: Vec<String>,
        reply: oneshot::Sender<Result<Vec<Named>, CommandError>>,
    },
    /// The services that names stand for, by their own or an instance's.
    Services {
        names: Vec<String>,
        reply: oneshot::Sender<Vec<Arc<Service>>>,
    },
    Exec {
        request: ExecRequest,
        reply: oneshot::Sender<Result<Exec, Error>>,
    },
    RunOnce {
        request: ExecRequest,
        reply: oneshot::Sender<Result<Exec, Error>>,
    },
    SetNames {
        names: Vec<(String, IpAddr)>,
    },
    Progress {
        service: ServiceName,
        text: String,
    },
    /// What has come to light about a service when it was built.
    Learned {
        service: Arc<Service>,
    },
}

pub(crate) struct EventLoop {
    machine: Supervisor,
    driver: Drivers,
    notices: mpsc::UnboundedSender<Notice>,
    told: mpsc::UnboundedSender<DriverNews>,
    replies: HashMap<CommandId, oneshot::Sender<Result<(), CommandError>>>,
    last_command: CommandId,
    /// One-offs count down from the top, so that they never meet an instance.
    last_once: Incarnation,
    /// Names of what the runner doesn't run.
    further_names: Vec<(String, IpAddr)>,
    /// Instants of the machine as times of day.
    epoch: (Instant, SystemTime),
}

impl EventLoop {
    pub(crate) fn new(
        drain_timeout: Duration,
        driver: Drivers,
        notices: mpsc::UnboundedSender<Notice>,
        told: mpsc::UnboundedSender<DriverNews>,
    ) -> Self {
        Self {
            machine: Supervisor::new(drain_timeout),
            driver,
            notices,
            told,
            replies: HashMap::new(),
            last_command: 0,
            last_once: Incarnation::MAX,
            further_names: Vec::new(),
            epoch: (Instant::now(), SystemTime::now()),
        }
    }

    /// Runs until nobody can ask any more; then everything that runs is ended with the driver.
    pub(crate) async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut told: mpsc::UnboundedReceiver<DriverNews>,
    ) {
        let mut ends = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).ok();
        let mut reap_at: Option<Instant> = None;
        let mut reaping: Option<JoinHandle<bool>> = None;
        loop {
            let deadline = self.machine.next_deadline();
            tokio::select! {
                biased;
                Some(word) = told.recv() => self.hear(word).await,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return self.driver.end_all(),
                },
                () = until(deadline) => self.feed(Event::Tick).await,
                () = until(reap_at) => {
                    reap_at = None;
                    // A start may hold the list of children for some milliseconds.
                    reaping = Some(tokio::task::spawn_blocking(keel_sys::children::reap_orphans));
                }
                again = ended(&mut reaping) => {
                    reaping = None;
                    reap_at = again.then(|| Instant::now() + REAP_AFTER);
                }
                () = signalled(&mut ends), if reap_at.is_none() && reaping.is_none() => reap_at = Some(Instant::now() + REAP_AFTER),
            }
        }
    }

    async fn hear(&mut self, word: DriverNews) {
        match word {
            DriverNews::Event(event) => self.feed(event).await,
            DriverNews::Noted(incarnation) => {
                if let Some(slot) = self.machine.slot_of(incarnation).cloned() {
                    self.tell_status(&slot);
                }
            }
            DriverNews::Remark(incarnation, text) => drop(self.driver.note(incarnation, &text)),
            DriverNews::Obstacle(incarnation, why) => {
                let is_new = self.driver.note(incarnation, &why);
                if let Some(slot) = self.machine.slot_of(incarnation).filter(|_| is_new) {
                    self.notify(Notice::Slow { instance: self.machine.name_of(slot), why });
                }
            }
            DriverNews::Slow { instance, why } => self.notify(Notice::Slow { instance, why }),
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Command { command, asked, reply } => {
                let asked = asked.unwrap_or(self.last_command);
                self.last_command += 1;
                self.replies.insert(self.last_command, reply);
                self.feed(Event::Command { id: self.last_command, asked, command }).await;
            }
            Request::LastCommand { reply } => drop(reply.send(self.last_command)),
            Request::Drained { incarnation } => self.feed(Event::Drained { incarnation }).await,
            // One that isn't ready is watched anyway.
            Request::Doubted { incarnation } if self.machine.is_ready(incarnation) => {
                self.driver.doubt(incarnation);
            }
            Request::Doubted { .. } => {}
            Request::Instances { reply } => {
                let slots: Vec<SlotId> = self.machine.slot_ids().cloned().collect();
                let _ = reply.send(slots.iter().flat_map(|slot| self.statuses(slot)).collect());
            }
            Request::Names { names, reply } => drop(reply.send(self.instance_names(&names))),
            Request::Services { names, reply } => drop(reply.send(self.services_named(&names))),
            Request::Exec { request, reply } => self.exec(request, reply),
            Request::RunOnce { request, reply } => self.run_once(request, reply),
            Request::SetNames { names } => {
                self.further_names = names;
                self.write_hosts();
            }
            Request::Learned { service } => self.machine.learn(service),
            Request::Progress { service, text } => self.notify(Notice::Progress { service, text }),
        }
    }

    async fn feed(&mut self, event: Event) {
        let actions = self.machine.handle(Instant::now(), event);
        if actions.is_empty() {
            return;
        }
        // Who leaves the pool has to be known at once; all else can wait for that.
        let (pools, others): (Vec<Action>, Vec<Action>) =
            actions.into_iter().partition(|action| matches!(action, Action::Publish { .. }));
        let names_change = !pools.is_empty()
            || others.iter().any(|action| {
                matches!(action, Action::Start { .. } | Action::Status { .. } | Action::Gone { .. })
            });
        if !pools.is_empty() {
            pools.into_iter().for_each(|action| self.act(action));
            // The data plane's news go first: writing files takes longer.
            tokio::task::yield_now().await;
        }
        // Every life has its address, and every name in the files its meaning, before anything starts.
        for action in &others {
            if let Action::Start { incarnation, slot, spec } = action {
                self.driver.settle(&self.birth(*incarnation, slot, spec));
            }
        }
        if names_change {
            self.write_hosts();
        }
        others.into_iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { incarnation, slot, spec } => {
                self.driver.launch(self.birth(incarnation, &slot, &spec));
            }
            Action::Probe { incarnation, number } => self.driver.probe(incarnation, number),
            Action::Signal { incarnation, signal } => self.driver.signal(incarnation, signal),
            Action::KillAll { incarnation } => self.driver.kill_all(incarnation),
            Action::Drain { incarnation, slot } => {
                let instance = self.machine.name_of(&slot);
                self.notify(Notice::Draining { instance, incarnation });
            }
            Action::Publish { service, ready, starting } => {
                let instances =
                    ready.iter().filter_map(|incarnation| self.pool_instance(*incarnation)).collect();
                self.notify(Notice::Pool { service, instances, starting });
            }
            Action::Status { slot } => self.tell_status(&slot),
            Action::Gone { name } => self.notify(Notice::Gone { instance: name }),
            Action::Slow { slot, incarnation } => {
                let instance = self.machine.name_of(&slot);
                match (incarnation, self.machine.waits_for(&slot)) {
                    (Some(incarnation), _) => self.driver.tell_slow(incarnation, instance),
                    (None, Some(why)) => self.notify(Notice::Slow { instance, why }),
                    (None, None) => {}
                }
            }
            Action::WatchExternal { service } => self.watch_external(service),
            Action::Finished { id, result } => {
                if let Some(reply) = self.replies.remove(&id) {
                    // Who asked may have gone.
                    let _ = reply.send(result);
                }
            }
        }
    }

    fn birth(&self, incarnation: Incarnation, slot: &SlotId, spec: &Arc<Service>) -> Birth {
        let (name, spec) = (self.machine.name_of(slot), Arc::clone(spec));
        Birth { incarnation, name, ordinal: slot.ordinal, spec }
    }

    fn notify(&self, notice: Notice) {
        // Who started the runner may not care for its notices.
        let _ = self.notices.send(notice);
    }

    fn pool_instance(&self, incarnation: Incarnation) -> Option<PoolInstance> {
        let facts = self.driver.facts(incarnation)?;
        let name = self.machine.name_of(self.machine.slot_of(incarnation)?);
        let Facts { address, ports, is_watched, .. } = facts;
        Some(PoolInstance { name, incarnation, address, ports, is_watched })
    }

    fn tell_status(&self, slot: &SlotId) {
        for status in self.statuses(slot) {
            if status.state == InstanceState::Ready {
                self.driver.note_escaped(status.incarnation);
            }
            self.notify(Notice::State(status));
        }
    }

    fn statuses(&self, slot: &SlotId) -> Vec<InstanceStatus> {
        self.machine.views(slot).into_iter().map(|view| self.status(view)).collect()
    }

    fn status(&self, view: View) -> InstanceStatus {
        let facts = view.incarnation.and_then(|incarnation| self.driver.facts(incarnation));
        let again = view.retry_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            format!("starts again in {:.1} s", left.as_secs_f32())
        });
        let driver_note = facts.as_ref().and_then(|facts| facts.note.clone());
        let notes: Vec<String> = view.note.into_iter().chain(again).chain(driver_note).collect();
        InstanceStatus {
            name: view.name,
            service: view.service,
            incarnation: view.incarnation.unwrap_or(0),
            state: view.state,
            pid: facts.as_ref().and_then(|facts| facts.pid),
            address: facts.as_ref().map(|facts| facts.address),
            ports: facts.as_ref().map(|facts| facts.ports_shown.clone()).unwrap_or_default(),
            since: self.epoch.1 + view.since.saturating_duration_since(self.epoch.0),
            restarts: view.restarts,
            is_crash_loop: view.is_crash_loop,
            exit: view.exit,
            health: facts.and_then(|facts| facts.health),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }

    fn instance_names(&self, names: &[String]) -> Result<Vec<Named>, CommandError> {
        let named =
            |slot: &SlotId| Named { service: slot.service.0.clone(), instance: self.machine.name_of(slot) };
        if names.is_empty() {
            return Ok(self.machine.slot_ids().map(named).collect());
        }
        let mut found = Vec::new();
        for name in names {
            let slots = self.machine.find(name);
            if slots.is_empty() && self.machine.service(&ServiceName(name.clone())).is_none() {
                return Err(CommandError::UnknownName { name: name.clone() });
            }
            found.extend(slots.iter().map(named));
        }
        Ok(found)
    }

    fn services_named(&self, names: &[String]) -> Vec<Arc<Service>> {
        let instances = names.iter().flat_map(|name| self.machine.find(name)).map(|slot| slot.service);
        let named = names.iter().map(|name| ServiceName(name.clone())).chain(instances);
        let all: BTreeSet<ServiceName> = named.collect();
        self.machine
            .services()
            .filter(|spec| names.is_empty() || all.contains(&spec.name))
            .map(Arc::clone)
            .collect()
    }

    /// Writes what every name stands for: a service's and its aliases' for all that serve, an instance's for itself,
    /// ready or not.
    fn write_hosts(&self) {
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let names_of =
            |spec: &Arc<Service>| [&spec.name.0].into_iter().chain(&spec.aliases).cloned().collect();
        let services: BTreeSet<String> = self.machine.services().flat_map::<Vec<_>, _>(names_of).collect();
        let mut add = |name: &str, address: IpAddr| {
            let addresses = names.entry(name.to_owned()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        };
        for spec in self.machine.services() {
            let of_service = || std::iter::once(&spec.name.0).chain(&spec.aliases);
            for address in self.service_addresses(spec) {
                of_service().for_each(|name| add(name, address));
            }
        }
        for slot in self.machine.slot_ids() {
            let address = self.machine.current(slot).and_then(|current| self.driver.address(current));
            let name = self.machine.name_of(slot);
            // That of the only instance is its service's, too.
            if let Some(address) = address.filter(|_| !services.contains(&name)) {
                add(&name, address);
            }
        }
        for (name, address) in &self.further_names {
            add(name, *address);
        }
        self.driver.write_hosts(&names, self.behind_this_host());
    }

    /// Where what containers reach through this host is found.
    fn behind_this_host(&self) -> BTreeMap<HostPort, Vec<SocketAddr>> {
        let containers = self.machine.services().filter_map(|spec| match &spec.run {
            Run::Container(container) => Some(container),
            Run::Process(_) | Run::External(_) => None,
        });
        // All containers of a project are told the same.
        let ports = containers.flat_map(|container| &container.host_ports).collect::<BTreeSet<_>>();
        let found = |port: &HostPort| {
            let spec = self.machine.service(&port.service)?;
            if let Run::External(address) = spec.run {
                return Some(vec![address]);
            }
            let slots = self.machine.slot_ids().filter(|slot| slot.service == spec.name);
            let lives = slots.filter_map(|slot| self.machine.current(slot));
            let ready = lives.filter(|life| self.machine.is_ready(*life));
            let instances = ready.filter_map(|life| self.pool_instance(life));
            Some(instances.filter_map(|instance| instance.socket_address(port.port)).collect())
        };
        ports.into_iter().filter_map(|port| Some((port.clone(), found(port)?))).collect()
    }

    fn service_addresses(&self, spec: &Service) -> Vec<IpAddr> {
        if let Run::External(address) = spec.run {
            return vec![address.ip()];
        }
        let slots = self.machine.slot_ids().filter(|slot| slot.service == spec.name);
        let lives: Vec<Incarnation> = slots.filter_map(|slot| self.machine.current(slot)).collect();
        let ready: Vec<Incarnation> =
            lives.iter().copied().filter(|life| self.machine.is_ready(*life)).collect();
        let vacancy = || self.driver.vacancy(&spec.name).map(|address| vec![address]);
        if let Some(nobody) = (ready.is_empty() && !lives.is_empty()).then(vacancy).flatten() {
            return nobody;
        }
        let meant = if ready.is_empty() { lives } else { ready };
        meant.into_iter().filter_map(|life| self.driver.address(life)).collect()
    }

    fn watch_external(&self, service: ServiceName) {
        let Some(Run::External(address)) = self.machine.service(&service).map(|spec| spec.run.clone()) else {
            return;
        };
        let told = self.told.clone();
        tokio::spawn(async move {
            while !accepts(address).await {
                if told.is_closed() {
                    return;
                }
                tokio::time::sleep(EXTERNAL_EVERY).await;
            }
            let _ = told.send(DriverNews::Event(Event::Accepts { service }));
        });
    }

    fn exec(&self, request: ExecRequest, reply: oneshot::Sender<Result<Exec, Error>>) {
        let slots = self.machine.find(&request.name);
        if slots.is_empty() {
            let _ = reply.send(Err(CommandError::UnknownName { name: request.name }.into()));
            return;
        }
        let Some(incarnation) = slots.iter().find_map(|slot| self.machine.current(slot)) else {
            let _ = reply.send(Err(Error::NotRunning { name: request.name }));
            return;
        };
        let driver = self.driver.clone();
        tokio::spawn(async move { drop(reply.send(driver.exec(incarnation, request).await)) });
    }

    fn run_once(&mut self, request: ExecRequest, reply: oneshot::Sender<Result<Exec, Error>>) {
        let service = ServiceName(request.name.clone());
        let Some(spec) = self.machine.service(&service).map(Arc::clone) else {
            let _ = reply.send(Err(CommandError::UnknownName { name: request.name }.into()));
            return;
        };
        if matches!(spec.run, Run::External(_)) {
            let _ = reply.send(Err(CommandError::NotRunHere { service }.into()));
            return;
        }
        self.last_once -= 1;
        let incarnation = self.last_once;
        let name = format!("{service}-run-{}", Incarnation::MAX - incarnation);
        let birth = Birth { incarnation, name, ordinal: 1, spec };
        self.driver.settle(&birth);
        let driver = self.driver.clone();
        tokio::spawn(async move { drop(reply.send(driver.run_once(birth, request).await)) });
    }
}

async fn accepts(address: SocketAddr) -> bool {
    let connect = tokio::net::TcpStream::connect(address);
    matches!(tokio::time::timeout(EXTERNAL_TIMEOUT, connect).await, Ok(Ok(_)))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn ended(task: &mut Option<JoinHandle<bool>>) -> bool {
    match task {
        Some(task) => task.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

async fn signalled(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
