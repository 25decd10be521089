//! What containers there are.

use std::collections::HashMap;

use bollard::{
    Docker,
    models::{ContainerInspectResponse, ContainerSummary},
    query_parameters::ListContainersOptionsBuilder,
};

use crate::{connection::call, error::EngineError};

/// Which containers are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// Those that run.
    Running,
    /// Those with a label of this value, running or not.
    Labelled {
        /// The label's name.
        label: &'a str,
        /// Its value.
        value: &'a str,
    },
}

/// Lists containers.
///
/// # Errors
///
/// [`EngineError`].
pub async fn list(docker: &Docker, which: Which<'_>) -> Result<Vec<ContainerSummary>, EngineError> {
    let options = ListContainersOptionsBuilder::default();
    let options = match which {
        Which::Running => options,
        Which::Labelled { label, value } => {
            let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
            options.all(true).filters(&filters)
        }
    };
    call(docker.list_containers(Some(options.build()))).await
}

/// Describes a container; `None` where it isn't there.
///
/// # Errors
///
/// [`EngineError`].
pub async fn inspect(docker: &Docker, id: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    match call(docker.inspect_container(id, None)).await {
        Ok(container) => Ok(Some(container)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
