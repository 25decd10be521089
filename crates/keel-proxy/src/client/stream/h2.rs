//! One stream of a client's HTTP/2 connection: one request and its response.
//!
//! Payload waits here until the connection and the client's windows have room for it, so that a slow client holds up its
//! own stream, and what it is answered with, and nothing else.

use std::{
    io,
    os::fd::BorrowedFd,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use keel_http::{Lines, Message, RequestError, Rules, StreamEnd, body::Decoder};

use super::{Framing, Stir};
use crate::{error::BodyFailure, exchange::Received, http2};

/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 32 << 10;

/// A stream on which a request has come.
pub(crate) struct H2 {
    request: Option<http::request::Parts>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// What the body goes to, once the head has been sent.
    send: Option<SendStream<Bytes>>,
    /// The response's head as lines.
    head: Vec<u8>,
    progress: Progress,
    framing: Framing,
    /// Payload that waits.
    out: BytesMut,
    /// What stands behind the body, once that has been put to its end.
    end: Option<http::HeaderMap>,
    /// What of the request's body has been taken from the connection and not been read.
    gathered: Vec<u8>,
    /// What came behind the request: never anything.
    pub(super) behind: Vec<u8>,
}

/// How far a response has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There is none.
    None,
    /// Its head waits.
    Head,
    /// Its body is being sent.
    Body,
    /// The stream has ended.
    Ended,
}

impl H2 {
    pub(crate) fn new(request: http::Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let (request, body) = request.into_parts();
        Self {
            request: Some(request),
            body,
            respond,
            send: None,
            head: Vec::new(),
            progress: Progress::None,
            framing: Framing::None,
            out: BytesMut::new(),
            end: None,
            gathered: Vec::new(),
            behind: Vec::new(),
        }
    }

