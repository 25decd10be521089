//! One line of a head.

use crate::{Field, Name, Range};

/// What a field line turned out to be.
pub(crate) enum Line {
    /// The empty line after the last field.
    End,
    /// A field.
    Field(Field),
    /// A field whose name holds bytes that nginx calls invalid (`ignore_invalid_headers`).
    Odd(Field),
    /// Not a field at all.
    Malformed,
}

/// Whether `_` is a letter of a field's name (`underscores_in_headers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// It is.
    Allowed,
    /// A name that has one is invalid.
    Invalid,
}

const LETTER: u8 = 0;
const UNDERSCORE: u8 = 1;
const ODD: u8 = 2;
const FORBIDDEN: u8 = 3;
const COLON: u8 = 4;

/// nginx's classes of bytes in a name.
static CLASS: [u8; 256] = {
    let mut table = [ODD; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'-' {
            table[byte] = LETTER;
        } else if b == b'_' {
            table[byte] = UNDERSCORE;
        } else if b == b':' {
            table[byte] = COLON;
        } else if b <= 0x20 || b == 0x7f {
            table[byte] = FORBIDDEN;
        }
        byte += 1;
    }
    table
};

/// Gives the end of the line that starts at `start`: where its text ends and where the next begins.
///
/// A line ends with CRLF; a single LF is taken as one, as RFC 9112 §2.2 allows and nginx does.
pub(crate) fn end_of_line(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let line = bytes.get(start..)?;
    let length = memchr::memchr(b'\n', line)?;
    let text = if length > 0 && line.get(length - 1) == Some(&b'\r') { length - 1 } else { length };
    Some((start + text, start + length + 1))
}

/// Reads the field line `start..end` (without its line end).
pub(crate) fn field(bytes: &[u8], start: usize, end: usize, underscores: Underscores) -> Line {
    let Some(line) = bytes.get(start..end) else { return Line::Malformed };
    if line.is_empty() {
        return Line::End;
    }
    let is_no_letter = |byte: &u8| CLASS[usize::from(*byte)] != LETTER;
    let mut colon = line.iter().position(is_no_letter).unwrap_or(line.len());
    let mut worst = LETTER;
    if line.get(colon) != Some(&b':') {
        for (at, byte) in line.iter().enumerate().skip(colon) {
            let class = CLASS[usize::from(*byte)];
            colon = at;
            if class == COLON {
                break;
            }
            colon += 1;
            worst = worst.max(class);
        }
    }
    // A name is at least one byte; "No whitespace is allowed between the field name and colon" (RFC 9112 §5.1), and a
    // line that begins with white space is a folded one, which is obsolete (§5.2).
    if colon == 0 || colon == line.len() || worst == FORBIDDEN {
        return Line::Malformed;
    }
    let Some(value) = line.get(colon + 1..) else { return Line::Malformed };
    // "A recipient of such a bare CR MUST consider that element to be invalid" (RFC 9112 §2.2).
    if memchr::memchr2(b'\r', 0, value).is_some() {
        return Line::Malformed;
    }
    let leading = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let trailing = value.iter().skip(leading).rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let name = line.get(..colon).unwrap_or_default();
    let field = Field {
        known: Name::of(name),
        name: Range::new(start, start + colon),
        value: Range::new(start + colon + 1 + leading, end - trailing),
    };
    match worst {
        LETTER => Line::Field(field),
        UNDERSCORE if underscores == Underscores::Allowed => Line::Field(field),
        _ => Line::Odd(field),
    }
}
