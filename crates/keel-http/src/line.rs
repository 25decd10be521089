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
const NO_TOKEN: u8 = 3;
const FORBIDDEN: u8 = 4;
const COLON: u8 = 5;

/// Who wrote a line, which decides how much is borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A client. A name that is no token and a control character in a value are refused, as other proxies refuse them.
    Client(Underscores),
    /// A peer. What ends no line passes, as in nginx.
    Peer,
}

/// How far the end of a name is looked for before the line's end is known.
const PLAIN_NAME_BYTES_MAX: usize = 64;

/// Classes of bytes in a name: nginx's, and among those that it calls invalid those that no token has (RFC 9110 §5.6.2).
#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which would refuse it")]
static CLASS: [u8; 256] = {
    let mut table = [NO_TOKEN; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'-' {
            table[byte] = LETTER;
        } else if b == b'_' {
            table[byte] = UNDERSCORE;
        } else if b == b':' {
            table[byte] = COLON;
        } else if is_odd(b) {
            table[byte] = ODD;
        } else if b <= 0x20 || b == 0x7f {
            table[byte] = FORBIDDEN;
        }
        byte += 1;
    }
    table
};

/// Says whether it is a `tchar` that nginx calls invalid.
const fn is_odd(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~')
}

/// What a byte is in a field's name.
#[expect(clippy::indexing_slicing, reason = "the table has a place for every byte")]
fn class_of(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

/// Says whether it is a `tchar`.
pub(crate) fn is_token(byte: u8) -> bool {
    class_of(byte) <= ODD
}

/// The end of the line that starts at `start`: where its text ends and where the next begins.
///
/// A line ends with CRLF; a single LF is taken as one, as RFC 9112 §2.2 allows and nginx does.
pub(crate) fn end_of_line(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let line = bytes.get(start..)?;
    let length = memchr::memchr(b'\n', line)?;
    let text = if length > 0 && line.get(length - 1) == Some(&b'\r') { length - 1 } else { length };
    Some((start + text, start + length + 1))
}

/// Reads the field line that starts at `start`, and says where the next one does. `None` until it has come whole.
///
/// Inlined with all that a plain line takes: what was found is handed on in registers.
#[inline(always)]
pub(crate) fn field(bytes: &[u8], start: usize, writer: Writer) -> Option<(Line, usize)> {
    match plain_field(bytes.get(start..)?, start) {
        Some((field, next)) => Some((Line::Field(field), next)),
        None => other_line(bytes, start, writer),
    }
}

/// Reads a line that [`plain_field`] doesn't know.
#[inline(never)]
fn other_line(bytes: &[u8], start: usize, writer: Writer) -> Option<(Line, usize)> {
    match bytes.get(start..)? {
        [b'\r', b'\n', ..] => return Some((Line::End, start + 2)),
        [b'\n', ..] => return Some((Line::End, start + 1)),
        _ => {}
    }
    let (end, next) = end_of_line(bytes, start)?;
    let line = bytes.get(start..end).unwrap_or_default();
    Some((any_field(line, start, writer), next))
}

/// Reads a line as nearly all are: a name of letters and `-`, a value without control characters.
#[inline(always)]
fn plain_field(line: &[u8], start: usize) -> Option<(Field, usize)> {
    let colon = find(b':', line.get(..PLAIN_NAME_BYTES_MAX).unwrap_or(line))?;
    let (name, rest) = line.split_at_checked(colon)?;
    let known = Name::of(name);
    // A known name is made of letters.
    if known == Name::Other && !is_plain_name(name) {
        return None;
    }
    let [_, rest @ ..] = rest else { return None };
    let length = find_control(rest)?;
    let line_end = match rest.get(length..)? {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => return None,
    };
    let value_at = start + colon + 1;
    let field = make_field(known, name, rest.get(..length)?, start, value_at);
    Some((field, value_at + length + line_end))
}

/// Says whether a name holds letters, digits and `-` only, and at least one of them.
fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| class_of(*byte) == LETTER)
}

