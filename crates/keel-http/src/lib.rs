//! HTTP without I/O, as HTTP/1 writes it: heads, body framing, fields, limits; the PROXY protocol's header in front of it; and
//! the protocols in which applications are asked instead: FastCGI, uwsgi and SCGI.
//!
//! Everything works on bytes that the caller has read and says what they mean as ranges into them; nothing here copies
//! a field, owns a socket or reads a clock. Framing follows RFC 9112 strictly: what two proxies could read differently
//! is an error, never a guess. Everything else follows nginx, whose users' clients and peers are the ones that come.
//!
//! Lines are read by hand rather than by `httparse`: nginx drops fields with odd names instead of refusing them, its
//! limits are per line, and each line is looked at once however many pieces it arrives in.

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

pub mod body;
pub mod connection;
pub mod date;
pub mod encode;
pub mod fastcgi;
mod field;
pub mod host;
mod line;
mod lines;
pub mod proxy_header;
mod request;
mod response;
pub mod scgi;
pub mod uri;
pub mod uwsgi;

pub use field::{Field, Fields, Name, NameSet, Range};
pub use lines::{FieldName, Lines, Message, RequestVersion, Status, Unwritable, unfolded};
pub use request::{Limits, RequestBody, RequestError, RequestHead, Rules, StreamEnd, Target, Underscores};
pub use response::{FirstLine, ResponseError, ResponseFraming, ResponseHead};

/// Which version of the protocol a message speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and higher minor versions, which mean the same.
    #[default]
    Http11,
    /// HTTP/2, whose heads are written as lines before they are read here.
    Http2,
}

/// Whether a head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head ends before this offset.
    Complete(usize),
}
