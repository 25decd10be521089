//! Messages with descriptors over a unix stream socket.
//!
//! A message is a length (u32, little endian) and that many bytes. Its descriptors travel as SCM_RIGHTS with the
//! first byte of the length, so they can't be taken for another message's: reading never goes beyond a message's end.
//! Reading and writing block, and may happen at the same time from two threads ([`Channel::try_clone`]); who can't wait
//! writes with [`Channel::send_some`].

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// The longest message, in bytes: 64 MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The most descriptors in one message: Linux's SCM_MAX_FD, 253.
pub const DESCRIPTORS_MAX: usize = 253;

/// One end of a connection that carries messages with descriptors.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// Held while a message is written, so that two never interleave.
    writing: Mutex<()>,
}

/// A message of which the kernel may have taken a part.
#[derive(Debug)]
pub struct Outgoing {
    header: [u8; 4],
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    sent: usize,
}

impl Outgoing {
    /// Makes one of which nothing is sent. The receiver gets duplicates of `descriptors`.
    ///
    /// # Errors
    /// `InvalidInput` beyond [`MESSAGE_BYTES_MAX`] or [`DESCRIPTORS_MAX`].
    pub fn new(message: Vec<u8>, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let header = header_of(&message, descriptors.len())?;
        Ok(Self { header, message, descriptors, sent: 0 })
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, writing: Mutex::new(()) }
    }
}

impl From<UnixStream> for Channel {
    fn from(stream: UnixStream) -> Self {
        Self::from(OwnedFd::from(stream))
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Channel {
    /// Makes two connected ends, both closed on exec.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((one.into(), other.into()))
    }

    /// Makes a second handle to the same end, for reading in one thread and writing in another. Only one of the
    /// handles may write, and only one may read.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from(self.socket.try_clone()?))
    }

    /// Sends a message and waits until the kernel has taken all of it. The receiver gets duplicates of `descriptors`.
    ///
    /// # Errors
    /// `InvalidInput` beyond [`MESSAGE_BYTES_MAX`] or [`DESCRIPTORS_MAX`]; otherwise what sendmsg(2) says, `BrokenPipe`
    /// when the other end is gone.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let header = header_of(message, descriptors.len())?;
        let mut sent = 0;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.send_rest(&header, message, descriptors, (&mut sent, SendFlags::NOSIGNAL))
    }

    /// Sends what is left of a message as far as the kernel takes it now. No other message may be sent before all of
    /// it is.
    ///
    /// # Errors
    /// `WouldBlock` when some is left: call again when the socket is writable. Otherwise what sendmsg(2) says,
    /// `BrokenPipe` when the other end is gone.
    pub fn send_some(&self, outgoing: &mut Outgoing) -> io::Result<()> {
        let Outgoing { header, message, descriptors, sent } = outgoing;
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.send_rest(header, message, &descriptors, (sent, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
    }

    fn send_rest(
        &self,
        header: &[u8],
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        (sent, flags): (&mut usize, SendFlags),
    ) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        while *sent < header.len() + message.len() {
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if *sent == 0 && !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let header_left = header.get(*sent..).unwrap_or_default();
            let message_left = message.get(sent.saturating_sub(header.len())..).unwrap_or_default();
            let slices = [IoSlice::new(header_left), IoSlice::new(message_left)];
            match sendmsg(&self.socket, &slices, &mut ancillary, flags) {
                Ok(n) => *sent += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for a message. `None` when the other end closed between two messages. The descriptors are closed on exec.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end closed within a message; `InvalidData` when the length is beyond
    /// [`MESSAGE_BYTES_MAX`] or descriptors were lost for want of room; otherwise what recvmsg(2) says.
    pub fn recv(&mut self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut descriptors = Vec::new();
        let mut header = [0; 4];
        match self.fill(&mut header, &mut descriptors)? {
            0 => return Ok(None),
            n if n < header.len() => return Err(cut_short()),
            _ => {}
        }
        let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {length} bytes is announced, more than {MESSAGE_BYTES_MAX}"),
            ));
        }
        let mut message = vec![0; length];
        if self.fill(&mut message, &mut descriptors)? < length {
            return Err(cut_short());
        }
        Ok(Some((message, descriptors)))
    }

    /// Reads until `buffer` is full or the other end closed, and says how much came.
    fn fill(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut filled = 0;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(rest)];
            let received = match recvmsg(&self.socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    descriptors.extend(fds);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                let what = "descriptors of a message were lost; is the limit of open files too low?";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            if received.bytes == 0 {
                break;
            }
            filled += received.bytes;
        }
        Ok(filled)
    }
}

