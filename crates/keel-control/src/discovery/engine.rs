//! The Docker engine's word on containers: one listing, then its events.
//!
//! Only reads: `GET /events`, `/containers/json`, `/containers/{id}/json` and `/version`, so that a proxy which lets
//! nothing else through is enough. DOCKER_HOST says where the engine is, else its socket is at the usual place.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use keel_engine::{Change, Docker, EngineError, Event, Which};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt;

use super::{
    containers::{Container, Containers},
    follower::at,
};

/// When to try again after the engine couldn't be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the engine may take to list what runs.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Follows the engine until nobody listens any more. `None` until it has been asked once.
pub(super) async fn watch(containers: watch::Sender<Option<Containers>>) {
    let mut failing = false;
    loop {
        let outcome = tokio::select! {
            outcome = follow(&containers, &mut failing) => outcome,
            () = containers.closed() => return,
        };
        if let Err(error) = outcome
            && !std::mem::replace(&mut failing, true)
        {
            let known = containers.borrow().as_ref().map_or(0, |known| known.all.len());
            tracing::error!(
                "the container engine can't be asked ({}); the {known} containers known last stay",
                error.cause()
            );
        }
        if containers.borrow().is_none() {
            containers.send_replace(Some(Containers::default()));
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Takes a listing and then every event. Ends only with an error.
async fn follow(
    containers: &watch::Sender<Option<Containers>>,
    failing: &mut bool,
) -> Result<(), EngineError> {
    let docker = keel_engine::connect().await?;
    // The stream asks only when it is first read, after the listing: it begins a moment before that, and what the
    // listing knew already is taken again.
    let mut events = std::pin::pin!(keel_engine::events(&docker, SystemTime::now()));
    let listed = tokio::time::timeout(LIST_TIMEOUT, list(&docker)).await;
    let mut listed = listed.map_err(|_| EngineError::Slow { within: LIST_TIMEOUT })??;
    if std::mem::take(failing) {
        tracing::info!("the container engine can be asked again");
    }
    containers.send_if_modified(|known| {
        let before = known.take().unwrap_or_default();
        for (id, container) in &mut listed.all {
            if let Some(before) = before.all.get(id) {
                container.inherit(before);
            }
        }
        let changed = before != listed;
        *known = Some(listed);
        changed
    });
    loop {
        let ignored_at = containers.borrow().as_ref().and_then(Containers::ignored_at);
        tokio::select! {
            event = events.next() => match event {
                Some(event) => take(&docker, containers, event?).await?,
                None => return Err(EngineError::Broken("it ended the connection".into())),
            },
            () = at(ignored_at) => change(containers, |known| known.look_at_ignored(Instant::now())),
        }
    }
}

async fn list(docker: &Docker) -> Result<Containers, EngineError> {
    let mut found = Containers::default();
    let own = own_id();
    for summary in keel_engine::list(docker, Which::Running).await? {
        let Some(id) = summary.id else { continue };
        if let Some(container) = inspect(docker, &id).await? {
            if own.as_deref() == Some(id.as_str()) {
                found.networks = Some(container.networks());
            }
            found.all.insert(id, container);
        }
    }
    Ok(found)
}

/// Asks for one container; `None` if it is gone or doesn't run.
async fn inspect(docker: &Docker, id: &str) -> Result<Option<Container>, EngineError> {
    Ok(keel_engine::inspect(docker, id).await?.as_ref().and_then(Container::of))
}

async fn take(
    docker: &Docker,
    containers: &watch::Sender<Option<Containers>>,
    event: Event,
) -> Result<(), EngineError> {
    let id = event.container;
    match event.change {
        Change::Signalled(number) => change(containers, |known| {
            if let (Some(container), Some(number)) = (known.all.get_mut(&id), number) {
                container.signalled(number, Instant::now());
            }
        }),
        Change::Died(_) | Change::Removed => change(containers, |known| drop(known.all.remove(&id))),
        // Acted on before anything is asked: every moment costs a request that waits.
        Change::Paused => {
            change(containers, |known| known.all.get_mut(&id).into_iter().for_each(Container::pause));
        }
        Change::Started
        | Change::Unpaused
        | Change::Renamed
        | Change::Moved
        | Change::Healthy
        | Change::Unhealthy
        | Change::HealthUnknown => look_again(docker, containers, &id).await?,
    }
    Ok(())
}

async fn look_again(
    docker: &Docker,
    containers: &watch::Sender<Option<Containers>>,
    id: &str,
) -> Result<(), EngineError> {
    let now = inspect(docker, id).await?;
    let is_own = own_id().as_deref() == Some(id);
    change(containers, |known| match now {
        Some(mut container) => {
            if let Some(before) = known.all.get(id) {
                container.inherit(before);
            }
            if is_own {
                known.networks = Some(container.networks());
            }
            known.all.insert(id.to_owned(), container);
        }
        None => drop(known.all.remove(id)),
    });
    Ok(())
}

fn change(containers: &watch::Sender<Option<Containers>>, change: impl FnOnce(&mut Containers)) {
    containers.send_if_modified(|known| {
        let mut now = known.clone().unwrap_or_default();
        change(&mut now);
        let changed = known.as_ref() != Some(&now);
        *known = Some(now);
        changed
    });
}

/// Finds the container that this process is in: the engine mounts files of its own folder for it into each.
fn own_id() -> Option<String> {
    let mounts = keel_sys::proc::text("/proc/self/mountinfo").ok()?;
    let words: BTreeSet<&str> = mounts
        .lines()
        .filter(|line| line.contains("/etc/hostname") || line.contains("/etc/hosts"))
        .flat_map(|line| line.split(['/', ' ']))
        .collect();
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    words.into_iter().find(is_id).map(str::to_owned)
}
