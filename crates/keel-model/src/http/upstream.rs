//! Settings of every module that asks peers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `proxy_next_upstream`: what makes a request go to another peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextUpstream {
    /// Failures to connect, send or read. Part of the default.
    pub error: bool,
    /// Time-outs of the same. Part of the default.
    pub timeout: bool,
    /// An empty or malformed response.
    pub invalid_header: bool,
    /// Statuses: 403, 404, 429, 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Also requests that are not idempotent and have been sent.
    pub non_idempotent: bool,
    /// `proxy_next_upstream_tries`, the first attempt counted; 0 for as many as there are peers.
    pub tries: u32,
    /// `proxy_next_upstream_timeout` since the first attempt; zero for no limit.
    pub timeout_total: Duration,
}

impl Default for NextUpstream {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid_header: false,
            statuses: Vec::new(),
            non_idempotent: false,
            tries: 0,
            timeout_total: Duration::ZERO,
        }
    }
}
