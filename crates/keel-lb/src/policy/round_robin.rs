//! Round robin, weighted and exact: each available peer in turn.
//!
//! The turns themselves are in `rotation`, because other algorithms fall back on them.

use std::sync::Arc;

use super::{Choice, Policy, PolicyInfo};
use crate::{Ask, tier::Tier};

pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "round_robin",
    doc: "Gives requests to the peers in turn, by weight. Counts are exact over all workers.",
    key: None,
    parameters: &[],
    build: |_| Ok(Arc::new(RoundRobin)),
};

#[derive(Debug)]
struct RoundRobin;

impl Policy for RoundRobin {
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice {
        Choice::take(tier.turn(ask), ask)
    }
}
