//! Why an engine didn't do what it was asked for.

use std::{error::Error as _, time::Duration};

use bollard::errors::Error;

/// How long the engine may take for anything but builds and pulls. Starting ten containers on a busy machine takes it
/// seconds.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the engine didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing answers.
    #[error(
        "no container engine answers at {host}: {why}; start it, or run as local processes with --driver process"
    )]
    Silent {
        /// Where it was looked for.
        host: String,
        /// What the system said.
        why: String,
    },
    /// It refused.
    #[error("{message}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The connection was refused: nothing was asked.
    #[error("the engine can't be reached: {0}")]
    Unreached(String),
    /// It did not answer in time.
    #[error("the engine doesn't answer within {} s", within.as_secs())]
    Slow {
        /// How long it had.
        within: Duration,
    },
    /// The connection broke, or the answer makes no sense.
    #[error("the engine can't be asked: {0}")]
    Broken(String),
}

impl EngineError {
    /// Whether the engine has no such container, network or image.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine is in a state that excludes what was asked for.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether it says nothing about what was asked for, and the same may be done later. A port that is taken and a
    /// command that isn't there are an engine's own errors, with the status 500.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Unreached(_) | Self::Slow { .. } | Self::Broken(_) => true,
            // From a proxy in front of an engine that it doesn't reach.
            Self::Refused { status, .. } => matches!(status, 502..=504),
        }
    }

    /// Whether the engine may have done what it was asked for.
    pub fn is_in_doubt(&self) -> bool {
        self.is_outage() && !matches!(self, Self::Silent { .. } | Self::Unreached(_))
    }

    /// The cause alone, for a sentence that already says that the engine failed.
    pub fn cause(&self) -> String {
        match self {
            Self::Silent { why: cause, .. } | Self::Unreached(cause) | Self::Broken(cause) => cause.clone(),
            Self::Refused { message, .. } => message.clone(),
            Self::Slow { within } => format!("no answer within {} s", within.as_secs()),
        }
    }
}

impl EngineError {
    /// An error of the API's client, where `within` was the time it had.
    pub(crate) fn of(error: &Error, within: Duration) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: *status_code, message: message.clone() }
            }
            Error::RequestTimeoutError => Self::Slow { within },
            Error::HyperLegacyError { err } if err.is_connect() => Self::Unreached(innermost(error)),
            other => Self::Broken(innermost(other)),
        }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        Self::of(&error, CALL_TIMEOUT)
    }
}

/// The innermost cause of an error: the layers above it say nothing more.
pub(crate) fn innermost(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_has_to_mend_is_no_outage() {
        let refused = |status| EngineError::Refused { status, message: String::new() };
        let broken = EngineError::Broken("connection reset".into());
        for error in [EngineError::Slow { within: Duration::ZERO }, broken, refused(503)] {
            assert!(error.is_outage() && error.is_in_doubt(), "{error:?}");
        }
        for status in [400, 404, 409, 500] {
            assert!(!refused(status).is_outage(), "{status}");
        }
        let unreached = EngineError::Unreached("connection refused".into());
        assert!(unreached.is_outage() && !unreached.is_in_doubt());
    }
}
