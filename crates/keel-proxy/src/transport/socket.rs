//! A connected socket of either family, and how it is read and written without spare system calls.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use keel_model::{Address, ByteSize, TcpKeepalive};
use keel_sys::Watched;
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};
use tokio::task::coop;

/// A connected stream socket.
pub(crate) struct Socket {
    watched: Watched,
    is_tcp: bool,
}

/// How much the system keeps for a connection in each direction; 0 is its own choice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketBuffers {
    pub(crate) receive: ByteSize,
    pub(crate) send: ByteSize,
}

/// From which address a peer is reached (`proxy_bind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalAddress {
    /// Port 0 leaves the port to the system.
    pub(crate) address: SocketAddr,
    pub(crate) ownership: Ownership,
}

/// Whose address it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// This host's.
    Own,
    /// Anybody's (`transparent`).
    Any,
}

impl LocalAddress {
    fn bind(self, socket: &OwnedFd) -> io::Result<()> {
        if self.ownership == Ownership::Any {
            let socket = socket2::SockRef::from(socket);
            match self.address {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
        }
        if self.address.port() == 0 {
            // The port is taken when the peer is known: connections to different peers may share it. Older kernels can't.
            let _ = keel_sys::tcp::set_bind_address_no_port(socket);
        }
        Ok(rustix::net::bind(socket, &self.address)?)
    }
}

/// How a connection is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectOptions {
    pub(crate) buffers: SocketBuffers,
    pub(crate) local: Option<LocalAddress>,
}

impl SocketBuffers {
    fn set(self, socket: impl AsFd) -> Result<(), Errno> {
        if self.receive.0 > 0 {
            sockopt::set_socket_recv_buffer_size(&socket, self.receive.as_usize())?;
        }
        if self.send.0 > 0 {
            sockopt::set_socket_send_buffer_size(&socket, self.send.as_usize())?;
        }
        Ok(())
    }
}

/// Flags of every socket that is made here.
pub(crate) const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What a look at a socket's receive queue showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// Nothing has come.
    Nothing,
    /// Bytes wait.
    Bytes,
    /// The other side will send no more.
    End,
    /// The connection is broken.
    Broken,
}

impl Socket {
    /// Takes a connection that was accepted with [`FLAGS`].
    pub(crate) fn accepted(descriptor: OwnedFd, listener: &Address) -> io::Result<Self> {
        Ok(Self { watched: Watched::reading(descriptor)?, is_tcp: matches!(listener, Address::Tcp(_)) })
    }

