//! A client's stream: one request's way in, and its response's way out.
//!
//! How heads and bodies stand on the connection is known here and nowhere else: others give and take fields and payload.
//! With HTTP/1 a connection is one stream, which carries one request after the other; with HTTP/2 it has many at once, each
//! of which carries one.

mod h1;
mod h2;

use std::{
    io,
    os::fd::BorrowedFd,
    task::{Context, Poll},
};

use keel_http::{Lines, Message, Name, RequestError, Rules};

pub(crate) use self::{h1::H1, h2::H2};
use super::sink::{Capture, Sink};
use crate::{
    error::BodyFailure,
    exchange::Received,
    transport::{Peeked, Socket, Transport},
};

/// One stream of a client.
pub(crate) enum ClientStream {
    H1(H1),
    /// Boxed, so that others don't grow.
    H2(Box<H2>),
}

/// How the body of a response is framed for the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    #[default]
    None,
    /// By its length in bytes.
    Length(u64),
    Chunked,
    UntilClose,
}

/// Why there is no head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFailure {
    /// The client went away.
    Gone,
    /// What came is none.
    Refused(RequestError),
}

/// What a client has done that has nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stir {
    /// It has said more.
    More,
    /// It has ended its side, and may still wait for an answer.
    Ended,
    /// It is gone.
    Gone,
}

impl ClientStream {
    /// Makes one that answers on a connection, or elsewhere.
    pub(super) fn new(sink: Sink) -> Self {
        ClientStream::H1(H1::new(sink))
    }

    /// What came behind the last request, or behind what a connection begins with.
    pub(crate) fn behind(&mut self) -> &mut Vec<u8> {
        match self {
            ClientStream::H1(h1) => &mut h1.behind,
            ClientStream::H2(h2) => &mut h2.behind,
        }
    }

    /// Gives back the connection, if there is one.
    pub(crate) fn into_transport(self) -> Option<Transport> {
        match self {
            ClientStream::H1(h1) => h1.into_transport(),
            ClientStream::H2(_) => None,
        }
    }

