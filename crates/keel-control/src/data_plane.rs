//! One data-plane process, seen from its parent.
//!
//! The child is this same program, started with the channel as its standard input; it holds no configuration of its
//! own and ends when the channel does. Two threads carry messages, so that the supervisor's event loop never waits
//! for a slow reader.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc as std_mpsc,
    thread,
};

use keel_model::{Order, Report};
use keel_sys::Channel;
use tokio::sync::mpsc;

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
    orders: std_mpsc::Sender<(Order, Vec<OwnedFd>)>,
}

impl DataPlane {
    /// Starts one. It serves nothing until it is told a plan.
    ///
    /// # Errors
    /// When no process or thread can be had.
    pub(crate) fn spawn(
        id: DataPlaneId,
        mut command: Command,
        events: mpsc::UnboundedSender<DataPlaneEvent>,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        command.env_remove("EVENKEEL_DETACHED");
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // The command holds the child's end: end of file must mean that the child is gone.
        drop(command);
        let pid = child.id();
        let writer = Channel::from(OwnedFd::from(ours.try_clone()?));
        let (orders, queue) = std_mpsc::channel::<(Order, Vec<OwnedFd>)>();
        thread::Builder::new().name("orders".into()).spawn(move || write_orders(&writer, &queue))?;
        let reader = Channel::from(OwnedFd::from(ours));
        thread::Builder::new()
            .name("reports".into())
            .spawn(move || read_reports(id, reader, child, &events))?;
        Ok(Self { id, pid, orders })
    }

    /// Gives its number.
    pub(crate) fn id(&self) -> DataPlaneId {
        self.id
    }

    /// Gives its process id.
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

    /// Tells it something. If it is gone, its end is reported as an event.
    pub(crate) fn send(&self, order: Order, descriptors: Vec<OwnedFd>) {
        if self.orders.send((order, descriptors)).is_err() {
            tracing::debug!(pid = self.pid, "an order came too late for this data plane");
        }
    }
}

fn write_orders(channel: &Channel, queue: &std_mpsc::Receiver<(Order, Vec<OwnedFd>)>) {
    while let Ok((order, descriptors)) = queue.recv() {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let sent =
            order.encode().map_err(io::Error::other).and_then(|bytes| channel.send(&bytes, &descriptors));
        if let Err(error) = sent {
            tracing::debug!("the data plane can't be told: {error}");
            return;
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
    let status = child.wait().ok();
    drop(events.send(DataPlaneEvent::Ended(id, status)));
}
