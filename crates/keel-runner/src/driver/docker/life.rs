//! A container from its making to its removal.

use std::net::{IpAddr, SocketAddr};

use keel_engine::{
    Docker, EngineError,
    api::{
        container::LogOutput,
        exec::{CreateExecOptions, StartExecResults},
        models::ContainerInspectResponse,
        query_parameters::{KillContainerOptionsBuilder, RemoveContainerOptionsBuilder},
    },
    call,
};
use keel_model::{Handover, Healthcheck};
use tokio_stream::StreamExt;

use super::{
    Birth, ContainerDriver, KNOCK_EVERY, KNOCK_TIMEOUT, LOST, Living, OwnVolume, REMOVE_AGAIN_AFTER, Stage,
    container_of,
    error::LaunchError,
    mounted,
    session::status_of,
    signal::end_exec,
    stray::Sequel,
    sweep::{VOLUME, own_volume, remove},
};
use crate::{
    Exit, Health,
    driver::process::first_tcp,
    supervisor::{EngineWord, Event, Incarnation, ProbeNumber},
};

/// How much of what a healthcheck printed is kept: its end.
const HEALTH_BYTES_MAX: usize = 4096;

impl ContainerDriver {
    pub(super) async fn bring_up(&self, birth: Birth) -> Result<(), LaunchError> {
        let incarnation = birth.incarnation;
        let sink = self.0.output.open(&birth.spec.name.0, &birth.name);
        let docker =
            self.engine().await.map_err(|error| LaunchError::before_start(&error, error.to_string()))?;
        let id = self.create(docker, &birth, None).await?;
        let started = call(docker.start_container(&id, None)).await;
        started.map_err(|error| match error.is_outage() {
            true => LaunchError::Lost(format!("its start wasn't answered: {error}")),
            false => LaunchError::Refused(format!("its container can't be started: {error}")),
        })?;
        let container = call(docker.inspect_container(&id, None)).await;
        let lost = |error| LaunchError::Lost(format!("it was lost right after its start: {error}"));
        let container = container.map_err(lost)?;
        let ended = self.note_start(&birth, &id, &container);
        self.tell(Event::Started { incarnation });
        tokio::spawn(self.clone().follow_logs(docker.clone(), incarnation, id, sink));
        match ended {
            Some(exit) => self.ended(incarnation, exit),
            None => {
                tokio::spawn(self.clone().knock(birth));
            }
        }
        Ok(())
    }

    /// Notes where a container runs; gives how it ended, if it has by now.
    pub(super) fn note_start(
        &self,
        birth: &Birth,
        id: &str,
        container: &ContainerInspectResponse,
    ) -> Option<Exit> {
        let state = container.state.clone().unwrap_or_default();
        let address = address(birth, container);
        let stage = Stage::Started {
            id: id.to_owned(),
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            address,
            volumes: own_volumes(birth, container),
        };
        let mut lives = self.lives();
        let living = lives.get_mut(&birth.incarnation)?;
        let before = std::mem::replace(&mut living.stage, stage);
        if address.is_none() {
            // Somebody was quicker than this look. From here on its changes are told.
            self.tell(Event::Judged { incarnation: birth.incarnation, verdict: EngineWord::CutOff });
        }
        let gone = (state.running != Some(true)).then(|| {
            let status = state.exit_code.and_then(|code| i32::try_from(code).ok());
            Exit::Status(status.unwrap_or(LOST))
        });
        match before {
            Stage::Created { ended: Some(exit), .. } => Some(exit),
            _ => gone,
        }
    }

    /// Says when an instance without a healthcheck accepts connections.
    async fn knock(self, birth: Birth) {
        let port = first_tcp(&birth.spec.ports).filter(|_| birth.spec.healthcheck.is_none());
        let Some(port) = port else { return };
        while self.has(birth.incarnation) {
            // It may have been moved meanwhile.
            if let Some(address) = self.address(birth.incarnation)
                && accepts(SocketAddr::new(address, port)).await
            {
                return self.tell(Event::Listening { incarnation: birth.incarnation });
            }
            tokio::time::sleep(KNOCK_EVERY).await;
        }
    }

