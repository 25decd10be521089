//! HTTP/1 with a client (RFC 9112): heads and bodies as they stand on the connection.
//!
//! What is to be sent is framed as it is put and waits in one buffer, the head first, so that a small response leaves in one
//! write. The buffer is the one that the head was written in.

use std::{
    io,
    os::fd::BorrowedFd,
    task::{Context, Poll, ready},
};

use keel_http::{Lines, Message, Progress, Rules, encode};

use super::{Framing, HeadFailure, Stir};
use crate::{
    client::sink::{Capture, Sink},
    error::BodyFailure,
    exchange::Received,
    transport::{Peeked, Transport},
};

/// Room that is made before a read of a head.
const HEAD_ROOM: usize = 4 << 10;

/// Room that is made before a read of a body.
const BODY_ROOM: usize = 8 << 10;

/// Room that an exchange keeps for the head of a response at most.
const HEAD_ROOM_MAX: usize = 16 << 10;

/// A connection on which one request follows the other.
pub(crate) struct H1 {
    sink: Sink,
    /// What came behind the last request, or behind the header of the PROXY protocol.
    pub(crate) behind: Vec<u8>,
    /// What waits to be sent, framed.
    out: Vec<u8>,
    /// How much of it has been sent.
    out_sent: usize,
    /// How much of it is the response's head; 0 once that is gone.
    head_length: usize,
    framing: Framing,
    /// Whether a chunk has been begun whose bytes come from a file.
    in_chunk: bool,
}

