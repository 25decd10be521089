//! What the modules share that ask gateways: applications that get a request as parameters, in FastCGI, uwsgi or SCGI.

use serde::{Deserialize, Serialize};

use crate::{Template, UpstreamScope};

/// `fastcgi_param` and its like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayParam {
    /// Its name, as it is sent.
    pub name: String,
    /// Its value.
    pub value: Template,
    /// Whether an empty value is sent.
    pub empty: EmptyParam,
}

/// What becomes of a parameter without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmptyParam {
    /// It is sent.
    Sent,
    /// It is left out (`if_not_empty`).
    LeftOut,
}

/// Settings towards gateways whose folder for responses has this name, without fields that are hidden besides those that
/// every gateway's are.
pub(super) fn settings(temp_path: &str, hidden: &[&str]) -> UpstreamScope {
    let of_all =
        ["x-accel-expires", "x-accel-redirect", "x-accel-limit-rate", "x-accel-buffering", "x-accel-charset"];
    UpstreamScope {
        temp_path: temp_path.into(),
        hide_headers: hidden.iter().chain(&of_all).map(|name| (*name).to_owned()).collect(),
        ..UpstreamScope::default()
    }
}
