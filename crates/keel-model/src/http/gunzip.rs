//! ngx_http_gunzip_module: responses that are compressed, for clients that don't understand them.

use crate::settings::settings;

settings! {
    /// `gunzip`.
    pub struct GunzipScope, set by GunzipLayer {
        /// `gunzip`.
        enabled: bool = false;
    }
}
