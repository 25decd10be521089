//! A connected socket of either family, and how it is read and written without spare system calls.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use keel_model::{Address, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf},
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
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        if buffer.capacity() - buffer.len() < room {
            buffer.reserve(room);
        }
        pin!(self.read_buf(buffer)).poll(cx)
    }

    /// Reads once, at most `length_max` bytes.
    pub(crate) fn poll_fill_at_most(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        let mut limited = buffer.limit(length_max);
        pin!(self.read_buf(&mut limited)).poll(cx)
    }

    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(self).poll_write(cx, bytes))?;
        if sent == 0 { Poll::Ready(Err(io::ErrorKind::WriteZero.into())) } else { Poll::Ready(Ok(sent)) }
    }

    pub(crate) fn poll_send_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let sent = ready!(Pin::new(self).poll_write_vectored(cx, &slices))?;
        if sent == 0 { Poll::Ready(Err(io::ErrorKind::WriteZero.into())) } else { Poll::Ready(Ok(sent)) }
    }

    /// Copies from a file into the socket within the kernel; 0 means the file's end.
    pub(crate) fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Socket::Tcp(stream) => ready!(stream.poll_write_ready(cx))?,
                Socket::Unix(stream) => ready!(stream.poll_write_ready(cx))?,
            }
            let send = || Ok(rustix::fs::sendfile(self.as_fd(), file, Some(&mut *offset), length_max)?);
            let sent = match self {
                Socket::Tcp(stream) => stream.try_io(Interest::WRITABLE, send),
                Socket::Unix(stream) => stream.try_io(Interest::WRITABLE, send),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Looks at what waits to be read, without taking it. One system call.
    pub(crate) fn peek(&self) -> Peeked {
        let mut byte = [0u8; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recv(self, &mut byte[..], flags) {
            Ok((0, _)) => Peeked::End,
            Ok(_) => Peeked::Bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Peeked::Nothing,
            Err(_) => Peeked::Broken,
        }
    }

    /// Waits for the next event although the last one has told of something: a look showed that nothing is there.
    pub(crate) fn forget_readiness(&self) {
        let nothing = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
        // Its only effect is on what the runtime remembers.
        let _ = match self {
            Socket::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Socket::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
        };
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

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
