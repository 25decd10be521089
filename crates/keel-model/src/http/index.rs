//! ngx_http_index_module: what a request for a folder gets.

use crate::{Template, settings::settings};

settings! {
    /// ngx_http_index_module.
    pub struct IndexScope, set by IndexLayer {
        /// `index`: names tried in order.
        names: Vec<Template> = vec![Template::literal("index.html")];
    }
}
