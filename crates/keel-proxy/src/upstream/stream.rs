//! A peer's stream: it takes the head and the body of one request, and yields head, payload and trailers of the response.
//!
//! How either stands on the connection is known here and nowhere else, so that a peer that speaks something else than
//! HTTP/1 is one more variant. Time and retries are the business of [`attempt`](mod@super::attempt).

mod h1;
mod h2;
mod sender;

use std::{
    io,
    task::{Context, Poll},
};

use keel_http::{Lines, ResponseError, body::Trailers};

pub(super) use self::sender::SendFailure;
use self::{h1::H1, h2::H2, sender::Sender};
use super::{pool::PeerConnection, shared::Lease};
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, UpstreamSide},
    snapshot::{PeerProgram, Protocol},
};

/// One request to a peer and its response.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the larger one, and what holds it is boxed")]
pub(crate) enum PeerStream {
    H1(H1),
    /// Boxed, so that others don't grow.
    H2(Box<H2>),
}

/// What a request to a peer goes by.
pub(crate) enum Line {
    /// A connection of its own, for as long as the request takes.
    Own(PeerConnection),
    /// A stream of one that others use, too.
    Shared(Lease),
}

/// Why there is no head of a response.
pub(super) enum NoHead {
    /// The peer closed the connection in good order.
    Closed,
    /// The connection broke.
    Broke(io::Error),
    /// The peer has taken nothing of the request, and says so.
    Refused,
    /// What came is none.
    Invalid(ResponseError),
}

impl Line {
    /// Whether its connection has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Line::Own(connection) => connection.requests > 0,
            Line::Shared(lease) => lease.is_reused(),
        }
    }
}

impl PeerStream {
    /// Begins a request on a line. The head to send is in `ex`; its body is there, or is the client's as it comes
    /// (`streams`), of `size_max` bytes at most.
    pub(crate) fn new(
        line: Line,
        ex: &mut Exchange,
        program: &PeerProgram,
        streams: bool,
        size_max: u64,
    ) -> Self {
        match &program.protocol {
            Protocol::Http(_) => {
                let sender = Sender::new(ex, streams, size_max);
                match line {
                    Line::Own(connection) => PeerStream::H1(H1::new(connection, sender)),
                    Line::Shared(lease) => PeerStream::H2(Box::new(H2::new(lease, sender))),
                }
            }
        }
    }

    /// Sends as much of the request as the peer takes. Ready when all is sent.
    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        match self {
            PeerStream::H1(h1) => h1.poll_send(cx, client, ex),
            PeerStream::H2(h2) => h2.poll_send(cx, client, ex),
        }
    }

    /// Goes on sending the request to a peer that has answered before it had the whole. What can't be sent isn't missed.
    pub(crate) fn poll_rest_of_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) {
        match self {
            PeerStream::H1(h1) => h1.poll_rest_of_request(cx, client, ex),
            PeerStream::H2(h2) => h2.poll_rest_of_request(cx, client, ex),
        }
    }

    /// Whether the whole request has been sent.
    pub(super) fn is_sent(&self) -> bool {
        match self {
            PeerStream::H1(h1) => h1.sender.is_done(),
            PeerStream::H2(h2) => h2.is_sent(),
        }
    }

    /// Counts the bytes of the request that were sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        match self {
            PeerStream::H1(h1) => h1.sender.sent,
            PeerStream::H2(h2) => h2.sender.sent,
        }
    }

    /// Whether sending waits for the client rather than for the peer.
    pub(super) fn waits_for_client(&self, ex: &Exchange) -> bool {
        match self {
            PeerStream::H1(h1) => !h1.sender.is_done() && h1.sender.waits_for_client(ex),
            PeerStream::H2(h2) => !h2.is_sent() && h2.sender.waits_for_client(ex),
        }
    }

    /// Reads the response's head into `side`, with what comes with it. It has `bytes_max` bytes at most.
    #[inline]
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut UpstreamSide,
        bytes_max: usize,
    ) -> Poll<Result<(), NoHead>> {
        match self {
            PeerStream::H1(h1) => h1.poll_head(cx, side, bytes_max),
            PeerStream::H2(h2) => h2.poll_head(cx, side, bytes_max),
        }
    }

    /// Begins the body behind a head, and passes on the payload that came with it.
    ///
    /// # Errors
    /// When that is no body.
    #[inline]
    pub(crate) fn begin_body(
        &mut self,
        side: &mut UpstreamSide,
        trailers: Trailers,
        pass: impl FnMut(&[u8]),
    ) -> Result<(), PeerFailure> {
        match self {
            PeerStream::H1(h1) => h1.begin_body(side, trailers, pass),
            PeerStream::H2(h2) => {
                h2.begin_body(side, trailers);
                Ok(())
            }
        }
    }

    /// Reads once, `room` bytes or more, and passes on the payload in that. Gives how many bytes came; 0 is the end of a
    /// body that ends with its connection.
    #[inline]
    pub(crate) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        room: usize,
        pass: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, PeerFailure>> {
        match self {
            PeerStream::H1(h1) => h1.poll_payload(cx, scratch, room, pass),
            PeerStream::H2(h2) => h2.poll_payload(cx, pass),
        }
    }

    /// Whether the response has been read to its end.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            PeerStream::H1(h1) => h1.has_ended(),
            PeerStream::H2(h2) => h2.has_ended(),
        }
    }

    /// The trailers of a response that has been read to its end.
    pub(crate) fn trailers(&self) -> Lines {
        match self {
            PeerStream::H1(h1) => h1.trailers(),
            PeerStream::H2(h2) => h2.trailers(),
        }
    }

    /// Whether the connection may carry another request: both messages are over, nothing has come behind them, and the
    /// peer keeps it open.
    pub(crate) fn is_reusable(&self, side: &UpstreamSide) -> bool {
        match self {
            PeerStream::H1(h1) => h1.is_reusable(side),
            // Its connection goes on without it.
            PeerStream::H2(_) => false,
        }
    }

    /// The connection, where it is the request's own.
    pub(super) fn connection_mut(&mut self) -> Option<&mut PeerConnection> {
        match self {
            PeerStream::H1(h1) => Some(&mut h1.connection),
            PeerStream::H2(_) => None,
        }
    }

    /// Gives the connection back, where it is the request's own.
    pub(super) fn into_connection(self) -> Option<PeerConnection> {
        match self {
            PeerStream::H1(h1) => Some(h1.connection),
            PeerStream::H2(_) => None,
        }
    }

    /// The connection below, once what follows on it is no HTTP any more. It counts as a connection to its end.
    pub(crate) fn into_upgraded(self) -> Option<PeerConnection> {
        self.into_connection()
    }
}
