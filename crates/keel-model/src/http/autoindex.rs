//! ngx_http_autoindex_module: lists of folders.

use serde::{Deserialize, Serialize};

use crate::settings::settings;

settings! {
    /// `autoindex` and its family.
    pub struct AutoindexScope, set by AutoindexLayer {
        /// `autoindex`.
        enabled: bool = false;
        /// `autoindex_format`.
        format: AutoindexFormat = AutoindexFormat::Html;
        /// `autoindex_exact_size`: whether sizes are in bytes, rather than rounded.
        exact_size: bool = true;
        /// `autoindex_localtime`: whether times are those of this host, rather than UTC.
        localtime: bool = false;
    }
}

/// `autoindex_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutoindexFormat {
    /// A page.
    Html,
    /// JSON.
    Json,
    /// JSON within a call of the function that the request names.
    Jsonp,
    /// XML.
    Xml,
}
