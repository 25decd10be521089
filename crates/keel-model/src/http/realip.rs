//! ngx_http_realip_module: a client's address as a balancer in front tells it.

use serde::{Deserialize, Serialize};

use crate::{Clients, settings::settings};

settings! {
    /// Who is believed about the client's address, and where it says it.
    pub struct RealIpScope, set by RealIpLayer {
        /// `set_real_ip_from`: who is believed. With nobody, the address stays the connection's.
        from: Vec<Clients> = Vec::new();
        /// `real_ip_header`.
        header: RealIpHeader = RealIpHeader::Field("x-real-ip".into());
        /// `real_ip_recursive`: whether addresses that are themselves believed are skipped.
        recursive: bool = false;
    }
}

/// Where a client's address is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RealIpHeader {
    /// All fields `X-Forwarded-For`, as one list.
    ForwardedFor,
    /// The header of the PROXY protocol, with the client's port.
    ProxyProtocol,
    /// The first field of this name, in lower case.
    Field(String),
}
