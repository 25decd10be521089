//! ngx_http_access_module: who may come in, by address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::settings::settings;

settings! {
    /// `allow` and `deny`; the first that matches decides, none allows.
    pub struct AccessScope, set by AccessLayer {
        /// The rules in the file's order.
        rules: Vec<AccessRule> = Vec::new();
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Whom it concerns.
    pub clients: Clients,
    /// Allowed or denied.
    pub outcome: AccessOutcome,
}

/// Whom an access rule concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clients {
    /// Everybody.
    All,
    /// Connections over a unix socket.
    Unix,
    /// A network in CIDR form.
    Network {
        /// Its address, host bits zero.
        address: IpAddr,
        /// Prefix length in bits.
        prefix: u8,
    },
}

/// The outcome of an access rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessOutcome {
    /// Goes on.
    Allow,
    /// 403.
    Deny,
}
