//! A connected socket of either family, and how it is read and written without spare system calls.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    task::{Context, Poll, ready},
};

use keel_model::{Address, TcpKeepalive};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream, UnixStream},
};

/// A connected stream socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

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
    /// Connects to a peer. Small writes leave at once.
    pub(crate) async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => TcpSocket::new_v6()?,
                };
                socket.set_nodelay(true)?;
                if address.ip().to_canonical().is_loopback() {
                    local_congestion_control(&socket);
                }
                Ok(Socket::Tcp(socket.connect(*address).await?))
            }
            Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }

    pub(crate) fn set_nodelay(&self) {
        if let Socket::Tcp(stream) = self {
            // A connection that is gone already fails at the next write.
            let _ = stream.set_nodelay(true);
        }
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads once into the free room of `buffer`, which is made at least `room` bytes; 0 means the end.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        buffer.reserve(room);
        let room = buffer.capacity() - buffer.len();
        loop {
            ready!(self.poll_read_ready(cx))?;
            match rustix::net::recv(self, rustix::buffer::spare_capacity(buffer), RecvFlags::empty()) {
                Err(Errno::AGAIN) => self.forget_readiness(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok((received, _)) => {
                    // There was no more: the next look would find nothing.
                    if 0 < received && received < room {
                        self.forget_readiness();
                    }
                    return Poll::Ready(Ok(received));
                }
            }
        }
    }

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let send = || rustix::net::send(self, bytes, SendFlags::NOSIGNAL);
        nonzero(ready!(self.poll_write_with(cx, bytes.len(), send)))
    }

    pub(crate) fn poll_send_two(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let send = || rustix::io::writev(self, &slices);
        nonzero(ready!(self.poll_write_with(cx, first.len() + second.len(), send)))
    }

    /// Copies from a file into the socket within the kernel; 0 means the file's end.
    pub(crate) fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        // Less than asked for may be the file's end as well as a full socket.
        let send = || rustix::fs::sendfile(self, file, Some(&mut *offset), length_max);
        self.poll_write_with(cx, 0, send)
    }

    /// Writes once, as soon as the socket takes something. Nearly always it does: the runtime is asked only if not.
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        mut write: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_io(Interest::WRITABLE, || Ok(write()?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(written) if written < length => {
                    // It is full: the next attempt would find no room.
                    self.forget(Interest::WRITABLE);
                    return Poll::Ready(Ok(written));
                }
                result => return Poll::Ready(result),
            }
            ready!(match self {
                Socket::Tcp(stream) => stream.poll_write_ready(cx),
                Socket::Unix(stream) => stream.poll_write_ready(cx),
            })?;
        }
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Socket::Tcp(stream) => stream.try_io(interest, io),
            Socket::Unix(stream) => stream.try_io(interest, io),
        }
    }

    /// Says whether the event loop has told of something to read. No system call.
    pub(crate) fn is_readable(&self) -> bool {
        self.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    /// Looks at what waits to be read, without taking it. One system call.
    pub(crate) fn peek(&self) -> Peeked {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(self, &mut byte[..], flags) {
            Ok((0, _)) => Peeked::End,
            Ok(_) => Peeked::Bytes,
            Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
            Err(_) => Peeked::Broken,
        }
    }

    /// Waits for the next event although the last one has told of something: a look showed that nothing is there.
    pub(crate) fn forget_readiness(&self) {
        self.forget(Interest::READABLE);
    }

    fn forget(&self, interest: Interest) {
        // Its only effect is on what the runtime remembers.
        let _ = self.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
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
        match self {
            Socket::Tcp(stream) => stream.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Socket::Tcp(_))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Chooses the simplest congestion control for a connection that stays on this machine: there is no path to learn and no
/// queue to spare, and the estimates and the pacing of others (BBR) cost CPU time for every segment.
pub(crate) fn local_congestion_control(socket: impl AsFd) {
    // Where it may not be chosen, the system's own works as well.
    let _ = rustix::net::sockopt::set_tcp_congestion(socket, "reno");
}

/// Where something was to be written, nothing written is an error.
fn nonzero(written: io::Result<usize>) -> Poll<io::Result<usize>> {
    Poll::Ready(written.and_then(|written| match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(written),
    }))
}
