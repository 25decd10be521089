//! A running project: instances on one side, traffic on the other, and what passes between them.
//!
//! One task carries news: a pool that changed becomes a new peer set; a peer that has drained lets its instance be
//! stopped. Commands don't pass through it, so that a stop that drains for half a minute delays nothing else; only
//! putting files into effect is one at a time. What changes the record of how many instances are wanted (`up`, `start`,
//! `scale`) tells the runner before the next one looks at that record ([`RunningProject::changing`]); nobody waits there
//! for instances.

use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use keel_model::{Address, ServiceName};
use keel_runner::{Ending, Notice, Runner};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, broadcast, mpsc, oneshot, watch};

use super::{command::InEffect, joined::Joined};
use crate::{
    balancer::{Balancer, BalancerNews, BalancerNotice, Departure, InstanceStart},
    configuration::create_temp_folders,
    peers::Pool,
    traffic::ApplyError,
};

/// Events kept for a slow listener; what it misses beyond that it is told in number.
const EVENTS_MAX: usize = 1024;

/// How long requests in flight get when everything ends, unless the user says otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Something that a person who watches wants to see.
#[derive(Clone, Debug)]
pub enum ProjectEvent {
    /// From the runner.
    Runner(Notice),
    /// The data plane died and another takes its place.
    DataPlaneLost,
    /// A data plane serves.
    Serving {
        /// Its process id.
        pid: u32,
    },
}

