//! Paths: decoding, normalising, escaping.

/// Whether several slashes in a row count as one (`merge_slashes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slashes {
    /// They do.
    Merge,
    /// They stay.
    Keep,
}

/// A path that leaves the root, has a broken escape or a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client sent invalid request")]
pub struct InvalidPath;

/// Appends `path` decoded, with `.`, `..` and repeated slashes resolved. A fragment is cut off.
///
/// An escaped `%2F` counts as a slash and `%2E` as a dot, as in nginx; an escaped `?` or `#` stays part of the path.
///
/// # Errors
/// When the path leaves the root, or an escape isn't two hexadecimal digits or means NUL.
pub fn normalise(path: &[u8], slashes: Slashes, out: &mut Vec<u8>) -> Result<(), InvalidPath> {
    let base = out.len();
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
    let mut rest = path.iter().copied();
    while let Some(raw) = rest.next() {
        if raw == b'#' {
            break;
        }
        let byte = if raw == b'%' {
            let high = rest.next().and_then(nibble).ok_or(InvalidPath)?;
            let low = rest.next().and_then(nibble).ok_or(InvalidPath)?;
            high << 4 | low
        } else {
            raw
        };
        if byte == 0 {
            return Err(InvalidPath);
        }
        if byte == b'/' {
            let closed = close_segment(base, out)?;
            let repeated = slashes == Slashes::Merge && out.len() > base && out.last() == Some(&b'/');
            if closed || repeated {
                continue;
            }
        }
        out.push(byte);
    }
    close_segment(base, out).map(|_closed| ())
}

/// Resolves a segment `.` or `..` at the end of `out`, whose path begins at `base`. If there was one, what is left ends
/// with the slash before it.
fn close_segment(base: usize, out: &mut Vec<u8>) -> Result<bool, InvalidPath> {
    let path = out.get(base..).unwrap_or_default();
    if path.ends_with(b"/.") {
        out.pop();
        return Ok(true);
    }
    if !path.ends_with(b"/..") {
        return Ok(false);
    }
    let parent = path.get(..path.len() - 3).unwrap_or_default();
    let slash = parent.iter().rposition(|byte| *byte == b'/').ok_or(InvalidPath)?;
    out.truncate(base + slash + 1);
    Ok(true)
}

fn nibble(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Decodes the escapes of `text`, as for `$arg_name` in file names; broken ones stay as they are.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let pair = text.get(at + 1).copied().and_then(nibble).zip(text.get(at + 2).copied().and_then(nibble));
        if let (b'%', Some((high, low))) = (byte, pair) {
            out.push(high << 4 | low);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
}

/// Appends a decoded path with everything escaped that nginx escapes when it passes a changed URI on
/// (`NGX_ESCAPE_URI`): controls, space, bytes beyond ASCII, and what no URI holds as it is.
pub fn escape(path: &[u8], out: &mut Vec<u8>) {
    for byte in path {
        if *byte <= b' ' || *byte >= 0x7f || b"\"#%<>?\\^`{|}".contains(byte) {
            escape_byte(*byte, out);
        } else {
            out.push(*byte);
        }
    }
}

/// Appends a decoded text with everything escaped that can't stand in an argument of a query (`NGX_ESCAPE_ARGS`): what
/// [`escape`] escapes, and `&`, `+` and `;`.
pub fn escape_argument(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if *byte <= b' ' || *byte >= 0x7f || b"\"#%&+;<>?\\^`{|}".contains(byte) {
            escape_byte(*byte, out);
        } else {
            out.push(*byte);
        }
    }
}

/// Appends a URL with everything escaped that would end an attribute of HTML, or isn't visible ASCII (`NGX_ESCAPE_REFRESH`).
pub fn escape_attribute(url: &[u8], out: &mut Vec<u8>) {
    for byte in url {
        if *byte <= b' ' || *byte >= 0x7f || b"\"'<>\\^`{|~".contains(byte) {
            escape_byte(*byte, out);
        } else {
            out.push(*byte);
        }
    }
}

/// Decodes the escapes in the path of a URL that a client is redirected to, as far as they were needless: what isn't
/// visible ASCII, and `%` and what comes before it, stays escaped. What follows a `?` is left alone.
pub fn unescape_redirect(url: &[u8], out: &mut Vec<u8>) {
    let mut rest = url;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            if *byte == b'?' {
                return out.extend_from_slice(rest);
            }
            continue;
        }
        // As in nginx, a `%` that no escape begins with goes, and with half an escape all of it.
        let Some((first, after)) = rest.split_first() else { return };
        rest = after;
        let Some(high) = nibble(*first) else {
            out.push(*first);
            continue;
        };
        let Some((second, after)) = rest.split_first() else { return };
        rest = after;
        match nibble(*second).map(|low| high << 4 | low) {
            Some(decoded @ b'?') if second.is_ascii_alphabetic() => {
                out.push(decoded);
                return out.extend_from_slice(rest);
            }
            Some(decoded) if decoded > b'%' && decoded < 0x7f => out.push(decoded),
            Some(_) => out.extend_from_slice(&[b'%', *first, *second]),
            None => {}
        }
    }
}

