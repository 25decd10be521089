//! Browsers that nginx treats in a way of their own, told by their `User-Agent`.
//!
//! Old Internet Explorers and Safaris lose a response to a POST on a kept connection (`keepalive_disable`); Internet
//! Explorer and Chrome replace error pages of less than 512 bytes by their own (`msie_padding`).

use memchr::memmem;

/// Which browser, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Browser {
    /// Internet Explorer 4 to 6, without the security update of XP.
    OldMsie,
    /// Any other Internet Explorer.
    Msie,
    Chrome,
    /// Safari on a Mac.
    Safari,
    Other,
}

impl Browser {
    /// Tells it by the field `User-Agent`, as nginx does.
    pub(crate) fn of(user_agent: &[u8]) -> Self {
        let has = |word: &[u8]| memmem::find(user_agent, word).is_some();
        if has(b"Opera") {
            return Self::Other;
        }
        if let Some(at) = memmem::find(user_agent, b"MSIE ")
            && let Some(version) = user_agent.get(at + 5..).filter(|version| version.len() > 2)
        {
            let is_old = match version {
                [b'4' | b'5', b'.', ..] => true,
                [b'6', b'.', rest @ ..] => memmem::find(rest, b"SV1").is_none(),
                _ => false,
            };
            return if is_old { Self::OldMsie } else { Self::Msie };
        }
        match () {
            () if has(b"Gecko/") => Self::Other,
            () if has(b"Chrome/") => Self::Chrome,
            () if has(b"Safari/") && has(b"Mac OS X") => Self::Safari,
            () => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_browsers_as_nginx_does() {
        for (text, expect) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", Browser::OldMsie),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", Browser::Msie),
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", Browser::OldMsie),
            ("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2)", Browser::Msie),
            ("Mozilla/4.0 (compatible; MSIE 6.0; X11) Opera 7.54", Browser::Other),
            (
                "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99.0 Safari/537.36",
                Browser::Chrome,
            ),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Version/15.0 Safari/605.1", Browser::Safari),
            ("Mozilla/5.0 (X11; rv:99.0) Gecko/20100101 Firefox/99.0", Browser::Other),
            ("curl/8", Browser::Other),
            ("MSIE ", Browser::Other),
            ("", Browser::Other),
        ] {
            assert_eq!(Browser::of(text.as_bytes()), expect, "for {text}");
        }
    }
}
