//! The name and the password that a request brings (RFC 7617), and nginx's way to read base64.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Padding may be left out, and bits behind the last byte are ignored.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// A name and a password.
pub(crate) struct Credentials {
    text: Vec<u8>,
    colon: usize,
}

impl Credentials {
    /// Reads the value of `Authorization`.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = value.split_at_checked(b"Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let text = base64(rest.get(start..)?)?;
        let colon = memchr::memchr(b':', &text).filter(|colon| *colon > 0)?;
        Some(Self { text, colon })
    }

    #[cfg(test)]
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self { text: format!("{user}:{password}").into_bytes(), colon: user.len() }
    }

    pub(crate) fn user(&self) -> &[u8] {
        self.text.get(..self.colon).unwrap_or_default()
    }

    pub(crate) fn password(&self) -> &[u8] {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

/// Decodes up to the first `=`; what follows is not looked at.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text.split(|byte| *byte == b'=').next()?).ok()
}

/// Does the same with the alphabet for URLs.
pub(crate) fn base64_url(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE.decode(text.split(|byte| *byte == b'=').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_nginx_reads_them() {
        let check = |value: &str, expect: Option<(&str, &str)>| {
            let got = Credentials::parse(value.as_bytes());
            let got = got.as_ref().map(|got| (got.user(), got.password()));
            let expect = expect.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
            assert_eq!(got, expect, "{value}");
        };
        check("Basic dXNlcjpwYXNz", Some(("user", "pass")));
        check("bASIC   dXNlcjpwYXNz", Some(("user", "pass")));
        check("Basic YTo=", Some(("a", "")));
        check("Basic YTo", Some(("a", "")));
        check("Basic YTpiOmM=anything", Some(("a", "b:c")));
        check("Basic OmI=", None);
        check("Basic dXNlcg==", None);
        check("Basic ", None);
        check("Basic", None);
        check("Basic !!!!", None);
        check("Basic Y", None);
        check("Bearer dXNlcjpwYXNz", None);
    }
}