/// Why a project's files could not be put into effect.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The traffic side: sockets, logs, the data plane. Nothing has changed.
    #[error(transparent)]
    Traffic(#[from] ApplyError),
    /// The instances. Traffic follows the new files already.
    #[error(transparent)]
    Runner(#[from] keel_runner::Error),
    /// A folder for bodies could not be made.
    #[error("can't create a folder for temporary files")]
    TempFolder(#[source] crate::configuration::FileError),
    /// A folder for a socket of the balancer's could not be made.
    #[error("can't create a folder for a socket")]
    SocketFolder(#[source] io::Error),
    /// Everything is being ended meanwhile.
    #[error("the project is being stopped")]
    Ending,
}

/// A running project; cheap to clone.
#[derive(Clone, Debug)]
pub struct RunningProject {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runner: Runner,
    balancer: Balancer,
    /// Held while files are put into effect.
    applying: AsyncMutex<()>,
    /// Held from a look at what is in effect until the runner has taken what follows from it.
    changing: AsyncMutex<()>,
    events: broadcast::Sender<ProjectEvent>,
    /// Answered when all news so far have been carried.
    carried: mpsc::UnboundedSender<oneshot::Sender<()>>,
    in_effect: Mutex<Option<InEffect>>,
    /// Whether everything is being ended, so that nothing may begin.
    ending: watch::Sender<bool>,
}

impl RunningProject {
    /// Brings runner and balancer together on the current tokio runtime. Nothing runs until [`up`](Self::up).
    pub fn start(
        runner: Runner,
        notices: mpsc::UnboundedReceiver<Notice>,
        balancer: Balancer,
        news: BalancerNews,
    ) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (carried, asked) = mpsc::unbounded_channel();
        let shared = Shared {
            runner,
            balancer,
            applying: AsyncMutex::new(()),
            changing: AsyncMutex::new(()),
            events,
            carried,
            in_effect: Mutex::new(None),
            ending: watch::Sender::new(false),
        };
        let project = Self { shared: Arc::new(shared) };
        tokio::spawn(project.clone().carry_news(notices, news, asked));
        project
    }

    /// Has traffic follow files. A failure changes nothing.
    pub(super) async fn apply_traffic(
        &self,
        joined: &Joined,
        only: &[ServiceName],
    ) -> Result<(), ProjectError> {
        create_temp_folders(&joined.plan).map_err(ProjectError::TempFolder)?;
        make_socket_folders(joined).map_err(ProjectError::SocketFolder)?;
        let is_meant = |name: &ServiceName| only.is_empty() || only.contains(name);
        let begin = joined.services.iter().filter(|service| service.replicas > 0);
        self.shared.balancer.expect(begin.map(|service| &service.name).filter(|name| is_meant(name)));
        Ok(self.shared.balancer.apply(joined.plan.clone(), &joined.bindings).await?)
    }

    /// Held while files are put into effect, until the instances have reached their state.
    pub(super) async fn applying(&self) -> AsyncMutexGuard<'_, ()> {
        self.shared.applying.lock().await
    }

    /// Held from a look at what is in effect until the runner has taken what follows from it.
    pub(super) async fn changing(&self) -> AsyncMutexGuard<'_, ()> {
        self.shared.changing.lock().await
    }

    /// Does something, unless everything is being ended before it is done.
    pub(super) async fn unless_ending<T, E: From<ProjectError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut ending = self.shared.ending.subscribe();
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => Err(ProjectError::Ending.into()),
            outcome = work => outcome,
        }
    }

    /// Returns when traffic follows everything that the runner has said so far. Every command ends with this, so that
    /// what its caller sees next is what he asked for.
    pub async fn settle(&self) {
        let (reply, answer) = oneshot::channel();
        if self.shared.carried.send(reply).is_ok() {
            drop(answer.await);
        }
        self.shared.balancer.settle().await;
    }

    /// The runner: instances, logs, commands.
    pub fn runner(&self) -> &Runner {
        &self.shared.runner
    }

    /// The traffic side.
    pub fn balancer(&self) -> &Balancer {
        &self.shared.balancer
    }

    /// Listens to what happens from now on.
    pub fn events(&self) -> broadcast::Receiver<ProjectEvent> {
        self.shared.events.subscribe()
    }

    /// Ends the project: listeners first, then what is in flight, then the instances, dependents before what they depend on.
    /// What is being put into effect meanwhile is given up, builds included.
    pub async fn down(&self, ending: Ending) -> Result<(), keel_runner::Error> {
        self.shared.ending.send_replace(true);
        let limit = ending.drain.unwrap_or(DRAIN_TIMEOUT);
        for InstanceStart { instance, incarnation } in self.shared.balancer.end(limit).await {
            self.shared.runner.drained(&instance, incarnation);
        }
        self.shared.runner.down(ending).await
    }

    /// Whether everything is being ended.
    pub fn is_ending(&self) -> bool {
        *self.shared.ending.borrow()
    }

    async fn carry_news(
        self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut news: BalancerNews,
        mut asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    ) {
        loop {
            // Traffic's side may end before the runner's: `down` stops instances when no traffic is left.
            let event = tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => {
                        self.runner_says(&notice);
                        ProjectEvent::Runner(notice)
                    }
                    None => return,
                },
                notice = news.next() => match self.balancer_says(notice) {
                    Some(event) => event,
                    None => continue,
                },
                // Last: an answer means that all earlier news have been passed on.
                Some(reply) = asked.recv() => {
                    _ = reply.send(());
                    continue;
                }
            };
            // Nobody listening is fine.
            drop(self.shared.events.send(event));
        }
    }

    fn runner_says(&self, notice: &Notice) {
        match notice {
            Notice::Pool { service, instances, starting } => {
                let pool = Pool { instances: instances.clone(), starting: *starting };
                self.shared.balancer.set_pool(service, pool);
            }
            Notice::Draining { instance, incarnation } => {
                let start = InstanceStart { instance: instance.clone(), incarnation: *incarnation };
                if self.shared.balancer.await_departure(&start) == Departure::Over {
                    self.shared.runner.drained(instance, *incarnation);
                }
            }
            _ => {}
        }
    }

    fn balancer_says(&self, notice: BalancerNotice) -> Option<ProjectEvent> {
        match notice {
            BalancerNotice::Drained(InstanceStart { instance, incarnation }) => {
                self.shared.runner.drained(&instance, incarnation);
                None
            }
            BalancerNotice::Doubted { incarnation } => {
                self.shared.runner.doubted(incarnation);
                None
            }
            BalancerNotice::DataPlaneLost => Some(ProjectEvent::DataPlaneLost),
            BalancerNotice::Serving { pid } => Some(ProjectEvent::Serving { pid }),
        }
    }

    pub(super) fn files_in_effect(&self) -> &Mutex<Option<InEffect>> {
        &self.shared.in_effect
    }
}

/// Makes the folders of sockets that only the balancer's container would have. The data plane's group may pass them and the
/// state folder, and nobody else.
fn make_socket_folders(joined: &Joined) -> io::Result<()> {
    let paths = joined.plan.listeners.iter().filter_map(|listener| match &listener.address {
        Address::Unix(path) => path.parent().filter(|folder| folder.starts_with(&joined.sockets)),
        Address::Tcp(_) => None,
    });
    let group = joined.plan.process.user.as_ref().map(|user| user.gid);
    for folder in paths {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let own = joined.sockets.parent();
        for folder in folder.ancestors().take_while(|folder| own.is_some_and(|own| folder.starts_with(own))) {
            if let Some(group) = group {
                std::os::unix::fs::chown(folder, None, Some(group))?;
                std::fs::set_permissions(folder, Permissions::from_mode(0o710))?;
            }
        }
    }
    Ok(())
}
