//! The data plane's parent: sockets, the plan in effect, and the process that serves it.
//!
//! One task owns all of it and takes requests in order, so that an update of peers never overtakes the plan it
//! belongs to. A data plane that dies is replaced at once with the plan and the peers in effect; its sockets stay
//! open here, so that a client sees a late answer at worst. A change that a running process can't take (its number
//! of workers, its user) starts a new one beside the old one, which then finishes what it has.

mod command;
mod data_plane;
mod drains;
mod error;
mod inbox;
mod log_files;
mod order;
mod task;

use std::{collections::BTreeSet, time::Duration};

use keel_model::{DataPlaneStatus, PeerKey, PeerSet, Plan, UpstreamName};
use tokio::sync::{mpsc, oneshot};

pub use self::{
    command::{DataPlaneCommand, own_program},
    error::ApplyError,
    log_files::{LogReaders, open_log},
};

use self::{
    inbox::{Inbox, PeersUpdate, Request, inbox},
    task::Task,
};
use crate::sockets::Sharing;

/// How long a data plane may take to answer a question.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command's end waits for it to take what was ordered.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens in the data plane that others may need to know.
#[derive(Debug)]
pub(crate) enum TrafficNotice {
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

/// A handle to the task; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    inbox: Inbox,
}

impl Traffic {
    /// Starts the task on the current tokio runtime. It serves nothing until a plan is applied.
    pub(crate) fn start(
        command: DataPlaneCommand,
        sharing: Sharing,
    ) -> (Self, mpsc::UnboundedReceiver<TrafficNotice>) {
        let (inbox, asked) = inbox();
        let (notices, receiver) = mpsc::unbounded_channel();
        let task = Task::new(command, sharing, notices);
        tokio::spawn(task.run(asked));
        (Self { inbox }, receiver)
    }

    /// Puts a plan into effect: opens sockets and logs, prepares, commits. Its peer sets must be filled.
    ///
    /// # Errors
    /// When any of that fails; then nothing has changed.
    pub(crate) async fn apply(&self, plan: Plan) -> Result<(), ApplyError> {
        self.ask(|reply| Request::Apply(Box::new(plan), reply))
            .await
            .unwrap_or_else(|| Err(ApplyError::DataPlane("is shutting down".into())))
    }

    /// Replaces the peers of an upstream, after all earlier requests.
    pub(crate) fn set_peers(&self, upstream: UpstreamName, set: PeerSet) {
        self.inbox.put(Request::Peers(PeersUpdate { upstream, set, skipped: BTreeSet::new() }));
    }

    /// Returns when the data plane has taken everything that was asked before.
    pub(crate) async fn settle(&self) {
        // Orders are taken in turn, so an answer to the last one speaks for all.
        drop(self.ask(|reply| Request::Status(SETTLE_TIMEOUT, reply)).await);
    }

    /// Asks for counts; `None` if no data plane answers in time.
    pub(crate) async fn status(&self) -> Option<DataPlaneStatus> {
        self.ask(|reply| Request::Status(STATUS_TIMEOUT, reply)).await.flatten()
    }

    /// Opens all log files anew.
    ///
    /// # Errors
    /// When one can't be opened; the data plane then goes on with the old ones.
    pub(crate) async fn reopen_logs(&self) -> Result<(), ApplyError> {
        self.ask(Request::ReopenLogs).await.unwrap_or(Ok(()))
    }

    /// Closes the listeners, lets what is in flight finish, and returns when the data plane has ended.
    pub(crate) async fn quit(&self) {
        self.ask(Request::Quit).await;
    }

    /// Ends the data plane at once.
    pub(crate) async fn stop(&self) {
        self.ask(Request::Stop).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.put(request(reply));
        answer.await.ok()
    }
}
