//! The zones that requests of servers are counted in.

use std::sync::Arc;

use keel_metrics::Traffic;

use crate::stores::{Claims, Named};

/// A zone: all servers that name it, or have its name.
#[derive(Clone)]
pub(crate) struct StatusZone {
    pub(crate) name: String,
    pub(crate) traffic: Arc<ServerTraffic>,
}

/// Requests of a zone. Counts go on through reloads that name it.
pub(crate) struct ServerTraffic {
    workers: usize,
    counts: Traffic,
}

impl Named for ServerTraffic {
    /// The number of workers.
    type Settings = usize;

    fn new(workers: &usize) -> Self {
        Self { workers: *workers, counts: Traffic::new(*workers) }
    }

    fn settings(&self) -> &usize {
        &self.workers
    }
}

impl std::ops::Deref for ServerTraffic {
    type Target = Traffic;

    fn deref(&self) -> &Traffic {
        &self.counts
    }
}

/// Claims the zone of that name; `zones` has those of the configuration so far.
pub(super) fn claim(name: &str, zones: &mut Vec<StatusZone>, claims: &mut Claims<'_>) -> Arc<ServerTraffic> {
    if let Some(known) = zones.iter().find(|zone| zone.name == name) {
        return known.traffic.clone();
    }
    let traffic = claims.named::<ServerTraffic>(name, &claims.workers());
    zones.push(StatusZone { name: name.to_owned(), traffic: traffic.clone() });
    traffic
}
