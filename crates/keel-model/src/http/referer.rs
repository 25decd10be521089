//! ngx_http_referer_module: which pages may refer to this one.

use serde::{Deserialize, Serialize};

use crate::{Pattern, settings::settings};

settings! {
    /// `valid_referers`.
    pub struct RefererScope, set by RefererLayer {
        /// What is named; `None` lets everything be valid.
        valid: Option<ValidReferers> = None;
        /// Expressions, which are matched without regard to case.
        patterns: Vec<Pattern> = Vec::new();
    }
}

/// What `valid_referers` names, apart from expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidReferers {
    /// `none`: a request without the field is valid.
    pub none: bool,
    /// `blocked`: one whose field is no URL is.
    pub blocked: bool,
    /// `server_names`: the names of the server are.
    pub server_names: bool,
    /// Host names, which may have a wildcard at either end, in lower case.
    pub hosts: Vec<RefererHost>,
}

/// A host that may refer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefererHost {
    /// Its name.
    pub name: String,
    /// What the path must begin with.
    pub path: Option<String>,
}
