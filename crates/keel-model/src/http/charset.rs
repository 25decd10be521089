//! ngx_http_charset_module: the charset that responses are in.

use serde::{Deserialize, Serialize};

use crate::{Template, settings::settings};

settings! {
    /// `charset`, `source_charset`, `override_charset`, `charset_types`.
    pub struct CharsetScope, set by CharsetLayer {
        /// `charset`; `None` for `off`.
        charset: Option<Template> = None;
        /// `source_charset`: what bodies are in; `None` where nothing says it.
        source: Option<Template> = None;
        /// `override_charset`: whether `charset` holds for responses that name a charset themselves, too.
        overrides: bool = false;
        /// `charset_types`.
        types: MediaTypes = default_types();
    }
}

fn default_types() -> MediaTypes {
    let types = [
        MediaTypes::ALWAYS,
        "text/xml",
        "text/plain",
        "text/vnd.wap.wml",
        "application/javascript",
        "application/rss+xml",
    ];
    MediaTypes::These(types.map(str::to_owned).to_vec())
}

/// `charset_map`: how text in one charset is written in another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharsetMap {
    /// The charset of the first column, of one byte for each character.
    pub from: String,
    /// The charset of the second column.
    pub to: String,
    /// Characters: a byte of the first, and what it is in the second, one byte or a character of UTF-8.
    pub pairs: Vec<(u8, Vec<u8>)>,
}

impl CharsetMap {
    /// Says whether it is between two charsets, in either direction.
    pub fn is_between(&self, one: &str, other: &str) -> bool {
        let is =
            |from: &str, to: &str| self.from.eq_ignore_ascii_case(from) && self.to.eq_ignore_ascii_case(to);
        is(one, other) || is(other, one)
    }

    /// Says whether the second column is UTF-8.
    pub fn is_utf8(&self) -> bool {
        self.to.eq_ignore_ascii_case("utf-8")
    }
}

/// The media types that a filter acts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaTypes {
    /// `*`.
    All,
    /// Their names in lower case.
    These(Vec<String>),
}

impl MediaTypes {
    /// The type that every list has, written or not.
    pub const ALWAYS: &str = "text/html";

    /// Makes the list that has only that.
    pub fn always() -> Self {
        MediaTypes::These(vec![Self::ALWAYS.to_owned()])
    }

    /// Says whether a media type, in any case, is one of them.
    pub fn contains(&self, media: &[u8]) -> bool {
        match self {
            MediaTypes::All => true,
            MediaTypes::These(types) => {
                types.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(media))
            }
        }
    }
}
