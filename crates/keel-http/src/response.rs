//! The head of a peer's response.
//!
//! As tolerant as nginx where bytes only pass through, and as strict as for requests where they say how the body ends:
//! a peer that is read wrongly poisons the next client's response.

use crate::{
    Fields, Name, NameSet, Progress, Range, Version,
    connection::{self, ConnectionOptions},
    line::{self, Line, Writer},
};

/// Why a response can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The first line is no status line.
    #[error("upstream sent no valid HTTP/1.0 header")]
    StatusLine,
    /// What a gateway's `Status` says is none.
    #[error("upstream sent invalid status")]
    Status,
    /// A field line is none.
    #[error("upstream sent invalid header")]
    Field,
    /// The head is longer than the buffer for it (`proxy_buffer_size`).
    #[error("upstream sent too big header")]
    TooLarge,
    /// A field came twice that may come once.
    #[error("upstream sent duplicate header line")]
    Duplicate,
    /// `Content-Length` is no number.
    #[error("upstream sent invalid \"Content-Length\" header")]
    ContentLength,
    /// A coding other than `chunked`.
    #[error("upstream sent unknown \"Transfer-Encoding\"")]
    TransferEncoding,
    /// Both ways of saying where the body ends.
    #[error("upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")]
    TwoFramings,
}

/// How a response's body ends, as its fields say; request method and status may rule it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseFraming {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// When the peer closes.
    #[default]
    UntilClose,
}

/// What the head of a gateway's response begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLine {
    /// A field: the status is one, too (RFC 3875 §6.2).
    Field,
    /// A status line, as HTTP/1 has it, or a field.
    StatusOrField,
}

/// The head of a response. Reused from one to the next.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// Status and reason as they came: `200 OK`. Empty where no reason came.
    pub status_line: Range,
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields,
    /// How the body ends.
    pub framing: ResponseFraming,
    /// What `Connection` says.
    pub connection: ConnectionOptions,
    next: usize,
    in_fields: bool,
}

