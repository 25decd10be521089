//! ngx_http_gzip_static_module: files that lie there compressed.

use serde::{Deserialize, Serialize};

/// `gzip_static`: whether `file.gz` is sent in the place of `file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GzipStatic {
    /// Never.
    #[default]
    Off,
    /// To clients that understand it.
    On,
    /// To all.
    Always,
}