    /// Gives the descriptor, which the event loop doesn't watch any more.
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.watched.into_descriptor()
    }

    /// Gives its descriptor's number: the lowest that was free.
    pub(crate) fn number(&self) -> u64 {
        u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&self.as_fd())).unwrap_or(0)
    }

    /// Connects to a peer. Small writes leave at once.
    pub(crate) async fn connect(address: &Address, options: ConnectOptions) -> io::Result<Self> {
        let new = |family| {
            let descriptor = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
            // Before connecting: the window that the peer is offered follows from it.
            options.buffers.set(&descriptor)?;
            Ok::<_, Errno>(descriptor)
        };
        let (descriptor, begun) = match address {
            Address::Tcp(address) => {
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let descriptor = new(family)?;
                sockopt::set_tcp_nodelay(&descriptor, true)?;
                if let Some(local) = options.local {
                    local.bind(&descriptor)?;
                }
                if address.ip().to_canonical().is_loopback() {
                    local_congestion_control(&descriptor);
                }
                let begun = rustix::net::connect(&descriptor, address);
                (descriptor, begun)
            }
            Address::Unix(path) => {
                let descriptor = new(AddressFamily::UNIX)?;
                let begun = rustix::net::connect(&descriptor, &SocketAddrUnix::new(path)?);
                (descriptor, begun)
            }
        };
        if let Err(error) = begun
            && error != Errno::INPROGRESS
        {
            return Err(error.into());
        }
        let mut watched = Watched::reading_and_writing(descriptor)?;
        if begun.is_err() {
            poll_fn(|cx| watched.poll_write_ready(cx)).await?;
            sockopt::socket_error(&watched)??;
        }
        Ok(Self { watched, is_tcp: matches!(address, Address::Tcp(_)) })
    }

    /// Leaves the event loop.
    pub(super) fn unwatch(&mut self) {
        self.watched.unwatch();
    }

    /// Comes back to the event loop.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        self.watched.watch()
    }

    /// Reads what is there, whatever the event loop knows.
    pub(super) fn fill_now(&self, buffer: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        buffer.reserve(room);
        let free = rustix::buffer::spare_capacity(buffer);
        Ok(rustix::net::recv(self, free, RecvFlags::DONTWAIT)?.0)
    }

    pub(crate) fn set_nodelay(&self) {
        if self.is_tcp {
            // A connection that is gone already fails at the next write.
            let _ = sockopt::set_tcp_nodelay(self, true);
        }
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.poll_read_ready(cx)
    }

    /// Reads once into the free room of `buffer`, which is made at least `room` bytes; 0 means the end. What it reads counts
    /// against the task's budget, so that a connection that always has more lets others have their turn.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        buffer.reserve(room);
        let room = buffer.capacity() - buffer.len();
        loop {
            let mut last = None;
            let result = self.watched.try_read(|socket| {
                let (received, _) =
                    rustix::net::recv(socket, rustix::buffer::spare_capacity(buffer), RecvFlags::empty())?;
                if 0 < received && received < room {
                    // There was no more: the next look would find nothing.
                    last = Some(received);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(received)
            });
            if let Some(received) = last {
                budget.made_progress();
                return Poll::Ready(Ok(received));
            }
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.watched.poll_read_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    budget.made_progress();
                    return Poll::Ready(result);
                }
            }
        }
    }

    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let send = |socket: BorrowedFd<'_>| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL);
        nonzero(ready!(self.poll_write_with(cx, bytes.len(), send)))
    }

    /// The same for bytes behind which others follow at once.
    pub(crate) fn poll_send_with_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
        let send = |socket: BorrowedFd<'_>| rustix::net::send(socket, bytes, flags);
        nonzero(ready!(self.poll_write_with(cx, bytes.len(), send)))
    }

    /// Copies from a file into the socket within the kernel; 0 means the file's end.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        // Less than asked for may be the file's end as well as a full socket.
        let send =
            |socket: BorrowedFd<'_>| rustix::fs::sendfile(socket, file, Some(&mut *offset), length_max);
        self.poll_write_with(cx, 0, send)
    }

    /// Writes once, as soon as the socket takes something. Nearly always it does: the runtime is asked only if not.
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        mut write: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut last = None;
            let result = self.watched.try_write(|socket| {
                let written = write(socket)?;
                if written < length {
                    // It is full: the next attempt would find no room.
                    last = Some(written);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(written)
            });
            if let Some(written) = last {
                return Poll::Ready(Ok(written));
            }
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.watched.poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Says whether the event loop has told of something to read. No system call.
    pub(crate) fn is_readable(&self) -> bool {
        self.watched.try_read(|_| Ok(())).is_ok()
    }

    /// Looks at what waits to be read, without taking it. One system call.
    pub(crate) fn peek(&self) -> Peeked {
        peek(self)
    }

    /// Waits for the next event although the last one has told of something: a look showed that nothing is there.
    pub(crate) fn forget_readiness(&self) {
        self.watched.forget_readable();
    }

    /// Follows `so_keepalive`.
    pub(crate) fn keep_alive(&self, keepalive: TcpKeepalive) {
        let socket = socket2::SockRef::from(self);
        // Whatever can't be set stays as the system has it.
        let _ = match keepalive {
            TcpKeepalive::System => Ok(()),
            TcpKeepalive::Off => socket.set_keepalive(false),
            TcpKeepalive::On { idle_s, interval_s, probes } => {
                let seconds = |s: u32| std::time::Duration::from_secs(s.into());
                let mut settings = socket2::TcpKeepalive::new();
                if let Some(idle) = idle_s {
                    settings = settings.with_time(seconds(idle));
                }
                if let Some(interval) = interval_s {
                    settings = settings.with_interval(seconds(interval));
                }
                if let Some(probes) = probes {
                    settings = settings.with_retries(probes);
                }
                socket.set_tcp_keepalive(&settings)
            }
        };
    }

    pub(crate) fn set_keepalive(&self) {
        // Without it the connection works all the same.
        let _ = socket2::SockRef::from(self).set_keepalive(true);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        // Fails only where the connection is gone, which is as good.
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Write);
    }

    /// Lets closing reset the connection instead of ending it in good order.
    pub(crate) fn reset_on_close(&self) {
        // Without the option the connection ends in the ordinary way.
        let _ = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(self).ok()?.try_into().ok()
    }

    pub(crate) fn is_tcp(&self) -> bool {
        self.is_tcp
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

/// Looks at what waits to be read from a socket, without taking it. One system call.
pub(crate) fn peek(socket: impl AsFd) -> Peeked {
    let mut byte = [0u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut byte[..], flags) {
        Ok((0, _)) => Peeked::End,
        Ok(_) => Peeked::Bytes,
        Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
        Err(_) => Peeked::Broken,
    }
}

/// Chooses the simplest congestion control for a connection that stays on this machine: there is no path to learn and no
/// queue to spare, and the estimates and the pacing of others (BBR) cost CPU time for every segment.
pub(crate) fn local_congestion_control(socket: impl AsFd) {
    // Where it may not be chosen, the system's own works as well.
    let _ = sockopt::set_tcp_congestion(socket, "reno");
}

/// Where something was to be written, nothing written is an error.
fn nonzero(written: io::Result<usize>) -> Poll<io::Result<usize>> {
    Poll::Ready(written.and_then(|written| match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(written),
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn buffers_have_the_sizes_that_are_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let buffers = SocketBuffers { receive: ByteSize::kib(16), send: ByteSize::kib(32) };
        let socket = Socket::connect(&address, ConnectOptions { buffers, local: None }).await.unwrap();
        // Linux doubles what is asked for, to have room for its own.
        assert_eq!(sockopt::socket_recv_buffer_size(&socket).unwrap(), 32 << 10);
        assert_eq!(sockopt::socket_send_buffer_size(&socket).unwrap(), 64 << 10);
        let socket = Socket::connect(&address, ConnectOptions::default()).await.unwrap();
        assert!(sockopt::socket_recv_buffer_size(&socket).unwrap() > 32 << 10, "the system's own");
    }

    #[tokio::test]
    async fn whoever_always_has_more_ends_the_task_s_turn() {
        const SENT: usize = 64 << 10;
        let (mut other, one) = std::os::unix::net::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        other.write_all(&[7; SENT]).unwrap();
        let socket = Socket::accepted(one.into(), &Address::Unix("".into())).unwrap();
        poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
        let (mut turns, mut received) = (0, 0);
        poll_fn(|cx| {
            turns += 1;
            while received < SENT {
                received += ready!(socket.poll_fill(cx, &mut Vec::new(), 8)).unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert!(turns > 1, "all was read in one");
    }
}
