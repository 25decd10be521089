//! What carries bytes between this process and the other end of a connection.
//!
//! Streams of both sides read from a [`Transport`] and write to it. What is encrypted, and what a protocol below theirs
//! says on its own account, stays inside: bytes on the wire are not yet bytes for the stream. It reads into the caller's
//! buffer and holds none itself, so that a connection that idles has none.

#[cfg(test)]
mod script;
mod socket;
mod tls;

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    task::{Context, Poll},
};

use keel_model::Address;

#[cfg(test)]
pub(crate) use script::Script;
pub(crate) use socket::{
    ConnectOptions, FLAGS, LocalAddress, Ownership, Peeked, Socket, SocketBuffers, local_congestion_control,
};
pub(crate) use tls::{Agreed, Alert, HandshakeFailure, Hello, Offer, Session, Tls};

/// One connection, as streams see it.
pub(crate) enum Transport {
    /// Bytes as they are.
    Plain(Socket),
    /// Records of TLS.
    Tls(Box<Tls>),
    #[cfg(test)]
    Script(Script),
}

/// How closely an idle connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// That the event loop has told of nothing is enough.
    Glance,
    /// The kernel is asked.
    Close,
}

impl Transport {
    /// The socket beneath, for its addresses and options.
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            #[cfg(test)]
            Transport::Script(_) => panic!("a script has no socket"),
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => tls.socket(),
        }
    }

    /// Is ready when there may be something to read, or the connection is broken.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            #[cfg(test)]
            Transport::Script(script) => script.poll_read_ready(cx),
            Transport::Plain(socket) => socket.poll_read_ready(cx),
            Transport::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Reads once into the free room of `buffer`, which is made at least `room` bytes; 0 means the end.
    #[inline]
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            #[cfg(test)]
            Transport::Script(script) => script.poll_fill(buffer, room),
            Transport::Plain(socket) => socket.poll_fill(cx, buffer, room),
            Transport::Tls(tls) => tls.poll_fill(cx, buffer, room),
        }
    }

    /// Sends what can be sent now of some bytes; gives how many those were.
    #[inline]
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            #[cfg(test)]
            Transport::Script(_) => Poll::Ready(Ok(bytes.len())),
            Transport::Plain(socket) => socket.poll_send(cx, bytes),
            Transport::Tls(tls) => tls.poll_send(cx, bytes),
        }
    }

    /// Sends what can be sent now of some bytes behind which others follow at once: both leave together where that saves a
    /// packet.
    pub(crate) fn poll_send_with_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            #[cfg(test)]
            Transport::Script(_) => Poll::Ready(Ok(bytes.len())),
            Transport::Plain(socket) => socket.poll_send_with_more(cx, bytes),
            Transport::Tls(tls) => tls.poll_send(cx, bytes),
        }
    }

    /// Sends from a file, without copying it through this process where that is possible; 0 means the file's end.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            #[cfg(test)]
            Transport::Script(_) => Poll::Ready(Ok(0)),
            Transport::Plain(socket) => socket.poll_send_file(cx, file, offset, length_max),
            Transport::Tls(tls) => tls.poll_send_file(cx, file, offset, length_max),
        }
    }

    /// Looks at what waits to be read by a stream, without taking it.
    pub(crate) fn peek(&mut self) -> Peeked {
        match self {
            #[cfg(test)]
            Transport::Script(_) => Peeked::Nothing,
            Transport::Plain(socket) => socket.peek(),
            Transport::Tls(tls) => tls.peek(),
        }
    }

    /// Says whether an idle connection is quiet: nothing has come for a stream, no end and no error.
    pub(crate) fn is_quiet(&mut self, look: Look) -> bool {
        match self {
            // What the event loop has told of may have been read already: only a close look is sure.
            #[cfg(test)]
            Transport::Script(_) => true,
            Transport::Plain(socket) => {
                (look == Look::Glance && !socket.is_readable()) || socket.peek() == Peeked::Nothing
            }
            Transport::Tls(tls) => tls.is_quiet(look),
        }
    }

    /// Waits for the next event although the last one has told of something: a look showed that nothing is there.
    pub(crate) fn forget_readiness(&self) {
        match self {
            #[cfg(test)]
            Transport::Script(_) => {}
            Transport::Plain(socket) => socket.forget_readiness(),
            Transport::Tls(tls) => tls.forget_readiness(),
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown_write(&mut self) {
        match self {
            #[cfg(test)]
            Transport::Script(_) => {}
            Transport::Plain(socket) => socket.shutdown_write(),
            Transport::Tls(tls) => tls.shutdown_write(),
        }
    }

    /// Takes the connection out of the event loop for as long as it idles.
    pub(crate) fn park(self) -> ParkedTransport {
        match self {
            #[cfg(test)]
            Transport::Script(_) => panic!("a script is never parked"),
            Transport::Plain(socket) => ParkedTransport::Plain(socket.into_descriptor()),
            Transport::Tls(mut tls) => {
                tls.unwatch();
                ParkedTransport::Tls(tls)
            }
        }
    }
}

impl From<Socket> for Transport {
    fn from(socket: Socket) -> Self {
        Transport::Plain(socket)
    }
}

/// A connection that idles, without a place in the event loop.
pub(crate) enum ParkedTransport {
    Plain(OwnedFd),
    Tls(Box<Tls>),
}

impl ParkedTransport {
    /// Gives the connection back to the event loop.
    ///
    /// # Errors
    /// When it can't be watched.
    pub(crate) fn unpark(self, listener: &Address) -> io::Result<Transport> {
        match self {
            ParkedTransport::Plain(descriptor) => {
                Socket::accepted(descriptor, listener).map(Transport::Plain)
            }
            ParkedTransport::Tls(mut tls) => {
                tls.watch()?;
                Ok(Transport::Tls(tls))
            }
        }
    }
}

/// Looks at what waits to be read on a connection of bytes as they are, without taking it.
pub(crate) fn peek_plain(descriptor: &OwnedFd) -> Peeked {
    socket::peek(descriptor)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write};

    use super::*;

    #[tokio::test]
    async fn an_idle_connection_is_quiet_until_something_comes() {
        let (mut other, one) = std::os::unix::net::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let listener = Address::Unix("".into());
        let mut transport = Transport::from(Socket::accepted(one.into(), &listener).unwrap());
        assert!(transport.is_quiet(Look::Close));
        other.write_all(b"x").unwrap();
        assert!(!transport.is_quiet(Look::Close));
        poll_fn(|cx| transport.poll_read_ready(cx)).await.unwrap();
        assert!(!transport.is_quiet(Look::Glance), "the event loop has told of it");
        // What it told of may have been read since.
        poll_fn(|cx| transport.poll_fill(cx, &mut Vec::new(), 8)).await.unwrap();
        assert!(transport.is_quiet(Look::Glance));
        let ParkedTransport::Plain(parked) = transport.park() else { panic!("it is plain") };
        assert_eq!(peek_plain(&parked), Peeked::Nothing);
        drop(other);
        assert_eq!(peek_plain(&parked), Peeked::End);
        assert!(!ParkedTransport::Plain(parked).unpark(&listener).unwrap().is_quiet(Look::Close));
    }
}
