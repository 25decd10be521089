//! What `Content-Type` says of a body.

use keel_model::MediaTypes;

use crate::{answer::Answer, job::Job};

/// The value of `Content-Type`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentType<'a> {
    /// What stands before the charset: the media type and other parameters.
    pub(super) media: &'a [u8],
    pub(super) charset: Option<&'a [u8]>,
}

impl<'a> ContentType<'a> {
    /// Reads it, as nginx does.
    pub(super) fn parse(value: &'a [u8]) -> Self {
        for at in memchr::memchr_iter(b';', value) {
            let (media, parameter) = value.split_at(at);
            let parameter = parameter.get(1..).unwrap_or_default().trim_ascii_start();
            let Some((name, charset)) = parameter.split_at_checked(b"charset=".len()) else { continue };
            if name.eq_ignore_ascii_case(b"charset=") {
                let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
                let charset = charset.strip_suffix(b"\"").unwrap_or(charset);
                return Self { media, charset: Some(charset) };
            }
        }
        Self { media: value, charset: None }
    }

    /// Says whether an answer is of one of these media types. Without a type it is only where all are meant.
    pub(super) fn is_listed(types: &MediaTypes, job: &Job<'_>, answer: &Answer) -> bool {
        *types == MediaTypes::All
            || answer
                .content_type(job.ex)
                .is_some_and(|value| types.contains(ContentType::parse(value).media))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_charset_of_a_content_type() {
        let check = |value: &str, media: &str, charset: Option<&str>| {
            let expect = ContentType { media: media.as_bytes(), charset: charset.map(str::as_bytes) };
            assert_eq!(ContentType::parse(value.as_bytes()), expect, "{value}");
        };
        check("text/html", "text/html", None);
        check("text/html;charset=A", "text/html", Some("A"));
        check("text/html; q=1;  CharSet=\"A\"", "text/html; q=1", Some("A"));
        check("text/html; q=1", "text/html; q=1", None);
        check("text/html; charset", "text/html; charset", None);
        check("text/html;", "text/html;", None);
        check("", "", None);
    }
}
