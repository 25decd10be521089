//! The Docker engine's word on containers: one listing, then its events.
//!
//! Only reads: `GET /events`, `/containers/json`, `/containers/{id}/json` and `/version`, so that a proxy which lets
//! nothing else through is enough. DOCKER_HOST says where the engine is, else its socket is at the usual place.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error,
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::{EventsOptions, ListContainersOptions},
};
use keel_model::signal_number;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt;

use super::{
    containers::{Container, Containers},
    follower::at,
};
use crate::serve::chain;

const SOCKET: &str = "unix:///var/run/docker.sock";
/// When to try again after the engine couldn't be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the engine may take to say who runs.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the engine's word can't be had.
#[derive(Debug, thiserror::Error)]
enum EngineError {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("no answer within {LIST_TIMEOUT:?}")]
    Timeout,
    #[error("it ended the connection")]
    Ended,
}

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
                chain(&error)
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
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let docker = Docker::connect_with_host(host.as_deref().unwrap_or(SOCKET))?;
    let docker = tokio::time::timeout(LIST_TIMEOUT, docker.negotiate_version())
        .await
        .map_err(|_| EngineError::Timeout)??;
    // The stream asks only when it is first read, after the listing: it begins a moment before that, and what the
    // listing knew already is taken again.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let since = Some(since.as_secs().to_string());
    let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned(), "network".to_owned()])]);
    let mut events = std::pin::pin!(docker.events(Some(EventsOptions {
        filters: Some(filters),
        since,
        ..Default::default()
    })));
    let listed = tokio::time::timeout(LIST_TIMEOUT, list(&docker)).await;
    let mut listed = listed.map_err(|_| EngineError::Timeout)??;
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
                Some(event) => take(&docker, containers, &event?).await?,
                None => return Err(EngineError::Ended),
            },
            () = at(ignored_at) => change(containers, |known| known.look_at_ignored(Instant::now())),
        }
    }
}

async fn list(docker: &Docker) -> Result<Containers, EngineError> {
    let mut found = Containers::default();
    let own = own_id();
    for summary in docker.list_containers(None::<ListContainersOptions>).await? {
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
    match docker.inspect_container(id, None).await {
        Ok(answer) => Ok(Container::of(&answer)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn take(
    docker: &Docker,
    containers: &watch::Sender<Option<Containers>>,
    event: &EventMessage,
) -> Result<(), EngineError> {
    let Some(actor) = &event.actor else { return Ok(()) };
    let attribute = |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name)).cloned();
    let of_network = event.typ == Some(EventMessageTypeEnum::NETWORK);
    let id = if of_network { attribute("container") } else { actor.id.clone() };
    let Some(id) = id else { return Ok(()) };
    match event.action.as_deref().unwrap_or_default() {
        "kill" => {
            let number = attribute("signal").as_deref().and_then(signal_number);
            change(containers, |known| {
                if let (Some(container), Some(number)) = (known.all.get_mut(&id), number) {
                    container.signalled(number, Instant::now());
                }
            });
        }
        "die" | "destroy" => change(containers, |known| drop(known.all.remove(&id))),
        // Acted on before anything is asked: every moment costs a request that waits.
        "pause" => change(containers, |known| known.all.get_mut(&id).into_iter().for_each(Container::pause)),
        "start" | "unpause" | "rename" | "connect" | "disconnect" => {
            look_again(docker, containers, &id).await?;
        }
        action if action.starts_with("health_status") => look_again(docker, containers, &id).await?,
        _ => {}
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
