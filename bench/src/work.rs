//! The kinds of work that proxies are compared on.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What requests begin with that go to peers on unix sockets.
pub(crate) const UNIX_FOLDER: &str = "/unix/";

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// GET with a response body of 100 bytes on connections that are kept.
    Body100,
    /// The same, 1,000 bytes.
    Body1k,
    /// The same, 10,000 bytes.
    Body10k,
    /// The same, 16,384 bytes: with its head more than 16 KiB.
    Body16k,
    /// The same, 100,000 bytes.
    Body100k,
    /// GET with a response body of 100 bytes, from peers on unix sockets.
    UnixPeers,
    /// A browser's request of 15 fields, response body of 1,000 bytes.
    Browser,
    /// Each request on a connection of its own, response body of 100 bytes.
    NewConnections,
}

impl Work {
    pub(crate) const ALL: [Self; 8] = [
        Self::Body100,
        Self::Body1k,
        Self::Body10k,
        Self::Body16k,
        Self::Body100k,
        Self::UnixPeers,
        Self::Browser,
        Self::NewConnections,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Body100 => "0.1 KB",
            Self::Body1k => "1 KB",
            Self::Body10k => "10 KB",
            Self::Body16k => "16 KB",
            Self::Body100k => "100 KB",
            Self::UnixPeers => "unix peers, 0.1 KB",
            Self::Browser => "browser, 1 KB",
            Self::NewConnections => "new connections",
        }
    }

    pub(crate) fn body_bytes(self) -> usize {
        match self {
            Self::Body100 | Self::UnixPeers | Self::NewConnections => 100,
            Self::Body1k | Self::Browser => 1_000,
            Self::Body10k => 10_000,
            Self::Body16k => 16_384,
            Self::Body100k => 100_000,
        }
    }

    pub(crate) fn path(self) -> String {
        let folder = if self == Self::UnixPeers { UNIX_FOLDER } else { "/" };
        format!("{folder}{}", self.body_bytes())
    }

    /// Fields beside `Host`.
    pub(crate) fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Browser => BROWSER,
            Self::NewConnections => &[("Connection", "close")],
            Self::Body100
            | Self::Body1k
            | Self::Body10k
            | Self::Body16k
            | Self::Body100k
            | Self::UnixPeers => &[],
        }
    }
}

/// What Firefox sends, 15 fields with `Host`.
const BROWSER: &[(&str, &str)] = &[
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.7,de;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop.example.org/catalogue?page=2&sort=price"),
    (
        "Cookie",
        "session=6b2f0c1e9a7d4e5f8a1b3c5d7e9f0a2b; theme=dark; consent=all; _ga=GA1.2.1234567890.1700000000",
    ),
    ("DNT", "1"),
    ("Sec-GPC", "1"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Priority", "u=0, i"),
    ("Cache-Control", "max-age=0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_sends_15_fields() {
        assert_eq!(Work::Browser.fields().len() + 1, 15);
    }
}
