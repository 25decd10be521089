//! Where a message's body ends, and which bytes of the connection are its payload.
//!
//! A [`Decoder`] looks at bytes in the caller's buffer and answers with offsets. Chunked coding (RFC 9112 §7.1) is
//! read without tolerance: line ends are CRLF, a size is hexadecimal digits, at most 15 of them that count, and a trailer
//! is a field.

use std::ops::Range;

use crate::{
    Field, Name,
    line::{self, Line, Writer},
};

/// The longest line of a chunk's size with its extensions, in bytes.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;

/// The most digits of a chunk's size, leading zeros counted.
const SIZE_DIGITS_MAX: usize = 16;

/// All trailer fields of one message together, in bytes.
pub const TRAILER_BYTES_MAX: usize = 32 << 10;

/// The coding is broken; nothing after this point can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Something other than a chunk where one must begin or end.
    #[error("invalid chunked body")]
    Chunk,
    /// A chunk's extensions or the trailers are longer than allowed.
    #[error("chunked body with too long a line")]
    TooLong,
}

/// Reads one body.
#[derive(Clone, Debug, Default)]
pub enum Decoder {
    /// There is nothing (more) to read.
    #[default]
    Done,
    /// So many bytes are left.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Everything until the connection closes.
    UntilClose,
}

/// What a [`Decoder`] found at the beginning of the bytes it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes it is done with, the payload's included. 0 asks for more bytes.
    pub consumed: usize,
    /// Which of them are payload.
    pub payload: Range<usize>,
}

impl Decoder {
    /// Reads a body of so many bytes.
    pub fn length(length: u64) -> Self {
        if length == 0 { Decoder::Done } else { Decoder::Length(length) }
    }

    /// Reads a chunked body.
    pub fn chunked(trailers: Trailers) -> Self {
        Decoder::Chunked(Chunked { keep: trailers == Trailers::Keep, ..Chunked::default() })
    }

    /// Says whether the body is complete. One that lasts until the connection closes never is.
    pub fn is_done(&self) -> bool {
        match self {
            Decoder::Done => true,
            Decoder::Chunked(chunked) => chunked.state == State::Done,
            Decoder::Length(_) | Decoder::UntilClose => false,
        }
    }

    /// The trailer fields as they came, each with its line end, if they were to be kept.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Decoder::Chunked(chunked) => &chunked.trailers,
            _ => &[],
        }
    }

    /// Looks at the bytes that follow those it has consumed.
    ///
    /// # Errors
    /// When the chunked coding is broken.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        match self {
            Decoder::Done => Ok(Step { consumed: 0, payload: 0..0 }),
            Decoder::UntilClose => Ok(Step { consumed: bytes.len(), payload: 0..bytes.len() }),
            Decoder::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= length as u64;
                if *left == 0 {
                    *self = Decoder::Done;
                }
                Ok(Step { consumed: length, payload: 0..length })
            }
            Decoder::Chunked(chunked) => chunked.decode(bytes),
        }
    }
}

/// Whether trailer fields are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailers {
    /// They are read and forgotten.
    Drop,
    /// They are kept for [`Decoder::trailers`].
    Keep,
}

/// Where a chunked body stands.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    state: State,
    size: u64,
    line_bytes: usize,
    trailer_bytes: usize,
    keep: bool,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    SizeDigits,
    Space,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerText,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunked {
    fn decode(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        for (at, byte) in bytes.iter().copied().enumerate() {
            match self.state {
                State::Done => return Ok(Step { consumed: at, payload: 0..0 }),
                State::Data => {
                    let rest = bytes.len() - at;
                    let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest);
                    self.size -= length as u64;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step { consumed: at + length, payload: at..at + length });
                }
                _ => self.advance(byte)?,
            }
        }
        Ok(Step { consumed: bytes.len(), payload: 0..0 })
    }

    fn advance(&mut self, byte: u8) -> Result<(), BodyError> {
        self.state = match (self.state, byte) {
            (State::Size | State::SizeDigits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).ok_or(BodyError::Chunk)?;
                if self.size >> 56 != 0 {
                    return Err(BodyError::Chunk);
                }
                self.size = self.size << 4 | u64::from(digit);
                self.lengthen()?;
                if self.line_bytes > SIZE_DIGITS_MAX {
                    return Err(BodyError::Chunk);
                }
                State::SizeDigits
            }
            (State::SizeDigits | State::Space, b' ' | b'\t') => {
                self.lengthen()?;
                State::Space
            }
            (State::SizeDigits | State::Space, b';') => State::Extension,
            (State::SizeDigits | State::Space | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\n' | 0) => return Err(BodyError::Chunk),
            (State::Extension, _) => {
                self.lengthen()?;
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.line_bytes = 0;
                if self.size == 0 { State::Trailer } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer | State::TrailerName, _) if line::is_token(byte) => {
                self.keep_byte(byte)?;
                State::TrailerName
            }
            (State::TrailerName, b':') => {
                self.keep_byte(byte)?;
                State::TrailerText
            }
            (State::TrailerText, b'\r') => State::TrailerLf,
            (State::TrailerText, _) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.keep_byte(byte)?;
                State::TrailerText
            }
            (State::TrailerLf, b'\n') => {
                self.keep_byte(b'\r')?;
                self.keep_byte(b'\n')?;
                State::Trailer
            }
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(BodyError::Chunk),
        };
        Ok(())
    }

    fn lengthen(&mut self) -> Result<(), BodyError> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX { Err(BodyError::TooLong) } else { Ok(()) }
    }

    /// Counts a byte of the trailers, and keeps it where they are wanted.
    fn keep_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(BodyError::TooLong);
        }
        if self.keep {
            self.trailers.push(byte);
        }
        Ok(())
    }
}

/// Calls `each` with every trailer field that may be passed on: fields that frame, route or
/// authenticate a message are not (RFC 9110 §6.5.1).
pub fn each_trailer(trailers: &[u8], mut each: impl FnMut(&Field)) {
    let mut start = 0;
    while let Some((line, next)) = line::field(trailers, start, Writer::Peer) {
        if let Line::Field(field) = line {
            let forbidden = field.known.is_hop_by_hop()
                || matches!(
                    field.known,
                    Name::ContentLength | Name::Host | Name::Authorization | Name::SetCookie | Name::Cookie
                );
            if !forbidden {
                each(&field);
            }
        }
        start = next;
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
