//! The thread that starts all processes.
//!
//! The kernel ends a child when the *thread* that started it ends (PDEATHSIG), so that thread lives exactly as long as
//! the driver.

use std::{io, process::Command, sync::mpsc};

use keel_sys::{
    children,
    sandbox::{Sandbox, SpawnError, Spawned, Step, spawn},
};
use tokio::sync::oneshot;

type Order = (Command, Sandbox, oneshot::Sender<Result<Spawned, SpawnError>>);

/// The handle to the thread. Dropping it ends the children.
#[derive(Debug)]
pub(super) struct Spawner {
    orders: mpsc::Sender<Order>,
}

impl Spawner {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, received) = mpsc::channel::<Order>();
        let run = move || {
            for (command, sandbox, reply) in received {
                // Who ordered may have gone; what was started for him is then ended by the guardian's record.
                let started = children::start(|| spawn(command, sandbox), |spawned| spawned.child.id());
                let _ = reply.send(started);
            }
        };
        std::thread::Builder::new().name("keel-spawner".into()).spawn(run)?;
        Ok(Self { orders })
    }

    /// Starts a process.
    pub(super) async fn spawn(&self, command: Command, sandbox: Sandbox) -> Result<Spawned, SpawnError> {
        let gone = || SpawnError { step: Step::Setup, source: io::Error::other("the spawner has ended") };
        let (reply, answer) = oneshot::channel();
        self.orders.send((command, sandbox, reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}
