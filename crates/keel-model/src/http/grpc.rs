//! ngx_http_grpc_module: settings of locations with `grpc_pass`.

use crate::{SetHeaders, Template, UpstreamLayer, UpstreamScope, Variable, settings::settings};

settings! {
    /// Settings of ngx_http_grpc_module.
    pub struct GrpcScope, set by GrpcLayer {
        /// Settings towards peers. Bodies pass as they come, both ways.
        upstream: UpstreamScope =
            UpstreamScope { request_buffering: false, buffering: false, ..UpstreamScope::default() }, as UpstreamLayer;
        /// `grpc_set_header`, the defaults included where they are not overridden.
        set_headers: Vec<(String, Template)> = request_fields(), as SetHeaders;
    }
}

/// Fields of a request that don't go on as they came. A client that wants trailers says so, and so does its peer get to know.
fn request_fields() -> Vec<(String, Template)> {
    let host = Template::variable(Variable::ProxyHost);
    let te = Template::variable(Variable::RequestHeader("te".to_owned()));
    vec![("Host".to_owned(), host), ("TE".to_owned(), te)]
}
