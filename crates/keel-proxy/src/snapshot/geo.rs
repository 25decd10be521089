//! `geo` and `split_clients`, ready to be looked up.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use keel_model::{Geo, GeoPlaces, GeoRange, RealIpHeader, RealIpScope, SplitClients, Variable};

/// One `geo` block.
pub(crate) struct CompiledGeo {
    /// Whose text is the address; `None` for the client's own.
    pub(crate) address: Option<Variable>,
    pub(crate) volatile: bool,
    /// Who is believed in `X-Forwarded-For`.
    pub(crate) proxies: RealIpScope,
    places: Places,
    default: Box<[u8]>,
}

/// The values of networks by prefix length and address.
type ByPrefix<A> = Vec<(u8, HashMap<A, Box<[u8]>>)>;

/// Values by addresses.
enum Places {
    /// By prefix length, the longest first.
    Networks { v4: ByPrefix<u32>, v6: ByPrefix<u128> },
    /// In order, none within another.
    Ranges(Box<[GeoRange]>),
}

impl CompiledGeo {
    pub(super) fn compile(geo: &Geo) -> Self {
        let places = match &geo.places {
            GeoPlaces::Ranges(ranges) => Places::Ranges(ranges.clone().into()),
            GeoPlaces::Networks(networks) => {
                let (mut v4, mut v6) = (HashMap::new(), HashMap::new());
                for network in networks {
                    let value: Box<[u8]> = network.value.as_bytes().into();
                    match network.address {
                        IpAddr::V4(address) => {
                            let same: &mut HashMap<_, _> = v4.entry(network.prefix).or_default();
                            same.insert(address.to_bits(), value);
                        }
                        IpAddr::V6(address) => {
                            let same: &mut HashMap<_, _> = v6.entry(network.prefix).or_default();
                            same.insert(address.to_bits(), value);
                        }
                    }
                }
                let (mut v4, mut v6): (Vec<_>, Vec<_>) = (v4.into_iter().collect(), v6.into_iter().collect());
                v4.sort_by_key(|(prefix, _)| std::cmp::Reverse(*prefix));
                v6.sort_by_key(|(prefix, _)| std::cmp::Reverse(*prefix));
                Places::Networks { v4, v6 }
            }
        };
        Self {
            address: geo.address.clone(),
            volatile: geo.volatile,
            proxies: RealIpScope {
                from: geo.proxies.clone(),
                header: RealIpHeader::ForwardedFor,
                recursive: geo.proxy_recursive,
            },
            places,
            default: geo.default.as_bytes().into(),
        }
    }

    /// Finds the value of an address. What isn't one, or none that this block knows, counts as 255.255.255.255, as in nginx.
    pub(crate) fn look_up(&self, address: Option<IpAddr>) -> &[u8] {
        let address = address.map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |address| address.to_canonical());
        let found = match (&self.places, address) {
            (Places::Networks { v4, .. }, IpAddr::V4(address)) => v4.iter().find_map(|(prefix, networks)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
                networks.get(&(address.to_bits() & mask)).map(|value| &**value)
            }),
            (Places::Networks { v6, .. }, IpAddr::V6(address)) => v6.iter().find_map(|(prefix, networks)| {
                let mask = u128::MAX.checked_shl(128 - u32::from(*prefix)).unwrap_or(0);
                networks.get(&(address.to_bits() & mask)).map(|value| &**value)
            }),
            (Places::Ranges(ranges), address) => {
                let address = match address {
                    IpAddr::V4(address) => address,
                    IpAddr::V6(_) => Ipv4Addr::BROADCAST,
                };
                let at = ranges.partition_point(|range| range.last < address);
                ranges.get(at).filter(|range| range.first <= address).map(|range| range.value.as_bytes())
            }
        };
        found.unwrap_or(&self.default)
    }
}

/// Finds the value of a key in a `split_clients` block.
pub(crate) fn split<'a>(split: &'a SplitClients, key: &[u8]) -> &'a [u8] {
    let hash = murmur_hash2(key);
    let part = split.parts.iter().find(|part| part.below.is_none_or(|below| hash < below));
    part.map_or(b"", |part| part.value.as_bytes())
}

/// MurmurHash2 (Austin Appleby, 32 bits, seed 0), by which nginx divides clients, so that they stay in their parts.
fn murmur_hash2(key: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use keel_model::{GeoNetwork, SplitPart, Template};

    use super::*;

    fn geo(places: GeoPlaces) -> CompiledGeo {
        CompiledGeo::compile(&Geo {
            address: None,
            places,
            default: "d".into(),
            proxies: Vec::new(),
            proxy_recursive: false,
            volatile: false,
        })
    }

    fn check(geo: &CompiledGeo, address: &str, expect: &str) {
        let found = geo.look_up(address.parse().ok());
        assert_eq!(std::str::from_utf8(found), Ok(expect), "{address}");
    }

    #[test]
    fn the_narrowest_network_decides() {
        let network = |address: &str, prefix, value: &str| GeoNetwork {
            address: address.parse().unwrap(),
            prefix,
            value: value.into(),
        };
        let geo = geo(GeoPlaces::Networks(vec![
            network("10.0.0.0", 8, "ten"),
            network("10.1.0.0", 16, "ten-one"),
            network("10.1.0.7", 32, "seven"),
            network("2001:db8::", 32, "doc"),
            network("255.255.255.255", 32, "nobody"),
        ]));
        check(&geo, "10.2.0.1", "ten");
        check(&geo, "10.1.0.1", "ten-one");
        check(&geo, "10.1.0.7", "seven");
        check(&geo, "::ffff:10.1.0.7", "seven");
        check(&geo, "11.0.0.1", "d");
        check(&geo, "2001:db8:1::", "doc");
        check(&geo, "2001:db9::", "d");
        check(&geo, "no address", "nobody");
    }

    #[test]
    fn ranges_hold_both_ends() {
        let range = |first: &str, last: &str, value: &str| GeoRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            value: value.into(),
        };
        let geo = geo(GeoPlaces::Ranges(vec![
            range("10.0.0.5", "10.0.0.9", "a"),
            range("10.0.0.10", "10.1.0.0", "b"),
        ]));
        check(&geo, "10.0.0.4", "d");
        check(&geo, "10.0.0.5", "a");
        check(&geo, "10.0.0.9", "a");
        check(&geo, "10.0.0.10", "b");
        check(&geo, "10.1.0.0", "b");
        check(&geo, "10.1.0.1", "d");
        check(&geo, "::1", "d");
    }

    /// Values that the reference implementation gives.
    #[test]
    fn hashes_as_murmur_hash2() {
        for (key, expect) in [
            ("", 0),
            ("a", 0x9268_5f5e),
            ("ab", 0x1aa1_4063),
            ("abc", 0x1357_7c9b),
            ("abcd", 0x2687_3021),
            ("192.0.2.1 and more", 0xe847_14f0),
        ] {
            let got = murmur_hash2(key.as_bytes());
            assert_eq!(got, expect, "{key}: {got:#x}");
        }
    }

    #[test]
    fn parts_are_divided_by_their_limits() {
        let part = |below, value: &str| SplitPart { below, value: value.into() };
        let of = |parts| {
            let clients = SplitClients { key: Template::default(), parts };
            String::from_utf8(split(&clients, b"a").to_vec()).unwrap()
        };
        assert_eq!(of(vec![part(Some(0x9268_5f5e), "low"), part(None, "rest")]), "rest");
        assert_eq!(of(vec![part(Some(0x9268_5f5f), "low"), part(None, "rest")]), "low");
        assert_eq!(of(vec![part(Some(1), "low")]), "");
    }
}
