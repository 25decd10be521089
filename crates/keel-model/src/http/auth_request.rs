//! ngx_http_auth_request_module: a subrequest decides whether a request may pass.

use crate::{Template, Variable, settings::settings};

settings! {
    /// `auth_request` and `auth_request_set`.
    pub struct AuthRequestScope, set by AuthRequestLayer {
        /// The path that is asked; `None` for `off`.
        path: Option<String> = None;
        /// Variables that are set when it has answered, in the file's order: `$args`, and those that the
        /// configuration defines. Values are evaluated in the subrequest.
        set: Vec<(Variable, Template)> = Vec::new();
    }
}
