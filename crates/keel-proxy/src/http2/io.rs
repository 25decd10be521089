//! A [`Transport`] as the crate `h2` reads and writes it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::{Gauge, Meter};
use crate::{
    io::{
        buffer::{BUFFER_BYTES, BufferPool},
        clock::Clock,
    },
    transport::Transport,
};

/// Bytes that are gathered from several pieces for one write, at most.
const GATHERED_BYTES_MAX: usize = BUFFER_BYTES;

/// A piece of this many bytes is written by itself.
const ALONE_BYTES_MIN: usize = BUFFER_BYTES / 2;

/// A connection whose bytes are frames.
pub(crate) struct Io {
    /// There until the end.
    transport: Option<Transport>,
    clock: Rc<Clock>,
    buffers: Rc<BufferPool>,
    /// What has come and not been taken.
    input: Vec<u8>,
    taken: usize,
    meter: Meter,
    gauge: Rc<Gauge>,
}

impl Io {
    /// Takes a connection on which `input` has come already.
    pub(crate) fn new(
        clock: Rc<Clock>,
        buffers: Rc<BufferPool>,
        transport: Transport,
        input: Vec<u8>,
        mut meter: Meter,
    ) -> Self {
        let gauge = Rc::new(Gauge::default());
        gauge.note_received(&mut meter, &input, clock.now());
        Self { transport: Some(transport), clock, buffers, input, taken: 0, meter, gauge }
    }

    /// What is known of it from outside.
    pub(crate) fn gauge(&self) -> &Rc<Gauge> {
        &self.gauge
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = self.buffers.take();
        }
        if self.gauge.flood().is_some() {
            // Whoever serves the connection looks for this, and ends it.
            return Poll::Pending;
        }
        let Some(transport) = &mut self.transport else { return Poll::Ready(Ok(0)) };
        let room = self.input.capacity();
        let polled = transport.poll_fill(cx, &mut self.input, room);
        if !matches!(polled, Poll::Ready(Ok(1..))) {
            // A connection that idles holds no buffer.
            self.give_back();
        }
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.gauge.note_received(&mut self.meter, &self.input, self.clock.now());
        }
        polled
    }

    fn give_back(&mut self) {
        self.taken = 0;
        self.buffers.give(std::mem::take(&mut self.input));
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(transport) = &mut self.transport else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let polled = transport.poll_send(cx, bytes);
        self.gauge.note_sending(polled.is_pending().then(|| self.clock.now()));
        polled
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.give_back();
        if let Some(transport) = self.transport.take() {
            self.gauge.leave(transport);
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken >= this.input.len() {
            this.input.clear();
            this.taken = 0;
            if ready!(this.poll_input(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let waiting = this.input.get(this.taken..).unwrap_or_default();
        let taken = waiting.len().min(out.remaining());
        out.put_slice(waiting.get(..taken).unwrap_or_default());
        this.taken += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        let Some(first) = filled.next() else { return Poll::Ready(Ok(0)) };
        let mut filled = filled.peekable();
        if first.len() >= ALONE_BYTES_MIN || filled.peek().is_none() {
            return this.poll_send(cx, first);
        }
        // A frame's head and its payload leave in one write: what is encrypted is one record, and what isn't one packet.
        let mut gathered = this.buffers.take();
        gathered.extend_from_slice(first);
        for piece in filled {
            let room = GATHERED_BYTES_MAX - gathered.len();
            let taken = piece.get(..piece.len().min(room)).unwrap_or_default();
            gathered.extend_from_slice(taken);
            if gathered.len() >= GATHERED_BYTES_MAX {
                break;
            }
        }
        let polled = this.poll_send(cx, &gathered);
        this.buffers.give(gathered);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport.iter_mut().for_each(Transport::shutdown_write);
        Poll::Ready(Ok(()))
    }
}