    /// Writes the request's head into `received` and reads it there.
    pub(crate) fn read_head(&mut self, received: &mut Received, rules: &Rules) -> Result<(), RequestError> {
        let Some(request) = self.request.take() else { return Err(RequestError::Line) };
        let written = http2::fields::write_request(&request, &mut received.input);
        let ends = if self.body.is_end_stream() { StreamEnd::WithHead } else { StreamEnd::Later };
        let parsed = received.head.parse_http2(&received.input, rules, ends);
        (received.head_end, received.consumed) = (received.input.len(), received.input.len());
        written.and(parsed.map(drop))
    }

    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut Received,
        out: &mut Vec<u8>,
    ) -> Poll<Result<usize, BodyFailure>> {
        if received.body_left.is_done() {
            return Poll::Ready(Ok(0));
        }
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            out.extend_from_slice(&gathered);
            received.body_bytes_read += gathered.len() as u64;
            if self.body.is_end_stream() {
                received.body_left = Decoder::Done;
            }
            return Poll::Ready(Ok(gathered.len()));
        }
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(bytes)) => {
                out.extend_from_slice(&bytes);
                received.body_bytes_read += bytes.len() as u64;
                // The client may send as much again. Fails only where the stream is gone, which is seen next.
                let _ = self.body.flow_control().release_capacity(bytes.len());
                if self.body.is_end_stream() {
                    received.body_left = Decoder::Done;
                }
                Poll::Ready(Ok(bytes.len()))
            }
            Some(Err(error)) => Poll::Ready(Err(failure(&error))),
            None => {
                received.body_left = Decoder::Done;
                Poll::Ready(Ok(0))
            }
        }
    }

    /// Takes what of the body has come by now, and says whether that is all of it. It stops behind `bytes_max` bytes.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> bool {
        while !self.body.is_end_stream() && self.gathered.len() <= bytes_max {
            // An end that comes apart, and an error, are found when the body is read.
            let Poll::Ready(Some(Ok(bytes))) = self.body.poll_data(cx) else { break };
            self.gathered.extend_from_slice(&bytes);
            // Fails only where the stream is gone, which is seen later.
            let _ = self.body.flow_control().release_capacity(bytes.len());
        }
        self.body.is_end_stream()
    }

    pub(super) fn begin(&mut self, head: Message, framing: Framing) {
        self.out.clear();
        let head_length = head.head_length();
        let mut bytes = head.into_bytes();
        if framing != Framing::None {
            self.out.extend_from_slice(bytes.get(head_length..).unwrap_or_default());
        }
        bytes.truncate(head_length);
        self.head = bytes;
        self.framing = framing;
        self.end = None;
        if self.progress == Progress::None {
            self.progress = Progress::Head;
        }
    }

    pub(super) fn put_continue(&mut self) {
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::CONTINUE;
        // A client that is gone misses nothing.
        let _ = self.respond.send_informational(response);
    }

    #[inline]
    pub(super) fn put(&mut self, payload: &[u8]) {
        if self.framing != Framing::None {
            self.out.extend_from_slice(payload);
        }
    }

    pub(super) fn end(&mut self, trailers: &Lines) {
        if self.end.is_none() && self.framing != Framing::None {
            self.end = Some(http2::fields::map(trailers.as_bytes()));
        }
    }

    /// Counts the bytes that wait, and one for what else does.
    pub(super) fn pending(&self) -> usize {
        match self.progress {
            Progress::None | Progress::Ended => 0,
            Progress::Head => self.head.len() + self.out.len(),
            Progress::Body => self.out.len() + usize::from(self.end.is_some()),
        }
    }

    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        match self.progress {
            Progress::None | Progress::Ended => Poll::Ready(Ok(0)),
            Progress::Head => Poll::Ready(self.send_head()),
            Progress::Body if self.out.is_empty() => Poll::Ready(self.send_end().map(|()| 0)),
            Progress::Body => self.poll_send_body(cx, bytes_max),
        }
    }

    fn send_head(&mut self) -> io::Result<usize> {
        let has_trailers = self.end.as_ref().is_some_and(|trailers| !trailers.is_empty());
        let is_all =
            self.framing == Framing::None || (self.end.is_some() && self.out.is_empty() && !has_trailers);
        let sent = self.respond.send_response(http2::fields::response(&self.head), is_all);
        self.send = Some(sent.map_err(http2::broken)?);
        self.progress = if is_all { Progress::Ended } else { Progress::Body };
        Ok(self.head.len())
    }

    fn send_end(&mut self) -> io::Result<()> {
        let (Some(trailers), Some(send)) = (self.end.take(), self.send.as_mut()) else { return Ok(()) };
        self.progress = Progress::Ended;
        let sent = if trailers.is_empty() {
            send.send_data(Bytes::new(), true)
        } else {
            send.send_trailers(trailers)
        };
        sent.map_err(http2::broken)
    }

    fn poll_send_body(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let room = ready!(http2::poll_room(send, cx, self.out.len().min(bytes_max)))?;
        let piece = self.out.split_to(room).freeze();
        let sent = http2::framed_length(piece.len());
        let is_last = self.out.is_empty() && self.end.as_ref().is_some_and(http::HeaderMap::is_empty);
        send.send_data(piece, is_last).map_err(http2::broken)?;
        if is_last {
            self.end = None;
            self.progress = Progress::Ended;
        }
        Poll::Ready(Ok(sent))
    }

    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let room = ready!(http2::poll_room(send, cx, length_max.min(PIECE_BYTES)))?;
        let mut piece = vec![0; room];
        let read = rustix::io::pread(file, &mut piece, *offset)?;
        piece.truncate(read);
        *offset += read as u64;
        send.send_data(piece.into(), false).map_err(http2::broken)?;
        Poll::Ready(Ok(read))
    }

    pub(super) fn finish(&mut self, head: &mut Vec<u8>) {
        let own = std::mem::take(&mut self.head);
        if head.is_empty() {
            *head = own;
        }
    }

    pub(super) fn clear_sent(&mut self, head: &mut Vec<u8>) {
        if head.is_empty() && self.progress != Progress::Head {
            head.extend_from_slice(&self.head);
        }
    }

    pub(super) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|_| Stir::Gone)
    }

    /// Ends the stream, whole or not: nothing more is to come either way.
    pub(crate) fn close(&mut self) {
        if self.progress != Progress::Ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// What waits to be sent.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> &[u8] {
        &self.out
    }
}

/// A stream that the crate has reset was broken by the client; else the client is gone.
fn failure(error: &h2::Error) -> BodyFailure {
    if error.is_library() && error.is_reset() { BodyFailure::Broken } else { BodyFailure::Gone }
}