impl H1 {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            behind: Vec::new(),
            out: Vec::new(),
            out_sent: 0,
            head_length: 0,
            framing: Framing::None,
            in_chunk: false,
        }
    }

    pub(super) fn into_transport(self) -> Option<Transport> {
        match self.sink {
            Sink::Connection(transport) => Some(transport),
            Sink::Capture(_) | Sink::Part(_) | Sink::Discard => None,
        }
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut Received,
        rules: &Rules,
    ) -> Poll<Result<(), HeadFailure>> {
        loop {
            if !received.input.is_empty() {
                match received.head.parse(&received.input, rules) {
                    Ok(Progress::Complete(end)) => {
                        (received.head_end, received.consumed) = (end, end);
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Progress::Partial) => {}
                    Err(error) => return Poll::Ready(Err(HeadFailure::Refused(error))),
                }
            }
            match ready!(self.poll_fill(cx, &mut received.input, HEAD_ROOM)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(HeadFailure::Gone)),
                Ok(_) => {}
            }
        }
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
        if received.consumed >= received.input.len() {
            // The head's bytes stay where they are.
            received.input.truncate(received.head_end);
            received.consumed = received.head_end;
            match ready!(self.poll_fill(cx, &mut received.input, BODY_ROOM)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(BodyFailure::Gone)),
                Ok(_) => {}
            }
        }
        let mut appended = 0;
        while received.consumed < received.input.len() && !received.body_left.is_done() {
            let bytes = received.input.get(received.consumed..).unwrap_or_default();
            let Ok(step) = received.body_left.decode(bytes) else {
                return Poll::Ready(Err(BodyFailure::Broken));
            };
            let payload = bytes.get(step.payload).unwrap_or_default();
            out.extend_from_slice(payload);
            appended += payload.len();
            received.consumed += step.consumed;
            received.body_bytes_read += step.consumed as u64;
        }
        Poll::Ready(Ok(appended))
    }

    pub(super) fn begin(&mut self, head: Message, framing: Framing) {
        self.head_length = head.head_length();
        if let Sink::Part(part) = &self.sink {
            part.borrow_mut().begin(self.head_length);
        }
        self.out = head.into_bytes();
        self.out_sent = 0;
        self.framing = framing;
        self.in_chunk = false;
    }

    pub(super) fn put_continue(&mut self) {
        self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[inline]
    pub(super) fn put(&mut self, payload: &[u8]) {
        match self.framing {
            Framing::Chunked => encode::chunk(payload, &mut self.out),
            Framing::None => {}
            Framing::Length(_) | Framing::UntilClose => self.out.extend_from_slice(payload),
        }
    }

    pub(super) fn begin_piece(&mut self, length: u64) {
        if self.framing == Framing::Chunked && length > 0 {
            encode::chunk_head(usize::try_from(length).unwrap_or(usize::MAX), &mut self.out);
            self.in_chunk = true;
        }
    }

    pub(super) fn end_piece(&mut self) {
        if std::mem::take(&mut self.in_chunk) {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    pub(super) fn end(&mut self, trailers: &Lines) {
        if self.framing == Framing::Chunked {
            trailers.write_last_chunk(&mut self.out);
        }
    }

    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.out.len() - self.out_sent
    }

    /// What waits to be sent.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> &[u8] {
        &self.out[self.out_sent..]
    }

    #[inline]
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        let rest = self.out.get(self.out_sent..).unwrap_or_default();
        let rest = rest.get(..rest.len().min(bytes_max)).unwrap_or_default();
        let sent = ready!(self.sink.poll_send(cx, rest))?;
        self.out_sent += sent;
        Poll::Ready(Ok(sent))
    }

    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        self.sink.poll_send_file(cx, file, offset, length_max)
    }

    pub(super) fn clear_sent(&mut self, head: &mut Vec<u8>) {
        // Moving what is left then costs no more than what has been sent.
        if self.out_sent < self.pending().max(self.head_length) {
            return;
        }
        if head.is_empty() {
            head.extend_from_slice(self.out.get(..self.head_length).unwrap_or_default());
        }
        self.head_length = 0;
        self.out.drain(..self.out_sent);
        self.out_sent = 0;
    }

    pub(super) fn finish(&mut self, head: &mut Vec<u8>) {
        let mut out = std::mem::take(&mut self.out);
        if head.is_empty() {
            out.truncate(self.head_length);
            // Exchanges are reused: what was a response's buffer is not kept for a head.
            if out.capacity() > HEAD_ROOM_MAX { head.extend_from_slice(&out) } else { *head = out }
        }
        (self.out_sent, self.head_length) = (0, 0);
        self.framing = Framing::None;
    }

    pub(super) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        let Some(transport) = self.sink.transport_mut() else { return Poll::Pending };
        while let Poll::Ready(ready) = transport.poll_read_ready(cx) {
            if ready.is_err() {
                return Poll::Ready(Stir::Gone);
            }
            match transport.peek() {
                Peeked::Bytes => return Poll::Ready(Stir::More),
                Peeked::End => return Poll::Ready(Stir::Ended),
                Peeked::Broken => return Poll::Ready(Stir::Gone),
                Peeked::Nothing => transport.forget_readiness(),
            }
        }
        Poll::Pending
    }

    pub(super) fn transport(&self) -> Option<&Transport> {
        self.sink.transport()
    }

    pub(super) fn transport_mut(&mut self) -> Option<&mut Transport> {
        self.sink.transport_mut()
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        match self.sink.transport_mut() {
            Some(transport) => transport.poll_fill(cx, buffer, room),
            None => Poll::Ready(Ok(0)),
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sink.transport().map_or(Poll::Pending, |transport| transport.poll_read_ready(cx))
    }

    pub(super) fn peek(&mut self) -> Peeked {
        self.sink.transport_mut().map_or(Peeked::Nothing, Transport::peek)
    }

    pub(super) fn is_part(&self) -> bool {
        matches!(self.sink, Sink::Part(_))
    }

    pub(super) fn capture(&self) -> Option<&Capture> {
        match &self.sink {
            Sink::Capture(capture) => Some(capture),
            Sink::Connection(_) | Sink::Part(_) | Sink::Discard => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use keel_http::{Limits, Underscores};

    use super::*;

    fn stream() -> H1 {
        H1::new(Sink::Capture(Capture::default()))
    }

    fn head() -> Message {
        let mut lines = Lines::default();
        lines.fixed("H: 1\r\n");
        lines.end().unwrap()
    }

    /// Sends what waits, and gives all that has been sent.
    fn sent(h1: &mut H1) -> String {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while h1.pending() > 0 {
            assert!(matches!(h1.poll_send(&mut cx, usize::MAX), Poll::Ready(Ok(1..))));
        }
        let captured = h1.capture().map(|capture| capture.as_bytes().to_vec());
        String::from_utf8(captured.unwrap()).unwrap()
    }

    #[test]
    fn each_framing_has_its_pieces_and_its_end() {
        let check = |framing, expect: &str| {
            let mut h1 = stream();
            h1.begin(head(), framing);
            ["hello", "", " you"].iter().for_each(|piece| h1.put(piece.as_bytes()));
            let mut trailers = Lines::default();
            trailers.fixed("T: 2\r\n");
            h1.end(&trailers);
            assert_eq!(sent(&mut h1), format!("H: 1\r\n\r\n{expect}"), "{framing:?}");
        };
        check(Framing::None, "");
        check(Framing::Length(9), "hello you");
        check(Framing::UntilClose, "hello you");
        check(Framing::Chunked, "5\r\nhello\r\n4\r\n you\r\n0\r\nT: 2\r\n\r\n");
    }

    #[test]
    fn a_piece_of_a_file_is_one_chunk() {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"0123456789", 0).unwrap();
        let mut h1 = stream();
        h1.begin(head(), Framing::Chunked);
        h1.begin_piece(4);
        sent(&mut h1);
        let (mut cx, mut offset) = (Context::from_waker(std::task::Waker::noop()), 3);
        let file = std::os::fd::AsFd::as_fd(&file);
        assert!(matches!(h1.poll_send_file(&mut cx, file, &mut offset, 4), Poll::Ready(Ok(4))));
        h1.end_piece();
        h1.begin_piece(0);
        h1.end_piece();
        h1.end(&Lines::default());
        assert_eq!(sent(&mut h1), "H: 1\r\n\r\n4\r\n3456\r\n0\r\n\r\n");
    }

    #[test]
    fn the_head_is_known_to_the_end() {
        let mut h1 = stream();
        // At the end of a small response, and of one whose buffer was used again.
        for pieces in [1, 3] {
            let mut kept = Vec::new();
            h1.put_continue();
            sent(&mut h1);
            h1.begin(head(), Framing::UntilClose);
            for _ in 0..pieces {
                h1.put(b"body");
                h1.clear_sent(&mut kept);
                assert!(h1.pending() >= 4, "what hasn't been sent stays");
                sent(&mut h1);
                if pieces > 1 {
                    h1.clear_sent(&mut kept);
                }
            }
            h1.finish(&mut kept);
            assert_eq!(kept, b"H: 1\r\n\r\n");
            assert_eq!(h1.pending(), 0);
        }
    }

    #[test]
    fn a_body_is_read_from_what_came_with_the_head() {
        let mut h1 = stream();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let rules = Rules {
            limits: Limits { line_bytes_max: 1024, head_bytes_max: 1024, fields_max: 10 },
            drop_odd_fields: true,
            underscores: Underscores::Invalid,
        };
        let input = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let mut received = Received { input: input.to_vec(), ..Received::default() };
        assert_eq!(h1.poll_head(&mut cx, &mut received, &rules), Poll::Ready(Ok(())));
        received.body_left = keel_http::body::Decoder::chunked(keel_http::body::Trailers::Drop);
        let mut body = Vec::new();
        assert_eq!(h1.poll_body(&mut cx, &mut received, &mut body), Poll::Ready(Ok(3)));
        assert_eq!(body, b"abc");
        // Nothing more can come from nowhere.
        let polled = h1.poll_body(&mut cx, &mut received, &mut body);
        assert_eq!(polled, Poll::Ready(Err(BodyFailure::Gone)));
        assert_eq!(received.input.len(), received.head_end);
    }
}
