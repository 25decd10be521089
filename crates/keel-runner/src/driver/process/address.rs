//! Addresses of instances: 127.x.y.z, one for each life.
//!
//! Derived from project, instance and attempt, so that the same instance has the same few addresses on every
//! run. An address on which something listens is left out; one that is taken is claimed ([`keel_sys::claim`]), and rests
//! before it is given again. 127.0.x.x is left to the host: resolvers and others live there.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

use keel_sys::claim::Claim;

/// How many freed addresses rest before they may be given again.
const RESTING_MAX: usize = 64;
/// How many addresses an instance may try.
const ATTEMPTS_MAX: u32 = 1 << 16;

/// The addresses in use and at rest. A resting one stays claimed: a late connection is meant for the life that had it.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    held: BTreeMap<Ipv4Addr, Option<Claim>>,
    resting: VecDeque<(Ipv4Addr, Option<Claim>)>,
}

/// Whether an address can be had.
pub(super) enum Free {
    /// It can; where the kernel has names for it, claimed for others to see.
    Yes(Option<Claim>),
    /// Somebody listens there, or another project has it.
    No,
}

impl Addresses {
    /// Takes an address for a new life of an instance.
    pub(super) fn take(
        &mut self,
        project: &str,
        instance: &str,
        claim: impl Fn(Ipv4Addr) -> Free,
    ) -> Option<Ipv4Addr> {
        for attempt in 0..ATTEMPTS_MAX {
            let address = address_of(project, instance, attempt);
            if self.held.contains_key(&address) || self.resting.iter().any(|(other, _)| *other == address) {
                continue;
            }
            if let Free::Yes(claim) = claim(address) {
                self.held.insert(address, claim);
                return Some(address);
            }
        }
        None
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        if let Some(claim) = self.held.remove(&address) {
            self.resting.push_back((address, claim));
            if self.resting.len() > RESTING_MAX {
                self.resting.pop_front();
            }
        }
    }
}

/// The address of a service of a project that is nobody's instance: the balancer's, or that of a service that has
/// none ready. The same on every run.
pub(super) fn address_of_service(project: &str, kind: &str, service: &str) -> Ipv4Addr {
    address_of(project, &format!("{kind}/{service}"), 0)
}

fn address_of(project: &str, instance: &str, attempt: u32) -> Ipv4Addr {
    // FNV-1a, 64 bits: the same everywhere, and even enough.
    let bytes = project.bytes().chain([0]).chain(instance.bytes()).chain(attempt.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, ..] = (hash ^ (hash >> 29)).to_le_bytes();
    // 1 to 254 each; d only stirs.
    let octet = |byte: u8| byte % 254 + 1;
    Ipv4Addr::new(127, octet(a ^ d), octet(b), octet(c))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn yes(_: Ipv4Addr) -> Free {
        Free::Yes(None)
    }

    #[test]
    fn gives_each_life_its_own_and_the_same_on_every_run() {
        let mut addresses = Addresses::default();
        let first = addresses.take("shop", "app1", yes).unwrap();
        let second = addresses.take("shop", "app1", yes).unwrap();
        let other = addresses.take("shop", "app2", yes).unwrap();
        assert_eq!(BTreeSet::from([first, second, other]).len(), 3);
        assert_eq!(Addresses::default().take("shop", "app1", yes), Some(first));
        assert_ne!(Addresses::default().take("blog", "app1", yes), Some(first));
    }

    #[test]
    fn avoids_who_listens_there_and_what_was_free_just_now() {
        let mut addresses = Addresses::default();
        let first = addresses.take("shop", "app1", yes).unwrap();
        addresses.release(first);
        let second = addresses.take("shop", "app1", yes).unwrap();
        assert_ne!(first, second);
        let only_first = |address| if address == first { Free::Yes(None) } else { Free::No };
        assert_eq!(addresses.take("shop", "app1", only_first), None, "the only one nobody listens on rests");
    }

    #[test]
    fn leaves_the_hosts_part_alone() {
        for attempt in 0..10_000 {
            let [net, a, b, c] = address_of("p", "i", attempt).octets();
            assert!(net == 127 && a != 0 && b != 0 && c != 0 && c != 255);
        }
    }
}
