//! What both sides of HTTP/2 (RFC 9113) have in common.
//!
//! Frames, the compression of fields and flow control are the crate `h2`'s. Here is what carries its bytes, what it is made
//! to count, and how its heads become the lines that everything else reads and writes. What is on a connection's streams is
//! the business of [`crate::client`] and [`crate::upstream`].

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
