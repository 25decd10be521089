//! One data-plane process, seen from its parent.
//!
//! The child is this same program, started with the channel as its standard input; it holds no configuration of its
//! own and ends when the channel does. Orders are written by a task: no thread has to be woken between a pool that
//! changed and the data plane's word of it. So many orders wait at most ([`ORDERS_MAX`]); a data plane that takes none of
//! them for [`ORDER_TIMEOUT`] is ended. Reports are read by a thread, which also waits for the process.

use std::{
    io,
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use keel_model::{Order, Report};
use keel_sys::{Channel, Outgoing, children};
use tokio::{io::unix::AsyncFd, sync::mpsc};

/// Orders that wait for a data plane to take those before them.
const ORDERS_MAX: usize = 32;
/// What a data plane has of this process's environment.
const KEPT_VARIABLES: [&str; 2] = ["TZ", "TZDIR"];
/// How long a data plane may leave [`ORDERS_MAX`] of them lie.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Which data plane: counts starts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DataPlaneId(pub u64);

/// What a data plane does that the supervisor must know.
#[derive(Debug)]
pub(crate) enum DataPlaneEvent {
    /// It said something.
    Report(DataPlaneId, Report),
    /// Its process has ended and been waited for.
    Ended(DataPlaneId, Option<ExitStatus>),
}

/// A running data plane.
#[derive(Debug)]
pub(crate) struct DataPlane {
    id: DataPlaneId,
    pid: u32,
    orders: mpsc::Sender<(Order, Vec<OwnedFd>)>,
}

impl DataPlane {
    /// Starts one, on the current tokio runtime. It serves nothing until it is told a plan.
    ///
    /// # Errors
    /// When no process or thread can be had.
    pub(crate) fn spawn(
        id: DataPlaneId,
        mut command: Command,
        events: mpsc::UnboundedSender<DataPlaneEvent>,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // The caller's environment is full of secrets, and none of it is needed but the time zone of logs.
        command
            .env_clear()
            .envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        // A terminal's Ctrl-C is for the supervisor, which has it finish what is in flight.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = children::start(|| command.spawn(), Child::id)?;
        // The command holds the child's end: end of file must mean that the child is gone.
        drop(command);
        let pid = child.id();
        let writer = register(Channel::from(OwnedFd::from(ours.try_clone()?)))?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        tokio::spawn(write_orders(writer, queue));
        let reader = Channel::from(OwnedFd::from(ours));
        thread::Builder::new()
            .name("reports".into())
            .spawn(move || read_reports(id, reader, child, &events))?;
        Ok(Self { id, pid, orders })
    }

    /// Its number.
    pub(crate) fn id(&self) -> DataPlaneId {
        self.id
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends its process without asking, when it doesn't do as it is told.
    pub(crate) fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Gone already is as good.
            _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Tells it something, behind what it was told before. If it is gone, its end is reported as an event.
    pub(crate) async fn tell(&self, order: Order, descriptors: Vec<OwnedFd>) {
        match tokio::time::timeout(ORDER_TIMEOUT, self.orders.send((order, descriptors))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::debug!(pid = self.pid, "an order came too late for this data plane"),
            Err(_) => {
                tracing::error!(pid = self.pid, "the data plane takes no orders; it is ended");
                self.kill();
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "a Channel owns its descriptor, which is what the unsafe successor asks for and has no place here"
)]
fn register(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    AsyncFd::new(channel)
}

async fn write_orders(channel: AsyncFd<Channel>, mut queue: mpsc::Receiver<(Order, Vec<OwnedFd>)>) {
    while let Some((order, descriptors)) = queue.recv().await {
        if let Err(error) = write_order(&channel, &order, descriptors).await {
            return tracing::debug!("the data plane can't be told: {error}");
        }
    }
}

async fn write_order(channel: &AsyncFd<Channel>, order: &Order, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    let bytes = order.encode().map_err(io::Error::other)?;
    let mut outgoing = Outgoing::new(bytes, descriptors)?;
    loop {
        let mut ready = channel.writable().await?;
        if let Ok(sent) = ready.try_io(|channel| channel.get_ref().send_some(&mut outgoing)) {
            return sent;
        }
    }
}

fn read_reports(
    id: DataPlaneId,
    mut channel: Channel,
    mut child: Child,
    events: &mpsc::UnboundedSender<DataPlaneEvent>,
) {
    loop {
        let report = match channel.recv() {
            Ok(Some((bytes, _))) => Report::decode(&bytes),
            Ok(None) => break,
            Err(error) => {
                tracing::debug!("the data plane's channel broke: {error}");
                // A reset is what its end looks like; anything else leaves a process that can't be heard.
                if error.kind() != io::ErrorKind::ConnectionReset {
                    drop(child.kill());
                }
                break;
            }
        };
        match report {
            Ok(report) => drop(events.send(DataPlaneEvent::Report(id, report))),
            Err(error) => {
                // It is not of our build, or its memory is damaged: either way it can't be steered.
                tracing::error!("{error}; the data plane is ended");
                drop(child.kill());
                break;
            }
        }
    }
    let status = children::wait(&mut child).ok();
    drop(events.send(DataPlaneEvent::Ended(id, status)));
}
