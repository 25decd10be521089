//! Descriptors whose readiness the event loop tells of: epoll(7), edge-triggered, by way of tokio.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that the event loop of its thread's runtime watches until it is dropped.
///
/// tokio's own sockets are watched for room to write from the start. The kernel then tells of that room at once, and
/// the event loop wakes for nothing. Here that interest is added when first there was no room.
#[derive(Debug)]
pub struct Watched {
    // Before the descriptor: fields are dropped in order, and the registration must end first.
    registration: Option<AsyncFd<Number>>,
    also_writes: bool,
    descriptor: OwnedFd,
}

#[derive(Debug)]
struct Number(RawFd);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Watched {
    /// Watches for something to read. To be called within a tokio runtime with I/O.
    ///
    /// # Errors
    /// What epoll_ctl(2) says: `EPERM` for a regular file, `ENOSPC` and `ENOMEM`.
    pub fn reading(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, false)
    }

    /// Watches for something to read and for room to write.
    ///
    /// # Errors
    /// As [`Self::reading`].
    pub fn reading_and_writing(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, true)
    }

    fn new(descriptor: OwnedFd, also_writes: bool) -> io::Result<Self> {
        let mut watched = Self { registration: None, also_writes, descriptor };
        watched.register()?;
        Ok(watched)
    }

    fn register(&mut self) -> io::Result<()> {
        let interest =
            if self.also_writes { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let number = Number(self.descriptor.as_raw_fd());
        // The kernel knows a descriptor once only.
        self.registration = None;
        // SAFETY: `descriptor` stays open, and is never another, for as long as this value lives, and `registration` is
        // dropped before it.
        self.registration = Some(unsafe { AsyncFd::register_with_interest(number, interest) }?);
        Ok(())
    }

    /// The descriptor, which isn't watched any more.
    pub fn into_descriptor(self) -> OwnedFd {
        drop(self.registration);
        self.descriptor
    }

    /// Leaves the event loop until [`watch`](Self::watch).
    pub fn unwatch(&mut self) {
        self.registration = None;
    }

    /// Comes back to the event loop.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; the descriptor isn't watched then.
    pub fn watch(&mut self) -> io::Result<()> {
        self.register()
    }

    fn registration(&self) -> io::Result<&AsyncFd<Number>> {
        self.registration.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Is ready when there may be something to read, the end and errors included.
    ///
    /// # Errors
    /// When the event loop has ended, or [`Self::poll_write_ready`] couldn't add its interest.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.registration()?.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Is ready when there may be room to write. At the first call the interest in it is added; whoever waits for
    /// something to read, in the same task, is woken to ask again.
    ///
    /// # Errors
    /// When the event loop has ended, or what epoll_ctl(2) says; the descriptor isn't watched any more then.
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.also_writes {
            self.also_writes = true;
            self.register()?;
            cx.waker().wake_by_ref();
        }
        ready!(self.registration()?.poll_write_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Reads if there may be something to read. [`io::ErrorKind::WouldBlock`] from `read` says that there is no more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing has come since there was no more; otherwise what `read` gives.
    pub fn try_read<R>(&self, read: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        self.registration()?.try_io(Interest::READABLE, |_| read(self.descriptor.as_fd()))
    }

    /// Waits for the next event although the last one told of something to read: it has been seen that there is no more.
    /// No system call.
    pub fn forget_readable(&self) {
        // Its only effect is on what the runtime remembers.
        let _ = self.try_read(|_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Writes if there may be room. [`io::ErrorKind::WouldBlock`] from `write` says that there is no more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if no room has come since there was none; otherwise what `write` gives.
    pub fn try_write<R>(&self, write: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        if !self.also_writes {
            return write(self.descriptor.as_fd());
        }
        self.registration()?.try_io(Interest::WRITABLE, |_| write(self.descriptor.as_fd()))
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
        os::unix::net::UnixStream,
        time::Duration,
    };

    use super::*;

    fn in_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bounded = async { tokio::time::timeout(Duration::from_secs(60), test).await };
        runtime.block_on(bounded).expect("no event came");
    }

    fn pair() -> (UnixStream, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        (one, other)
    }

    #[test]
    fn tells_of_what_can_be_read() {
        in_runtime(async {
            let (one, mut other) = pair();
            let mut reader = one.try_clone().unwrap();
            let watched = Watched::reading(one.into()).unwrap();
            let mut read = || watched.try_read(|_| reader.read(&mut [0; 8]));
            assert_eq!(read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            other.write_all(b"hello").unwrap();
            poll_fn(|cx| watched.poll_read_ready(cx)).await.unwrap();
            assert_eq!(read().unwrap(), 5);
            assert_eq!(read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(other);
            poll_fn(|cx| watched.poll_read_ready(cx)).await.unwrap();
            assert_eq!(read().unwrap(), 0);
        });
    }

    #[test]
    fn waits_for_room_without_losing_what_can_be_read() {
        in_runtime(async {
            let (one, mut other) = pair();
            let (mut reader, mut writer) = (one.try_clone().unwrap(), one.try_clone().unwrap());
            let mut watched = Watched::reading(one.into()).unwrap();
            let block = [0; 64 << 10];
            let mut written = 0;
            while let Ok(length) = watched.try_write(|_| writer.write(&block)) {
                written += length;
            }
            other.write_all(b"x").unwrap();
            let emptied = std::thread::spawn(move || {
                other.read_exact(&mut vec![0; written]).unwrap();
                other
            });
            poll_fn(|cx| watched.poll_write_ready(cx)).await.unwrap();
            let _other = emptied.join().unwrap();
            poll_fn(|cx| watched.poll_read_ready(cx)).await.unwrap();
            assert_eq!(watched.try_read(|_| reader.read(&mut [0; 8])).unwrap(), 1);
            assert!(watched.try_write(|_| writer.write(&block)).unwrap() > 0);
        });
    }

    #[test]
    fn refuses_what_has_no_readiness() {
        in_runtime(async {
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            assert!(Watched::reading(file.into()).is_err());
        });
    }
}