/// Where a URI stands, which decides what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// In a field such as `Location`, which holds what the configuration or a peer says, to the letter: only what would
    /// end the line, and other controls, can't stay.
    Field,
    /// In a request line, whose target has no fragment, and in which other proxies refuse `<` and `>`.
    RequestLine,
}

/// Escapes what stands behind `start` and may not stay there as it is: of a request line controls, space, quotes, bytes
/// beyond ASCII, `#`, `<` and `>`. Escapes stay, and so do the other characters that RFC 3986 forbids but clients send and
/// nginx passes on.
pub(crate) fn escape_tail(bytes: &mut Vec<u8>, start: usize, part: Part) {
    let tail = bytes.get(start..).unwrap_or_default();
    let is_bad = |byte: u8| match part {
        Part::RequestLine => byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'#' | b'<' | b'>'),
        Part::Field => byte.is_ascii_control(),
    };
    if !tail.iter().fold(false, |found, byte| found | is_bad(*byte)) {
        return;
    }
    let tail = bytes.split_off(start);
    for byte in tail {
        if is_bad(byte) { escape_byte(byte, bytes) } else { bytes.push(byte) }
    }
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    out.push(b'%');
    for nibble in [byte >> 4, byte & 0xf] {
        out.push(b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expect: Option<&str>) {
        let mut out = b"kept".to_vec();
        let got = normalise(path.as_bytes(), Slashes::Merge, &mut out).ok();
        let got = got.map(|()| String::from_utf8_lossy(&out[4..]).into_owned());
        assert_eq!(got.as_deref(), expect, "{path}");
    }

    #[test]
    fn resolves_dots_and_slashes() {
        check("/", Some("/"));
        check("/a/b", Some("/a/b"));
        check("//a///b//", Some("/a/b/"));
        check("/a/./b", Some("/a/b"));
        check("/a/.", Some("/a/"));
        check("/./a", Some("/a"));
        check("/a/../b", Some("/b"));
        check("/a/..", Some("/"));
        check("/a//../b", Some("/b"));
        check("/a/b/../../c/", Some("/c/"));
        check("/a/...", Some("/a/..."));
        check("/.a/..b", Some("/.a/..b"));
        check("/a#b/c", Some("/a"));
        check("", Some("/"));
    }

    #[test]
    fn decodes() {
        check("/%61%2fb", Some("/a/b"));
        check("/a/%2e%2E/b", Some("/b"));
        check("/a%3fb%23c%25d", Some("/a?b#c%d"));
    }

    #[test]
    fn refuses_what_leaves_the_root_or_is_broken() {
        for path in ["/..", "/../a", "/a/../../b", "/%2e%2e/", "/%", "/%4", "/%zz", "/%00"] {
            check(path, None);
        }
    }

    #[test]
    fn keeps_slashes_when_told() {
        let mut out = Vec::new();
        normalise(b"//a//./b///..//c", Slashes::Keep, &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), "//a//b///c");
    }

    #[test]
    fn redirects_keep_the_escapes_that_they_need() {
        let check = |url: &str, expect: &str| {
            let mut out = Vec::new();
            unescape_redirect(url.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect, "{url}");
        };
        check("http://h/a%2fb%20c%25", "http://h/a/b%20c%25");
        check("/a?b=%41", "/a?b=%41");
        check("/a%3F%41", "/a?%41");
        check("/%zz%4", "/zz");
        check("/%c3%BC", "/%c3%BC");
    }

    #[test]
    fn arguments_are_escaped_more_than_paths() {
        let mut out = Vec::new();
        escape_argument(b"a&b+c;d e/f?", &mut out);
        assert_eq!(out, b"a%26b%2Bc%3Bd%20e/f%3F");
    }

    #[test]
    fn escapes_as_nginx() {
        let mut out = Vec::new();
        escape("/a b?c#d%é&=+\"<>\\^`{|}~".as_bytes(), &mut out);
        assert_eq!(out, b"/a%20b%3Fc%23d%25%C3%A9&=+%22%3C%3E%5C%5E%60%7B%7C%7D~");
    }
}
