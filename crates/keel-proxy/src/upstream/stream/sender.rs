//! Sending a request: head, and body from memory, from a file, or from the client as it comes.

use std::{
    io,
    task::{Context, Poll, ready},
};

use keel_http::{RequestBody, encode, fastcgi};

use crate::{
    body::RequestBodyStore, client::Client, error::BodyFailure, exchange::Exchange, transport::Transport,
    upstream::Rest,
};

/// Bytes of a body read from a file, or gathered from the client, before they are sent.
const PIECE_BYTES: usize = 64 << 10;

/// Where a request's bytes go.
pub(super) trait Outlet {
    /// Sends what can be sent now of some bytes; gives how many those were.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// The same for bytes behind which others follow at once.
    fn poll_send_with_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes)
    }
}

impl Outlet for Transport {
    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Transport::poll_send(self, cx, bytes)
    }

    fn poll_send_with_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Transport::poll_send_with_more(self, cx, bytes)
    }
}

/// Sends one request once.
pub(super) struct Sender {
    head_sent: usize,
    source: Source,
    form: BodyForm,
    piece: Vec<u8>,
    piece_sent: usize,
    pub(super) sent: u64,
    done: bool,
}

/// How a body stands on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// As it is.
    Plain,
    /// In chunks.
    Chunked,
    /// In records of FastCGI, of which the last is due.
    Records,
}

enum Source {
    /// Everything is behind the head already.
    None,
    Memory {
        at: usize,
    },
    File,
    Client {
        total: u64,
        size_max: u64,
    },
}

/// Why sending stopped.
pub(in crate::upstream) enum SendFailure {
    /// The peer takes no more.
    Peer,
    /// The request can't be written as the peer's protocol wants it.
    Unwritable,
    /// The client's body can't be had.
    Client(BodyFailure),
}

impl Sender {
    pub(super) fn new(ex: &mut Exchange, form: BodyForm, streams: bool, size_max: u64) -> Self {
        let source = if streams {
            Source::Client { total: 0, size_max: if size_max == 0 { u64::MAX } else { size_max } }
        } else if ex.upstream.rest == Rest::Nothing {
            Source::None
        } else {
            match &mut ex.received.body {
                RequestBodyStore::None => Source::None,
                RequestBodyStore::Memory(_) => Source::Memory { at: 0 },
                RequestBodyStore::File(spool) => {
                    spool.rewind();
                    Source::File
                }
            }
        };
        Self { head_sent: 0, source, form, piece: Vec::new(), piece_sent: 0, sent: 0, done: false }
    }

    /// Whether something follows the head.
    pub(super) fn has_body(&self, ex: &Exchange) -> bool {
        let message = &ex.upstream.request;
        !matches!(self.source, Source::None) || message.as_bytes().len() > message.head_length()
    }

    /// How long the body is behind the head, where that is known.
    pub(super) fn body_length(&self, ex: &Exchange) -> Option<u64> {
        let message = &ex.upstream.request;
        let with_head = (message.as_bytes().len() - message.head_length()) as u64;
        match (&self.source, &ex.received.body, &ex.received.head.body) {
            (Source::None, _, _) => Some(with_head),
            (Source::Memory { .. }, RequestBodyStore::Memory(bytes), _) => Some(bytes.len() as u64),
            (Source::File, RequestBodyStore::File(spool), _) => Some(spool.len()),
            (Source::Client { .. }, _, RequestBody::Length(length)) => Some(*length),
            _ => None,
        }
    }

    /// Notes that a head of this length has been sent, behind which the body goes without a framing of its own.
    pub(super) fn begin_behind(&mut self, head_length: usize) {
        self.head_sent = head_length;
        self.sent += head_length as u64;
        self.form = BodyForm::Plain;
    }

    /// Says whether everything has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Says whether it waits for the client rather than for the peer.
    pub(super) fn waits_for_client(&self, ex: &Exchange) -> bool {
        matches!(self.source, Source::Client { .. })
            && self.head_sent >= ex.upstream.request.as_bytes().len()
            && self.piece_sent >= self.piece.len()
    }

