//! A key of the request decides (nginx's `hash`): the same key leads to the same peer as long as that is available.
//!
//! Both ways are nginx's own, so that keys stay where nginx had them. Without `consistent` the key's CRC-32 is laid over all
//! peers by weight, and a peer more or less moves most keys. With it each peer has 160 points on a ring for each unit of its
//! weight (ketama), and only the keys of a peer that comes or goes move. A peer's points follow from its name: that of its
//! instance, or as the file has it, unless several have the same, which are told apart by their addresses. After 20 that can't
//! take the request it is round robin's.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Choice, KeyInfo, ParameterInfo, Policy, PolicyInfo, ip_hash::place};
use crate::{
    Ask,
    tier::{Roster, RosterPeer, Tier},
};

pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "hash",
    doc: "Gives all requests with one key to one peer. With `consistent` only a small part of the keys goes elsewhere when a \
          peer comes or goes. Requests without a key take turns.",
    key: Some(KeyInfo { name: "key" }),
    parameters: &[ParameterInfo {
        name: "consistent",
        values: &["consistent"],
        required: false,
        doc: "Lays the peers on a ring (ketama).",
    }],
    build: |parameters| {
        Ok(if parameters.is_empty() { Arc::new(Hash) } else { Arc::new(Consistent::default()) })
    },
};

/// Misses before round robin takes over.
const MISSES_MAX: usize = 20;

/// Points of a peer for each unit of its weight.
const POINTS_PER_WEIGHT: u32 = 160;

/// Points of one tier at most: beyond, weights are scaled down.
const POINTS_MAX: u64 = 4_000_000;

#[derive(Debug)]
struct Hash;

impl Policy for Hash {
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice {
        let roster = &tier.roster;
        if ask.key.is_empty() || roster.entries.len() < 2 {
            return Choice::take(tier.turn(ask), ask);
        }
        let mut hash = 0_u64;
        // A retry goes on behind the peers that were tried.
        for rehash in 0..=MISSES_MAX + ask.tried.len() {
            hash += u64::from(key_hash(rehash, ask.key));
            let place = place(hash, &roster.cumulative_weights);
            let Some(entry) = place.and_then(|place| roster.entry(place)) else { break };
            if tier.has(entry.place) && !ask.has_tried(&entry.state) {
                return entry.take(ask);
            }
        }
        Choice::take(tier.turn(ask), ask)
    }
}

/// The hash of a key as Cache::Memcached has it, of which fifteen bits count.
fn key_hash(rehash: usize, key: &[u8]) -> u32 {
    let mut crc = Crc::default();
    if rehash > 0 {
        crc.update(rehash.to_string().as_bytes());
    }
    crc.update(key);
    (crc.finish() >> 16) & 0x7fff
}

/// The rings of the tiers that were asked last.
#[derive(Debug, Default)]
struct Consistent(Mutex<Vec<(Weak<Roster>, Arc<Ring>)>>);

/// Rings that are kept: those of both tiers, and of both while a new publication takes over.
const RINGS_MAX: usize = 4;

impl Policy for Consistent {
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice {
        if ask.key.is_empty() || tier.roster.entries.len() < 2 {
            return Choice::take(tier.turn(ask), ask);
        }
        let ring = self.ring(&tier.roster);
        let start = ring.find(crc32(ask.key));
        for step in 0..=MISSES_MAX + ask.tried.len() {
            let entry = ring.place(start.wrapping_add(step)).and_then(|place| tier.roster.entry(place));
            let Some(entry) = entry else { break };
            if tier.has(entry.place) && !ask.has_tried(&entry.state) {
                return entry.take(ask);
            }
        }
        Choice::take(tier.turn(ask), ask)
    }
}

impl Consistent {
    /// The ring of a roster; it is made when it is asked for first.
    fn ring(&self, roster: &Arc<Roster>) -> Arc<Ring> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rings.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(roster)));
        if let Some((_, ring)) = known {
            return ring.clone();
        }
        rings.retain(|(of, _)| of.strong_count() > 0);
        if rings.len() >= RINGS_MAX {
            rings.remove(0);
        }
        let ring = Arc::new(Ring::new(&roster.entries));
        rings.push((Arc::downgrade(roster), ring.clone()));
        ring
    }
}

