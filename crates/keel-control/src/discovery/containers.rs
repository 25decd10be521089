//! Which containers can take requests, and under which names: what the engine says, as plain values.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keel_engine::api::models::{ContainerInspectResponse, HealthStatusEnum};
use keel_model::signal_number;
use tokio::time::Instant;

use crate::located::Located;

/// How long a container has from the signal that ends it, where it doesn't say (`StopTimeout`).
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer nothing is sent to it: who stops it kills it then, and word of that takes a moment.
const KILL_MARGIN: Duration = Duration::from_secs(2);

/// A container's id.
pub(super) type Id = String;

/// All running containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Containers {
    pub(super) all: BTreeMap<Id, Container>,
    /// The networks that count: those of the container that asks; all where it is in none.
    pub(super) networks: Option<BTreeSet<String>>,
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    /// Its place in each network, by the network's id.
    places: BTreeMap<String, Reachable>,
    health: Health,
    paused: bool,
    leaving: Leaving,
    /// The number of the signal that asks it to end.
    stop_signal: i32,
    /// How long it then has; `None` for as long as it likes.
    stop_timeout: Option<Duration>,
    /// Differs from one start to the next.
    incarnation: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reachable {
    addresses: Vec<IpAddr>,
    names: BTreeSet<String>,
}

/// What the container's healthcheck says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// There is none: it is well when it accepts a connection.
    Unknown,
    Starting,
    Well,
    Ill,
}

/// Whether it was sent the signal that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// It was, and by this time it will have ended or have ignored it.
    Until(Instant),
    /// Nobody knows until when.
    ForGood,
    /// It runs all the same, as a process 1 without a handler does. That it serves, only a connection can show.
    Ignored,
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// A container that answers to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) located: Located,
    /// Whether its healthcheck has passed, so that nothing has to be tried.
    pub(super) proven: bool,
}

impl Containers {
    /// When [`look_at_ignored`](Self::look_at_ignored) has something to do.
    pub(super) fn ignored_at(&self) -> Option<Instant> {
        let until = |container: &Container| match container.leaving {
            Leaving::Until(until) => Some(until),
            Leaving::No | Leaving::ForGood | Leaving::Ignored => None,
        };
        self.all.values().filter_map(until).min()
    }

    /// Notes who should have ended by now and hasn't.
    pub(super) fn look_at_ignored(&mut self, now: Instant) {
        for container in self.all.values_mut() {
            if matches!(container.leaving, Leaving::Until(until) if until <= now) {
                tracing::info!("{} ignores the signal to end; it takes part when it accepts", container.name);
                container.leaving = Leaving::Ignored;
            }
        }
    }

    /// Who answers to a name and may take requests.
    pub(super) fn matches(&self, host: &str, port: u16, families: Families) -> Vec<Match> {
        let mut found = Vec::new();
        for container in self.all.values().filter(|container| container.may_serve()) {
            for (network, place) in &container.places {
                let counts = self.networks.as_ref().is_none_or(|networks| networks.contains(network));
                if !counts || !place.names.contains(&host.to_ascii_lowercase()) {
                    continue;
                }
                // One address of a container is one share; IPv4 first, as everybody has it.
                let usable = |ip: &&IpAddr| if ip.is_ipv4() { families.ipv4 } else { families.ipv6 };
                if let Some(ip) = place.addresses.iter().find(usable) {
                    let address = SocketAddr::new(*ip, port);
                    let (incarnation, instance) = (container.incarnation, Some(container.name.clone()));
                    found.push(Match {
                        located: Located { address, incarnation, instance, record: None },
                        proven: container.health == Health::Well && container.leaving == Leaving::No,
                    });
                    break;
                }
            }
        }
        found.sort_by(|a, b| a.located.cmp(&b.located));
        found
    }
}

