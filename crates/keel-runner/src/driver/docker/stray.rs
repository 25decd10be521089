//! Containers that the engine made and didn't say so: its answer got lost, or came too late.
//!
//! Such a one is known by the name that it was to have. Whose it is its labels say; what others made under that name
//! stays.

use std::time::{Duration, Instant};

use bollard::Docker;

use super::{
    Driver, INCARNATION_LABEL, PROJECT_LABEL, REMOVE_AGAIN_AFTER,
    connection::{EngineError, call},
    sweep::remove,
};
use crate::supervisor::Incarnation;

/// How long it is looked for a container that the engine may still be making.
const LATE_WITHIN: Duration = Duration::from_secs(60);

impl Driver {
    /// Removes what the engine may have made for a life under a name. Returns once it is known that the name is free;
    /// what is made later is looked for beside that.
    pub(super) async fn remove_unsaid(&self, docker: &Docker, name: &str, incarnation: Incarnation) {
        let found = loop {
            match self.remove_stray(docker, name, |of| of == incarnation).await {
                Err(error) if error.is_outage() && !self.0.told.is_closed() => {
                    tokio::time::sleep(REMOVE_AGAIN_AFTER).await;
                }
                Err(error) => return tracing::warn!("a container {name} may be left: {error}"),
                Ok(found) => break found,
            }
        };
        if !found {
            tokio::spawn(self.clone().remove_late(docker.clone(), name.to_owned(), incarnation));
        }
    }

    async fn remove_late(self, docker: Docker, name: String, incarnation: Incarnation) {
        let end = Instant::now() + LATE_WITHIN;
        while Instant::now() < end && !self.0.told.is_closed() {
            tokio::time::sleep(REMOVE_AGAIN_AFTER).await;
            if let Ok(true) = self.remove_stray(&docker, &name, |of| of == incarnation).await {
                return;
            }
        }
    }

    /// Removes a container by its name if it is one of ours that no life has; tells whether it did.
    pub(super) async fn remove_unowned(&self, docker: &Docker, name: &str) -> Result<bool, EngineError> {
        self.remove_stray(docker, name, |of| !self.has(of)).await
    }

    async fn remove_stray(
        &self,
        docker: &Docker,
        name: &str,
        is_stray: impl Fn(Incarnation) -> bool,
    ) -> Result<bool, EngineError> {
        let container = match call(docker.inspect_container(name, None)).await {
            Err(error) if error.is_missing() => return Ok(false),
            outcome => outcome?,
        };
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        let incarnation = labels.get(INCARNATION_LABEL).and_then(|text| text.parse().ok());
        let is_ours = labels.get(PROJECT_LABEL) == Some(&self.0.project);
        match container.id {
            Some(id) if is_ours && incarnation.is_some_and(is_stray) => {
                remove(docker, &id).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