/// Points in order, each with the place of its peer.
#[derive(Debug)]
struct Ring(Vec<(u32, u32)>);

impl Ring {
    fn new(entries: &[Arc<RosterPeer>]) -> Self {
        let weights: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
        let scale = (weights * u64::from(POINTS_PER_WEIGHT)).div_ceil(POINTS_MAX).max(1);
        let mut points = Vec::new();
        for entry in entries {
            let is_same = |other: &&Arc<RosterPeer>| other.name == entry.name;
            let name = if entries.iter().filter(is_same).count() > 1 {
                entry.state.key().address.to_string()
            } else {
                entry.name.to_string()
            };
            let weight = u64::from(entry.weight) / scale;
            let count = u32::try_from(weight.max(1)).unwrap_or(u32::MAX).saturating_mul(POINTS_PER_WEIGHT);
            points.extend(points_of(&name).take(count as usize).map(|point| (point, entry.place)));
        }
        points.sort_by_key(|(point, _)| *point);
        points.dedup_by_key(|(point, _)| *point);
        Self(points)
    }

    /// The index of the first point that isn't before a hash.
    fn find(&self, hash: u32) -> usize {
        self.0.partition_point(|(point, _)| *point < hash)
    }

    fn place(&self, index: usize) -> Option<u32> {
        self.0.get(index.checked_rem(self.0.len())?).map(|(_, place)| *place)
    }
}

/// The points of a peer, as Cache::Memcached::Fast has them.
fn points_of(name: &str) -> impl Iterator<Item = u32> {
    let (host, port) = host_and_port(name);
    let mut base = Crc::default();
    base.update(host.as_bytes());
    base.update(&[0]);
    base.update(port.as_bytes());
    let mut before = 0_u32;
    std::iter::repeat_with(move || {
        let mut crc = base;
        crc.update(&before.to_le_bytes());
        before = crc.finish();
        before
    })
}

/// Splits a peer's name at a colon that only digits follow.
fn host_and_port(name: &str) -> (&str, &str) {
    if let Some(path) = name.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("unix:")).and(name.get(5..))
    {
        return (path, "");
    }
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (name, ""),
    }
}

/// CRC-32 as zlib has it. A key and a name are short: a table and eight lines do.
#[derive(Clone, Copy, Debug)]
struct Crc(u32);

impl Default for Crc {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let mut crc = self.0 ^ u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
            }
            self.0 = crc;
        }
    }

    fn finish(self) -> u32 {
        !self.0
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::default();
    crc.update(bytes);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_zlib_s() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(key_hash(0, b"123456789"), 0x4bf4);
        assert_eq!(key_hash(12, b"3456789"), 0x4bf4);
    }

    #[test]
    fn names_are_split_as_nginx_splits_them() {
        let check =
            |name: &str, host: &str, port: &str| assert_eq!(host_and_port(name), (host, port), "{name}");
        check("127.0.0.1:8080", "127.0.0.1", "8080");
        check("app", "app", "");
        check("unix:/a:80", "/a:80", "");
        check("[::1]:80", "[::1]", "80");
        check("[::1]", "[::1]", "");
    }

    #[test]
    fn points_follow_from_each_other() {
        let points: Vec<u32> = points_of("127.0.0.1:8081").take(2).collect();
        let expect = |before: u32| crc32(&[b"127.0.0.1\x008081".as_slice(), &before.to_le_bytes()].concat());
        assert_eq!(points, [expect(0), expect(expect(0))]);
    }

    #[test]
    fn a_ring_goes_round() {
        let ring = Ring(vec![(10, 0), (20, 1), (30, 0)]);
        let place = |hash: u32| ring.place(ring.find(hash));
        assert_eq!([place(0), place(10), place(11), place(30), place(31)], [0, 0, 1, 0, 0].map(Some));
        assert_eq!(Ring(Vec::new()).place(7), None);
    }
}