impl Container {
    /// Takes what the engine says of a container; `None` if it isn't running.
    pub(super) fn of(answer: &ContainerInspectResponse) -> Option<Self> {
        let state = answer.state.as_ref()?;
        if state.running != Some(true) || state.restarting == Some(true) {
            return None;
        }
        let name = answer.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
        let networks = answer.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let mut places = BTreeMap::new();
        for endpoint in networks.into_iter().flat_map(|networks| networks.values()) {
            let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
            let addresses = addresses.into_iter().flatten().filter_map(|text| text.parse().ok());
            let further = endpoint.aliases.iter().chain(&endpoint.dns_names).flatten();
            let names = further.chain([&name]).map(|name| name.to_ascii_lowercase()).collect();
            let id = endpoint.network_id.clone().unwrap_or_default();
            places.insert(id, Reachable { addresses: addresses.collect(), names });
        }
        let mut hasher = DefaultHasher::new();
        (&answer.id, &state.started_at).hash(&mut hasher);
        let stop_signal = answer.config.as_ref().and_then(|config| config.stop_signal.as_deref());
        let stop_timeout_s = answer.config.as_ref().and_then(|config| config.stop_timeout);
        Some(Self {
            name,
            places,
            health: match state.health.as_ref().and_then(|health| health.status) {
                Some(HealthStatusEnum::STARTING) => Health::Starting,
                Some(HealthStatusEnum::HEALTHY) => Health::Well,
                Some(HealthStatusEnum::UNHEALTHY) => Health::Ill,
                Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) | None => Health::Unknown,
            },
            paused: state.paused == Some(true),
            leaving: Leaving::No,
            stop_signal: stop_signal.and_then(signal_number).unwrap_or(SIGTERM),
            // Below 0 it is never killed.
            stop_timeout: match stop_timeout_s {
                Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
                None => Some(STOP_TIMEOUT),
            },
            // 0 is for those of whom nobody knows which start it is.
            incarnation: hasher.finish().max(1),
        })
    }

    /// Whether it may take requests, as far as the engine knows.
    fn may_serve(&self) -> bool {
        matches!(self.leaving, Leaving::No | Leaving::Ignored)
            && !self.paused
            && matches!(self.health, Health::Unknown | Health::Well)
    }

    /// The networks it is in.
    pub(super) fn networks(&self) -> BTreeSet<String> {
        self.places.keys().cloned().collect()
    }

    /// What the engine told before and can't be asked for: that it was sent its last signal.
    pub(super) fn inherit(&mut self, before: &Self) {
        if before.incarnation == self.incarnation {
            self.leaving = before.leaving;
        }
    }

    /// Notes that it was paused.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Notes a signal that it was sent.
    pub(super) fn signalled(&mut self, number: i32, now: Instant) {
        if number == SIGKILL {
            self.leaving = Leaving::ForGood;
        } else if number == self.stop_signal && self.leaving != Leaving::ForGood {
            let until = self.stop_timeout.and_then(|timeout| now.checked_add(timeout + KILL_MARGIN));
            self.leaving = until.map_or(Leaving::ForGood, Leaving::Until);
        }
    }
}

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes what `docker inspect` shows, as far as it is read.
    fn inspected(name: &str, state: &str, network: &str, ip: &str) -> ContainerInspectResponse {
        let text = format!(
            r#"{{ "Id": "id-{name}", "Name": "/{name}", "State": {{ "StartedAt": "t1", {state} }},
                 "Config": {{ "StopSignal": "SIGQUIT", "StopTimeout": 5 }},
                 "NetworkSettings": {{ "Networks": {{ "shop_default": {{
                    "NetworkID": "{network}", "IPAddress": "{ip}", "GlobalIPv6Address": "",
                    "Aliases": ["app", "Web", "0123456789ab"] }} }} }} }}"#
        );
        serde_json::from_str(&text).expect("is JSON")
    }

    const BOTH: Families = Families { ipv4: true, ipv6: true };
    const RUNS: &str = r#""Running": true, "Paused": false"#;

    fn containers(list: &[ContainerInspectResponse]) -> Containers {
        let all = list.iter().filter_map(|one| Some((one.id.clone()?, Container::of(one)?))).collect();
        Containers { all, networks: None }
    }

    fn names(containers: &Containers, host: &str) -> Vec<String> {
        let matches = containers.matches(host, 80, BOTH);
        matches.into_iter().filter_map(|found| found.located.instance).collect()
    }

    #[test]
    fn a_container_is_found_by_name_and_alias() {
        let found = containers(&[inspected("shop_app_1", RUNS, "n1", "10.0.0.2")]);
        for host in ["app", "web", "WEB", "shop_app_1"] {
            assert_eq!(names(&found, host), ["shop_app_1"], "{host}");
        }
        assert!(names(&found, "db").is_empty());
        let matches = found.matches("app", 5000, BOTH);
        assert_eq!(matches[0].located.address, "10.0.0.2:5000".parse().unwrap());
        assert!(
            found.matches("app", 5000, Families { ipv4: false, ..BOTH }).is_empty(),
            "it has no IPv6 address"
        );
    }

    #[test]
    fn only_shared_networks_count() {
        let mut found =
            containers(&[inspected("a", RUNS, "n1", "10.0.0.2"), inspected("b", RUNS, "n2", "10.1.0.2")]);
        assert_eq!(names(&found, "app"), ["a", "b"]);
        found.networks = Some(BTreeSet::from(["n2".to_owned()]));
        assert_eq!(names(&found, "app"), ["b"]);
    }

    #[test]
    fn who_cannot_serve_is_left_out() {
        let check = |state: &str, serves: bool, proven: bool| {
            let found = containers(&[inspected("a", state, "n1", "10.0.0.2")]);
            let matches = found.matches("app", 80, BOTH);
            assert_eq!(!matches.is_empty(), serves, "{state}");
            assert_eq!(matches.first().is_some_and(|found| found.proven), proven, "{state}");
        };
        let health = |status: &str| format!(r#"{RUNS}, "Health": {{ "Status": "{status}" }}"#);
        check(RUNS, true, false);
        check(&health("none"), true, false);
        check(&health("starting"), false, false);
        check(&health("healthy"), true, true);
        check(&health("unhealthy"), false, false);
        check(r#""Running": true, "Paused": true"#, false, false);
        check(r#""Running": true, "Restarting": true"#, false, false);
        check(r#""Running": false"#, false, false);
    }

    #[test]
    fn a_container_leaves_at_the_signal_that_ends_it() {
        let check = |signal: i32, leaves: bool| {
            let mut found = containers(&[inspected("a", RUNS, "n1", "10.0.0.2")]);
            found.all.values_mut().for_each(|container| container.signalled(signal, Instant::now()));
            assert_eq!(names(&found, "app").is_empty(), leaves, "signal {signal}");
        };
        check(3, true);
        check(9, true);
        check(1, false);
        // Its STOPSIGNAL is another.
        check(15, false);
    }

    #[test]
    fn a_container_that_ignores_its_signal_is_tried_again() {
        let healthy = format!(r#"{RUNS}, "Health": {{ "Status": "healthy" }}"#);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let signalled = |timeout: Option<i64>| {
            let mut inspected = inspected("a", &healthy, "n1", "10.0.0.2");
            inspected.config.as_mut().expect("has one").stop_timeout = timeout;
            let mut found = containers(&[inspected]);
            found.all.values_mut().for_each(|container| container.signalled(3, start));
            found
        };
        for (timeout, returns_s) in [(Some(5), 7), (None, 12)] {
            let mut found = signalled(timeout);
            assert_eq!(found.ignored_at(), Some(after(returns_s)));
            found.look_at_ignored(after(returns_s - 1));
            assert!(names(&found, "app").is_empty());
            found.look_at_ignored(after(returns_s));
            let matches = found.matches("app", 80, BOTH);
            assert!(!matches[0].proven, "its healthcheck passed before, too");
            assert_eq!(found.ignored_at(), None);
            // Killed in the end.
            found.all.values_mut().for_each(|container| container.signalled(9, after(20)));
            found.look_at_ignored(after(100));
            assert!(names(&found, "app").is_empty());
        }
        assert_eq!(signalled(Some(-1)).ignored_at(), None, "it has as long as it likes");
    }

    #[test]
    fn the_next_start_of_a_container_is_another_peer() {
        let before = inspected("a", RUNS, "n1", "10.0.0.2");
        let mut leaving = Container::of(&before).expect("runs");
        leaving.signalled(3, Instant::now());
        let mut same = Container::of(&before).expect("runs");
        same.inherit(&leaving);
        assert!(!same.may_serve());
        let mut state = before.clone();
        state.state.as_mut().expect("has a state").started_at = Some("t2".into());
        let mut restarted = Container::of(&state).expect("runs");
        restarted.inherit(&leaving);
        assert!(restarted.may_serve());
        assert_ne!(restarted.incarnation, leaving.incarnation);
    }
}
