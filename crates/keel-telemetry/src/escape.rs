//! How values from outside are written into a log, byte for byte as nginx writes them.

use keel_model::LogEscape;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Escapes what stands in `out` from `start` on.
pub(crate) fn escape_tail(escape: LogEscape, out: &mut Vec<u8>, start: usize) {
    match escape {
        LogEscape::Default => replace_tail(out, start, is_special, write_hex),
        LogEscape::Json => replace_tail(out, start, is_special_in_json, write_json),
        LogEscape::None => {}
    }
}

fn replace_tail(
    out: &mut Vec<u8>,
    start: usize,
    is_special: impl Fn(u8) -> bool,
    write: impl Fn(u8, &mut Vec<u8>),
) {
    let tail = out.get(start..).unwrap_or_default();
    let Some(first) = tail.iter().position(|byte| is_special(*byte)) else { return };
    let rest = out.split_off(start + first);
    for byte in rest {
        if is_special(byte) { write(byte, out) } else { out.push(byte) }
    }
}

fn is_special(byte: u8) -> bool {
    !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\'
}

/// Writes `\xXX`.
pub(crate) fn write_hex(byte: u8, out: &mut Vec<u8>) {
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.extend([b'\\', b'x', digit(byte >> 4), digit(byte & 0xf)]);
}

fn is_special_in_json(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn write_json(byte: u8, out: &mut Vec<u8>) {
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    match byte {
        b'\n' => out.extend(b"\\n"),
        b'\r' => out.extend(b"\\r"),
        b'\t' => out.extend(b"\\t"),
        0x08 => out.extend(b"\\b"),
        0x0c => out.extend(b"\\f"),
        b'"' | b'\\' => out.extend([b'\\', byte]),
        _ => out.extend([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_nginx() {
        let check = |escape, input: &[u8], expect: &[u8]| {
            let mut out = [b"\"", input].concat();
            escape_tail(escape, &mut out, 1);
            assert_eq!(&out[1..], expect, "{input:?}");
        };
        check(LogEscape::Default, b"plain ~text", b"plain ~text");
        check(LogEscape::Default, b"a\"b\\c\n\x7f\xc3\xa9", br"a\x22b\x5Cc\x0A\x7F\xC3\xA9");
        check(
            LogEscape::Json,
            b"a\"b\\c\n\r\t\x08\x0c\x1f\x7f\xc3\xa9",
            b"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u001F\x7f\xc3\xa9",
        );
        check(LogEscape::None, b"a\"\n", b"a\"\n");
    }
}
