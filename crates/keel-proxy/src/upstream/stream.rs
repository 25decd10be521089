//! A peer's stream: it takes the head and the body of one request, and yields head, payload and trailers of the response.
//!
//! How either stands on the connection is known here and nowhere else, so that a peer that speaks something else than
//! HTTP/1 is one more variant. Time and retries are the business of [`attempt`](mod@super::attempt).

mod h1;
mod sender;

use std::{
    io,
    task::{Context, Poll},
};

use keel_http::{Lines, ResponseError, body::Trailers};

pub(super) use self::sender::SendFailure;
use self::{h1::H1, sender::Sender};
use super::pool::PeerConnection;
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, UpstreamSide},
    snapshot::{PeerProgram, Protocol},
};

/// One request to a peer and its response.
pub(crate) enum PeerStream {
    H1(H1),
}

/// Why there is no head of a response.
pub(super) enum NoHead {
    /// The peer closed the connection in good order.
    Closed,
    /// The connection broke.
    Broke(io::Error),
    /// What came is none.
    Invalid(ResponseError),
}

impl PeerStream {
    /// Begins a request on a connection. The head to send is in `ex`; its body is there, or is the client's as it comes
    /// (`streams`), of `size_max` bytes at most.
    pub(crate) fn new(
        connection: PeerConnection,
        ex: &mut Exchange,
        program: &PeerProgram,
        streams: bool,
        size_max: u64,
    ) -> Self {
        match &program.protocol {
            Protocol::Http(_) => PeerStream::H1(H1::new(connection, Sender::new(ex, streams, size_max))),
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
        }
    }

    /// Whether the whole request has been sent.
    pub(super) fn is_sent(&self) -> bool {
        match self {
            PeerStream::H1(h1) => h1.sender.is_done(),
        }
    }

    /// Counts the bytes of the request that were sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        match self {
            PeerStream::H1(h1) => h1.sender.sent,
        }
    }

    /// Whether sending waits for the client rather than for the peer.
    pub(super) fn waits_for_client(&self, ex: &Exchange) -> bool {
        match self {
            PeerStream::H1(h1) => !h1.sender.is_done() && h1.sender.waits_for_client(ex),
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
        }
    }

    /// Whether the response has been read to its end.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            PeerStream::H1(h1) => h1.has_ended(),
        }
    }

    /// The trailers of a response that has been read to its end.
    pub(crate) fn trailers(&self) -> Lines {
        match self {
            PeerStream::H1(h1) => h1.trailers(),
        }
    }

    /// Whether the connection may carry another request: both messages are over, nothing has come behind them, and the
    /// peer keeps it open.
    pub(crate) fn is_reusable(&self, side: &UpstreamSide) -> bool {
        match self {
            PeerStream::H1(h1) => h1.is_reusable(side),
        }
    }

    /// The connection below.
    pub(super) fn connection_mut(&mut self) -> &mut PeerConnection {
        match self {
            PeerStream::H1(h1) => &mut h1.connection,
        }
    }

    /// Gives the connection back.
    pub(super) fn into_connection(self) -> PeerConnection {
        match self {
            PeerStream::H1(h1) => h1.connection,
        }
    }

    /// The connection below, once what follows on it is no HTTP any more. It counts as a connection to its end.
    pub(crate) fn into_upgraded(self) -> PeerConnection {
        self.into_connection()
    }
}
