//! Instances as containers, made and watched through the engine's API.
//!
//! The engine runs them and their healthchecks; when they start, leave the pool, end and are started again is decided
//! where it is for processes. So a container is made with no restart policy of its own and is removed when it has
//! ended. Names and labels are Compose's, and one label of our own tells what a crashed supervisor left behind:
//! containers don't die with it.
//!
//! Requests and first connections go to a container's address in its first network, so the engine has to be on this
//! machine. Every call is bounded. A lost connection is said, changes nothing, and is made again.

mod context;
mod create;
mod error;
#[cfg(test)]
mod fake;
mod forward;
mod image;
mod life;
mod logs;
mod names;
mod network;
mod session;
mod signal;
mod stray;
mod sweep;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keel_engine::{Docker, EngineError};
use keel_model::{HostPort, Run, Service};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, mpsc::UnboundedSender};

pub(in crate::driver) use self::context::{Ignored, MATCH};
pub(super) use self::session::Session;
pub(crate) use self::sweep::end_leftovers;
use self::{
    error::LaunchError, forward::Doors, names::Names, network::Networks, stray::Strays, watch::Looks,
};
use super::{Birth, DriverNews, Facts, output::Output, process::first_tcp};
use crate::{
    Exit, Health,
    supervisor::{Event, Incarnation},
};

/// Tells our containers and networks from others'; its value is the project.
const PROJECT_LABEL: &str = "dev.evenkeel.project";
/// The name that the container would have if it were the only one of its instance.
const NAME_LABEL: &str = "dev.evenkeel.name";
/// Which life a container was made for, so that one whose making wasn't answered is known.
const INCARNATION_LABEL: &str = "dev.evenkeel.incarnation";
/// In the state folder while there may be something in the engine.
const MARK: &str = "engine";
/// Between two attempts to connect to an instance that doesn't accept yet.
const KNOCK_EVERY: Duration = Duration::from_millis(50);
/// How long one attempt may take.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// When an instance that was killed and lives is killed again.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// When the engine is told again to remove a container, after it gave no answer.
const REMOVE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the end of all waits for the engine's answer on what it is making.
const MADE_WITHIN: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// The status of a container whose end nobody saw.
const LOST: i32 = 255;

/// The driver; cheap to clone. It asks nothing of the engine before the first container does.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDriver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    project: String,
    state_dir: PathBuf,
    output: Arc<Output>,
    told: UnboundedSender<DriverNews>,
    engine: OnceCell<Docker>,
    lives: Mutex<BTreeMap<Incarnation, Living>>,
    names: Mutex<Names>,
    strays: Mutex<Strays>,
    looks: Looks,
    /// Volumes without a name, by the instance whose last container had them.
    volumes: Mutex<BTreeMap<String, Vec<OwnVolume>>>,
    networks: Networks,
    doors: Doors,
    /// Held while something is made in the engine.
    making: RwLock<()>,
    /// Nothing is to be made any more.
    is_closed: AtomicBool,
}

/// A container of an instance, or of a one-off.
#[derive(Clone, Debug)]
struct Living {
    birth: Birth,
    /// The name that it should have.
    wish: String,
    stage: Stage,
    /// The last look at it that counts, by its number: answers may overtake each other.
    looked: u64,
    health: Option<Health>,
    note: Option<String>,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Nothing is known in the engine.
    Settled,
    /// The engine was asked to make it under this name, and hasn't answered.
    Asked { name: String },
    /// It is there. An end that came before its start was known waits here.
    Created { id: String, ended: Option<Exit> },
    /// It runs.
    Started { id: String, pid: Option<u32>, address: Option<IpAddr>, volumes: Vec<OwnVolume> },
}

/// A volume that has no name in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnVolume {
    name: String,
    target: String,
}

impl Living {
    fn id(&self) -> Option<&str> {
        match &self.stage {
            Stage::Settled | Stage::Asked { .. } => None,
            Stage::Created { id, .. } | Stage::Started { id, .. } => Some(id),
        }
    }
}

