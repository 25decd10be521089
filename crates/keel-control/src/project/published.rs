//! Ports of this host for entries of `ports` that leave the choice: `"5000"`, `"127.0.0.1::5000"`, `"8000-8010:80"`.
//!
//! The choice begins with a digest of what asks for it, so that the same project gets the same port again wherever it is
//! free. A port that this process listens on already is chosen first: a reload keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use keel_compose::{PortMapping, PortRange, Project};
use sha2::{Digest, Sha256};

use crate::sockets::is_own_port;

/// Ports that are looked at for one entry without a range of its own.
const CANDIDATES_MAX: u16 = 256;
/// Where ports are chosen when the kernel doesn't say: its default for ports that it chooses itself.
const RANGE_DEFAULT: PortRange = PortRange { first: 32_768, last: 60_999 };

/// What chooses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// Any free one.
    Any,
    /// The first free one of these.
    Of(PortRange),
}

/// The ports chosen so far.
#[derive(Debug, Default)]
pub(super) struct ChosenPorts {
    known: BTreeMap<(String, usize), u16>,
}

impl ChosenPorts {
    /// Gives an entry of a service's `ports` with the port that it is published under. `None` where none is free.
    pub(super) fn settle(
        &mut self,
        project: &Project,
        service: &str,
        mapping: &PortMapping,
    ) -> Option<PortMapping> {
        let choice = match mapping.published {
            None => Choice::Any,
            Some(range) if range.first < range.last => Choice::Of(range),
            Some(_) => return Some(mapping.clone()),
        };
        let ports = project.services.get(service).map_or(&[][..], |service| &service.ports);
        let at = ports.iter().position(|other| other.span == mapping.span && other.target == mapping.target);
        let key = (service.to_owned(), at.unwrap_or(ports.len()));
        let known = self.known.get(&key).copied();
        let port = known.or_else(|| {
            let seed = format!("{} {service} {} {at:?}", project.folder.display(), mapping.target);
            self.choose(&candidates(choice, &seed), mapping.host_ip, &fixed(project))
        })?;
        self.known.insert(key, port);
        Some(PortMapping { published: Some(PortRange { first: port, last: port }), ..mapping.clone() })
    }

    fn choose(&self, candidates: &[u16], ip: Option<IpAddr>, fixed: &BTreeSet<u16>) -> Option<u16> {
        let taken: BTreeSet<u16> = self.known.values().chain(fixed).copied().collect();
        let open = || candidates.iter().copied().filter(|port| !taken.contains(port));
        open().find(|port| is_own_port(*port)).or_else(|| open().find(|port| is_free(ip, *port)))
    }
}

/// Gives the ports that entries of `ports` name without a choice.
fn fixed(project: &Project) -> BTreeSet<u16> {
    let mappings = project.services.values().flat_map(|service| &service.ports);
    let ranges = mappings.filter_map(|mapping| mapping.published);
    ranges.filter(|range| range.first == range.last).map(|range| range.first).collect()
}

fn candidates(choice: Choice, seed: &str) -> Vec<u16> {
    let range = match choice {
        Choice::Of(range) => return (range.first..=range.last).collect(),
        Choice::Any => ephemeral_range(),
    };
    let count = u32::from(range.last - range.first) + 1;
    let digest = Sha256::digest(seed.as_bytes());
    let start = digest.iter().take(4).fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    let steps = 0..u32::from(CANDIDATES_MAX).min(count);
    let offsets = steps.map(|step| start.wrapping_add(step) % count);
    offsets.filter_map(|offset| range.first.checked_add(u16::try_from(offset).ok()?)).collect()
}

fn ephemeral_range() -> PortRange {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first <= last => PortRange { first, last },
        _ => RANGE_DEFAULT,
    }
}

fn is_free(ip: Option<IpAddr>, port: u16) -> bool {
    let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    TcpListener::bind(SocketAddr::new(ip, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use keel_compose::{Options, load_text};
    use keel_diag::Sources;

    use super::*;

    fn settle(chosen: &mut ChosenPorts, ports: &str) -> Vec<Option<u16>> {
        let text = format!("services: {{app: {{image: a, ports: [{ports}]}}}}");
        let options = Options { folder: "/srv/shop".into(), ..Options::default() };
        let project = load_text(&text, &options, &mut Sources::default()).project.unwrap();
        let port = |mapping: PortMapping| mapping.published.unwrap().first;
        let mappings = project.services["app"].ports.iter();
        mappings.map(|mapping| chosen.settle(&project, "app", mapping).map(port)).collect()
    }

    #[test]
    fn chooses_the_same_again_and_never_one_twice() {
        let mut chosen = ChosenPorts::default();
        let first = settle(&mut chosen, "'5000', '127.0.0.1::5000', '6000-6001', '8080:80'");
        assert_eq!(first.last(), Some(&Some(8080)));
        assert_eq!(first.iter().flatten().collect::<BTreeSet<_>>().len(), 5, "{first:?}");
        assert_eq!(settle(&mut chosen, "'5000', '127.0.0.1::5000', '6000-6001', '8080:80'"), first);
        assert_eq!(settle(&mut ChosenPorts::default(), "'5000'")[0], first[0]);
    }

    #[test]
    fn leaves_to_others_what_they_name() {
        let ports = settle(&mut ChosenPorts::default(), "'18000-18010:80', '18000:81'");
        assert!(ports[0] > Some(18_000) && ports[1] == Some(18_000), "{ports:?}");
    }

    #[test]
    fn passes_by_what_others_hold_and_keeps_what_is_its_own() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        // This process holds it, as the supervisor does at a reload.
        let entry = format!("'127.0.0.1:{port}-{}:80'", port.saturating_add(3));
        assert_eq!(settle(&mut ChosenPorts::default(), &entry), [Some(port)]);
        assert!(!is_free(Some(Ipv4Addr::LOCALHOST.into()), port));
    }
}
