//! FastCGI records, both ways (FastCGI Specification 1.0, fastcgi-archives.github.io/FastCGI_Specification.html): what a web
//! server writes to a responder, and what it reads from one.
//!
//! A connection carries one request at a time, whose id is 1: no application is known that multiplexes. Read as strictly as
//! nginx reads: a record of another version, kind or request is an error.

use std::ops::Range;

/// The bytes of a record before its content (§3.3).
pub const HEADER_BYTES: usize = 8;

/// The most content that is put into one record of a body; nginx's.
pub const STDIN_BYTES_MAX: usize = 32 << 10;

/// The most content that is put into one record of parameters: what a length of 16 bits allows, without padding.
const PARAMS_BYTES_MAX: usize = 0xfff8;

const VERSION: u8 = 1;
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The role of an application that answers requests.
const RESPONDER: u8 = 1;
const KEEP_CONNECTION: u8 = 1;

/// Whether the application is asked to keep the connection behind its response (`FCGI_KEEP_CONN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepConnection {
    /// It is.
    Yes,
    /// It closes.
    No,
}

/// Appends the record that begins a request.
pub fn begin_request(keep: KeepConnection, out: &mut Vec<u8>) {
    let flags = match keep {
        KeepConnection::Yes => KEEP_CONNECTION,
        KeepConnection::No => 0,
    };
    record(BEGIN_REQUEST, &[0, RESPONDER, flags, 0, 0, 0, 0, 0], out);
}

/// Appends a parameter to the content of the records of parameters (§3.4). False where one is too long for its length to be
/// written.
#[must_use]
pub fn param(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
    let (Some(name_length), Some(value_length)) = (Length::of(name), Length::of(value)) else { return false };
    name_length.write(out);
    value_length.write(out);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    true
}

/// Appends all parameters as records, and the empty one that ends them.
pub fn params(content: &[u8], out: &mut Vec<u8>) {
    content.chunks(PARAMS_BYTES_MAX).for_each(|content| record(PARAMS, content, out));
    record(PARAMS, &[], out);
}

/// Appends bytes of a body as records. No bytes are no record: an empty one would end the body.
pub fn stdin(body: &[u8], out: &mut Vec<u8>) {
    body.chunks(STDIN_BYTES_MAX).for_each(|content| record(STDIN, content, out));
}

/// Appends the empty record that ends a body.
pub fn end_stdin(out: &mut Vec<u8>) {
    record(STDIN, &[], out);
}

/// Appends a record of at most 65,535 bytes of content, filled up to eight bytes.
fn record(kind: u8, content: &[u8], out: &mut Vec<u8>) {
    const PADDING: [u8; 8] = [0; 8];
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    debug_assert_eq!(usize::from(length), content.len());
    let [high, low] = length.to_be_bytes();
    let padding = length.next_multiple_of(8).wrapping_sub(length);
    out.extend_from_slice(&[VERSION, kind, 0, 1, high, low, padding as u8, 0]);
    out.extend_from_slice(content);
    out.extend_from_slice(PADDING.get(..usize::from(padding)).unwrap_or_default());
}

/// The length of a name or a value: a byte below 128, else four whose highest bit is set.
struct Length(u32);

impl Length {
    fn of(text: &[u8]) -> Option<Self> {
        u32::try_from(text.len()).ok().filter(|length| length >> 31 == 0).map(Self)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match u8::try_from(self.0) {
            Ok(short) if short < 128 => out.push(short),
            _ => out.extend_from_slice(&(self.0 | 1 << 31).to_be_bytes()),
        }
    }
}

/// Why what an application sent can't be read. Shown in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record of another version.
    #[error("upstream sent unsupported FastCGI protocol version: {0}")]
    Version(u8),
    /// A record of a kind that no responder sends.
    #[error("upstream sent invalid FastCGI record type: {0}")]
    Kind(u8),
    /// A record of another request.
    #[error("upstream sent unexpected FastCGI request id high byte: {0}")]
    IdHigh(u8),
    /// A record of another request.
    #[error("upstream sent unexpected FastCGI request id low byte: {0}")]
    IdLow(u8),
}

/// What was found at the beginning of the bytes given to [`Records::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that means anything by itself.
    Nothing,
    /// Bytes of the response.
    Stdout(Range<usize>),
    /// The response is over.
    StdoutEnd,
    /// Bytes of what the application complains of.
    Stderr {
        /// The bytes.
        text: Range<usize>,
        /// Whether a record of it ends here.
        ends: bool,
    },
    /// The request is over. Nothing belongs to it any more.
    End,
}

/// How far [`Records::decode`] has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes it is done with, those of `found` included. 0 asks for more bytes.
    pub consumed: usize,
    /// What is in them.
    pub found: Found,
}

