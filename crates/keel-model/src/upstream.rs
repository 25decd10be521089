//! Named groups of peers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Address, Template};

/// The name of an upstream: the `upstream` block's, or for a literal `proxy_pass` its `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpstreamName(pub String);

impl std::fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A named group of peers and how to choose among them. The peers themselves come and go: see [`PeerSet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub name: UpstreamName,
    /// How a peer is picked.
    pub policy: PolicyConfig,
    /// Idle connections kept to its peers.
    pub keepalive: UpstreamKeepalive,
    /// The `zone` directive's name, if any. Evenkeel's counts are global with or without it.
    pub zone: Option<String>,
    /// The peers at load.
    pub peers: PeerSet,
}

/// Which balancing algorithm, by the name its file in `keel-lb` has, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyConfig {
    /// `round_robin` (default), `least_conn`, `ip_hash`, `hash`, `random`.
    pub name: String,
    /// What it goes by, where that is a text of each request (`hash`).
    pub key: Option<Template>,
    /// Its parameters in the order given.
    pub parameters: Vec<String>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { name: "round_robin".into(), key: None, parameters: Vec::new() }
    }
}

/// Idle connections to the peers of one upstream (`keepalive` and its companions).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamKeepalive {
    /// Idle connections kept by each worker; 0 switches reuse off. nginx 1.31's default is 32.
    pub connections: u32,
    /// Requests on one connection before it closes. Default 1,000.
    pub requests: u64,
    /// A connection's age at which it closes after a request. Default 1 h.
    pub time: Duration,
    /// How long a connection may idle. Default 60 s.
    pub idle_timeout: Duration,
    /// Whether a connection is reused only by the location that made it (`keepalive ... local`). Default true; a
    /// `keepalive` without the word sets it to false.
    pub local: bool,
}

impl Default for UpstreamKeepalive {
    fn default() -> Self {
        Self {
            connections: 32,
            requests: 1000,
            time: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(60),
            local: true,
        }
    }
}

/// All peers of an upstream at one moment. A new one replaces the old one whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSet {
    /// The peers in the file's order, instances in the order of their numbers.
    pub peers: Vec<Peer>,
    /// Whether Evenkeel is starting an instance of this upstream now, so that a request with no peer to go to waits
    /// (bounded) instead of failing at once.
    pub starting: bool,
    /// Whether any peer of this upstream is an instance that Evenkeel runs. Decides 503 with Retry-After over 502.
    pub managed: bool,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What makes it this peer and no other.
    pub key: PeerKey,
    /// Its text in the file (`app1:5000`), shown in `$upstream_addr` only where nginx shows it.
    pub name: String,
    /// The instance behind it, where Evenkeel runs it: `app1`, `app-2`.
    pub instance: Option<String>,
    /// Its share among the others. Default 1, at least 1.
    pub weight: u32,
    /// Requests at one time over all workers; 0 for no limit.
    pub max_conns: u32,
    /// Failures within `fail_timeout` that exclude it; 0 for never. Default 1.
    pub max_fails: u32,
    /// The window of `max_fails` and how long it stays excluded. Default 10 s.
    pub fail_timeout: Duration,
    /// Whether it is an instance of which the supervisor asks the kernel if it listens, exactly at this address. A connection
    /// that breaks there is looked into at once, and excludes nobody.
    pub is_watched: bool,
    /// Used only when no other peer is available.
    pub backup: bool,
    /// Never used.
    pub down: bool,
}

impl Peer {
    /// Makes a peer with nginx's defaults.
    pub fn new(address: Address, name: impl Into<String>) -> Self {
        Self {
            key: PeerKey { address, incarnation: 0 },
            name: name.into(),
            instance: None,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            is_watched: false,
            backup: false,
            down: false,
        }
    }
}

/// Tells one peer from another within its upstream. A restarted instance is another peer, with clean counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerKey {
    /// Where it listens.
    pub address: Address,
    /// Which start of the instance this is; 0 for a peer that Evenkeel doesn't run.
    pub incarnation: u64,
}
