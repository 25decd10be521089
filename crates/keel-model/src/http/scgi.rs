//! ngx_http_scgi_module, apart from `scgi_pass` itself.

use super::gateway;
use crate::{GatewayParam, UpstreamLayer, UpstreamScope, settings::settings};

settings! {
    /// Settings of ngx_http_scgi_module.
    pub struct ScgiScope, set by ScgiLayer {
        /// Settings towards peers, the same for every protocol.
        upstream: UpstreamScope = gateway::settings("scgi_temp", &["status"]), as UpstreamLayer;
        /// `scgi_param`.
        params: Vec<GatewayParam> = Vec::new();
    }
}