impl ResponseHead {
    /// Forgets the response and keeps the room for the next; `at` is the offset where that begins.
    pub fn clear_at(&mut self, at: usize) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, next: at, ..Self::default() };
    }

    /// Reads on in `bytes`, which begin where they did at the last call and may have grown.
    ///
    /// # Errors
    /// What makes the response unusable; its connection must close.
    #[inline(never)]
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Progress, ResponseError> {
        if !self.in_fields {
            let start = self.next;
            let Some((end, next)) = line::end_of_line(bytes, start) else {
                let pending = bytes.get(start..).unwrap_or_default();
                let prefix = pending.len().min(5);
                if pending.get(..prefix) != b"HTTP/".get(..prefix) {
                    return Err(ResponseError::StatusLine);
                }
                return Ok(Progress::Partial);
            };
            self.parse_status_line(bytes, start, end)?;
            self.next = next;
            self.in_fields = true;
        }
        let progress = self.parse_fields(bytes)?;
        if progress != Progress::Partial {
            self.finish(bytes)?;
        }
        Ok(progress)
    }

    #[inline(always)]
    fn parse_fields(&mut self, bytes: &[u8]) -> Result<Progress, ResponseError> {
        loop {
            let start = self.next;
            let Some((line, next)) = line::field(bytes, start, Writer::Peer) else {
                return Ok(Progress::Partial);
            };
            self.next = next;
            match line {
                Line::End => return Ok(Progress::Complete(next)),
                Line::Field(field) | Line::Odd(field) => {
                    let repeated = self.fields.has(field.known);
                    if repeated && FRAMING.contains(field.known) {
                        return Err(ResponseError::Duplicate);
                    }
                    if !(repeated && FIRST_COUNTS.contains(field.known)) {
                        self.fields.push(field);
                    }
                }
                // "IIS may send the duplicate "HTTP/1.1 ..." lines" (nginx).
                Line::Malformed if bytes.get(start..next).is_some_and(|line| line.starts_with(b"HTTP/")) => {}
                Line::Malformed => return Err(ResponseError::Field),
            }
        }
    }

    /// Reads on in the response of a gateway, which says its status in the field `Status` or not at all: then it is 302 beside a
    /// `Location`, else 200. Its body ends where its protocol says.
    ///
    /// # Errors
    /// What makes the response unusable.
    pub fn parse_gateway(&mut self, bytes: &[u8], first: FirstLine) -> Result<Progress, ResponseError> {
        if !self.in_fields {
            let start = self.next;
            if first == FirstLine::StatusOrField {
                let Some((end, next)) = line::end_of_line(bytes, start) else {
                    return Ok(Progress::Partial);
                };
                if self.parse_status_line(bytes, start, end).is_ok() {
                    self.next = next;
                }
            }
            self.in_fields = true;
        }
        let progress = self.parse_fields(bytes)?;
        if progress != Progress::Partial {
            self.finish_gateway(bytes)?;
        }
        Ok(progress)
    }

    fn finish_gateway(&mut self, bytes: &[u8]) -> Result<(), ResponseError> {
        self.framing = match self.fields.first(Name::ContentLength) {
            Some(field) => {
                let length = connection::content_length(field.value.of(bytes));
                ResponseFraming::Length(length.ok_or(ResponseError::ContentLength)?)
            }
            None => ResponseFraming::UntilClose,
        };
        if self.status != 0 {
            return Ok(());
        }
        let Some(field) = self.fields.first(Name::Status) else {
            self.status = if self.fields.has(Name::Location) { 302 } else { 200 };
            return Ok(());
        };
        let value = field.value.of(bytes);
        let digits = value.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        self.status = number(digits.ok_or(ResponseError::Status)?);
        if self.status < 100 || matches!(value.get(3), Some(byte) if *byte != b' ') {
            return Err(ResponseError::Status);
        }
        if value.len() > 3 {
            self.status_line = field.value;
        }
        Ok(())
    }

    fn parse_status_line(&mut self, bytes: &[u8], start: usize, end: usize) -> Result<(), ResponseError> {
        let line = bytes.get(start..end).unwrap_or_default();
        let (version, status_at) = match line {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', b'0'..=b'9', ..] => (Version::Http11, 9),
            _ => any_version(line).ok_or(ResponseError::StatusLine)?,
        };
        self.version = version;
        let digits = line.get(status_at..status_at + 3).ok_or(ResponseError::StatusLine)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(ResponseError::StatusLine);
        }
        // 403.1 is IIS's.
        if !matches!(line.get(status_at + 3), None | Some(b' ' | b'.')) {
            return Err(ResponseError::StatusLine);
        }
        if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return Err(ResponseError::StatusLine);
        }
        self.status = number(digits);
        self.status_line = Range::new(start + status_at, end);
        Ok(())
    }

    fn finish(&mut self, bytes: &[u8]) -> Result<(), ResponseError> {
        for field in self.fields.all(Name::Connection) {
            self.connection.read(field.value.of(bytes));
        }
        let length = match self.fields.first(Name::ContentLength) {
            Some(field) => {
                Some(connection::content_length(field.value.of(bytes)).ok_or(ResponseError::ContentLength)?)
            }
            None => None,
        };
        self.framing = match (self.fields.first(Name::TransferEncoding), length) {
            (Some(field), _) if !field.value.of(bytes).eq_ignore_ascii_case(b"chunked") => {
                return Err(ResponseError::TransferEncoding);
            }
            (Some(_), Some(_)) => return Err(ResponseError::TwoFramings),
            (Some(_), None) => ResponseFraming::Chunked,
            (None, Some(length)) => ResponseFraming::Length(length),
            (None, None) => ResponseFraming::UntilClose,
        };
        Ok(())
    }

    /// Says whether the peer keeps its connection open after this response (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.version {
            Version::Http11 | Version::Http2 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }
}

/// Fields that say where the body ends.
const FRAMING: NameSet = NameSet::EMPTY.with(Name::ContentLength).with(Name::TransferEncoding);

/// Fields of which nginx takes the first and ignores the rest.
const FIRST_COUNTS: NameSet = NameSet::EMPTY
    .with(Name::ContentType)
    .with(Name::LastModified)
    .with(Name::Etag)
    .with(Name::Server)
    .with(Name::Status)
    .with(Name::Date)
    .with(Name::Location)
    .with(Name::Refresh)
    .with(Name::XAccelRedirect)
    .with(Name::XAccelExpires)
    .with(Name::Expires);

/// The number that three digits make.
fn number(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}

/// The version at the beginning of a status line, and where the status follows.
fn any_version(line: &[u8]) -> Option<(Version, usize)> {
    let space = memchr::memchr(b' ', line)?;
    let version = match line.get(..space)? {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        other => other_version(other)?,
    };
    let spaces = line.iter().skip(space).take_while(|byte| **byte == b' ').count();
    Some((version, space + spaces))
}

fn other_version(text: &[u8]) -> Option<Version> {
    let digits = text.strip_prefix(b"HTTP/")?;
    let (major, minor) = digits.split_at_checked(memchr::memchr(b'.', digits)?)?;
    let minor = minor.strip_prefix(b".")?;
    let is_number = |text: &[u8]| (1..=3).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    if !is_number(major) || !is_number(minor) || major.first() == Some(&b'0') {
        return None;
    }
    let zero = minor.iter().all(|digit| *digit == b'0');
    Some(if major == b"1" && zero { Version::Http10 } else { Version::Http11 })
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
