//! The networks of a project: made when the first container needs them, with Compose's labels.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use keel_engine::{Docker, EngineError, api::models::NetworkCreateRequest, call};
use keel_model::ContainerNetwork;
use tokio::sync::Mutex;

use super::{ContainerDriver, PROJECT_LABEL, error::LaunchError};

/// The networks that are known to be there.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// This host's address in each. Held while one is made, so that it is made once.
    known: Mutex<BTreeMap<String, Option<IpAddr>>>,
}

impl Networks {
    pub(super) fn forget(&self) {
        if let Ok(mut known) = self.known.try_lock() {
            known.clear();
        }
    }
}

impl ContainerDriver {
    /// Makes sure that a network is there; gives this host's address in it.
    pub(super) async fn network(
        &self,
        docker: &Docker,
        network: &ContainerNetwork,
    ) -> Result<Option<IpAddr>, LaunchError> {
        let mut known = self.0.networks.known.lock().await;
        if let Some(gateway) = known.get(&network.name) {
            return Ok(*gateway);
        }
        let gateway = match gateway(docker, &network.name).await {
            Ok(gateway) => gateway,
            Err(error) if error.is_missing() => {
                let Some(key) = &network.key else {
                    return Err(LaunchError::Refused(format!(
                        "the network {0} isn't there, and the file says that others make it: `docker network create {0}`",
                        network.name
                    )));
                };
                let made = self.make(docker, &network.name, key).await;
                made.map_err(|error| {
                    LaunchError::before_start(
                        &error,
                        format!("the network {} can't be made: {error}", network.name),
                    )
                })?
            }
            Err(error) => {
                return Err(LaunchError::before_start(
                    &error,
                    format!("the network {} can't be looked at: {error}", network.name),
                ));
            }
        };
        known.insert(network.name.clone(), gateway);
        Ok(gateway)
    }

    async fn make(&self, docker: &Docker, name: &str, key: &str) -> Result<Option<IpAddr>, EngineError> {
        let labels = [
            ("com.docker.compose.network", key),
            ("com.docker.compose.project", &self.0.project),
            ("com.docker.compose.version", "1.29.2"),
            (PROJECT_LABEL, &self.0.project),
        ];
        let labels: HashMap<String, String> =
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".into()),
            attachable: Some(true),
            labels: Some(labels),
            ..Default::default()
        };
        call(docker.create_network(request)).await?;
        gateway(docker, name).await
    }
}

async fn gateway(docker: &Docker, name: &str) -> Result<Option<IpAddr>, EngineError> {
    let network = call(docker.inspect_network(name, None)).await?;
    let configurations = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    Ok(configurations.into_iter().find_map(|one| one.gateway?.parse().ok()))
}
