//! Where answers go. Nothing else writes to a client.

use std::{
    future::poll_fn,
    io,
    os::fd::BorrowedFd,
    task::{Context, Poll, ready},
};

use keel_http::{Lines, Name, Progress, ResponseHead};

use crate::{error::ClientGone, io::socket::Socket, job::Job};

/// Where an answer goes.
pub(crate) enum Sink {
    /// The client's connection.
    Stream(Socket),
    /// Memory: a part of this process asked, and reads it.
    Capture(Capture),
    /// Nowhere: what matters is that the request was made.
    Discard,
}

/// An answer in memory.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
}

/// Bytes that are captured of one answer at most. A longer one is cut off.
pub(super) const CAPTURE_BYTES_MAX: usize = 1 << 20;

impl Capture {
    /// What has come so far, as a client would have got it.
    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
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
    /// The fields of that name in what was captured.
    pub(crate) fn captured_fields(&self, name: Name) -> Lines {
        let mut lines = Lines::default();
        let Sink::Capture(Capture { bytes }) = self else { return lines };
        let mut head = ResponseHead::default();
        if let Ok(Progress::Complete(_)) = head.parse(bytes) {
            head.fields.all(name).for_each(|field| lines.copied(field, bytes));
        }
        lines
    }

    /// The connection behind it, if there is one.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match self {
            Sink::Stream(socket) => Some(socket),
            Sink::Capture(_) | Sink::Discard => None,
        }
    }

    /// Sends what can be sent now of some bytes; gives how many those were.
    #[inline]
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Sink::Stream(socket) => socket.poll_send(cx, bytes),
            Sink::Capture(capture) => Poll::Ready(capture.take(bytes)),
            Sink::Discard => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Sends two pieces in one write.
    pub(super) fn poll_send_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Sink::Stream(socket) => socket.poll_send_two(cx, first, second),
            _ => self.poll_send(cx, first),
        }
    }

    /// Sends from a file, without copying it through this process where that is possible; 0 means the file's end.
    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Sink::Stream(socket) => socket.poll_send_file(cx, file, offset, length_max),
            Sink::Capture(_) | Sink::Discard => {
                let mut piece = vec![0; length_max.min(PIECE_BYTES)];
                let read = rustix::io::pread(file, &mut piece, *offset)?;
                let sent = ready!(self.poll_send(cx, piece.get(..read).unwrap_or_default()));
                *offset += *sent.as_ref().unwrap_or(&0) as u64;
                Poll::Ready(sent)
            }
        }
    }
}

/// Bytes of a file that are copied at a time where the kernel doesn't.
const PIECE_BYTES: usize = 64 << 10;

/// Writes all of two pieces.
pub(super) async fn send_all(job: &mut Job<'_>, first: &[u8], second: &[u8]) -> Result<(), ClientGone> {
    let total = first.len() + second.len();
    let mut sent = 0;
    let timeout = job.place().scope.core.send_timeout;
    let (worker, client) = (job.worker, &mut *job.client);
    let mut waiting = false;
    let result = poll_fn(|cx| {
        while sent < total {
            let polled = if sent >= first.len() {
                client.sink.poll_send(cx, second.get(sent - first.len()..).unwrap_or_default())
            } else if second.is_empty() {
                client.sink.poll_send(cx, first.get(sent..).unwrap_or_default())
            } else {
                client.sink.poll_send_two(cx, first.get(sent..).unwrap_or_default(), second)
            };
            match polled {
                Poll::Ready(Ok(more)) => {
                    sent += more;
                    waiting = false;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ClientGone)),
                Poll::Pending => {
                    if !std::mem::replace(&mut waiting, true) {
                        client.timer.set(&worker.clock, timeout);
                    }
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    client.timed_out = true;
                    return Poll::Ready(Err(ClientGone));
                }
            }
        }
        Poll::Ready(Ok(()))
    });
    let result = result.await;
    job.ex.sent.bytes += sent as u64;
    result
}

/// Tells a client that waits for it to send its body (RFC 9110 §10.1.1).
pub(crate) async fn send_continue(job: &mut Job<'_>) -> Result<(), ClientGone> {
    send_all(job, b"HTTP/1.1 100 Continue\r\n\r\n", b"").await
}
