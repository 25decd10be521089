//! Why a plan was not taken.

use std::{io, path::PathBuf};

use crate::sockets::ListenError;

/// Why a plan was not taken. The plan before it is still in effect.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Sockets that can't be opened.
    #[error("{}", listen_text(.0))]
    Listen(Vec<ListenError>),
    /// A log file that can't be opened.
    #[error("can't open the log file {}", path.display())]
    Log {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The data plane said no.
    #[error("the data plane refuses the configuration: {0}")]
    Refused(String),
    /// The data plane ended while it prepared the plan.
    #[error("the data plane ended while it prepared the configuration")]
    Ended,
    /// No data plane could be started, or it doesn't answer.
    #[error("the data plane {0}")]
    DataPlane(String),
}

fn listen_text(errors: &[ListenError]) -> String {
    let text = |error: &ListenError| match &error.culprit {
        Some(culprit) => format!("{error}: {}, held by {culprit}", error.source),
        None => format!("{error}: {}", error.source),
    };
    errors.iter().map(text).collect::<Vec<_>>().join("; ")
}
