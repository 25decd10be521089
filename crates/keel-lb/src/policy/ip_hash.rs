//! The client's address decides (nginx's `ip_hash`): the first three octets of an IPv4 address, all of an IPv6 one.
//!
//! The hash, its constants and its walk are nginx's own, so that clients stay where nginx had them. It runs over all
//! peers of the tier by weight, be they available or not; after 20 that can't take the request it is round robin's.

use std::sync::Arc;

use super::{Choice, Policy, PolicyInfo};
use crate::{Ask, tier::Tier};

pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "ip_hash",
    doc: "Gives all requests of a client's network to one peer: the first three octets of an IPv4 address or the \
          whole IPv6 address decide.",
    key: None,
    parameters: &[],
    build: |_| Ok(Arc::new(IpHash)),
};

/// Misses before round robin takes over.
const MISSES_MAX: usize = 20;

#[derive(Debug)]
struct IpHash;

impl Policy for IpHash {
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice {
        if tier.roster.entries.len() < 2 {
            return Choice::take(tier.turn(ask), ask);
        }
        let mut hash = 89;
        // A retry goes on behind the peers that were tried.
        for _ in 0..=MISSES_MAX + ask.tried.len() {
            hash = step(hash, network(ask.client_key));
            let Some(place) = place(hash, &tier.roster.cumulative_weights) else { break };
            let entry = tier.roster.entry(place).filter(|entry| !ask.has_tried(&entry.state));
            if let Some(entry) = entry.filter(|_| tier.has(place)) {
                return entry.take(ask);
            }
        }
        Choice::take(tier.turn(ask), ask)
    }
}

/// The octets that are hashed. A client on a unix socket has no address and counts as 0.0.0.
fn network(client: &[u8]) -> &[u8] {
    match client {
        [network @ .., _] if network.len() == 3 => network,
        [] => &[0; 3],
        _ => client,
    }
}

fn step(hash: u64, network: &[u8]) -> u64 {
    network.iter().fold(hash, |hash, octet| (hash * 113 + u64::from(*octet)) % 6271)
}

/// The place of the peer whose share of the weights a hash falls into.
pub(super) fn place(hash: u64, cumulative_weights: &[u64]) -> Option<u32> {
    let point = hash.checked_rem(*cumulative_weights.last()?)?;
    u32::try_from(cumulative_weights.partition_point(|sum| *sum <= point)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand from nginx's loop: hash = 89, then (hash * 113 + octet) % 6271 for each octet.
    #[test]
    fn hash_is_nginx_s() {
        assert_eq!(step(89, network(&[127, 0, 0, 1])), 4040);
        assert_eq!(network(&[127, 0, 0, 1]), [127, 0, 0]);
        assert_eq!(network(&[1; 16]).len(), 16);
        assert_eq!(network(&[]), [0, 0, 0]);
    }

    #[test]
    fn weights_scale_the_ranges() {
        let places: Vec<_> = (0..6).map(|hash| place(hash, &[3, 4, 6]).unwrap()).collect();
        assert_eq!(places, [0, 0, 0, 1, 2, 2]);
        assert_eq!(place(7, &[]), None);
    }
}
