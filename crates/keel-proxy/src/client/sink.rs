//! Where the bytes of answers go. Only a stream writes there.

use std::{
    cell::RefCell,
    io,
    os::fd::BorrowedFd,
    rc::Rc,
    task::{Context, Poll, ready},
};

use keel_http::{Lines, Name, Progress, ResponseHead};

use crate::transport::Transport;

/// Where an answer goes.
pub(crate) enum Sink {
    /// The client's connection.
    Connection(Transport),
    /// Memory: a part of this process asked, and reads it.
    Capture(Capture),
    /// Another answer, of which this one's body becomes a part.
    Part(Rc<RefCell<Part>>),
    /// Nowhere: what matters is that the request was made.
    Discard,
}

/// The body of an answer on its way to another one.
#[derive(Debug, Default)]
pub(crate) struct Part {
    bytes: Vec<u8>,
    /// How many bytes come before the body.
    head_bytes: usize,
}

/// Bytes of a part that wait to be taken, at most.
const PART_BYTES_MAX: usize = 64 << 10;

impl Part {
    /// Says how many bytes come before the body.
    pub(super) fn begin(&mut self, head_bytes: usize) {
        self.head_bytes = head_bytes;
    }

    /// Takes what has come.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Whether nothing has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes in what there is room for. Who makes the answer is polled again once something has been taken.
    fn poll_send(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.head_bytes > 0 {
            let head_bytes = self.head_bytes.min(bytes.len());
            self.head_bytes -= head_bytes;
            return Poll::Ready(Ok(head_bytes));
        }
        let room = PART_BYTES_MAX.saturating_sub(self.bytes.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        if taken.is_empty() && !bytes.is_empty() {
            return Poll::Pending;
        }
        self.bytes.extend_from_slice(taken);
        Poll::Ready(Ok(taken.len()))
    }
}

/// An answer in memory.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
}

/// Bytes that are captured of one answer at most. A longer one is cut off.
pub(crate) const CAPTURE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a file that are copied at a time where the kernel doesn't.
const PIECE_BYTES: usize = 64 << 10;

impl Capture {
    /// What has come so far, as a client would have got it.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fields of that name in what has come.
    pub(super) fn fields(&self, name: Name) -> Lines {
        let mut lines = Lines::default();
        let mut head = ResponseHead::default();
        if let Ok(Progress::Complete(_)) = head.parse(&self.bytes) {
            head.fields.all(name).for_each(|field| lines.copied(field, &self.bytes));
        }
        lines
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CAPTURE_BYTES_MAX.saturating_sub(self.bytes.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        if taken.is_empty() && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(taken);
        Ok(taken.len())
    }
}

impl Sink {
    /// The connection behind it, if there is one.
    pub(super) fn transport(&self) -> Option<&Transport> {
        match self {
            Sink::Connection(transport) => Some(transport),
            Sink::Capture(_) | Sink::Part(_) | Sink::Discard => None,
        }
    }

    pub(super) fn transport_mut(&mut self) -> Option<&mut Transport> {
        match self {
            Sink::Connection(transport) => Some(transport),
            Sink::Capture(_) | Sink::Part(_) | Sink::Discard => None,
        }
    }

    /// Sends what can be sent now of some bytes; gives how many those were.
    #[inline]
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Sink::Connection(transport) => transport.poll_send(cx, bytes),
            Sink::Capture(capture) => Poll::Ready(capture.take(bytes)),
            Sink::Part(part) => part.borrow_mut().poll_send(bytes),
            Sink::Discard => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Sends from a file; 0 means the file's end.
    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Sink::Connection(transport) => transport.poll_send_file(cx, file, offset, length_max),
            Sink::Capture(_) | Sink::Part(_) | Sink::Discard => {
                let mut piece = vec![0; length_max.min(PIECE_BYTES)];
                let read = rustix::io::pread(file, &mut piece, *offset)?;
                let sent = ready!(self.poll_send(cx, piece.get(..read).unwrap_or_default()));
                *offset += *sent.as_ref().unwrap_or(&0) as u64;
                Poll::Ready(sent)
            }
        }
    }
}
