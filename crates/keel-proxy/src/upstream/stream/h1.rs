//! HTTP/1 with a peer (RFC 9112): a connection that carries this request and, if all went well, others behind it.

use std::task::{Context, Poll, ready};

use keel_http::{
    Lines, Progress, ResponseError, ResponseFraming,
    body::{Decoder, Trailers, each_trailer},
};

use super::{
    NoHead,
    sender::{SendFailure, Sender},
};
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, Method, UpstreamSide},
    io::buffer::BUFFER_BYTES,
    upstream::pool::PeerConnection,
};

/// One request on a connection.
pub(crate) struct H1 {
    pub(super) connection: PeerConnection,
    pub(super) sender: Sender,
    /// Whether sending the rest of the request failed.
    unsent: bool,
    /// Finds the end of the response's body.
    decoder: Decoder,
    /// Whether nothing has come, as yet, that can't be told from another response.
    clean: bool,
}

impl H1 {
    pub(super) fn new(connection: PeerConnection, sender: Sender) -> Self {
        Self { connection, sender, unsent: false, decoder: Decoder::Done, clean: false }
    }

    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        self.sender.poll(cx, &mut self.connection.transport, client, ex)
    }

    pub(super) fn poll_rest_of_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) {
        if !self.unsent && !self.sender.is_done() {
            self.unsent = matches!(self.poll_send(cx, client, ex), Poll::Ready(Err(_)));
        }
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut UpstreamSide,
        bytes_max: usize,
    ) -> Poll<Result<(), NoHead>> {
        loop {
            let room = bytes_max.saturating_sub(side.input.len());
            if room == 0 {
                return Poll::Ready(Err(NoHead::Invalid(ResponseError::TooLarge)));
            }
            // What comes with it of the body is welcome: a small response then takes one read and one write.
            let room = room.max(BUFFER_BYTES.saturating_sub(side.input.len()));
            match ready!(self.connection.transport.poll_fill(cx, &mut side.input, room)) {
                Ok(0) => return Poll::Ready(Err(NoHead::Closed)),
                Err(error) => return Poll::Ready(Err(NoHead::Broke(error))),
                Ok(_) => {}
            }
            match read_head(side) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(NoHead::Invalid(error))),
            }
        }
    }

    #[inline]
    pub(super) fn begin_body(
        &mut self,
        side: &mut UpstreamSide,
        trailers: Trailers,
        pass: impl FnMut(&[u8]),
    ) -> Result<(), PeerFailure> {
        self.clean = true;
        self.decoder = match side.head.framing {
            _ if side.method == Method::Head || matches!(side.head.status, 204 | 304) => Decoder::Done,
            ResponseFraming::Length(length) => Decoder::length(length),
            ResponseFraming::Chunked => Decoder::chunked(trailers),
            ResponseFraming::UntilClose => Decoder::UntilClose,
        };
        let decoded = self.decode(side.input.get(side.body_start..).unwrap_or_default(), pass);
        side.input.truncate(side.body_start);
        decoded
    }

    #[inline]
    pub(super) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        room: usize,
        pass: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, PeerFailure>> {
        scratch.clear();
        let read = ready!(self.connection.transport.poll_fill(cx, scratch, room));
        match read {
            Err(_) => Poll::Ready(Err(PeerFailure::Error)),
            Ok(0) if matches!(self.decoder, Decoder::UntilClose) => {
                self.decoder = Decoder::Done;
                self.clean = false;
                Poll::Ready(Ok(0))
            }
            Ok(0) => Poll::Ready(Err(PeerFailure::Error)),
            Ok(count) => Poll::Ready(self.decode(scratch, pass).map(|()| count)),
        }
    }

    /// Passes on the payload in bytes that came.
    #[inline]
    fn decode(&mut self, bytes: &[u8], mut pass: impl FnMut(&[u8])) -> Result<(), PeerFailure> {
        let mut at = 0;
        while at < bytes.len() {
            if self.decoder.is_done() {
                // More than was announced: what it is nobody can know.
                self.clean = false;
                break;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let step = self.decoder.decode(rest).map_err(|_| PeerFailure::Invalid)?;
            pass(rest.get(step.payload).unwrap_or_default());
            at += step.consumed;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.decoder.is_done()
    }

    pub(super) fn trailers(&self) -> Lines {
        let mut kept = Lines::default();
        let trailers = self.decoder.trailers();
        each_trailer(trailers, |field| kept.copied(field, trailers));
        kept
    }

    pub(super) fn is_reusable(&self, side: &UpstreamSide) -> bool {
        self.clean && self.decoder.is_done() && self.sender.is_done() && side.head.keeps_alive()
    }
}

/// Reads the head as far as it has come; interim responses are passed over.
fn read_head(side: &mut UpstreamSide) -> Result<bool, ResponseError> {
    loop {
        match side.head.parse(&side.input)? {
            Progress::Partial => return Ok(false),
            Progress::Complete(end) if (100..200).contains(&side.head.status) && side.head.status != 101 => {
                side.head.clear_at(end);
            }
            Progress::Complete(end) => {
                side.body_start = end;
                side.has_head = true;
                return Ok(true);
            }
        }
    }
}