    /// Runs the healthcheck of a life once, or looks whether it listens if it has none; says [`Event::Probed`].
    pub(crate) fn probe(&self, incarnation: Incarnation, number: ProbeNumber) {
        let driver = self.clone();
        tokio::spawn(async move {
            let passed = driver.passes(incarnation).await;
            driver.tell(Event::Probed { incarnation, number, passed });
        });
    }

    async fn passes(&self, incarnation: Incarnation) -> bool {
        let Some(living) = self.living(incarnation) else { return false };
        let Some(check) = &living.birth.spec.healthcheck else {
            let port = first_tcp(&living.birth.spec.ports);
            let address = port.and_then(|port| Some(SocketAddr::new(self.address(incarnation)?, port)));
            return match address {
                Some(address) => accepts(address).await,
                None => false,
            };
        };
        let asked = self.run_healthcheck(&living, check).await;
        let health = asked.unwrap_or_else(|why| Health { passed: false, output: why });
        let passed = health.passed;
        self.change(incarnation, |living| living.health = Some(health));
        passed
    }

    async fn run_healthcheck(&self, living: &Living, check: &Healthcheck) -> Result<Health, String> {
        let id = living.id().ok_or("it doesn't run")?;
        let docker = self.engine().await.map_err(|error| error.to_string())?;
        let mut exec = None;
        match tokio::time::timeout(check.timeout, ask(docker, id, check, &mut exec)).await {
            Ok(asked) => asked,
            Err(_) => {
                // The engine lets it go on.
                exec.map(|exec| tokio::spawn(end_exec(docker.clone(), exec)));
                Err(format!("it took longer than {} s", check.timeout.as_secs_f32()))
            }
        }
    }

    /// Forgets a life that didn't come up, says so, and removes what is left of it.
    pub(super) fn give_up(&self, incarnation: Incarnation, error: LaunchError) {
        let event = match error {
            LaunchError::Refused(why) => Event::StartFailed { incarnation, why },
            LaunchError::Unasked(why) => Event::StartUnasked { incarnation, why },
            LaunchError::Lost(why) => {
                tracing::warn!("an instance's start counts as one that ended: {why}");
                Event::Exited { incarnation, exit: Exit::Status(LOST) }
            }
        };
        self.part_with(incarnation, event);
    }

    /// Forgets a life, says what became of it, and removes what is left of it.
    pub(super) fn part_with(&self, incarnation: Incarnation, event: Event) {
        let Some(living) = self.lives().remove(&incarnation) else { return self.tell(event) };
        if takes_turns(&living.birth) {
            // Its ports and volumes are free only then.
            return self.clear_away(incarnation, living, Some(event));
        }
        self.tell(event);
        self.clear_away(incarnation, living, None);
    }

    /// Forgets a life, and removes what is left of it.
    pub(super) fn bury(&self, incarnation: Incarnation) {
        let Some(living) = self.lives().remove(&incarnation) else { return };
        self.clear_away(incarnation, living, None);
    }

    /// Removes what there may be of a life that has been forgotten, and tells the event after that.
    fn clear_away(&self, incarnation: Incarnation, living: Living, event: Option<Event>) {
        if let (Stage::Asked { name }, Some(docker)) = (&living.stage, self.0.engine.get()) {
            let sequel = Sequel { wish: living.wish, event };
            return self.seek(docker, incarnation, name.clone(), sequel);
        }
        let driver = self.clone();
        tokio::spawn(async move {
            driver.remove(incarnation, living).await;
            if let Some(event) = event {
                driver.tell(event);
            }
        });
    }

