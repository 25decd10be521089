//! What this process has counted, for the supervisor and for whoever may read a `prometheus` location.

use keel_model::{DataPlaneStatus, ZoneStatus};
use keel_telemetry::Counters;

use super::Snapshot;

impl Snapshot {
    /// The counts of all workers, and those of its servers and peers.
    pub(crate) fn status(&self, counters: &Counters) -> DataPlaneStatus {
        let totals = counters.totals();
        let zone =
            |zone: &super::StatusZone| ZoneStatus { name: zone.name.clone(), traffic: zone.traffic.status() };
        DataPlaneStatus {
            generation: self.generation,
            accepted: totals.accepted,
            active: totals.active,
            requests: totals.requests,
            queued: totals.queued,
            panics: totals.panics,
            zones: self.zones.iter().map(zone).collect(),
            peers: self.upstreams.iter().flat_map(|upstream| upstream.group.status()).collect(),
        }
    }
}
