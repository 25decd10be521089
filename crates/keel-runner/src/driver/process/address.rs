//! Addresses of instances: 127.x.y.z, one for each life.
//!
//! Derived from project, instance and incarnation slot, so that the same instance has the same few addresses on every
//! run; checked against everybody who listens on this machine, and not given again right after it became free. 127.0.x.x is
//! left to the host: resolvers and others live there.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
};

/// How many freed addresses rest before they may be given again.
const RESTING_MAX: usize = 64;
/// How many slots an instance has; more only when others hold them all.
const SLOTS_MAX: u32 = 1 << 16;

/// Who has which address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    held: BTreeSet<Ipv4Addr>,
    resting: VecDeque<Ipv4Addr>,
}

impl Addresses {
    /// Takes an address for a new life of an instance. `is_foreign` tells whether somebody else listens there.
    pub(super) fn take(
        &mut self,
        project: &str,
        instance: &str,
        is_foreign: impl Fn(IpAddr) -> bool,
    ) -> Option<Ipv4Addr> {
        let free = |address: &Ipv4Addr| !self.held.contains(address) && !is_foreign(IpAddr::V4(*address));
        let address = (0..SLOTS_MAX)
            .map(|slot| address_of(project, instance, slot))
            .find(|address| free(address) && !self.resting.contains(address))?;
        self.held.insert(address);
        Some(address)
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        if self.held.remove(&address) {
            self.resting.push_back(address);
            if self.resting.len() > RESTING_MAX {
                self.resting.pop_front();
            }
        }
    }
}

fn address_of(project: &str, instance: &str, slot: u32) -> Ipv4Addr {
    // FNV-1a, 64 bits: the same everywhere, and even enough.
    let bytes = project.bytes().chain([0]).chain(instance.bytes()).chain(slot.to_le_bytes());
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
    use super::*;

    #[test]
    fn gives_each_life_its_own_and_the_same_on_every_run() {
        let mut addresses = Addresses::default();
        let first = addresses.take("shop", "app1", |_| false).unwrap();
        let second = addresses.take("shop", "app1", |_| false).unwrap();
        let other = addresses.take("shop", "app2", |_| false).unwrap();
        assert_eq!(BTreeSet::from([first, second, other]).len(), 3);
        assert_eq!(Addresses::default().take("shop", "app1", |_| false), Some(first));
        assert_ne!(Addresses::default().take("blog", "app1", |_| false), Some(first));
    }

    #[test]
    fn avoids_who_listens_there_and_what_was_free_just_now() {
        let mut addresses = Addresses::default();
        let first = addresses.take("shop", "app1", |_| false).unwrap();
        addresses.release(first);
        let second = addresses.take("shop", "app1", |_| false).unwrap();
        assert_ne!(first, second);
        let third = addresses.take("shop", "app1", |address| address != IpAddr::V4(first)).map(|_| ());
        assert_eq!(third, None, "the only one nobody listens on rests");
    }

    #[test]
    fn leaves_the_hosts_part_alone() {
        for slot in 0..10_000 {
            let [net, a, b, c] = address_of("p", "i", slot).octets();
            assert!(net == 127 && a != 0 && b != 0 && c != 0 && c != 255);
        }
    }
}
