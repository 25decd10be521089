//! ngx_http_limit_conn_module: how many requests there may be at once.

use serde::{Deserialize, Serialize};

use super::{LimitZone, LogLevel};
use crate::settings::settings;

settings! {
    /// `limit_conn` and what goes with it.
    pub struct LimitConnScope, set by LimitConnLayer {
        /// The limits in the file's order; a request must be within all of them.
        limits: Vec<ConnectionLimit> = Vec::new();
        /// `limit_conn_log_level`: of requests that are refused.
        log_level: LogLevel = LogLevel::Error;
        /// `limit_conn_status`.
        status: u16 = 503;
        /// `limit_conn_dry_run`: limits are counted and logged, and have no effect.
        dry_run: bool = false;
    }
}

/// One `limit_conn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionLimit {
    /// Its zone.
    pub zone: LimitZone,
    /// How many there may be of a key.
    pub max: u32,
}
