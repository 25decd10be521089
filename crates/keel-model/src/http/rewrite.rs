//! ngx_http_rewrite_module: of it, `return`.

use serde::{Deserialize, Serialize};

use crate::{Own, Template, settings::settings};

settings! {
    /// What the `rewrite` phase of a server or location does.
    pub struct Rewrite, set by RewriteLayer {
        /// `return`.
        answer: Option<Return> = None, as Own<Option<Return>>;
    }
}

/// `return`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The status, 444 included (close without a response).
    pub status: u16,
    /// A body, or for 301, 302, 303, 307 and 308 the location.
    pub text: Option<Template>,
}