/// Reads any line (without its line end).
fn any_field(line: &[u8], start: usize, writer: Writer) -> Line {
    let mut colon = 0;
    let mut worst = LETTER;
    for byte in line {
        let class = class_of(*byte);
        if class == COLON {
            break;
        }
        colon += 1;
        worst = worst.max(class);
    }
    // A name is at least one byte; "No whitespace is allowed between the field name and colon" (RFC 9112 §5.1), and a
    // line that begins with white space is a folded one, which is obsolete (§5.2).
    if colon == 0 || colon == line.len() || worst == FORBIDDEN {
        return Line::Malformed;
    }
    let (Some(name), Some(value)) = (line.get(..colon), line.get(colon + 1..)) else {
        return Line::Malformed;
    };
    // "A recipient of such a bare CR MUST consider that element to be invalid" (RFC 9112 §2.2).
    let is_refused = match writer {
        Writer::Client(_) => worst == NO_TOKEN || find_control(value).is_some(),
        Writer::Peer => memchr::memchr2(b'\r', 0, value).is_some(),
    };
    if is_refused {
        return Line::Malformed;
    }
    let field = make_field(Name::of(name), name, value, start, start + colon + 1);
    match worst {
        LETTER => Line::Field(field),
        UNDERSCORE if writer != Writer::Client(Underscores::Invalid) => Line::Field(field),
        _ => Line::Odd(field),
    }
}

/// Finds a byte. What is searched here is short: eight bytes at a time cost less than a call that could do more.
#[inline]
pub(crate) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let other = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        // The lowest bit that is set marks the first byte that is zero; those above it may err.
        let found = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if found != 0 {
            return Some(at * size_of_val(word) + found.trailing_zeros() as usize / 8);
        }
    }
    let before = bytes.len() - rest.len();
    rest.iter().position(|other| *other == byte).map(|at| before + at)
}

/// Finds the first control character: a byte below 0x20 other than HTAB, or DEL.
#[inline]
pub(crate) fn find_control(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + find_below_space_or_del(bytes.get(from..)?)?;
        if bytes.get(at) != Some(&b'\t') {
            return Some(at);
        }
        from = at + 1;
    }
}

#[inline]
fn find_below_space_or_del(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // With one added and the highest bit left out, what is meant lies below 0x21: no byte borrows from another.
        let next = (word & (ONES * 0x7f)) + ONES;
        let found = !(((next | (ONES << 7)) - ONES * 0x21) | word) & (ONES << 7);
        if found != 0 {
            return Some(at * size_of_val(&word) + found.trailing_zeros() as usize / 8);
        }
    }
    let before = bytes.len() - rest.len();
    rest.iter().position(|byte| *byte < 0x20 || *byte == 0x7f).map(|at| before + at)
}

#[inline(always)]
fn make_field(known: Name, name: &[u8], value: &[u8], name_at: usize, value_at: usize) -> Field {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    // Nearly always one space stands before the value, and none behind it.
    let (mut text, mut text_at) = match value {
        [b' ', text @ ..] => (text, value_at + 1),
        _ => (value, value_at),
    };
    if is_blank(text.first()) || is_blank(text.last()) {
        (text, text_at) = trimmed(text, text_at);
    }
    Field {
        known,
        name: Range::new(name_at, name_at + name.len()),
        value: Range::new(text_at, text_at + text.len()),
    }
}

/// Leaves out white space around a value.
#[inline(never)]
fn trimmed(text: &[u8], at: usize) -> (&[u8], usize) {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let before = text.iter().take_while(is_blank).count();
    let text = text.get(before..).unwrap_or_default();
    let behind = text.iter().rev().take_while(is_blank).count();
    (text.get(..text.len() - behind).unwrap_or_default(), at + before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(bytes in proptest::collection::vec(0x38u8..0x3c, 0..40)) {
            prop_assert_eq!(find(b':', &bytes), bytes.iter().position(|byte| *byte == b':'));
        }

        #[test]
        fn finds_controls_where_a_plain_search_finds_them(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\t'), Just(0x7e), Just(0x7f), Just(0x80), Just(0xff), Just(0x20), Just(0x1f), Just(0)],
                0..40,
            ),
        ) {
            let plain = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
            prop_assert_eq!(find_control(&bytes), bytes.iter().position(plain));
        }
    }
}
