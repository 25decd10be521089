//! Host names as requests carry them.

/// A host that no server can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client sent invalid host header")]
pub struct InvalidHost;

/// Appends the name in lower case without port and final dot, and gives the port.
///
/// # Errors
/// For bytes that no name or IP literal has, an empty name, an empty label within, a port beyond 65,535.
pub fn normalise(host: &[u8], out: &mut Vec<u8>) -> Result<Option<u16>, InvalidHost> {
    let literal = host.first() == Some(&b'[');
    let name_length = if literal {
        memchr::memchr(b']', host).ok_or(InvalidHost)? + 1
    } else {
        memchr::memchr(b':', host).unwrap_or(host.len())
    };
    let (name, rest) = host.split_at_checked(name_length).ok_or(InvalidHost)?;
    let port = match rest.strip_prefix(b":") {
        Some(digits) => parse_port(digits)?,
        None if rest.is_empty() => None,
        None => return Err(InvalidHost),
    };
    let name = if literal { name } else { name.strip_suffix(b".").unwrap_or(name) };
    let inside = if literal { name.get(1..name.len() - 1).unwrap_or_default() } else { name };
    let other = if literal { b':' } else { b'%' };
    let mut label_ended = false;
    for byte in inside {
        let dot = *byte == b'.';
        if (dot && label_ended) || !(is_plain(*byte) || *byte == other) {
            return Err(InvalidHost);
        }
        label_ended = dot;
    }
    if name.is_empty() || (label_ended && !literal) {
        return Err(InvalidHost);
    }
    let start = out.len();
    out.extend_from_slice(name);
    out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
    Ok(port)
}

fn parse_port(digits: &[u8]) -> Result<Option<u16>, InvalidHost> {
    let mut port: u32 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(InvalidHost);
        }
        port = port * 10 + u32::from(digit - b'0');
        if port > u32::from(u16::MAX) {
            return Err(InvalidHost);
        }
    }
    Ok(if digits.is_empty() { None } else { u16::try_from(port).ok() })
}

/// Says whether a byte stands in hosts of every form.
#[expect(clippy::indexing_slicing, reason = "the table has a place for every byte")]
fn is_plain(byte: u8) -> bool {
    HOST[usize::from(byte)]
}

/// unreserved and sub-delims of RFC 3986 §3.2.2.
#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which would refuse it")]
static HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expect: Option<(&str, Option<u16>)>) {
        let mut out = Vec::new();
        let port = normalise(host.as_bytes(), &mut out);
        let got = port.ok().map(|port| (String::from_utf8(out).unwrap(), port));
        assert_eq!(got, expect.map(|(name, port)| (name.to_owned(), port)), "{host}");
    }

    #[test]
    fn normalises_names() {
        check("Example.ORG", Some(("example.org", None)));
        check("example.org.", Some(("example.org", None)));
        check("example.org:8080", Some(("example.org", Some(8080))));
        check("example.org.:8080", Some(("example.org", Some(8080))));
        check("example.org:", Some(("example.org", None)));
        check("[::1]:80", Some(("[::1]", Some(80))));
        check("a_b", Some(("a_b", None)));
    }

    #[test]
    fn refuses_what_is_no_name() {
        for host in ["", ".", ":80", "a..b", "a/b", "a b", "[::1", "[::1]x", "a:b", "a:65536", "\"a\""] {
            check(host, None);
        }
    }
}
