//! ngx_http_fastcgi_module, apart from `fastcgi_pass` itself.

use super::gateway;
use crate::{GatewayParam, Pattern, UpstreamLayer, UpstreamScope, settings::settings};

settings! {
    /// Settings of ngx_http_fastcgi_module.
    pub struct FastCgiScope, set by FastCgiLayer {
        /// Settings towards peers, the same for every protocol.
        upstream: UpstreamScope = gateway::settings("fastcgi_temp", &["status"]), as UpstreamLayer;
        /// `fastcgi_param`.
        params: Vec<GatewayParam> = Vec::new();
        /// `fastcgi_index`: what follows a script's name that ends in `/`.
        index: String = String::new();
        /// `fastcgi_split_path_info`: an expression of two groups, the script's name and what follows it.
        split_path_info: Option<Pattern> = None;
        /// `fastcgi_keep_conn`.
        keep_conn: bool = false;
        /// `fastcgi_catch_stderr`: texts that make a response invalid when the application complains in them.
        catch_stderr: Vec<String> = Vec::new();
    }
}
