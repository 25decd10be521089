//! ngx_http_secure_link_module: links that only their maker can make.

use crate::{Template, settings::settings};

settings! {
    /// `secure_link` and what goes with it.
    pub struct SecureLinkScope, set by SecureLinkLayer {
        /// `secure_link`: the digest that the request brings, and behind a comma until when it holds.
        link: Option<Template> = None;
        /// `secure_link_md5`: what the digest is of.
        md5: Option<Template> = None;
        /// `secure_link_secret`, which acts where neither of the others is there.
        secret: Option<String> = None;
    }
}
