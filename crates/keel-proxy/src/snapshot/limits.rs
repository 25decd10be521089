//! The limits of a place, with the zones that they count in.

use std::sync::Arc;

use keel_limit::Rate;
use keel_model::{LimitZone, Scope, Template};

use crate::{
    limits::{CountZone, RateZone, ZoneSettings},
    stores::{Claims, Named},
};

/// All limits of a place that has any.
pub(crate) struct Limits {
    pub(crate) requests: Vec<RequestLimit>,
    pub(crate) connections: Vec<ConnectionLimit>,
}

/// One `limit_req`, in thousandths of requests.
pub(crate) struct RequestLimit {
    pub(crate) name: String,
    pub(crate) zone: Arc<RateZone>,
    pub(crate) key: Template,
    pub(crate) rate: Rate,
    pub(crate) burst: u64,
    /// How much of the burst doesn't wait.
    pub(crate) delay: u64,
}

/// One `limit_conn`.
pub(crate) struct ConnectionLimit {
    pub(crate) name: String,
    pub(crate) zone: Arc<CountZone>,
    pub(crate) key: Template,
    pub(crate) max: u32,
}

impl Limits {
    /// `site` tells zones of one name apart where several configurations share the data plane.
    pub(super) fn compile(scope: &Scope, site: &str, claims: &mut Claims<'_>) -> Option<Box<Self>> {
        let (requests, connections) = (&scope.limit_req.limits, &scope.limit_conn.limits);
        if requests.is_empty() && connections.is_empty() {
            return None;
        }
        let thousandths = |requests: u64| requests.saturating_mul(1000);
        let requests = requests.iter().map(|limit| RequestLimit {
            name: limit.zone.name.clone(),
            zone: claim(&limit.zone, site, claims),
            key: limit.zone.key.clone(),
            rate: Rate(limit.rate.max(1)),
            burst: thousandths(limit.burst),
            delay: limit.delay.map_or(u64::MAX, thousandths),
        });
        let requests = requests.collect();
        let connections = connections.iter().map(|limit| ConnectionLimit {
            name: limit.zone.name.clone(),
            zone: claim(&limit.zone, site, claims),
            key: limit.zone.key.clone(),
            max: limit.max,
        });
        Some(Box::new(Self { requests, connections: connections.collect() }))
    }
}

fn claim<T: Named<Settings = ZoneSettings>>(zone: &LimitZone, site: &str, claims: &mut Claims<'_>) -> Arc<T> {
    claims.named(&format!("{site}/{}", zone.name), &ZoneSettings::from(zone))
}
