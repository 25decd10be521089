//! What goes wrong with a request, on which side, and whether it may be tried again; and what is wrong with a plan.

use keel_regex::InvalidRegex;

/// The client can't be reached any more, or took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

/// How an attempt at a peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerFailure {
    /// No connection, or it broke.
    Error,
    /// It took too long.
    Timeout,
    /// What it sent is no response.
    Invalid,
    /// A response with a status that `proxy_next_upstream` names.
    Status(u16),
}

impl PeerFailure {
    /// Gives the status for the client when there is no other peer to try.
    pub(crate) fn status(self) -> u16 {
        match self {
            PeerFailure::Timeout => 504,
            PeerFailure::Status(status) => status,
            PeerFailure::Error | PeerFailure::Invalid => 502,
        }
    }
}

/// A plan that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("the regular expression `{pattern}` can't be used")]
    Regex { pattern: String, source: InvalidRegex },
    #[error("the balancing policy of upstream `{upstream}` can't be used: {reason}")]
    Policy { upstream: String, reason: String },
    #[error("the plan refers to {what} that it doesn't have")]
    Dangling { what: String },
    #[error("a field that the configuration adds can't be written: {0}")]
    Field(keel_http::Unwritable),
    #[error("the log `{path}` can't be opened")]
    Log { path: String, source: std::io::Error },
}
