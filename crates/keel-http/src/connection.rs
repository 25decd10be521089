//! What decides over a connection's next message.

use crate::{Fields, Name};

/// What the fields `Connection` of one head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`: this is the last message.
    pub close: bool,
    /// `keep-alive`: HTTP/1.0's way to ask for another.
    pub keep_alive: bool,
    /// `upgrade`: the field `Upgrade` is meant for the next server.
    pub upgrade: bool,
    /// Any other word: the name of a field that concerns this connection only.
    pub names_fields: bool,
}

impl ConnectionOptions {
    /// Reads one field's value into it.
    pub fn read(&mut self, value: &[u8]) {
        // Nearly always the value is one of these words, as it stands.
        match value {
            b"close" => self.close = true,
            b"keep-alive" => self.keep_alive = true,
            _ => tokens(value).for_each(|option| self.read_option(option)),
        }
    }

    fn read_option(&mut self, option: &[u8]) {
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else {
            self.names_fields = true;
        }
    }
}

/// The members of a comma-separated list, without white space and empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Says whether a field is named in `Connection` and so concerns that connection only (RFC 9110 §7.6.1).
///
/// Fields that a message can't do without are never taken out this way.
pub fn is_named(bytes: &[u8], fields: &Fields, name: &[u8]) -> bool {
    if matches!(Name::of(name), Name::Host | Name::ContentLength | Name::ContentType | Name::Cookie) {
        return false;
    }
    let mut options = fields.all(Name::Connection).flat_map(|field| tokens(field.value.of(bytes)));
    options.any(|option| option.eq_ignore_ascii_case(name))
}

/// Reads `Content-Length`: digits and nothing else (RFC 9110 §8.6), below 2^63 as in nginx.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut length: u64 = 0;
    for byte in value {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        length = length.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (length <= i64::MAX as u64).then_some(length)
}

/// Reads the seconds of `timeout=` in a field `Keep-Alive`.
pub fn keep_alive_timeout_s(value: &[u8]) -> Option<u64> {
    tokens(value).find_map(|token| {
        let (name, seconds) = token.split_at_checked(8)?;
        if !name.eq_ignore_ascii_case(b"timeout=") {
            return None;
        }
        content_length(seconds.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options_in_any_case_and_spacing() {
        let mut options = ConnectionOptions::default();
        options.read(b"Keep-Alive ,, UPGRADE");
        let expect = ConnectionOptions { keep_alive: true, upgrade: true, ..ConnectionOptions::default() };
        assert_eq!(options, expect);
        options.read(b"close, x-private");
        assert!(options.close && options.names_fields);
    }

    #[test]
    fn content_length_is_digits_only() {
        let cases: [(&[u8], Option<u64>); 9] = [
            (b"0", Some(0)),
            (b"005", Some(5)),
            (b"9223372036854775807", Some(i64::MAX as u64)),
            (b"9223372036854775808", None),
            (b"", None),
            (b"+5", None),
            (b"-1", None),
            (b"5, 5", None),
            (b"0x5", None),
        ];
        for (text, expect) in cases {
            assert_eq!(content_length(text), expect, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn reads_the_announced_idle_time() {
        assert_eq!(keep_alive_timeout_s(b"timeout=5"), Some(5));
        assert_eq!(keep_alive_timeout_s(b"max=100, Timeout=2"), Some(2));
        assert_eq!(keep_alive_timeout_s(b"timeout=\"5\""), None);
    }
}
