//! The engine's events: containers that ended, became healthy, were paused or cut off.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    models::{ContainerInspectResponse, EventMessage, EventMessageTypeEnum, HealthStatusEnum},
    query_parameters::EventsOptionsBuilder,
};
use keel_model::signal_number;
use tokio_stream::StreamExt;

use super::{
    ContainerDriver, LOST, SIGKILL, Stage,
    connection::{EngineError, call},
    life::address,
    lock,
};
use crate::{
    Exit,
    supervisor::{EngineWord, Event, Incarnation},
};

/// When to listen again after the engine broke off.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is asked for. A container's commands, healthchecks too, are events as well, and those of all others come along:
/// what happens in a network carries no label. The last one stands for all that begin so.
const ACTIONS: [&str; 8] =
    ["die", "destroy", "pause", "unpause", "kill", "connect", "disconnect", "health_status"];

/// The looks at containers that somebody moved.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: AtomicU64,
    /// Those under way, and whether one more is due after it.
    pub(super) under_way: Mutex<BTreeMap<Incarnation, bool>>,
}

impl Looks {
    /// Gives the number of a look that begins now.
    pub(super) fn begin(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Passes on what happens, until nobody is told any more. While the engine is silent nothing changes.
pub(super) async fn watch(driver: ContainerDriver, docker: Docker) {
    let mut since = now();
    loop {
        let options = EventsOptionsBuilder::default().filters(&filters()).since(&since).build();
        let mut events = std::pin::pin!(docker.events(Some(options)));
        let why = loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = driver.0.told.closed() => return,
            };
            match event {
                Some(Ok(event)) => driver.take(&docker, &event),
                Some(Err(error)) => break error.to_string(),
                None => break "it ended the connection".into(),
            }
        };
        tracing::error!("the container engine can't be asked ({why}); the instances known last stay");
        since = loop {
            tokio::time::sleep(AGAIN_AFTER).await;
            if driver.0.told.is_closed() {
                return;
            }
            // The review finds what earlier events have led to. Taken from those events, a pause that is over or a signal
            // that was ignored would take a container out of the pool.
            let begun = now();
            if driver.review(&docker).await.is_ok() {
                break begun;
            }
        };
        tracing::info!("the container engine can be asked again");
    }
}

fn filters() -> HashMap<String, Vec<String>> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    HashMap::from([
        ("type".to_owned(), texts(&["container", "network"])),
        ("event".to_owned(), texts(&ACTIONS)),
    ])
}

/// Gives the time as the engine reads it; it is on this machine.
fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

impl ContainerDriver {
    /// Passes one on. It asks nothing here: what an engine is slow with would keep the next ones back.
    pub(super) fn take(&self, docker: &Docker, event: &EventMessage) {
        let Some(actor) = &event.actor else { return };
        let attribute = |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name));
        let of_network = event.typ == Some(EventMessageTypeEnum::NETWORK);
        let id = if of_network { attribute("container") } else { actor.id.as_ref() };
        let Some(incarnation) = id.and_then(|id| self.incarnation_of(id)) else { return };
        let verdict = match event.action.as_deref().unwrap_or_default() {
            "die" => {
                let status = attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(LOST);
                return self.ended(incarnation, Exit::Status(status));
            }
            "destroy" => return self.ended(incarnation, Exit::Status(LOST)),
            "pause" => EngineWord::Paused,
            "unpause" => EngineWord::Resumed,
            "connect" | "disconnect" => return self.look_again(docker, incarnation),
            "health_status: healthy" => EngineWord::Well,
            "health_status: unhealthy" => EngineWord::Ill,
            "kill" => {
                let signal = attribute("signal").and_then(|signal| signal_number(signal));
                let stops = self.living(incarnation).map(|living| living.birth.spec.stop.signal);
                if signal.is_none() || signal != stops && signal != Some(SIGKILL) {
                    return;
                }
                EngineWord::Leaving
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
            let look = self.0.looks.begin();
            match call(docker.inspect_container(&id, None)).await {
                Ok(container) => self.judge(incarnation, look, &container),
                Err(error) if error.is_missing() => self.ended(incarnation, Exit::Status(LOST)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at a container whose networks have changed, beside all else. What changes while it looks is one more look.
    fn look_again(&self, docker: &Docker, incarnation: Incarnation) {
        // One that is being started is looked at once it runs.
        let Some(Stage::Started { id, .. }) = self.living(incarnation).map(|living| living.stage) else {
            return;
        };
        match lock(&self.0.looks.under_way).entry(incarnation) {
            Entry::Occupied(mut again) => {
                again.insert(true);
                return;
            }
            Entry::Vacant(first) => first.insert(false),
        };
        let (driver, docker) = (self.clone(), docker.clone());
        tokio::spawn(async move {
            loop {
                let look = driver.0.looks.begin();
                // Its end is an event of its own, and after the engine's silence it is examined again.
                if let Ok(container) = call(docker.inspect_container(&id, None)).await {
                    driver.place(incarnation, look, &container);
                }
                let mut under_way = lock(&driver.0.looks.under_way);
                if !under_way.get_mut(&incarnation).is_some_and(std::mem::take) {
                    under_way.remove(&incarnation);
                    return;
                }
            }
        });
    }

    /// Takes a container that is in none of its networks out of the pool, and back in at the address it has then.
    pub(super) fn place(&self, incarnation: Incarnation, look: u64, container: &ContainerInspectResponse) {
        self.change(incarnation, |living| {
            if look < living.looked {
                return;
            }
            living.looked = look;
            let found = address(&living.birth, container);
            let Stage::Started { address, .. } = &mut living.stage else { return };
            if *address == found {
                return;
            }
            // Sent before the next one looks, so that the last word is about the address that it has.
            let verdicts =
                [(address.is_some(), EngineWord::CutOff), (found.is_some(), EngineWord::Connected)];
            for (_, verdict) in verdicts.into_iter().filter(|(holds, _)| *holds) {
                self.tell(Event::Judged { incarnation, verdict });
            }
            *address = found;
        });
    }

    fn judge(&self, incarnation: Incarnation, look: u64, container: &ContainerInspectResponse) {
        let state = container.state.clone().unwrap_or_default();
        if state.running != Some(true) {
            let status = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(LOST);
            return self.ended(incarnation, Exit::Status(status));
        }
        self.place(incarnation, look, container);
        if state.paused == Some(true) {
            return self.tell(Event::Judged { incarnation, verdict: EngineWord::Paused });
        }
        self.tell(Event::Judged { incarnation, verdict: EngineWord::Resumed });
        let verdict = match state.health.and_then(|health| health.status) {
            Some(HealthStatusEnum::HEALTHY) => EngineWord::Well,
            Some(HealthStatusEnum::UNHEALTHY) => EngineWord::Ill,
            _ => return,
        };
        self.tell(Event::Judged { incarnation, verdict });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the engine reads it: one name that ends before a colon makes all of them beginnings.
    #[test]
    fn what_is_asked_for_leaves_out_what_runs_in_containers() {
        let asked = filters();
        let passes = |action: &str| asked["event"].iter().any(|one| action.starts_with(one));
        for action in
            ["die", "kill", "unpause", "disconnect", "health_status: healthy", "health_status: unhealthy"]
        {
            assert!(passes(action), "{action}");
        }
        for action in
            ["exec_create: true", "exec_start: true", "exec_die", "create", "start", "attach", "top"]
        {
            assert!(!passes(action), "{action}");
        }
    }
}
