//! ngx_http_map_module: one value from another.

use serde::{Deserialize, Serialize};

use crate::{Pattern, Template};

/// A `map` block: one template in, one template out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// What is looked up.
    pub source: Template,
    /// Whether patterns are host names with a wildcard at either end (`hostnames`).
    pub hostnames: bool,
    /// Whether the result is computed anew at every use (`volatile`).
    pub volatile: bool,
    /// Exact and wildcard patterns in the file's order; matched without regard to case.
    pub entries: Vec<(String, Template)>,
    /// Regular expressions in the file's order, tried after `entries`.
    pub regexes: Vec<(Pattern, Template)>,
    /// The result where nothing matches.
    pub default: Template,
}
