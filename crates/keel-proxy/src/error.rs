//! What goes wrong with a request, on which side, and whether it may be tried again.

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
