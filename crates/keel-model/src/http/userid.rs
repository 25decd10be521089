//! ngx_http_userid_module: cookies that tell clients apart.

use serde::{Deserialize, Serialize};

use crate::{Variable, settings::settings};

settings! {
    /// `userid` and its family.
    pub struct UseridScope, set by UseridLayer {
        /// `userid`.
        mode: UseridMode = UseridMode::Off;
        /// `userid_name`.
        name: String = "uid".to_owned();
        /// `userid_domain`.
        domain: Option<String> = None;
        /// `userid_path`.
        path: String = "/".to_owned();
        /// `userid_expires`.
        expires: UseridExpires = UseridExpires::Off;
        /// `userid_p3p`.
        p3p: Option<String> = None;
        /// `userid_mark`: a letter, a digit or `=`.
        mark: Option<u8> = None;
        /// `userid_service`.
        service: Option<u32> = None;
        /// `userid_flags`, in the order in which they are sent.
        flags: Vec<UseridFlag> = Vec::new();
        /// `$uid_reset`, where the configuration defines it.
        reset: Option<Variable> = None;
    }
}

/// `userid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UseridMode {
    /// Cookies are neither sent nor looked at.
    Off,
    /// They are looked at for `$uid_got`.
    Log,
    /// They are sent, of version 1.
    V1,
    /// They are sent, of version 2.
    On,
}

/// `userid_expires`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UseridExpires {
    /// With the browser's session.
    Off,
    /// At the end of 2037.
    Max,
    /// After so many seconds.
    After(i64),
}

/// One word of `userid_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the attribute of cookies of that name")]
pub enum UseridFlag {
    Secure,
    Httponly,
    SamesiteStrict,
    SamesiteLax,
    SamesiteNone,
}
