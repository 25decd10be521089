//! What is left in the engine: of a supervisor that was killed, and at the end of a project.

use std::{collections::HashMap, path::Path, time::Duration};

use keel_engine::{
    Docker, EngineError, Which,
    api::{
        models::ContainerSummary,
        query_parameters::{ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder},
    },
    call, connect,
};

use super::{MARK, NAME_LABEL, OwnVolume, PROJECT_LABEL};
use crate::Error;

/// What the engine calls a mount that is neither a folder of the host nor memory.
pub(super) const VOLUME: &str = "volume";
/// How often it is looked whether nothing is left, and how long after the last time.
const LOOKS_MAX: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ends what a runner that is gone left in the engine. Tells whether there was a trace of one.
pub(crate) async fn end_leftovers(project: &str, state_dir: &Path) -> Result<bool, Error> {
    let mark = state_dir.join(MARK);
    if !mark.exists() {
        return Ok(false);
    }
    let failed = |error: EngineError| Error::Engine(error.to_string());
    let docker = connect().await.map_err(failed)?;
    until_empty(&docker, project).await.map_err(failed)?;
    // It may have been removed meanwhile.
    drop(std::fs::remove_file(mark));
    Ok(true)
}

/// Removes the containers and networks of a project until none of its containers is listed any more: a removal that
/// somebody else began isn't waited for by the engine.
pub(super) async fn until_empty(docker: &Docker, project: &str) -> Result<(), EngineError> {
    for _ in 0..LOOKS_MAX {
        all(docker, project).await?;
        if list(docker, project).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(EngineError::Broken("containers stay although they were removed".into()))
}

/// Removes the containers and networks of a project.
pub(super) async fn all(docker: &Docker, project: &str) -> Result<(), EngineError> {
    containers(docker, project).await?;
    let options = ListNetworksOptionsBuilder::default().filters(&ours(project)).build();
    for network in call(docker.list_networks(Some(options))).await? {
        let Some(name) = network.name else { continue };
        match call(docker.remove_network(&name)).await {
            Err(error) if !error.is_missing() => {
                tracing::warn!("the network {name} stays: {error}");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the containers of a project; gives the volumes without a name that they had.
pub(super) async fn containers(
    docker: &Docker,
    project: &str,
) -> Result<Vec<(String, Vec<OwnVolume>)>, EngineError> {
    let mut left = Vec::new();
    let mut removals = Vec::new();
    for container in list(docker, project).await? {
        let Some(id) = container.id.clone() else { continue };
        left.extend(volumes_of(&container));
        let docker = docker.clone();
        removals.push(tokio::spawn(async move { remove(&docker, &id).await }));
    }
    for removal in removals {
        removal.await.map_err(|error| EngineError::Broken(error.to_string()))??;
    }
    Ok(left)
}

pub(super) async fn list(docker: &Docker, project: &str) -> Result<Vec<ContainerSummary>, EngineError> {
    keel_engine::list(docker, Which::Labelled { label: PROJECT_LABEL, value: project }).await
}

/// Removes a container, running or not. Its volumes stay.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    match call(docker.remove_container(id, Some(options))).await {
        // Gone, or being removed by somebody else.
        Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
        outcome => outcome,
    }
}

fn ours(project: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{PROJECT_LABEL}={project}")])])
}

fn volumes_of(container: &ContainerSummary) -> Option<(String, Vec<OwnVolume>)> {
    let name = container.labels.as_ref()?.get(NAME_LABEL)?.clone();
    let mounts = container.mounts.iter().flatten().cloned();
    let own = mounts.filter(|mount| mount.typ.as_deref() == Some(VOLUME));
    let own = own.filter_map(|mount| own_volume(mount.name, mount.destination));
    Some((name, own.collect()))
}

/// A volume, if its name is one that the engine gave.
pub(super) fn own_volume(name: Option<String>, target: Option<String>) -> Option<OwnVolume> {
    let is_given = |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(OwnVolume { name: name.filter(is_given)?, target: target? })
}
