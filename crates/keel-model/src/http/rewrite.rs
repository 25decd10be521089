//! ngx_http_rewrite_module: of it, `return`.

use serde::{Deserialize, Serialize};

use crate::Template;

/// What the `rewrite` phase of a server or location does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// `return`.
    pub answer: Option<Return>,
}

/// `return`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The status, 444 included (close without a response).
    pub status: u16,
    /// A body, or for 301, 302, 303, 307 and 308 the location.
    pub text: Option<Template>,
}
