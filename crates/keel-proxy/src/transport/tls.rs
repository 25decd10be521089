//! TLS on a socket: records beneath, bytes above.
//!
//! A session keeps no buffer of its own (rustls's unbuffered interface). Records are read into room that all connections
//! of a worker share and are decrypted there; what is in them goes into the reader's buffer. So a connection that idles
//! is its keys. Only what can't be used yet stays: a record that isn't whole, bytes that found no room, records that the
//! socket doesn't take. Each is bounded by what is read or sent at once.

mod hello;
mod session;

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, BorrowedFd},
    task::{Context, Poll, ready},
};

use rustix::net::SendFlags;

use self::session::{Plain, Progress, Records};
pub(crate) use self::{
    hello::{Alert, Hello, Offer},
    session::{Agreed, Session},
};
use super::{Look, Peeked, Socket};
use crate::sessions::{self, SessionId};

/// Room for what is read at once: a record of the largest size, and some.
const READ_ROOM: usize = 18 << 10;

/// Bytes that are encrypted at once. Until they have left, their records stay with the connection.
const SENT_MAX: usize = 32 << 10;

thread_local! {
    /// Where records are decrypted.
    static INCOMING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// What is read of a file that is sent.
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection that speaks TLS.
pub(crate) struct Tls {
    socket: Socket,
    session: Session,
    /// The beginning of a record.
    partial: Vec<u8>,
    /// Bytes for the reader that found no room, and how many of them it has by now.
    ahead: Vec<u8>,
    ahead_read: usize,
    /// Records to be sent.
    outgoing: Records,
    /// How many bytes of the writer's are in them, of which it hasn't been told.
    accepted: usize,
    /// Whether the other side will send no more.
    ended: bool,
    session_id: SessionId,
    /// Whether the session has failed. It has said so to the other side and must not be asked anything more.
    has_failed: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum HandshakeFailure {
    /// The other side closed the connection.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// What came can't be agreed to.
    Refused(rustls::Error),
}

impl Tls {
    /// Begins with a session; `came` is what has been read already.
    pub(crate) fn new(socket: Socket, session: Session, came: Vec<u8>) -> Self {
        Self {
            socket,
            session,
            partial: came,
            ahead: Vec::new(),
            ahead_read: 0,
            outgoing: Records::default(),
            accepted: 0,
            ended: false,
            session_id: sessions::new_id(),
            has_failed: false,
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What both sides have agreed on.
    pub(crate) fn agreed(&self) -> Agreed {
        self.session.agreed(self.session_id)
    }

    /// Goes on with the handshake. Ready once application data may follow, both ways.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandshakeFailure>> {
        loop {
            // What has come before is looked at first.
            let mut records = std::mem::take(&mut self.partial);
            let worked = self.work(&mut records, None);
            self.keep(&records);
            if let Err(error) = worked {
                self.send_what_goes();
                return Poll::Ready(Err(HandshakeFailure::Refused(error)));
            }
            ready!(self.poll_flush(cx)).map_err(HandshakeFailure::Broken)?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Err(HandshakeFailure::Closed));
            }
            ready!(self.poll_records(cx, None)).map_err(|error| match error.downcast::<rustls::Error>() {
                Ok(error) => HandshakeFailure::Refused(error),
                Err(error) => HandshakeFailure::Broken(error),
            })?;
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ahead() || self.ended {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        buffer.reserve(room);
        if self.has_ahead() {
            return Poll::Ready(Ok(self.take_ahead(buffer)));
        }
        let before = buffer.len();
        while !self.ended {
            ready!(self.poll_records(cx, Some(&mut *buffer)))?;
            // What TLS has to say on its own account goes along; it waits where the socket is full.
            self.send_what_goes();
            if buffer.len() > before {
                return Poll::Ready(Ok(buffer.len() - before));
            }
        }
        Poll::Ready(Ok(0))
    }

    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.accepted == 0 {
            ready!(self.poll_flush(cx))?;
            let piece = bytes.get(..bytes.len().min(SENT_MAX)).unwrap_or_default();
            self.encrypt(piece)?;
            self.accepted = piece.len();
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.accepted)))
    }

    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        if self.accepted == 0 {
            ready!(self.poll_flush(cx))?;
            let read = FILE.with_borrow_mut(|piece| {
                piece.resize(SENT_MAX, 0);
                let room = piece.get_mut(..length_max.min(SENT_MAX)).unwrap_or_default();
                let read = rustix::io::pread(file, &mut *room, *offset)?;
                let piece = room.get(..read).unwrap_or_default();
                self.encrypt(piece)?;
                Ok::<_, io::Error>(read)
            })?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            self.accepted = read;
        }
        ready!(self.poll_flush(cx))?;
        let sent = std::mem::take(&mut self.accepted);
        *offset += sent as u64;
        Poll::Ready(Ok(sent))
    }

    /// Looks at what waits to be read, without taking it.
    pub(crate) fn peek(&mut self) -> Peeked {
        loop {
            if self.has_ahead() {
                return Peeked::Bytes;
            }
            if self.ended {
                return Peeked::End;
            }
            let read = self.take_in(None, |socket, records| match socket.fill_now(records, READ_ROOM) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                read => Poll::Ready(read),
            });
            match read {
                Poll::Ready(Ok(())) => self.send_what_goes(),
                Poll::Ready(Err(_)) => return Peeked::Broken,
                Poll::Pending => return Peeked::Nothing,
            }
        }
    }

    pub(super) fn is_quiet(&mut self, look: Look) -> bool {
        let is_still = !self.has_ahead() && !self.ended;
        is_still && ((look == Look::Glance && !self.socket.is_readable()) || self.peek() == Peeked::Nothing)
    }

    pub(super) fn forget_readiness(&self) {
        self.socket.forget_readiness();
    }

    pub(super) fn shutdown_write(&mut self) {
        self.close();
        self.socket.shutdown_write();
    }

    /// Leaves the event loop.
    pub(super) fn unwatch(&mut self) {
        self.socket.unwatch();
    }

    /// Comes back to the event loop.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        self.socket.watch()
    }

    fn has_ahead(&self) -> bool {
        self.ahead_read < self.ahead.len()
    }

    fn take_ahead(&mut self, buffer: &mut Vec<u8>) -> usize {
        let rest = self.ahead.get(self.ahead_read..).unwrap_or_default();
        let taken = rest.len().min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(rest.get(..taken).unwrap_or_default());
        self.ahead_read += taken;
        if !self.has_ahead() {
            (self.ahead, self.ahead_read) = (Vec::new(), 0);
        }
        taken
    }

    /// Reads records once and works through them. What is in them goes into `buffer` as far as there is room.
    fn poll_records(&mut self, cx: &mut Context<'_>, buffer: Option<&mut Vec<u8>>) -> Poll<io::Result<()>> {
        self.take_in(buffer, |socket, records| socket.poll_fill(cx, records, READ_ROOM))
    }

    fn take_in(
        &mut self,
        buffer: Option<&mut Vec<u8>>,
        read: impl FnOnce(&mut Socket, &mut Vec<u8>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut records = INCOMING.take();
        records.clear();
        records.extend_from_slice(&self.partial);
        let read = read(&mut self.socket, &mut records);
        let mut worked = Ok(());
        if let Poll::Ready(Ok(received)) = read {
            self.ended = received == 0;
            worked = self.work(&mut records, buffer);
            self.keep(&records);
        }
        INCOMING.replace(records);
        if let Err(error) = worked {
            self.send_what_goes();
            return Poll::Ready(Err(failed(error)));
        }
        read.map_ok(drop)
    }

    /// Works through records; what is left in `records` isn't whole.
    fn work(&mut self, records: &mut Vec<u8>, buffer: Option<&mut Vec<u8>>) -> Result<(), rustls::Error> {
        if self.has_failed {
            return Err(rustls::Error::General("the session has failed".into()));
        }
        let mut plain = Plain { buffer, ahead: &mut self.ahead };
        let (session, outgoing) = (&mut self.session, &mut self.outgoing);
        let progress = if session.is_handshaking() {
            let (progress, id) =
                sessions::within(self.session_id, || session.work(records, outgoing, &mut plain));
            self.session_id = id;
            progress
        } else {
            session.work(records, outgoing, &mut plain)
        };
        self.has_failed = progress.is_err();
        self.ended |= progress? == Progress::Ended;
        Ok(())
    }

    /// Makes records of bytes, which wait to be sent.
    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.session.encrypt(bytes, &mut self.partial, &mut self.outgoing);
        self.has_failed = written.is_err();
        written.map_err(failed)
    }

    /// Says that nothing more will be sent, where that can still be said.
    fn close(&mut self) {
        if !self.has_failed {
            self.session.close(&mut self.partial, &mut self.outgoing);
        }
        self.send_what_goes();
    }

    fn keep(&mut self, records: &[u8]) {
        if records.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(records);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(self.socket.poll_send(cx, self.outgoing.waiting()))?;
            self.outgoing.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what the socket takes just now.
    fn send_what_goes(&mut self) {
        send_now(self.socket.as_fd(), &mut self.outgoing);
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // What has panicked may do so again, and two panics end the process.
        if std::thread::panicking() {
            return;
        }
        // Without a word about the end, the other side can't tell it from a connection that was cut.
        self.close();
    }
}

fn send_now(socket: BorrowedFd<'_>, outgoing: &mut Records) {
    while !outgoing.is_empty() {
        // What goes wrong here is met again by who reads or writes.
        match rustix::net::send(socket, outgoing.waiting(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent @ 1..) => outgoing.sent(sent),
            Ok(0) | Err(_) => return,
        }
    }
}

fn failed(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsFd for Tls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
