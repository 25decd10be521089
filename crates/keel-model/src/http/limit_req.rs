//! ngx_http_limit_req_module: how many requests may come in a time.

use serde::{Deserialize, Serialize};

use super::LogLevel;
use crate::{ByteSize, Template, settings::settings};

settings! {
    /// `limit_req` and what goes with it.
    pub struct LimitReqScope, set by LimitReqLayer {
        /// The limits in the file's order; a request must be within all of them.
        limits: Vec<RequestLimit> = Vec::new();
        /// `limit_req_log_level`: of requests that are refused; delayed ones are logged a level below.
        log_level: LogLevel = LogLevel::Error;
        /// `limit_req_status`.
        status: u16 = 503;
        /// `limit_req_dry_run`: limits are counted and logged, and have no effect.
        dry_run: bool = false;
    }
}

/// One `limit_req`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLimit {
    /// Its zone.
    pub zone: LimitZone,
    /// Thousandths of requests in a second.
    pub rate: u64,
    /// `burst`: requests that may come early.
    pub burst: u64,
    /// `delay`: of these, so many don't wait; `None` for `nodelay`, none does.
    pub delay: Option<u64>,
}

/// What is counted, and the memory that all places that name it share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitZone {
    /// Its name.
    pub name: String,
    /// How much memory it takes at most.
    pub size: ByteSize,
    /// What is counted; a request without a key isn't.
    pub key: Template,
}
