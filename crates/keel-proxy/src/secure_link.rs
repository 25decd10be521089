//! `$secure_link` and `$secure_link_expires`: whether a link is one that only its maker can make.

use keel_model::SecureLinkScope;
use md5::{Digest as _, Md5};

use crate::credentials::base64_url;

/// The longest digest in base64, padding included.
const DIGEST_TEXT_MAX: usize = 24;

/// How a place secures its links.
pub(crate) enum Scheme<'a> {
    /// By two texts: what the request brings, and what its digest is of.
    Texts { link: &'a keel_model::Template, md5: &'a keel_model::Template },
    /// By a word behind the link.
    Word(&'a str),
}

impl<'a> Scheme<'a> {
    /// Gives that of a place; `None` where links aren't secured.
    pub(crate) fn of(scope: &'a SecureLinkScope) -> Option<Self> {
        match (&scope.link, &scope.md5, &scope.secret) {
            (Some(link), Some(md5), _) => Some(Self::Texts { link, md5 }),
            (None, None, Some(word)) => Some(Self::Word(word)),
            _ => None,
        }
    }
}

/// What the request brings: a digest, and until when the link holds.
pub(crate) struct Link<'a> {
    digest: &'a [u8],
    /// As written, and in Unix seconds.
    pub(crate) expires: Option<(&'a [u8], i64)>,
}

impl<'a> Link<'a> {
    /// Reads `digest` or `digest,seconds`; `None` where the seconds are none.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let Some(comma) = memchr::memchr(b',', text) else {
            return Some(Self { digest: text, expires: None });
        };
        let (digest, expires) = (text.get(..comma)?, text.get(comma + 1..)?);
        let seconds = std::str::from_utf8(expires)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let seconds: i64 = seconds.parse().ok().filter(|seconds| *seconds > 0)?;
        Some(Self { digest, expires: Some((expires, seconds)) })
    }

    /// Gives the value of `$secure_link`: `1`, or `0` where the link holds no more; `None` where the digest isn't that of
    /// `secured`.
    pub(crate) fn check(&self, secured: &[u8], now: i64) -> Option<&'static [u8]> {
        if self.digest.len() > DIGEST_TEXT_MAX || !is_equal(&base64_url(self.digest)?, &Md5::digest(secured))
        {
            return None;
        }
        let is_over = self.expires.is_some_and(|(_, seconds)| seconds < now);
        Some(if is_over { b"0" } else { b"1" })
    }
}

/// Gives the link of a URI `/prefix/digest/link` whose digest is that of the link and the word behind it.
pub(crate) fn link_of<'a>(uri: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let behind = |text: &'a [u8]| memchr::memchr(b'/', text).map(|at| text.split_at(at));
    let (_, rest) = behind(uri.get(1..)?)?;
    let (digest, link) = behind(rest.get(1..)?)?;
    let link = link.get(1..).filter(|link| !link.is_empty())?;
    let digest = hexadecimal(digest)?;
    let right = Md5::new().chain_update(link).chain_update(word).finalize();
    is_equal(&digest, &right).then_some(link)
}

fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// Compares without stopping at the first difference.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_with_a_digest() {
        let check = |text: &str, expect: Option<&str>| {
            let got = Link::parse(text.as_bytes()).and_then(|link| link.check(b"secret/test.html", 1000));
            assert_eq!(got, expect.map(str::as_bytes), "{text}");
        };
        check("q-5vpkjBkRXXtkUMXiJVHA", Some("1"));
        check("q-5vpkjBkRXXtkUMXiJVHA==", Some("1"));
        check("q-5vpkjBkRXXtkUMXiJVHA,1000", Some("1"));
        check("q-5vpkjBkRXXtkUMXiJVHA,999", Some("0"));
        check("q-5vpkjBkRXXtkUMXiJVHA,0", None);
        check("q-5vpkjBkRXXtkUMXiJVHA,", None);
        check("q-5vpkjBkRXXtkUMXiJVHA,x", None);
        check("q-5vpkjBkRXXtkUMXiJVHAQQ", None);
        check("A-5vpkjBkRXXtkUMXiJVHA", None);
        check("", None);
        check("-", None);
    }

    #[test]
    fn links_with_a_word() {
        let check = |uri: &str, expect: Option<&str>| {
            assert_eq!(link_of(uri.as_bytes(), "secret"), expect.map(str::as_bytes), "{uri}");
        };
        check("/p/181a8c6df88b74bb87b14f72df0a86f9/test.html", Some("test.html"));
        check("/p/181A8C6DF88B74BB87B14F72DF0A86F9/test.html", Some("test.html"));
        check("/p/181a8c6df88b74bb87b14f72df0a86f9/test.htm", None);
        check("/p/181a8c6df88b74bb87b14f72df0a86f9/", None);
        check("/p/181a8c6df88b74bb87b14f72df0a86f9", None);
        check("/p/x181a8c6df88b74bb87b14f72df0a86f9/test.html", None);
        check("/p//test.html", None);
        check("/", None);
        check("", None);
    }
}
