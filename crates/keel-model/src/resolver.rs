//! Who is asked for the addresses behind a name while requests are served.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// How names of peers are followed (`resolver`, `resolver_timeout`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resolver {
    /// Who is asked.
    pub source: ResolverSource,
    /// How long an answer holds (`valid`); `None` for as long as the answer itself says.
    pub valid: Option<Duration>,
    /// Whether IPv4 addresses are asked for. Default yes.
    pub ipv4: bool,
    /// Whether IPv6 addresses are asked for. Default yes.
    pub ipv6: bool,
    /// How long one question may take (`resolver_timeout`). Default 30 s.
    pub timeout: Duration,
}

/// Who is asked for addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ResolverSource {
    /// These DNS servers.
    Servers(Vec<NameServer>),
    /// The DNS servers of /etc/resolv.conf, with its search list.
    System,
    /// No DNS but the container engine itself: what it starts, stops and finds healthy. `valid` means nothing there.
    Docker,
    /// No DNS but the cluster's API: the endpoints of Services. `valid` means nothing there.
    Kubernetes,
}

/// A DNS server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameServer {
    /// Its address, or a name that the system knows.
    pub host: String,
    /// Its port. Default 53.
    pub port: u16,
}

impl Resolver {
    /// Makes one with nginx's defaults.
    pub fn new(source: ResolverSource) -> Self {
        Self { source, valid: None, ipv4: true, ipv6: true, timeout: Duration::from_secs(30) }
    }
}

/// A name and the port behind it, and who is asked for its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FollowedName {
    /// Who is asked.
    pub resolver: Resolver,
    /// The name.
    pub host: String,
    /// The port that peers have.
    pub port: u16,
    /// What a Service calls the port (`service=name`), in place of its number.
    pub port_name: Option<String>,
}

impl fmt::Display for FollowedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
