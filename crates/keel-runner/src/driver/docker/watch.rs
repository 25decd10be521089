//! The engine's events: who ended, who is healthy, who was paused.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    models::{ContainerState, EventMessage, HealthStatusEnum},
    query_parameters::EventsOptionsBuilder,
};
use tokio_stream::StreamExt;

use super::{
    Driver, LOST, PROJECT_LABEL, SIGKILL, Stage,
    connection::{EngineError, call},
};
use crate::{
    Exit,
    supervisor::{Event, Incarnation, Verdict},
};

/// When to listen again after the engine broke off.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Passes on what happens, until nobody is told any more. While the engine is silent nothing changes.
pub(super) async fn watch(driver: Driver, docker: Docker) {
    let mut since = now();
    let mut failing = false;
    while !driver.0.told.is_closed() {
        let begun = now();
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![format!("{PROJECT_LABEL}={}", driver.0.project)]),
        ]);
        let options = EventsOptionsBuilder::default().filters(&filters).since(&since.to_string()).build();
        let mut events = std::pin::pin!(docker.events(Some(options)));
        let why = loop {
            if failing && driver.review(&docker).await.is_ok() {
                failing = false;
                tracing::info!("the container engine can be asked again");
            }
            let event = tokio::select! {
                event = events.next() => event,
                () = driver.0.told.closed() => return,
            };
            match event {
                Some(Ok(event)) => driver.take(&event),
                Some(Err(error)) => break error.to_string(),
                None => break "it ended the connection".into(),
            }
        };
        if !std::mem::replace(&mut failing, true) {
            tracing::error!("the container engine can't be asked ({why}); the instances known last stay");
        }
        // What is heard twice is taken once.
        since = begun;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Driver {
    fn take(&self, event: &EventMessage) {
        let Some(actor) = &event.actor else { return };
        let Some(incarnation) = actor.id.as_deref().and_then(|id| self.incarnation_of(id)) else { return };
        let attribute = |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name));
        let verdict = match event.action.as_deref().unwrap_or_default() {
            "die" => {
                let status = attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(LOST);
                return self.ended(incarnation, Exit::Status(status));
            }
            "destroy" => return self.ended(incarnation, Exit::Status(LOST)),
            "pause" => Verdict::Paused,
            "unpause" => Verdict::Resumed,
            "health_status: healthy" => Verdict::Well,
            "health_status: unhealthy" => Verdict::Ill,
            "kill" => {
                let signal = attribute("signal").and_then(|signal| signal.parse::<i32>().ok());
                let stops = self.living(incarnation).map(|living| living.birth.spec.stop.signal);
                if signal.is_none() || signal != stops && signal != Some(SIGKILL) {
                    return;
                }
                Verdict::Leaving
            }
            _ => return,
        };
        self.tell(Event::Judged { incarnation, verdict });
    }

    /// Looks at every container again: what happened meanwhile was told to nobody.
    async fn review(&self, docker: &Docker) -> Result<(), EngineError> {
        let started = |stage: &Stage| matches!(stage, Stage::Started { .. });
        let known: Vec<(Incarnation, String)> = self
            .lives()
            .iter()
            .filter(|(_, living)| started(&living.stage))
            .filter_map(|(incarnation, living)| Some((*incarnation, living.id()?.to_owned())))
            .collect();
        for (incarnation, id) in known {
            match call(docker.inspect_container(&id, None)).await {
                Ok(container) => self.judge(incarnation, container.state.unwrap_or_default()),
                Err(error) if error.is_missing() => self.ended(incarnation, Exit::Status(LOST)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn judge(&self, incarnation: Incarnation, state: ContainerState) {
        if state.running != Some(true) {
            let status = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(LOST);
            return self.ended(incarnation, Exit::Status(status));
        }
        let health = state.health.and_then(|health| health.status);
        let verdict = match health {
            _ if state.paused == Some(true) => Verdict::Paused,
            Some(HealthStatusEnum::HEALTHY) => Verdict::Well,
            Some(HealthStatusEnum::UNHEALTHY) => Verdict::Ill,
            _ => return,
        };
        self.tell(Event::Judged { incarnation, verdict });
    }
}