    /// Sends as much as the peer takes. Ready when all is sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outlet: &mut impl Outlet,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        while self.head_sent < ex.upstream.request.as_bytes().len() {
            let rest = ex.upstream.request.as_bytes().get(self.head_sent..).unwrap_or_default();
            let sent = match self.source {
                Source::Client { .. } if ex.received.has_body_at_hand() => {
                    outlet.poll_send_with_more(cx, rest)
                }
                _ => outlet.poll_send(cx, rest),
            };
            let more = ready!(sent).map_err(|_| SendFailure::Peer)?;
            self.head_sent += more;
            self.sent += more as u64;
        }
        while !self.done {
            while self.piece_sent < self.piece.len() {
                let rest = self.piece.get(self.piece_sent..).unwrap_or_default();
                let more = ready!(outlet.poll_send(cx, rest)).map_err(|_| SendFailure::Peer)?;
                self.piece_sent += more;
                self.sent += more as u64;
            }
            self.piece.clear();
            self.piece_sent = 0;
            ready!(self.poll_piece(cx, outlet, client, ex))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the body, with a record where that is due.
    fn end(&mut self) {
        if self.form == BodyForm::Records {
            self.form = BodyForm::Plain;
            fastcgi::end_stdin(&mut self.piece);
        } else {
            self.done = true;
        }
    }

    /// Gets the next piece of the body.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        outlet: &mut impl Outlet,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        match &mut self.source {
            Source::None => self.done = true,
            Source::Memory { at } => {
                let RequestBodyStore::Memory(bytes) = &ex.received.body else {
                    self.done = true;
                    return Poll::Ready(Ok(()));
                };
                if self.form == BodyForm::Records {
                    let rest = bytes.get(*at..).unwrap_or_default();
                    let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
                    *at += piece.len();
                    fastcgi::stdin(piece, &mut self.piece);
                    if piece.is_empty() {
                        self.end();
                    }
                    return Poll::Ready(Ok(()));
                }
                while *at < bytes.len() {
                    let rest = bytes.get(*at..).unwrap_or_default();
                    let more = ready!(outlet.poll_send(cx, rest)).map_err(|_| SendFailure::Peer)?;
                    *at += more;
                    self.sent += more as u64;
                }
                self.done = true;
            }
            Source::File => {
                let RequestBodyStore::File(spool) = &mut ex.received.body else {
                    self.done = true;
                    return Poll::Ready(Ok(()));
                };
                let mut payload = std::mem::take(&mut self.piece);
                let read = spool.read(&mut payload, PIECE_BYTES);
                let read = read.map_err(|_| SendFailure::Client(BodyFailure::Internal))?;
                self.piece = framed(payload, self.form);
                if read == 0 {
                    self.end();
                }
            }
            Source::Client { total, size_max } => {
                if ex.received.body_left.is_done() {
                    self.end();
                    return Poll::Ready(Ok(()));
                }
                let mut payload = std::mem::take(&mut self.piece);
                let polled = client.stream.poll_body(cx, &mut ex.received, &mut payload);
                let result = match polled {
                    Poll::Pending => {
                        self.piece = payload;
                        return Poll::Pending;
                    }
                    Poll::Ready(result) => result,
                };
                // What was read of it is nowhere else.
                ex.received.body_is_lost = true;
                let length = result.map_err(SendFailure::Client)?;
                *total += length as u64;
                if *total > *size_max {
                    return Poll::Ready(Err(SendFailure::Client(BodyFailure::TooLarge)));
                }
                self.piece = framed(payload, self.form);
                if self.form == BodyForm::Chunked && ex.received.body_left.is_done() {
                    self.piece.extend_from_slice(encode::LAST_CHUNK);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Frames a piece of a body.
fn framed(payload: Vec<u8>, form: BodyForm) -> Vec<u8> {
    let mut framed = match form {
        BodyForm::Plain => return payload,
        BodyForm::Chunked | BodyForm::Records => Vec::with_capacity(payload.len() + 32),
    };
    match form {
        BodyForm::Records => fastcgi::stdin(&payload, &mut framed),
        BodyForm::Plain | BodyForm::Chunked => encode::chunk(&payload, &mut framed),
    }
    framed
}
