//! The head of a request in SCGI (python.ca/scgi/protocol.txt): a netstring of names and values, of which `CONTENT_LENGTH` is
//! the first. The body follows as it is; the response is as CGI writes it.

use crate::encode;

/// Appends a name and its value. False where NUL is in one of them, which ends both.
#[must_use]
pub fn header(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
    if name.contains(&0) || value.contains(&0) {
        return false;
    }
    for text in [name, value] {
        out.extend_from_slice(text);
        out.push(0);
    }
    true
}

/// Appends a head with these headers in front of a body of so many bytes.
pub fn head(content_length: u64, headers: &[u8], out: &mut Vec<u8>) {
    let mut first = b"CONTENT_LENGTH\0".to_vec();
    encode::decimal(content_length, &mut first);
    first.push(0);
    encode::decimal((first.len() + headers.len()) as u64, out);
    out.push(b':');
    out.extend_from_slice(&first);
    out.extend_from_slice(headers);
    out.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_head() {
        let (mut headers, mut out) = (Vec::new(), Vec::new());
        assert!(header(b"SCGI", b"1", &mut headers) && header(b"A", b"", &mut headers));
        head(27, &headers, &mut out);
        assert_eq!(out, *b"28:CONTENT_LENGTH\x0027\0SCGI\x001\0A\0\0,");
    }

    #[test]
    fn nothing_ends_a_value_early() {
        let mut out = Vec::new();
        assert!(!header(b"A", b"b\0C", &mut out) && !header(b"A\0", b"", &mut out) && out.is_empty());
    }
}