impl ContainerDriver {
    pub(crate) fn new(
        project: &str,
        state_dir: &Path,
        output: Arc<Output>,
        told: UnboundedSender<DriverNews>,
    ) -> Self {
        Self(Arc::new(Inner {
            project: project.into(),
            state_dir: state_dir.into(),
            output,
            told,
            engine: OnceCell::new(),
            lives: Mutex::default(),
            names: Mutex::default(),
            strays: Mutex::default(),
            looks: Looks::default(),
            volumes: Mutex::default(),
            networks: Networks::default(),
            doors: Doors::default(),
            making: RwLock::default(),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// The engine. The first time it ends what an earlier run left behind, and begins to listen.
    async fn engine(&self) -> Result<&Docker, EngineError> {
        let connect = || async {
            let docker = keel_engine::connect().await?;
            // Written first: a crash from here on leaves something to look for.
            if let Err(error) = std::fs::write(self.0.state_dir.join(MARK), keel_engine::host()) {
                tracing::warn!("containers that a crash leaves behind will not be found: {error}");
            }
            self.take_over(sweep::containers(&docker, &self.0.project).await?);
            tokio::spawn(watch::watch(self.clone(), docker.clone()));
            Ok(docker)
        };
        self.0.engine.get_or_try_init(connect).await
    }

    /// Whether a life is a container.
    pub(crate) fn has(&self, incarnation: Incarnation) -> bool {
        self.lives().contains_key(&incarnation)
    }

    /// Notes a life.
    pub(crate) fn settle(&self, birth: &Birth) {
        let wish = names::wish(&self.0.project, birth);
        let birth = birth.clone();
        let incarnation = birth.incarnation;
        let stage = Stage::Settled;
        let living = Living { birth, wish, stage, looked: 0, health: None, note: None };
        self.lives().insert(incarnation, living);
    }

    /// Makes and starts the container of a life that was settled.
    pub(crate) fn launch(&self, birth: Birth) {
        let driver = self.clone();
        tokio::spawn(async move {
            let incarnation = birth.incarnation;
            if let Err(error) = driver.bring_up(birth).await {
                driver.give_up(incarnation, error);
            }
        });
    }

    /// The address of a life, once it runs.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<IpAddr> {
        match self.living(incarnation)?.stage {
            Stage::Started { address, .. } => address,
            Stage::Settled | Stage::Asked { .. } | Stage::Created { .. } => None,
        }
    }

    /// What is known of a life, once it runs.
    pub(crate) fn facts(&self, incarnation: Incarnation) -> Option<Facts> {
        let living = self.living(incarnation)?;
        let Stage::Started { pid, address: Some(address), .. } = living.stage else { return None };
        let shown = living.birth.spec.ports.iter().map(|port| match port.protocol {
            keel_model::Protocol::Tcp => port.number.to_string(),
            keel_model::Protocol::Udp => format!("{}/udp", port.number),
        });
        Some(Facts {
            pid,
            address,
            ports: BTreeMap::new(),
            ports_shown: shown.collect(),
            is_watched: false,
            health: living.health,
            note: living.note,
        })
    }

    /// Sends a signal to the main process of a life.
    pub(crate) fn signal(&self, incarnation: Incarnation, signal: i32) {
        let driver = self.clone();
        tokio::spawn(async move { driver.send(incarnation, signal).await });
    }

    /// Ends all processes of a life. An engine that is silent just then is told again until it has done it.
    pub(crate) fn kill_all(&self, incarnation: Incarnation) {
        let driver = self.clone();
        tokio::spawn(async move {
            while driver.id_of(incarnation).is_some() {
                driver.send(incarnation, SIGKILL).await;
                tokio::time::sleep(KILL_AGAIN_AFTER).await;
            }
        });
    }

    async fn send(&self, incarnation: Incarnation, signal: i32) {
        let Some(id) = self.id_of(incarnation) else { return };
        let Ok(docker) = self.engine().await else { return };
        if let Err(error) = life::send(docker, &id, signal).await {
            tracing::debug!("{id} wasn't sent signal {signal}: {error}");
        }
    }

    /// Finds out why an instance isn't ready, and says it.
    pub(crate) fn tell_slow(&self, incarnation: Incarnation, instance: String) {
        let Some(living) = self.living(incarnation) else { return };
        let port = first_tcp(&living.birth.spec.ports);
        let why = match (&living.stage, &living.birth.spec.healthcheck, living.health) {
            (Stage::Settled | Stage::Asked { .. } | Stage::Created { .. }, ..) => {
                "the engine is making its container".into()
            }
            (_, Some(_), Some(health)) if health.output.trim().is_empty() => {
                "its healthcheck fails and prints nothing".into()
            }
            (_, Some(_), Some(health)) => format!("its healthcheck fails: {}", health.output.trim()),
            (_, Some(_), None) => "its first healthcheck hasn't ended yet".into(),
            (_, None, _) => match port {
                Some(port) => format!("it runs and doesn't accept connections on port {port} yet"),
                None => return,
            },
        };
        let _ = self.0.told.send(DriverNews::Slow { instance, why });
    }

    /// Leads containers to what isn't in the engine.
    pub(crate) fn lead(&self, behind: BTreeMap<HostPort, Vec<SocketAddr>>) {
        self.0.doors.lead(behind);
    }

    /// Ends what an earlier run left behind, if there may be anything.
    pub(crate) async fn end_leftovers(&self) {
        if self.0.engine.initialized() || !self.0.state_dir.join(MARK).exists() {
            return;
        }
        if let Err(error) = self.engine().await {
            tracing::warn!("containers of an earlier run may be left: {error}");
        }
    }

    /// Begins to make something in the engine, which all that ends everything waits for.
    async fn begin_making(&self) -> Result<RwLockReadGuard<'_, ()>, LaunchError> {
        let making = self.0.making.read().await;
        match self.0.is_closed.load(Ordering::SeqCst) {
            true => Err("everything in the engine is being ended".into()),
            false => Ok(making),
        }
    }

    /// Removes everything at once, and lets nothing be made any more.
    pub(crate) async fn abandon(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        self.tear_down().await;
    }

    /// Removes all containers of the project and the networks that were made for them. Volumes stay.
    pub(crate) async fn tear_down(&self) {
        let Some(docker) = self.0.engine.get() else { return };
        self.0.doors.close();
        match self.empty(docker).await {
            Ok(()) => drop(std::fs::remove_file(self.0.state_dir.join(MARK))),
            Err(error) => tracing::warn!(
                "what is left in the engine couldn't be removed; `evenkeel down` tries again: {error}"
            ),
        }
        self.0.networks.forget();
    }

    async fn empty(&self, docker: &Docker) -> Result<(), EngineError> {
        // What runs has to end at once; what is being made isn't listed yet.
        sweep::all(docker, &self.0.project).await?;
        let unmade = |_| EngineError::Broken("it hasn't said what became of a container".into());
        let made = tokio::time::timeout(MADE_WITHIN, self.0.making.write()).await;
        let _nobody_makes = made.map_err(unmade)?;
        sweep::until_empty(docker, &self.0.project).await
    }

    /// Says that a life has ended, and removes what is left of it.
    fn ended(&self, incarnation: Incarnation, exit: Exit) {
        {
            let mut lives = self.lives();
            let Some(living) = lives.get_mut(&incarnation) else { return };
            match &mut living.stage {
                Stage::Created { ended, .. } => {
                    *ended = Some(exit);
                    return;
                }
                // Its end is told once it is removed; until then nothing may be sent to it.
                Stage::Started { .. } if life::takes_turns(&living.birth) => {
                    self.tell(Event::Deaf { incarnation });
                }
                Stage::Started { .. } => {}
                Stage::Settled | Stage::Asked { .. } => return,
            }
        }
        self.part_with(incarnation, Event::Exited { incarnation, exit });
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the runner is gone.
        let _ = self.0.told.send(DriverNews::Event(event));
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Living>> {
        lock(&self.0.lives)
    }

    fn living(&self, incarnation: Incarnation) -> Option<Living> {
        self.lives().get(&incarnation).cloned()
    }

    fn id_of(&self, incarnation: Incarnation) -> Option<String> {
        self.lives().get(&incarnation)?.id().map(str::to_owned)
    }

    fn incarnation_of(&self, id: &str) -> Option<Incarnation> {
        let lives = self.lives();
        lives.iter().find(|(_, living)| living.id() == Some(id)).map(|(incarnation, _)| *incarnation)
    }

    fn change(&self, incarnation: Incarnation, change: impl FnOnce(&mut Living)) {
        if let Some(living) = self.lives().get_mut(&incarnation) {
            change(living);
        }
    }

    /// Takes over the volumes of containers that were removed, for those that take their places.
    fn take_over(&self, left: Vec<(String, Vec<OwnVolume>)>) {
        lock(&self.0.volumes).extend(left);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn container_of(spec: &Service) -> Option<&keel_model::ContainerSpec> {
    match &spec.run {
        Run::Container(container) => Some(container),
        Run::Process(_) | Run::External(_) => None,
    }
}

/// The targets that a service mounts something at, so that what the image keeps there is no volume of its own.
fn mounted(spec: &Service) -> BTreeSet<&str> {
    let mounts = container_of(spec).map(|container| container.mounts.as_slice()).unwrap_or_default();
    let named = mounts.iter().filter(|mount| mount.source != keel_model::ContainerMountSource::Anonymous);
    named.map(|mount| mount.target.as_str()).collect()
}
