//! Fewest requests in flight for the weight (nginx's `least_conn`); peers that tie take turns by weight.
//!
//! Loads are compared and the request counted under one lock, so two workers never both find the same peer idle. A
//! pick looks at every available peer, as in nginx. nginx without `zone` compares only the loads that one worker
//! sees; here they are those of all workers.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed};

use super::{Choice, Policy, PolicyInfo};
use crate::{
    Ask,
    tier::{RosterPeer, Tier},
};

pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "least_conn",
    doc: "Gives a request to the peer with the fewest requests in flight in proportion to its weight. Peers that tie \
          take turns.",
    key: None,
    parameters: &[],
    build: |_| Ok(Arc::new(LeastConn { comparing: Mutex::new(()) })),
};

#[derive(Debug)]
struct LeastConn {
    comparing: Mutex<()>,
}

impl Policy for LeastConn {
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice {
        let _comparing = self.comparing.lock().unwrap_or_else(PoisonError::into_inner);
        // Loads may sink while we look; each is read once, so that one comparison sees one set of numbers.
        let loads = || tier.untried(ask).map(|entry| Load { entry, in_flight: entry.state.in_flight() });
        let mut ties: Vec<Load<'_>> = Vec::new();
        for load in loads() {
            match ties.first().map(|least| load.compare(least)) {
                Some(std::cmp::Ordering::Greater) => {}
                Some(std::cmp::Ordering::Equal) => ties.push(load),
                Some(std::cmp::Ordering::Less) | None => {
                    ties.clear();
                    ties.push(load);
                }
            }
        }
        Choice::take(take_turns(&ties), ask)
    }
}

struct Load<'a> {
    entry: &'a Arc<RosterPeer>,
    in_flight: u32,
}

impl Load<'_> {
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let one = u64::from(self.in_flight) * u64::from(other.entry.weight);
        one.cmp(&(u64::from(other.in_flight) * u64::from(self.entry.weight)))
    }
}

/// nginx's smooth round robin among `ties` alone.
fn take_turns<'a>(ties: &[Load<'a>]) -> Option<&'a Arc<RosterPeer>> {
    if let [only] = ties {
        return Some(only.entry);
    }
    let mut total = 0;
    let mut best: Option<(i64, &Arc<RosterPeer>)> = None;
    for Load { entry, .. } in ties {
        let weight = i64::from(entry.weight);
        total += weight;
        let credit = entry.state.credit.fetch_add(weight, Relaxed) + weight;
        if best.is_none_or(|(most, _)| credit > most) {
            best = Some((credit, entry));
        }
    }
    let (_, entry) = best?;
    entry.state.credit.fetch_sub(total, Relaxed);
    Some(entry)
}
