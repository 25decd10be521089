//! ngx_http_uwsgi_module, apart from `uwsgi_pass` itself.

use super::gateway;
use crate::{GatewayParam, UpstreamLayer, UpstreamScope, settings::settings};

settings! {
    /// Settings of ngx_http_uwsgi_module.
    pub struct UwsgiScope, set by UwsgiLayer {
        /// Settings towards peers, the same for every protocol.
        upstream: UpstreamScope = gateway::settings("uwsgi_temp", &[]), as UpstreamLayer;
        /// `uwsgi_param`.
        params: Vec<GatewayParam> = Vec::new();
        /// `uwsgi_string`: what follows the parameters, as it is.
        string: String = String::new();
        /// `uwsgi_modifier1`.
        modifier1: u8 = 0;
        /// `uwsgi_modifier2`.
        modifier2: u8 = 0;
    }
}
