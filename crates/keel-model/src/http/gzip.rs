//! ngx_http_gzip_module: compressing responses.

use serde::{Deserialize, Serialize};

use crate::{ByteSize, MediaTypes, Pattern, settings::settings};

settings! {
    /// `gzip` and its family.
    pub struct GzipScope, set by GzipLayer {
        /// `gzip`.
        enabled: bool = false;
        /// `gzip_types`.
        types: MediaTypes = MediaTypes::always();
        /// `gzip_comp_level`, 1 to 9.
        level: u32 = 1;
        /// `gzip_min_length`: shorter bodies are left alone.
        min_length: ByteSize = ByteSize(20);
        /// `gzip_window`: the base-2 logarithm of its size in bytes, 9 to 15.
        window_bits: u32 = 15;
        /// `gzip_hash`: how much memory is used beside the window, 1 to 9 as zlib counts.
        memory_level: u32 = 8;
        /// `gzip_vary`.
        vary: bool = false;
        /// `gzip_http_version`: whether clients of HTTP/1.0 get compressed responses.
        http10: bool = false;
        /// `gzip_proxied`: which responses to proxies are compressed.
        proxied: Vec<GzipProxied> = vec![GzipProxied::Off];
        /// `gzip_disable`: clients that get no compressed responses, by `User-Agent`.
        disable: GzipDisable = GzipDisable::default();
    }
}

/// One word of `gzip_proxied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GzipProxied {
    /// `off`: none.
    Off,
    /// `expired`: those whose `Expires` forbids to keep them.
    Expired,
    /// `no-cache` in `Cache-Control`.
    NoCache,
    /// `no-store` in it.
    NoStore,
    /// `private` in it.
    Private,
    /// `no_last_modified`: those without `Last-Modified`.
    NoLastModified,
    /// `no_etag`: those without `ETag`.
    NoEtag,
    /// `auth`: those to requests with `Authorization`.
    Auth,
    /// `any`: all.
    Any,
}

/// `gzip_disable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GzipDisable {
    /// Expressions, in any case.
    pub patterns: Vec<Pattern>,
    /// `msie6`: old versions of Internet Explorer.
    pub msie6: bool,
}