/// Reads the records of one response.
#[derive(Clone, Debug, Default)]
pub struct Records {
    state: State,
    kind: Kind,
    content_left: u16,
    padding_left: u8,
    stdout_ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Version,
    Kind,
    IdHigh,
    IdLow,
    LengthHigh,
    LengthLow,
    PaddingLength,
    Reserved,
    Content,
    Padding,
    Over,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Stdout,
    Stderr,
    End,
}

impl Records {
    /// Says whether the request is over ([`Found::End`]).
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Says whether no byte of the response follows: it has been ended, or the record that ends the request has begun.
    pub fn has_ended_stdout(&self) -> bool {
        self.stdout_ended
    }

    /// Looks at the bytes that follow those it has consumed.
    ///
    /// # Errors
    /// When they are no record of a response.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Step, RecordError> {
        for (at, byte) in bytes.iter().copied().enumerate() {
            let rest = bytes.len() - at;
            match self.state {
                State::Over => return Ok(Step { consumed: at, found: Found::Nothing }),
                State::Content => return Ok(self.content(at, rest)),
                State::Padding => {
                    let length = usize::from(self.padding_left).min(rest);
                    self.padding_left -= u8::try_from(length).unwrap_or(self.padding_left);
                    if self.padding_left == 0 {
                        self.state = self.behind_record();
                    }
                    let found = if self.is_over() { Found::End } else { Found::Nothing };
                    return Ok(Step { consumed: at + length, found });
                }
                _ => {
                    if let Some(found) = self.header(byte)? {
                        return Ok(Step { consumed: at + 1, found });
                    }
                }
            }
        }
        Ok(Step { consumed: bytes.len(), found: Found::Nothing })
    }

    /// Takes a byte of a record's header; gives what the whole header means by itself, if that is something.
    fn header(&mut self, byte: u8) -> Result<Option<Found>, RecordError> {
        self.state = match self.state {
            State::Version if byte == VERSION => State::Kind,
            State::Version => return Err(RecordError::Version(byte)),
            State::Kind => {
                self.kind = match byte {
                    STDOUT => Kind::Stdout,
                    STDERR => Kind::Stderr,
                    END_REQUEST => Kind::End,
                    _ => return Err(RecordError::Kind(byte)),
                };
                State::IdHigh
            }
            State::IdHigh if byte == 0 => State::IdLow,
            State::IdHigh => return Err(RecordError::IdHigh(byte)),
            State::IdLow if byte == 1 => State::LengthHigh,
            State::IdLow => return Err(RecordError::IdLow(byte)),
            State::LengthHigh => {
                self.content_left = u16::from(byte) << 8;
                State::LengthLow
            }
            State::LengthLow => {
                self.content_left |= u16::from(byte);
                State::PaddingLength
            }
            State::PaddingLength => {
                self.padding_left = byte;
                State::Reserved
            }
            State::Reserved => return Ok(self.begin_content()),
            State::Content | State::Padding | State::Over => self.state,
        };
        Ok(None)
    }

    /// Goes on behind a record's header.
    fn begin_content(&mut self) -> Option<Found> {
        let ends_stdout = self.kind == Kind::Stdout && self.content_left == 0;
        self.stdout_ended |= ends_stdout || self.kind == Kind::End;
        if self.content_left > 0 {
            self.state = State::Content;
            return None;
        }
        self.begin_padding();
        match self.state {
            State::Over => Some(Found::End),
            _ if ends_stdout => Some(Found::StdoutEnd),
            _ => None,
        }
    }

    /// Takes what there is of a record's content, `rest` bytes from `at` on.
    fn content(&mut self, at: usize, rest: usize) -> Step {
        let length = usize::from(self.content_left).min(rest);
        self.content_left -= u16::try_from(length).unwrap_or(self.content_left);
        let ends = self.content_left == 0;
        if ends {
            self.begin_padding();
        }
        let range = at..at + length;
        let consumed = range.end;
        let found = match self.kind {
            Kind::Stdout => Found::Stdout(range),
            Kind::Stderr => Found::Stderr { text: range, ends },
            Kind::End if self.is_over() => Found::End,
            Kind::End => Found::Nothing,
        };
        Step { consumed, found }
    }

    /// Goes on behind a record's content.
    fn begin_padding(&mut self) {
        self.state = if self.padding_left > 0 { State::Padding } else { self.behind_record() };
    }

    fn behind_record(&self) -> State {
        if self.kind == Kind::End { State::Over } else { State::Version }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a response says, however its records are cut.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Said {
        stdout: Vec<u8>,
        complaints: Vec<Vec<u8>>,
        ended: bool,
        over: bool,
        /// Bytes behind the end.
        left: usize,
    }

    /// Reads bytes that come in pieces of so many.
    fn read(bytes: &[u8], piece: usize) -> Result<Said, RecordError> {
        let (mut said, mut records, mut complaint) = (Said::default(), Records::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut at = 0;
            while at < piece.len() {
                if records.is_over() {
                    said.left += piece.len() - at;
                    break;
                }
                let step = records.decode(&piece[at..])?;
                let text = |range: Range<usize>| &piece[at..][range];
                match step.found {
                    Found::Nothing => {}
                    Found::Stdout(range) => said.stdout.extend(text(range)),
                    Found::StdoutEnd => said.ended = true,
                    Found::Stderr { text: range, ends } => {
                        complaint.extend(text(range));
                        if ends {
                            said.complaints.push(std::mem::take(&mut complaint));
                        }
                    }
                    Found::End => said.over = true,
                }
                at += step.consumed;
            }
        }
        assert!(!said.ended || records.has_ended_stdout());
        assert_eq!(said.over, records.is_over());
        Ok(said)
    }

    fn response(records: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        records.iter().for_each(|(kind, content)| record(*kind, content, &mut out));
        out
    }

    #[test]
    fn reads_a_response_cut_anywhere() {
        let mut bytes = response(&[
            (STDERR, b"PHP Warning"),
            (STDOUT, b"Status: 200 OK\n\n"),
            (STDERR, b""),
            (STDOUT, b"x"),
            (STDOUT, b""),
            (STDERR, b"late"),
            (END_REQUEST, &[0; 8]),
        ]);
        bytes.extend(b"more");
        let expect = Said {
            stdout: b"Status: 200 OK\n\nx".to_vec(),
            complaints: vec![b"PHP Warning".to_vec(), b"late".to_vec()],
            ended: true,
            over: true,
            left: 4,
        };
        for piece in 1..=bytes.len() {
            assert_eq!(read(&bytes, piece).as_ref(), Ok(&expect), "{piece}");
        }
    }

    #[test]
    fn the_end_of_the_request_is_behind_its_padding() {
        let bytes = [1, END_REQUEST, 0, 1, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9];
        for end in 0..=bytes.len() {
            assert_eq!(read(&bytes[..end], 1).map(|said| said.over), Ok(end == bytes.len()), "{end}");
        }
        let mut records = Records::default();
        assert!(records.decode(&bytes[..8]).is_ok_and(|step| step.found == Found::Nothing));
        assert!(records.has_ended_stdout() && !records.is_over());
    }

    #[test]
    fn refuses_what_is_no_record_of_a_response() {
        let check =
            |bytes: &[u8], expect: RecordError| assert_eq!(read(bytes, 100), Err(expect), "{bytes:?}");
        check(&[2], RecordError::Version(2));
        check(b"HTTP/1.1 200 OK", RecordError::Version(b'H'));
        check(&[1, STDIN], RecordError::Kind(STDIN));
        check(&[1, 0], RecordError::Kind(0));
        check(&[1, STDOUT, 1], RecordError::IdHigh(1));
        check(&[1, STDOUT, 0, 0], RecordError::IdLow(0));
    }

    #[test]
    fn writes_a_request() {
        let mut out = Vec::new();
        begin_request(KeepConnection::Yes, &mut out);
        assert_eq!(out, [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
        let mut content = Vec::new();
        assert!(param(b"A", &[b'v'; 128], &mut content) && param(b"B", b"", &mut content));
        assert_eq!(content[..6], [1, 0x80, 0, 0, 128, b'A']);
        assert_eq!(content[134..], [1, 0, b'B']);
        out.clear();
        params(&content, &mut out);
        assert_eq!(out[..8], [1, 4, 0, 1, 0, 137, 7, 0]);
        assert_eq!(out[8 + 137..][..7], [0; 7]);
        assert_eq!(out[8 + 144..], [1, 4, 0, 1, 0, 0, 0, 0]);
        out.clear();
        stdin(b"12345678", &mut out);
        end_stdin(&mut out);
        assert_eq!(out, *b"\x01\x05\0\x01\0\x08\0\x0012345678\x01\x05\0\x01\0\0\0\0");
    }

    #[test]
    fn what_is_long_takes_several_records() {
        let lengths = |bytes: &[u8]| {
            let (mut at, mut lengths) = (0, Vec::new());
            while at < bytes.len() {
                let length = usize::from(u16::from_be_bytes([bytes[at + 4], bytes[at + 5]]));
                lengths.push(length);
                at += HEADER_BYTES + length + usize::from(bytes[at + 6]);
            }
            lengths
        };
        let mut out = Vec::new();
        params(&[0; 70_000], &mut out);
        assert_eq!(lengths(&out), [0xfff8, 70_000 - 0xfff8, 0]);
        out.clear();
        stdin(&[0; 40_000], &mut out);
        assert_eq!(lengths(&out), [32 << 10, 40_000 - (32 << 10)]);
        out.clear();
        stdin(b"", &mut out);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_mean_the_same_in_pieces(bytes in proptest::collection::vec(0_u8..9, 0..200), piece in 1_usize..9) {
            prop_assert_eq!(read(&bytes, bytes.len().max(1)), read(&bytes, piece));
        }
    }
}