/// Makes what goes before a message, unless that is beyond the bounds.
fn header_of(message: &[u8], descriptors: usize) -> io::Result<[u8; 4]> {
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= MESSAGE_BYTES_MAX);
    let Some(length) = length else {
        return Err(invalid(format!("a message of {} bytes is too long to send", message.len())));
    };
    if descriptors > DESCRIPTORS_MAX {
        return Err(invalid(format!("{descriptors} descriptors are too many for one message")));
    }
    Ok(length.to_le_bytes())
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed within a message")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn carries_messages_and_their_descriptors() {
        let (one, mut other) = Channel::pair().unwrap();
        let (mut pipe_reader, pipe_writer) = std::io::pipe().unwrap();
        one.send(b"with", &[pipe_writer.as_fd()]).unwrap();
        one.send(b"", &[]).unwrap();
        drop((one, pipe_writer));

        let (message, mut descriptors) = other.recv().unwrap().unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (&b"with"[..], 1));
        let received = descriptors.pop().unwrap();
        assert!(rustix::io::fcntl_getfd(&received).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        std::fs::File::from(received).write_all(b"through").unwrap();
        let mut text = String::new();
        pipe_reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");

        let (message, descriptors) = other.recv().unwrap().unwrap();
        assert!(message.is_empty() && descriptors.is_empty());
        assert!(other.recv().unwrap().is_none());
    }

    #[test]
    fn long_messages_keep_their_bounds_and_descriptors() {
        let (one, mut other) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let message: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for count in [DESCRIPTORS_MAX, 1] {
                    one.send(&message, &vec![null.as_fd(); count]).unwrap();
                }
            });
            for count in [DESCRIPTORS_MAX, 1] {
                let (received, descriptors) = other.recv().unwrap().unwrap();
                assert!(received == message);
                assert_eq!(descriptors.len(), count);
            }
        });
    }

    #[test]
    fn who_cannot_wait_sends_piece_by_piece() {
        let (one, mut other) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let message: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut outgoing = Outgoing::new(message.clone(), vec![null.into()]).unwrap();
        assert_eq!(one.send_some(&mut outgoing).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let reader = std::thread::spawn(move || other.recv().unwrap().unwrap());
        while let Err(error) = one.send_some(&mut outgoing) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            let mut polled = [rustix::event::PollFd::new(&one, rustix::event::PollFlags::OUT)];
            rustix::event::poll(&mut polled, None).unwrap();
        }
        let (received, descriptors) = reader.join().unwrap();
        assert!(received == message);
        assert_eq!(descriptors.len(), 1);
    }

    #[test]
    fn refuses_what_is_beyond_its_bounds() {
        let (one, mut other) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); DESCRIPTORS_MAX + 1];
        assert_eq!(one.send(b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let long = vec![0; MESSAGE_BYTES_MAX + 1];
        assert_eq!(one.send(&long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Outgoing::new(long, Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidInput);

        rustix::net::send(&one, &u32::MAX.to_le_bytes(), SendFlags::empty()).unwrap();
        assert_eq!(other.recv().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn tells_an_end_between_messages_from_one_within() {
        for (bytes, within) in [(&b""[..], false), (b"\x05\0", true), (b"\x05\0\0\0hell", true)] {
            let (one, mut other) = Channel::pair().unwrap();
            rustix::net::send(&one, bytes, SendFlags::empty()).unwrap();
            drop(one);
            match other.recv() {
                Ok(None) => assert!(!within, "{bytes:?}"),
                Ok(Some(_)) => panic!("{bytes:?} isn't a message"),
                Err(error) => {
                    assert!(within, "{bytes:?}: {error}");
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }
            }
        }
    }
}
