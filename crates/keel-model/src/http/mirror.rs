//! ngx_http_mirror_module: copies of requests.

use crate::settings::settings;

settings! {
    /// `mirror` and `mirror_request_body`.
    pub struct MirrorScope, set by MirrorLayer {
        /// The paths that get a copy, in the file's order. Empty for `off`.
        paths: Vec<String> = Vec::new();
        /// `mirror_request_body`: the body is read before the copies are made, and goes with each.
        request_body: bool = true;
    }
}
