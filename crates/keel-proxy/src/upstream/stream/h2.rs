//! HTTP/2 with a peer (RFC 9113): one stream of a connection that others use, too.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use keel_http::{
    Lines, Progress, ResponseError, ResponseFraming, StreamEnd,
    body::{Trailers, each_trailer},
};

use super::{
    NoHead,
    sender::{Outlet, SendFailure, Sender},
};
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, Method, UpstreamSide},
    http2,
    upstream::shared::Lease,
};

/// One request on a stream.
pub(crate) struct H2 {
    pub(super) sender: Sender,
    stage: Stage,
    /// Whether sending the rest of the request failed.
    unsent: bool,
    /// What the request's body goes to.
    body: Option<Body>,
    response: Option<ResponseFuture>,
    received: Option<RecvStream>,
    keeps_trailers: Trailers,
    trailers: Vec<u8>,
    ended: bool,
    /// Dropped last: the connection counts it until then.
    lease: Lease,
}

/// How far the request has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been.
    New,
    /// The head has been sent.
    Begun,
    /// Everything has been.
    Sent,
    /// The peer takes no streams.
    Refused,
}

/// Where a request's body goes.
struct Body {
    send: SendStream<Bytes>,
    /// How much of it is left, where that is known: the last piece ends the stream.
    left: Option<u64>,
}

impl Outlet for Body {
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(http2::poll_room(&mut self.send, cx, bytes.len()))?;
        let piece = Bytes::copy_from_slice(bytes.get(..room).unwrap_or_default());
        self.left = self.left.map(|left| left.saturating_sub(room as u64));
        let is_last = self.left == Some(0);
        Poll::Ready(self.send.send_data(piece, is_last).map(|()| room).map_err(http2::broken))
    }
}

impl H2 {
    pub(super) fn new(lease: Lease, sender: Sender) -> Self {
        Self {
            lease,
            sender,
            stage: Stage::New,
            unsent: false,
            body: None,
            response: None,
            received: None,
            keeps_trailers: Trailers::Drop,
            trailers: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.stage == Stage::Sent
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        match self.stage {
            Stage::New => self.begin(ex)?,
            Stage::Begun => {}
            Stage::Sent => return Poll::Ready(Ok(())),
            Stage::Refused => return Poll::Ready(Err(SendFailure::Peer)),
        }
        if let Some(body) = &mut self.body {
            ready!(self.sender.poll(cx, body, client, ex))?;
            if body.left != Some(0) {
                let sent = body.send.send_data(Bytes::new(), true);
                sent.map_err(|_| SendFailure::Peer)?;
            }
        }
        self.stage = Stage::Sent;
        Poll::Ready(Ok(()))
    }

    /// Sends the head.
    fn begin(&mut self, ex: &Exchange) -> Result<(), SendFailure> {
        let message = &ex.upstream.request;
        let ends = if self.sender.has_body(ex) { StreamEnd::Later } else { StreamEnd::WithHead };
        let head = message.as_bytes().get(..message.head_length()).unwrap_or_default();
        let request = http2::fields::request(head).ok_or(SendFailure::Unwritable)?;
        match self.lease.begin(request, ends) {
            Ok((response, send)) => {
                self.stage = Stage::Begun;
                self.response = Some(response);
                self.sender.begin_behind(message.head_length());
                let left = self.sender.body_length(ex);
                self.body = (ends == StreamEnd::Later).then_some(Body { send, left });
                Ok(())
            }
            Err(_) => {
                self.stage = Stage::Refused;
                Err(SendFailure::Peer)
            }
        }
    }

    /// Has no further stream begin on the connection if it has been silent for so long, too: its peer may be gone.
    pub(super) fn note_silence(&self, silence: Duration) {
        self.lease.note_silence(silence);
    }

    pub(super) fn poll_rest_of_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) {
        if !self.unsent && !self.is_sent() {
            self.unsent = matches!(self.poll_send(cx, client, ex), Poll::Ready(Err(_)));
        }
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut UpstreamSide,
        bytes_max: usize,
    ) -> Poll<Result<(), NoHead>> {
        if self.stage == Stage::Refused {
            return Poll::Ready(Err(NoHead::Refused));
        }
        let Some(response) = &mut self.response else { return Poll::Pending };
        let (parts, received) = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response.into_parts(),
            Err(error) => return Poll::Ready(Err(self.no_head(error))),
        };
        self.received = Some(received);
        http2::fields::write_response(&parts, &mut side.input);
        if side.input.len() > bytes_max {
            return Poll::Ready(Err(NoHead::from(ResponseError::TooLarge)));
        }
        match side.head.parse(&side.input) {
            Ok(Progress::Complete(end)) => {
                side.body_start = end;
                side.has_head = true;
                if side.head.framing == ResponseFraming::UntilClose {
                    // The end is the stream's.
                    side.head.framing = ResponseFraming::Chunked;
                }
                Poll::Ready(Ok(()))
            }
            Ok(Progress::Partial) => Poll::Ready(Err(NoHead::from(ResponseError::Field))),
            Err(error) => Poll::Ready(Err(NoHead::from(error))),
        }
    }

    fn no_head(&self, error: h2::Error) -> NoHead {
        // "all streams with identifiers higher than the last [..] can be safely retried" (RFC 9113 §6.8): the others
        // aren't told of it.
        let is_refused = error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away();
        if is_refused && error.is_remote() {
            self.lease.leave();
            return NoHead::Refused;
        }
        if error.is_library() {
            return NoHead::from(ResponseError::Field);
        }
        if let Some(reason) = error.reason().filter(|_| error.is_reset()) {
            return NoHead::Reset(reason.into());
        }
        match error.into_io() {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => NoHead::Closed,
            Some(error) => NoHead::Broke(error),
            None => NoHead::Closed,
        }
    }

    pub(super) fn begin_body(&mut self, side: &UpstreamSide, trailers: Trailers) {
        self.keeps_trailers = trailers;
        let has_none = side.method == Method::Head || matches!(side.head.status, 204 | 304);
        self.ended = has_none || self.received.as_ref().is_none_or(RecvStream::is_end_stream);
    }

    pub(super) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        mut pass: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, PeerFailure>> {
        let Some(received) = &mut self.received else { return Poll::Ready(Err(PeerFailure::Error)) };
        match ready!(received.poll_data(cx)) {
            Some(Ok(bytes)) => {
                pass(&bytes);
                // The peer may send as much again. Fails only where the stream is gone, which is seen next.
                let _ = received.flow_control().release_capacity(bytes.len());
                self.ended = received.is_end_stream();
                Poll::Ready(Ok(bytes.len()))
            }
            Some(Err(error)) => Poll::Ready(Err(failure(&error))),
            None => {
                let trailers = ready!(received.poll_trailers(cx)).map_err(|error| failure(&error))?;
                if let Some(trailers) = trailers.filter(|_| self.keeps_trailers == Trailers::Keep) {
                    http2::fields::write_trailers(&trailers, &mut self.trailers);
                }
                self.ended = true;
                Poll::Ready(Ok(0))
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn trailers(&self) -> Lines {
        let mut kept = Lines::default();
        each_trailer(&self.trailers, |field| kept.copied(field, &self.trailers));
        kept
    }
}

/// What the crate refuses is no response; else the connection or the stream has broken.
fn failure(error: &h2::Error) -> PeerFailure {
    if error.is_library() { PeerFailure::Invalid } else { PeerFailure::Error }
}
