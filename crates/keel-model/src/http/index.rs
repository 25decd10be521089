//! ngx_http_index_module: what a request for a folder gets.

use serde::{Deserialize, Serialize};

use crate::Template;

/// ngx_http_index_module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexScope {
    /// `index`: names tried in order.
    pub names: Vec<Template>,
}

impl Default for IndexScope {
    fn default() -> Self {
        Self { names: vec![Template::literal("index.html")] }
    }
}