    /// Reads a request's head into `received`. Ready once it is whole, or is none.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut Received,
        rules: &Rules,
    ) -> Poll<Result<(), HeadFailure>> {
        match self {
            ClientStream::H1(h1) => h1.poll_head(cx, received, rules),
            // It has come before its stream.
            ClientStream::H2(h2) => Poll::Ready(h2.read_head(received, rules).map_err(HeadFailure::Refused)),
        }
    }

    /// Appends the next piece of the body to `out`. A piece may be empty; the end is when `received.body_left` is done.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut Received,
        out: &mut Vec<u8>,
    ) -> Poll<Result<usize, BodyFailure>> {
        match self {
            ClientStream::H1(h1) => h1.poll_body(cx, received, out),
            ClientStream::H2(h2) => h2.poll_body(cx, received, out),
        }
    }

    /// Takes what of the body has come by now, where that leaves the connection to others, and says whether it is all of it.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> bool {
        match self {
            ClientStream::H1(_) => false,
            ClientStream::H2(h2) => h2.gather(cx, bytes_max),
        }
    }

    /// Begins a response: its head waits to be sent.
    pub(crate) fn begin(&mut self, head: Message, framing: Framing) {
        match self {
            ClientStream::H1(h1) => h1.begin(head, framing),
            ClientStream::H2(h2) => h2.begin(head, framing),
        }
    }

    /// Puts a response before the one that answers the request: the client may send its body.
    pub(crate) fn put_continue(&mut self) {
        match self {
            ClientStream::H1(h1) => h1.put_continue(),
            ClientStream::H2(h2) => h2.put_continue(),
        }
    }

    /// Puts a piece of the body behind what waits to be sent.
    #[inline]
    pub(crate) fn put(&mut self, payload: &[u8]) {
        match self {
            ClientStream::H1(h1) => h1.put(payload),
            ClientStream::H2(h2) => h2.put(payload),
        }
    }

    /// Says that so many bytes of the body follow from files, by `poll_send_file`.
    pub(crate) fn begin_piece(&mut self, length: u64) {
        match self {
            ClientStream::H1(h1) => h1.begin_piece(length),
            ClientStream::H2(_) => {}
        }
    }

    /// Ends what [`begin_piece`](Self::begin_piece) has begun.
    pub(crate) fn end_piece(&mut self) {
        match self {
            ClientStream::H1(h1) => h1.end_piece(),
            ClientStream::H2(_) => {}
        }
    }

    /// Ends the body, with these fields behind it where the framing has room for such.
    pub(crate) fn end(&mut self, trailers: &Lines) {
        match self {
            ClientStream::H1(h1) => h1.end(trailers),
            ClientStream::H2(h2) => h2.end(trailers),
        }
    }

    /// Counts the bytes that wait to be sent.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        match self {
            ClientStream::H1(h1) => h1.pending(),
            ClientStream::H2(h2) => h2.pending(),
        }
    }

    /// Sends what can be sent now of what waits, so many bytes at most; gives how many those were.
    #[inline]
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        match self {
            ClientStream::H1(h1) => h1.poll_send(cx, bytes_max),
            ClientStream::H2(h2) => h2.poll_send(cx, bytes_max),
        }
    }

    /// Sends a part of a file that has been announced; 0 means the file's end. Nothing else may wait to be sent.
    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            ClientStream::H1(h1) => h1.poll_send_file(cx, file, offset, length_max),
            ClientStream::H2(h2) => h2.poll_send_file(cx, file, offset, length_max),
        }
    }

    /// Makes room for more of the body once everything has been sent. The head is kept in `head` first.
    pub(crate) fn clear_sent(&mut self, head: &mut Vec<u8>) {
        match self {
            ClientStream::H1(h1) => h1.clear_sent(head),
            ClientStream::H2(h2) => h2.clear_sent(head),
        }
    }

    /// Ends the response, sent or not: `head` gets its head, unless it has that already.
    pub(crate) fn finish(&mut self, head: &mut Vec<u8>) {
        match self {
            ClientStream::H1(h1) => h1.finish(head),
            ClientStream::H2(h2) => h2.finish(head),
        }
    }

    /// Is ready when a client has done something that has nothing to say while its response is being made.
    pub(super) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        match self {
            ClientStream::H1(h1) => h1.poll_stir(cx),
            ClientStream::H2(h2) => h2.poll_stir(cx),
        }
    }

    /// The connection, once what follows on it is no HTTP any more.
    pub(crate) fn upgraded(&mut self) -> Option<&mut Transport> {
        match self {
            ClientStream::H1(h1) => h1.transport_mut(),
            ClientStream::H2(_) => None,
        }
    }

    /// Reads whatever comes: what isn't taken for a request.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            ClientStream::H1(h1) => h1.poll_fill(cx, buffer, room),
            ClientStream::H2(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Is ready when there may be something to read, or the connection is broken.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            ClientStream::H1(h1) => h1.poll_read_ready(cx),
            ClientStream::H2(_) => Poll::Pending,
        }
    }

    /// Looks at what waits to be read, without taking it.
    pub(crate) fn peek(&mut self) -> Peeked {
        match self {
            ClientStream::H1(h1) => h1.peek(),
            ClientStream::H2(_) => Peeked::Nothing,
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown_write(&mut self) {
        match self {
            ClientStream::H1(h1) => h1.transport_mut().into_iter().for_each(Transport::shutdown_write),
            ClientStream::H2(_) => {}
        }
    }

    /// The socket beneath, for its addresses and options.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match self {
            ClientStream::H1(h1) => h1.transport().map(Transport::socket),
            ClientStream::H2(_) => None,
        }
    }

    /// Whether what is sent becomes a part of another answer's body.
    pub(crate) fn is_part(&self) -> bool {
        match self {
            ClientStream::H1(h1) => h1.is_part(),
            ClientStream::H2(_) => false,
        }
    }

    /// What was captured, where that is where the answer goes.
    fn capture(&self) -> Option<&Capture> {
        match self {
            ClientStream::H1(h1) => h1.capture(),
            ClientStream::H2(_) => None,
        }
    }

    /// The fields of that name in what was captured.
    pub(crate) fn captured_fields(&self, name: Name) -> Lines {
        self.capture().map(|capture| capture.fields(name)).unwrap_or_default()
    }

    /// What waits to be sent.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> &[u8] {
        match self {
            ClientStream::H1(h1) => h1.waiting(),
            ClientStream::H2(h2) => h2.waiting(),
        }
    }

    /// What was captured.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn captured(&self) -> &[u8] {
        self.capture().map(Capture::as_bytes).unwrap_or_default()
    }
}
