//! What both sides of HTTP/2 (RFC 9113) have in common.
//!
//! Frames, the compression of fields and flow control are the crate `h2`'s. Here is what carries its bytes, what it is made
//! to count, and how its heads become the lines that everything else reads and writes. What is on a connection's streams is
//! the business of [`crate::client`] and [`crate::upstream`].

use std::{
    io as std_io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;

pub(crate) mod fields;
pub(crate) mod io;
pub(crate) mod meter;

/// What a client begins a connection with (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a stream's body that are handed to the connection before they have left: a slow reader holds no more.
pub(crate) const SEND_BYTES_MAX: usize = 64 << 10;

/// The largest payload of a frame that is sent to who hasn't asked for larger ones.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 10;

/// What stands before a frame's payload.
pub(crate) const FRAME_HEAD_BYTES: usize = 9;

/// Counts the bytes that a body of this length takes on a stream, frames included.
pub(crate) fn framed_length(length: usize) -> usize {
    length + length.div_ceil(FRAME_BYTES_MAX) * FRAME_HEAD_BYTES
}

/// Is ready with how much of `wanted` bytes may be sent now.
pub(crate) fn poll_room(
    send: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<std_io::Result<usize>> {
    let wanted = wanted.min(SEND_BYTES_MAX);
    send.reserve_capacity(wanted);
    loop {
        match send.capacity() {
            0 => match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(std_io::ErrorKind::BrokenPipe.into())),
            },
            room => return Poll::Ready(Ok(room.min(wanted))),
        }
    }
}

/// Makes an error of the connection of one of a stream.
pub(crate) fn broken(error: h2::Error) -> std_io::Error {
    error.into_io().unwrap_or_else(|| std_io::ErrorKind::BrokenPipe.into())
}