    /// Removes a container whose life has been forgotten. Its name is free after that, and not before: an engine that
    /// is silent just then is told again until it has done it.
    async fn remove(&self, incarnation: Incarnation, living: Living) {
        let own = match &living.stage {
            Stage::Started { volumes, .. } => volumes.clone(),
            Stage::Settled | Stage::Asked { .. } | Stage::Created { .. } => Vec::new(),
        };
        if takes_turns(&living.birth) && !own.is_empty() {
            self.take_over(vec![(living.wish.clone(), own)]);
        }
        if let (Some(id), Some(docker)) = (living.id(), self.0.engine.get()) {
            let mut removed = remove_of(docker, id, &living.birth).await;
            while removed.as_ref().is_err_and(EngineError::is_outage) && !self.0.told.is_closed() {
                tokio::time::sleep(REMOVE_AGAIN_AFTER).await;
                removed = remove_of(docker, id, &living.birth).await;
            }
            if let Err(error) = removed {
                tracing::warn!("the container {id} of {} can't be removed: {error}", living.birth.name);
            }
        }
        self.hand_on_name(&living.wish, incarnation).await;
    }
}

/// Removes a container of a life. A one-off's volumes without a name go with it.
async fn remove_of(docker: &Docker, id: &str, birth: &Birth) -> Result<(), EngineError> {
    if birth.is_instance() {
        return remove(docker, id).await;
    }
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match call(docker.remove_container(id, Some(options))).await {
        Err(error) if error.is_missing() => Ok(()),
        outcome => outcome,
    }
}

async fn accepts(address: SocketAddr) -> bool {
    let connect = tokio::net::TcpStream::connect(address);
    matches!(tokio::time::timeout(KNOCK_TIMEOUT, connect).await, Ok(Ok(_)))
}

/// Whether no other container of the instance may be there before this one is gone.
pub(super) fn takes_turns(birth: &Birth) -> bool {
    container_of(&birth.spec).is_some_and(|container| container.handover == Handover::OneAtATime)
}

/// Sends a container a signal. One that has ended needs none.
pub(super) async fn send(docker: &Docker, id: &str, signal: i32) -> Result<(), EngineError> {
    let options = KillContainerOptionsBuilder::default().signal(&signal.to_string()).build();
    match call(docker.kill_container(id, Some(options))).await {
        Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
        outcome => outcome,
    }
}

/// Runs a healthcheck in a container. What the engine calls it is known from its beginning.
async fn ask(
    docker: &Docker,
    id: &str,
    check: &Healthcheck,
    exec: &mut Option<String>,
) -> Result<Health, String> {
    let failed = |error: EngineError| format!("it can't be run: {error}");
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(check.argv.clone()),
        ..Default::default()
    };
    let exec = exec.insert(call(docker.create_exec(id, options)).await.map_err(failed)?.id);
    let started = call(docker.start_exec(exec, None)).await.map_err(failed)?;
    let mut printed = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = started {
        while let Some(Ok(piece)) = output.next().await {
            printed.extend_from_slice(&LogOutput::into_bytes(piece));
            let beyond = printed.len().saturating_sub(HEALTH_BYTES_MAX);
            printed.drain(..beyond);
        }
    }
    let status = status_of(docker, exec).await.map_err(failed)?;
    Ok(Health { passed: status == 0, output: String::from_utf8_lossy(&printed).into_owned() })
}

/// A container's address in the first of its networks where it has one.
pub(super) fn address(birth: &Birth, container: &ContainerInspectResponse) -> Option<IpAddr> {
    let spec = container_of(&birth.spec)?;
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    spec.networks.iter().find_map(|network| {
        let endpoint = networks.get(&network.name)?;
        let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
        addresses.into_iter().flatten().find_map(|text| text.parse().ok())
    })
}

fn own_volumes(birth: &Birth, container: &ContainerInspectResponse) -> Vec<OwnVolume> {
    let named = mounted(&birth.spec);
    let mounts = container.mounts.iter().flatten().cloned();
    let volumes = mounts.filter(|mount| mount.typ.as_deref() == Some(VOLUME));
    let own = volumes.filter_map(|mount| own_volume(mount.name, mount.destination));
    own.filter(|volume| !named.contains(volume.target.as_str())).collect()
}
