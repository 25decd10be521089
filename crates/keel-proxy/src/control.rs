//! The control thread: orders in, reports out.
//!
//! It owns the listening sockets, builds snapshots, and tells the workers. When the channel ends, the supervisor is gone
//! and so is this process, at once.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use keel_lb::Drained;
use keel_model::{Address, DataPlaneStatus, LogLevel, Order, PeerKey, PeerSet, Plan, Report, UpstreamName};
use keel_sys::Channel;
use tokio::sync::mpsc::{Sender, channel};

use crate::{
    io::spool,
    log::process_entry,
    reports::Reports,
    snapshot::{self, PlanFiles, PreparedSnapshot, Snapshot},
    stores::Stores,
    worker::{Acknowledge, Worker, WorkerOrder, WorkerSetup},
};

/// How long workers may take to switch to a new configuration before it counts as done anyway: a worker is never busy
/// for longer than one turn of its loop.
const SWITCH_TIME_MAX: Duration = Duration::from_secs(10);

/// Orders that a worker hasn't taken yet; the next one then waits for it.
const WORKER_ORDERS_MAX: usize = 256;

/// What ends a data plane other than an order to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The channel to the supervisor broke.
    #[error("the channel to the supervisor broke")]
    Channel(#[from] std::io::Error),
    /// The supervisor speaks another build's language.
    #[error(transparent)]
    Message(#[from] keel_model::BadMessage),
}

/// Runs the data plane until it is told to end, or its supervisor does.
///
/// # Errors
/// When the channel breaks in a way other than ending.
pub fn run(channel: OwnedFd) -> Result<(), Error> {
    let stop_reading = channel.try_clone()?;
    let reading = Channel::from(channel);
    let reports = Reports::new(reading.try_clone()?);
    let outcome = Control::new(reports.clone(), stop_reading).serve(reading);
    reports.end();
    outcome
}

struct Control {
    reports: Reports,
    sockets: HashMap<Address, OwnedFd>,
    /// Made with the first plan, which says how many workers there are.
    stores: Option<Stores>,
    prepared: Option<PreparedSnapshot>,
    current: Option<Arc<Snapshot>>,
    workers: Vec<WorkerHandle>,
    connection_serial: Arc<AtomicU64>,
    /// Shutting it down ends the reading of orders.
    stop_reading: Arc<OwnedFd>,
}

struct WorkerHandle {
    orders: Sender<WorkerOrder>,
    thread: JoinHandle<()>,
    /// Addresses whose sockets it has.
    listens: Vec<Address>,
}

impl Control {
    fn new(reports: Reports, stop_reading: OwnedFd) -> Self {
        Self {
            reports,
            sockets: HashMap::new(),
            stores: None,
            prepared: None,
            current: None,
            workers: Vec::new(),
            connection_serial: Arc::new(AtomicU64::new(1)),
            stop_reading: Arc::new(stop_reading),
        }
    }

    fn serve(&mut self, mut channel: Channel) -> Result<(), Error> {
        while let Some((bytes, descriptors)) = channel.recv()? {
            match Order::decode(&bytes)? {
                Order::Prepare { plan, sockets, logs, folders } => {
                    let generation = plan.generation;
                    match self.prepare(&plan, sockets, logs, folders, descriptors) {
                        Ok(()) => self.reports.send(&Report::Prepared { generation }),
                        Err(reason) => self.reports.send(&Report::Refused { generation, reason }),
                    }
                }
                Order::Commit { generation } => self.commit(generation),
                Order::Abandon { generation } => {
                    self.prepared.take_if(|prepared| prepared.snapshot.generation == generation);
                }
                Order::Peers { upstream, set } => self.publish(&upstream, &set),
                Order::ReopenLogs { logs } => {
                    if let Some(stores) = &self.stores {
                        stores.reopen_logs(logs.into_iter().zip(descriptors).collect());
                    }
                }
                Order::Quit => self.quit(),
                Order::Stop => {
                    self.flush();
                    return Ok(());
                }
                Order::Status => self.reports.send(&Report::Status(Box::new(self.status()))),
            }
        }
        self.flush();
        Ok(())
    }

    fn flush(&self) {
        if let Some(stores) = &self.stores {
            stores.flush_logs();
        }
    }

    /// Builds everything that the plan needs. Traffic stays where it is.
    fn prepare(
        &mut self,
        plan: &Plan,
        addresses: Vec<Address>,
        log_paths: Vec<PathBuf>,
        folder_paths: Vec<PathBuf>,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        if descriptors.len() < addresses.len() + log_paths.len() + folder_paths.len() {
            return Err("descriptors were lost on the way".into());
        }
        let mut files = descriptors.split_off(addresses.len());
        let folders = files.split_off(log_paths.len()).into_iter().map(Arc::new);
        let files = PlanFiles {
            folders: folder_paths.into_iter().zip(folders).collect(),
            logs: log_paths.into_iter().zip(files).collect(),
        };
        self.sockets.extend(addresses.into_iter().zip(descriptors));
        let missing = plan.listeners.iter().find(|listener| !self.sockets.contains_key(&listener.address));
        if let Some(listener) = missing {
            return Err(format!("there is no socket for {}", listener.address));
        }
        spool::hold(plan.scopes().into_iter().flat_map(|scope| {
            let responses = scope.peer_settings().map(|settings| settings.temp_path.as_path());
            responses.into_iter().chain([scope.core.client_body_temp_path.as_path()])
        }));
        let workers = plan.process.workers.max(1) as usize;
        let stores = match &self.stores {
            // A plan that was refused before any worker began may have had another number of them.
            Some(stores) if !self.workers.is_empty() => stores,
            _ => {
                let told = self.reports.clone();
                let drained: Drained =
                    Arc::new(move |upstream: &UpstreamName, peer: &PeerKey| told.drained(upstream, peer));
                self.stores.insert(Stores::new(workers, drained).map_err(|error| show(&error))?)
            }
        };
        let prepared = snapshot::compile(plan, stores, files).map_err(|error| show(&error))?;
        if self.workers.is_empty() {
            self.become_user(plan)?;
            self.start_workers(workers, &prepared.snapshot)?;
        }
        self.prepared = Some(prepared);
        Ok(())
    }

    /// Gives up what isn't needed any more, before the first client is served.
    fn become_user(&self, plan: &Plan) -> Result<(), String> {
        match plan.process.open_files_max {
            // nginx's workers are processes, and each may open as many.
            Some(limit) => {
                let limit = limit.saturating_mul(u64::from(plan.process.workers.max(1)));
                keel_sys::process::set_nofile_limit(limit)
                    .map_err(|error| format!("the limit of open files can't be set: {error}"))?;
            }
            None => raise_open_files(),
        }
        if let Some(user) = &plan.process.user
            && rustix::process::geteuid().is_root()
        {
            keel_sys::user::become_user(user.uid, user.gid, &user.name)
                .map_err(|error| format!("can't become the user `{}`: {error}", user.name))?;
        }
        Ok(())
    }

    fn start_workers(&mut self, count: usize, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        let Some(stores) = &self.stores else { return Err("there is nothing to serve".into()) };
        self.reports.start().map_err(|error| show(&error))?;
        for index in 0..count {
            let (orders, queue) = channel(WORKER_ORDERS_MAX);
            let setup = WorkerSetup {
                snapshot: snapshot.clone(),
                registry: stores.groups().clone(),
                counters: stores.counters.clone(),
                reports: self.reports.clone(),
                index,
                connection_serial: self.connection_serial.clone(),
                seed: seed(index),
                orders: queue,
            };
            let run = move || {
                if let Err(error) = Worker::run(setup) {
                    let text = format!("a worker can't start: {error}\n");
                    keel_telemetry::stderr().push(text.as_bytes());
                }
            };
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(run);
            let thread = thread.map_err(|error| show(&error))?;
            self.workers.push(WorkerHandle { orders, thread, listens: Vec::new() });
        }
        Ok(())
    }

    /// Lets traffic take the prepared plan.
    fn commit(&mut self, generation: u64) {
        let Some(prepared) = self.prepared.take_if(|prepared| prepared.snapshot.generation == generation)
        else {
            return;
        };
        if let Some(stores) = &mut self.stores {
            stores.commit(prepared.claimed);
        }
        let snapshot = prepared.snapshot;
        self.sockets.retain(|address, _| snapshot.listener(address).is_some());
        let (sender, done) = mpsc::channel();
        for worker in &mut self.workers {
            worker.listens.retain(|address| self.sockets.contains_key(address));
            let mut sockets = Vec::new();
            for (address, socket) in &self.sockets {
                if worker.listens.contains(address) {
                    continue;
                }
                match socket.as_fd().try_clone_to_owned() {
                    Ok(socket) => {
                        sockets.push((address.clone(), socket));
                        worker.listens.push(address.clone());
                    }
                    Err(error) => process_entry(
                        &snapshot.error_log,
                        LogLevel::Alert,
                        format_args!("a worker can't listen on {address}: {error}"),
                    ),
                }
            }
            let done = Acknowledge::new(sender.clone());
            let order = WorkerOrder::Commit { snapshot: snapshot.clone(), sockets, done };
            // A worker that is gone has reported why.
            let _ = worker.orders.blocking_send(order);
        }
        drop(sender);
        // Nothing is ever sent: the channel ends when the last worker has dropped its end.
        let _ = done.recv_timeout(SWITCH_TIME_MAX);
        self.current = Some(snapshot);
        self.reports.send(&Report::Committed { generation });
    }

    fn publish(&self, name: &UpstreamName, set: &PeerSet) {
        let snapshots = self.current.iter().chain(self.prepared.as_ref().map(|prepared| &prepared.snapshot));
        for snapshot in snapshots {
            if let Some(upstream) = snapshot.upstream(&name.0) {
                snapshot.upstreams[upstream].group.publish(set);
                break;
            }
        }
        for worker in &self.workers {
            let _ = worker.orders.blocking_send(WorkerOrder::PeersChanged);
        }
    }

    /// Lets the workers finish; the process ends with the last of them.
    fn quit(&mut self) {
        self.sockets.clear();
        let workers = std::mem::take(&mut self.workers);
        for worker in &workers {
            let _ = worker.orders.blocking_send(WorkerOrder::Quit);
        }
        let stop_reading = self.stop_reading.clone();
        let waits = move || {
            for worker in workers {
                // A panic in it has been reported.
                let _ = worker.thread.join();
            }
            // Fails only where the supervisor is gone already, which ends the reading, too.
            let _ = rustix::net::shutdown(&*stop_reading, rustix::net::Shutdown::Read);
        };
        if let Err(error) = thread::Builder::new().name("quit".into()).spawn(waits) {
            self.reports.send(&Report::Refused { generation: 0, reason: show(&error) });
        }
    }

    fn status(&self) -> DataPlaneStatus {
        match (&self.current, &self.stores) {
            (Some(snapshot), Some(stores)) => snapshot.status(&stores.counters),
            _ => DataPlaneStatus::default(),
        }
    }
}

/// Writes an error with its causes in one line.
fn show(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Lets the process open as many files as it may.
fn raise_open_files() {
    let mut limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limits.current = limits.maximum;
    // It works with fewer, too.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limits);
}

/// Gives workers different sequences of random numbers.
fn seed(index: usize) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let low = u64::try_from(now & u128::from(u64::MAX)).unwrap_or(1);
    low.wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
