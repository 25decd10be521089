//! Why a container didn't come up.

use keel_engine::EngineError;

/// Why a container didn't come up.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    /// It can't be as it is: the same would happen again.
    #[error("{0}")]
    Refused(String),
    /// The engine was out of reach before it was to start it.
    #[error("{0}")]
    Unasked(String),
    /// The engine was out of reach when it was to start it, or was gone right after: it may have run.
    #[error("{0}")]
    Lost(String),
}

impl LaunchError {
    /// What an error of the engine's kept from being done, before a start.
    pub(super) fn before_start(error: &EngineError, what: String) -> Self {
        if error.is_outage() { Self::Unasked(what) } else { Self::Refused(what) }
    }
}

impl From<String> for LaunchError {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<&str> for LaunchError {
    fn from(why: &str) -> Self {
        Self::Refused(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_outage_leaves_a_container_unasked() {
        let refused = |status| EngineError::Refused { status, message: String::new() };
        let of = |error| LaunchError::before_start(&error, "x".into());
        assert!(matches!(of(EngineError::Broken("connection reset".into())), LaunchError::Unasked(_)));
        assert!(matches!(of(refused(503)), LaunchError::Unasked(_)));
        assert!(matches!(of(refused(409)), LaunchError::Refused(_)));
    }
}
