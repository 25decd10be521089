//! A peer drawn by weight (nginx's `random`), or the less loaded of two drawn (`random two`; Mitzenmacher 2001,
//! doi:10.1109/71.963420).
//!
//! Counts even out only in the long run: this trades the exactness of round robin for picks that share no state.

use std::sync::Arc;

use super::{Choice, ParameterInfo, Policy, PolicyInfo};
use crate::{
    Ask,
    tier::{RosterPeer, Tier},
};

pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "random",
    doc: "Gives a request to a peer drawn by weight; with `two`, to the less loaded of two drawn.",
    key: None,
    parameters: &[
        ParameterInfo {
            name: "two",
            values: &["two"],
            required: false,
            doc: "Draws two peers and keeps the one with fewer requests in flight for its weight.",
        },
        ParameterInfo {
            name: "method",
            values: &["least_conn"],
            required: false,
            doc: "How the two are compared; there is one way.",
        },
    ],
    build: |parameters| Ok(Arc::new(Random { draws: if parameters.is_empty() { 1 } else { 2 } })),
};

#[derive(Debug)]
struct Random {
    draws: usize,
}

impl Policy for Random {
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice {
        let mut candidates: Vec<&Arc<RosterPeer>> = tier.untried(ask).collect();
        let mut random = ask.random;
        let mut best: Option<&Arc<RosterPeer>> = None;
        for _ in 0..self.draws {
            random = mix(random);
            let Some(drawn) = draw(&candidates, random) else { break };
            let entry = candidates.swap_remove(drawn);
            let load = |entry: &RosterPeer, other: &RosterPeer| {
                u64::from(entry.state.in_flight()) * u64::from(other.weight)
            };
            if best.is_none_or(|best| load(entry, best) < load(best, entry)) {
                best = Some(entry);
            }
        }
        Choice::take(best, ask)
    }
}

/// The index of a candidate, by weight.
fn draw(candidates: &[&Arc<RosterPeer>], random: u64) -> Option<usize> {
    let total: u64 = candidates.iter().map(|entry| u64::from(entry.weight)).sum();
    let mut point = random.checked_rem(total)?;
    candidates.iter().position(|entry| match point.checked_sub(u64::from(entry.weight)) {
        None => true,
        Some(rest) => {
            point = rest;
            false
        }
    })
}

/// The finaliser of splitmix64: makes a second draw out of one random number.
fn mix(random: u64) -> u64 {
    let mixed = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
