//! What goes wrong with a request: on which side, and whether the request may be tried again. And what is wrong with a plan.

use keel_regex::InvalidRegex;

/// The client can't be reached any more, or took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

/// Where a fault lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// With the client.
    Downstream,
    /// With the peer: another one may do better.
    Peer,
    /// With this process: neither client nor peer has anything to do with it.
    Internal,
}

/// Why an attempt at a peer failed, and what that allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    pub(crate) retry: Retry,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The client went away, or took too long to take its response.
    ClientGone,
    /// The client's body can't be had.
    Body(BodyFailure),
    /// A peer failed.
    Peer(PeerFailure),
    /// There is no room for a connection, or not the address that it is to be made from.
    NoRoom,
    /// A temporary file can't be written or read; it has been logged.
    Store,
    /// A filter can't go on with a body; it has been logged.
    Filter,
}

/// Whether a request may be sent again, from what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// No peer has taken a byte of it.
    Safe,
    /// One may have: only if twice is as good as once (RFC 9110 §9.2.2), or is asked for.
    IfIdempotent,
    /// Never: what was sent of its body is nowhere else.
    Never,
}

impl Cause {
    /// The side on which it happened.
    pub(crate) fn side(self) -> Side {
        match self {
            Cause::ClientGone => Side::Downstream,
            Cause::Body(BodyFailure::Internal) | Cause::NoRoom | Cause::Store | Cause::Filter => {
                Side::Internal
            }
            Cause::Body(_) => Side::Downstream,
            Cause::Peer(_) => Side::Peer,
        }
    }

    /// Gives the status for the client, or for the log where nobody waits for one.
    pub(crate) fn status(self) -> u16 {
        match self {
            Cause::ClientGone => 499,
            Cause::Body(failure) => failure.status(),
            Cause::Peer(failure) => failure.status(),
            Cause::NoRoom | Cause::Store | Cause::Filter => 500,
        }
    }

    /// Makes the error of a request that may not be sent again.
    pub(crate) fn finally(self) -> Error {
        Error { cause: self, retry: Retry::Never }
    }
}

impl From<ClientGone> for Cause {
    fn from(_: ClientGone) -> Self {
        Cause::ClientGone
    }
}

/// How an attempt at a peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerFailure {
    /// No connection, or it broke.
    Error,
    /// It closed a kept connection just when that was used again: no sign of illness.
    Stale,
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
            PeerFailure::Error | PeerFailure::Stale | PeerFailure::Invalid => 502,
        }
    }

    /// Says whether it counts against the peer. One that answers with 403 or 404 isn't ill.
    pub(crate) fn is_blamed(self) -> bool {
        !matches!(self, PeerFailure::Stale | PeerFailure::Status(403 | 404))
    }
}

/// Why a request's body couldn't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFailure {
    /// The client sent what is no body: 400.
    Broken,
    /// It went away.
    Gone,
    /// It took too long: 408.
    TimedOut,
    /// It is longer than `client_max_body_size`: 413.
    TooLarge,
    /// A temporary file can't be written: 500.
    Internal,
}

impl BodyFailure {
    pub(crate) fn status(self) -> u16 {
        match self {
            BodyFailure::Broken => 400,
            BodyFailure::Gone => 499,
            BodyFailure::TimedOut => 408,
            BodyFailure::TooLarge => 413,
            BodyFailure::Internal => 500,
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
    #[error("a certificate can't be used: {0}")]
    Pair(#[from] keel_tls::PairError),
    #[error("TLS can't be spoken as configured: {0}")]
    Tls(#[from] rustls::Error),
    #[error("a field that the configuration adds can't be written: {0}")]
    Field(keel_http::Unwritable),
    #[error("the log `{path}` can't be opened")]
    Log { path: String, source: std::io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_side_and_a_status() {
        let check = |cause: Cause, side, status| assert_eq!((cause.side(), cause.status()), (side, status));
        check(Cause::ClientGone, Side::Downstream, 499);
        check(Cause::Body(BodyFailure::TooLarge), Side::Downstream, 413);
        check(Cause::Body(BodyFailure::Internal), Side::Internal, 500);
        check(Cause::Peer(PeerFailure::Stale), Side::Peer, 502);
        check(Cause::Peer(PeerFailure::Timeout), Side::Peer, 504);
        check(Cause::Peer(PeerFailure::Status(404)), Side::Peer, 404);
        check(Cause::NoRoom, Side::Internal, 500);
        check(Cause::Store, Side::Internal, 500);
        check(Cause::Filter, Side::Internal, 500);
    }
}
