//! The engine's events: containers that ended, became healthy, were paused or cut off.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use keel_engine::{
    self as engine, Change, Docker, EngineError,
    api::models::{ContainerInspectResponse, HealthStatusEnum},
};
use tokio_stream::StreamExt;

use super::{ContainerDriver, LOST, SIGKILL, Stage, life::address, lock};
use crate::{
    Exit,
    supervisor::{EngineWord, Event, Incarnation},
};

/// When to listen again after the engine broke off.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The looks at containers that somebody moved.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: AtomicU64,
    /// Those under way, and whether one more is due after it.
    pub(super) under_way: Mutex<BTreeMap<Incarnation, bool>>,
}

impl Looks {
    /// The number of a look that begins now.
    pub(super) fn begin(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Passes on what happens, until nobody is told any more. While the engine is silent nothing changes.
pub(super) async fn watch(driver: ContainerDriver, docker: Docker) {
    let mut since = SystemTime::now();
    loop {
        let mut events = std::pin::pin!(engine::events(&docker, since));
        let why = loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = driver.0.told.closed() => return,
            };
            match event {
                Some(Ok(event)) => driver.take(&docker, &event),
                Some(Err(error)) => break error.cause(),
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
            let begun = SystemTime::now();
            if driver.review(&docker).await.is_ok() {
                break begun;
            }
        };
        tracing::info!("the container engine can be asked again");
    }
}

impl ContainerDriver {
    /// Passes one on. It asks nothing here: what an engine is slow with would keep the next ones back.
    pub(super) fn take(&self, docker: &Docker, event: &engine::Event) {
        let Some(incarnation) = self.incarnation_of(&event.container) else { return };
        let verdict = match event.change {
            Change::Died(status) => return self.ended(incarnation, Exit::Status(status.unwrap_or(LOST))),
            Change::Removed => return self.ended(incarnation, Exit::Status(LOST)),
            Change::Paused => EngineWord::Paused,
            Change::Unpaused => EngineWord::Resumed,
            Change::Moved => return self.look_again(docker, incarnation),
            Change::Healthy => EngineWord::Well,
            Change::Unhealthy => EngineWord::Ill,
            Change::Signalled(signal) => {
                let stops = self.living(incarnation).map(|living| living.birth.spec.stop.signal);
                if signal.is_none() || signal != stops && signal != Some(SIGKILL) {
                    return;
                }
                EngineWord::Leaving
            }
            Change::Started | Change::Renamed | Change::HealthUnknown => return,
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
            match engine::inspect(docker, &id).await? {
                Some(container) => self.judge(incarnation, look, &container),
                None => self.ended(incarnation, Exit::Status(LOST)),
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
                if let Ok(Some(container)) = engine::inspect(&docker, &id).await {
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
