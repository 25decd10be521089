//! Ports of this host for entries of `ports` that leave the choice: `"5000"`, `"127.0.0.1::5000"`, `"8000-8010:80"`.
//!
//! The choice begins with a digest of what asks for it, so that the same project gets the same port again wherever it is
//! free. What is chosen is kept in the state folder: a running project keeps its ports over reloads, `config` beside it
//! shows them, and the next start takes those that are still free.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use keel_compose::{PortMapping, PortRange, Project};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sockets::{is_own_port, is_port_of};

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

/// What asks for a port: an entry of a service's `ports`, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Asker {
    service: String,
    target: u16,
    host_ip: Option<IpAddr>,
    /// First and last of the ports that it may be.
    range: Option<(u16, u16)>,
    /// How many of the service's entries before it ask for the same.
    nth: usize,
}

/// What a running project has chosen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The process that listens on them.
    pid: u32,
    ports: Vec<(Asker, u16)>,
}

/// The ports chosen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct ChosenPorts {
    file: PathBuf,
    known: BTreeMap<Asker, u16>,
    kept: BTreeMap<Asker, u16>,
    /// Whether the process that has kept them runs and is this project's.
    is_running: bool,
}

impl ChosenPorts {
    /// Reads what a project has chosen before.
    pub(super) fn of(state: &Path) -> Self {
        let file = state.join("ports.json");
        let kept = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let kept = kept.unwrap_or_default();
        // A number of a process may have become another one's: only one that listens on such a port is meant.
        let is_running = kept.ports.iter().any(|(_, port)| is_port_of(kept.pid, *port));
        Self { file, known: BTreeMap::new(), kept: kept.ports.into_iter().collect(), is_running }
    }

    /// Keeps what is chosen, as this process's.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn keep(&self) -> io::Result<()> {
        let ports = self.known.iter().map(|(asker, port)| (asker.clone(), *port)).collect();
        let kept = Kept { pid: std::process::id(), ports };
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(&kept)?)?;
        std::fs::rename(beside, &self.file)
    }

    /// An entry of a service's `ports` with the port that it is published under. `None` where none is free.
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
        let is_same = |other: &&PortMapping| {
            (other.target, other.host_ip, other.published)
                == (mapping.target, mapping.host_ip, mapping.published)
        };
        let nth =
            ports.iter().filter(is_same).position(|other| other.span == mapping.span).unwrap_or(ports.len());
        let asker = Asker {
            service: service.to_owned(),
            target: mapping.target,
            host_ip: mapping.host_ip,
            range: mapping.published.map(|range| (range.first, range.last)),
            nth,
        };
        let known = self.known.get(&asker).copied();
        let port = known.or_else(|| {
            let seed = format!("{} {service} {} {nth}", project.folder.display(), mapping.target);
            self.choose(&candidates(choice, &seed), choice, &asker, &fixed(project))
        })?;
        self.known.insert(asker, port);
        Some(PortMapping { published: Some(PortRange { first: port, last: port }), ..mapping.clone() })
    }

    fn choose(
        &self,
        candidates: &[u16],
        choice: Choice,
        asker: &Asker,
        fixed: &BTreeSet<u16>,
    ) -> Option<u16> {
        let taken: BTreeSet<u16> = self.known.values().chain(fixed).copied().collect();
        let is_open = |port: &u16| !taken.contains(port);
        let is_allowed = |port: &u16| choice == Choice::Any || candidates.contains(port);
        let kept = self.kept.get(asker).copied().filter(is_allowed).filter(is_open);
        if let Some(port) = kept.filter(|port| self.is_running || is_free(asker.host_ip, *port)) {
            return Some(port);
        }
        // What another entry has in the running project stays its, though it may be gone by now.
        let others: BTreeSet<u16> = self.kept.values().copied().collect();
        let open = || candidates.iter().copied().filter(is_open).filter(|port| !others.contains(port));
        let own = open().find(|port| is_own_port(*port));
        own.or_else(|| open().find(|port| is_free(asker.host_ip, *port)))
            .or_else(|| candidates.iter().copied().filter(is_open).find(|port| is_free(asker.host_ip, *port)))
    }
}

/// The ports that entries of `ports` name without a choice.
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
    fn a_running_project_keeps_its_ports() {
        let state = tempfile::tempdir().unwrap();
        let held = TcpListener::bind("0.0.0.0:0").unwrap();
        let first = held.local_addr().unwrap().port();
        let range = format!("{first}-{}", first.saturating_add(5));
        let text = |services: &[&str]| {
            let one = |name: &&str| format!("{name}: {{image: a, ports: ['{range}:80']}}");
            format!("services: {{{}}}", services.iter().map(one).collect::<Vec<_>>().join(", "))
        };
        let settle = |chosen: &mut ChosenPorts, services: &[&str], name: &str| {
            let options = Options { folder: "/srv/shop".into(), ..Options::default() };
            let project = load_text(&text(services), &options, &mut Sources::default()).project.unwrap();
            let mapping = project.services[name].ports[0].clone();
            chosen.settle(&project, name, &mapping).unwrap().published.unwrap().first
        };
        let mut running = ChosenPorts::of(state.path());
        assert_eq!(settle(&mut running, &["a", "b"], "a"), first);
        let second = settle(&mut running, &["a", "b"], "b");
        assert_ne!(second, first);
        running.keep().unwrap();
        // The one that had the first port leaves; this process listens on it yet.
        let mut reload = ChosenPorts::of(state.path());
        assert_eq!(settle(&mut reload, &["b"], "b"), second);
        // A port of a project that has ended is taken again only if it is free.
        let kept = std::fs::read_to_string(state.path().join("ports.json")).unwrap();
        let other = kept.replace(&format!("\"pid\":{}", std::process::id()), "\"pid\":4194304");
        std::fs::write(state.path().join("ports.json"), other).unwrap();
        drop(held);
        let _foreign = TcpListener::bind(("0.0.0.0", second)).unwrap();
        let mut next = ChosenPorts::of(state.path());
        next.is_running = false;
        assert_eq!(settle(&mut next, &["a", "b"], "a"), first);
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
