//! Which containers can take requests, and under which names: what the engine says, as plain values.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use bollard::models::{ContainerInspectResponse, HealthStatusEnum};
use keel_model::signal_number;

use super::Located;

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
    places: BTreeMap<String, Place>,
    health: Health,
    paused: bool,
    /// It was sent the signal that ends it.
    pub(super) leaving: bool,
    /// The number of the signal that asks it to end.
    pub(super) stop_signal: i32,
    /// Differs from one start to the next.
    incarnation: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
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

/// A container that answers to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) located: Located,
    /// Whether its healthcheck has passed, so that nothing has to be tried.
    pub(super) proven: bool,
}

impl Containers {
    /// Gives who answers to a name and may take requests.
    pub(super) fn matches(&self, host: &str, port: u16, ipv4: bool, ipv6: bool) -> Vec<Match> {
        let mut found = Vec::new();
        for container in self.all.values().filter(|container| container.may_serve()) {
            for (network, place) in &container.places {
                let counts = self.networks.as_ref().is_none_or(|networks| networks.contains(network));
                if !counts || !place.names.contains(&host.to_ascii_lowercase()) {
                    continue;
                }
                // One address of a container is one share; IPv4 first, as everybody has it.
                let usable = |ip: &&IpAddr| if ip.is_ipv4() { ipv4 } else { ipv6 };
                if let Some(ip) = place.addresses.iter().find(usable) {
                    let address = SocketAddr::new(*ip, port);
                    let (incarnation, instance) = (container.incarnation, Some(container.name.clone()));
                    found.push(Match {
                        located: Located { address, incarnation, instance },
                        proven: container.health == Health::Well,
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
            places.insert(id, Place { addresses: addresses.collect(), names });
        }
        let mut hasher = DefaultHasher::new();
        (&answer.id, &state.started_at).hash(&mut hasher);
        let stop_signal = answer.config.as_ref().and_then(|config| config.stop_signal.as_deref());
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
            leaving: false,
            stop_signal: stop_signal.and_then(signal_number).unwrap_or(SIGTERM),
            // 0 is for those of whom nobody knows which start it is.
            incarnation: hasher.finish().max(1),
        })
    }

    /// Whether it may take requests, as far as the engine knows.
    fn may_serve(&self) -> bool {
        !self.leaving && !self.paused && matches!(self.health, Health::Unknown | Health::Well)
    }

    /// Gives the networks it is in.
    pub(super) fn networks(&self) -> BTreeSet<String> {
        self.places.keys().cloned().collect()
    }

    /// Gives what the engine told before and can't be asked for: that it was sent its last signal.
    pub(super) fn inherit(&mut self, before: &Self) {
        self.leaving |= before.leaving && before.incarnation == self.incarnation;
    }

    /// Notes that it was paused.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Notes a signal that it was sent.
    pub(super) fn signalled(&mut self, number: i32) {
        self.leaving |= number == self.stop_signal || number == SIGKILL;
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
                 "Config": {{ "StopSignal": "SIGQUIT" }},
                 "NetworkSettings": {{ "Networks": {{ "shop_default": {{
                    "NetworkID": "{network}", "IPAddress": "{ip}", "GlobalIPv6Address": "",
                    "Aliases": ["app", "Web", "0123456789ab"] }} }} }} }}"#
        );
        serde_json::from_str(&text).expect("is JSON")
    }

    const RUNS: &str = r#""Running": true, "Paused": false"#;

    fn containers(list: &[ContainerInspectResponse]) -> Containers {
        let all = list.iter().filter_map(|one| Some((one.id.clone()?, Container::of(one)?))).collect();
        Containers { all, networks: None }
    }

    fn names(containers: &Containers, host: &str) -> Vec<String> {
        let matches = containers.matches(host, 80, true, true);
        matches.into_iter().filter_map(|found| found.located.instance).collect()
    }

    #[test]
    fn a_container_is_found_by_name_and_alias() {
        let found = containers(&[inspected("shop_app_1", RUNS, "n1", "10.0.0.2")]);
        for host in ["app", "web", "WEB", "shop_app_1"] {
            assert_eq!(names(&found, host), ["shop_app_1"], "{host}");
        }
        assert!(names(&found, "db").is_empty());
        let matches = found.matches("app", 5000, true, true);
        assert_eq!(matches[0].located.address, "10.0.0.2:5000".parse().unwrap());
        assert!(found.matches("app", 5000, false, true).is_empty(), "it has no IPv6 address");
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
            let matches = found.matches("app", 80, true, true);
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
            found.all.values_mut().for_each(|container| container.signalled(signal));
            assert_eq!(names(&found, "app").is_empty(), leaves, "signal {signal}");
        };
        check(3, true);
        check(9, true);
        check(1, false);
        // Its STOPSIGNAL is another.
        check(15, false);
    }

    #[test]
    fn the_next_start_of_a_container_is_another_peer() {
        let before = inspected("a", RUNS, "n1", "10.0.0.2");
        let mut leaving = Container::of(&before).expect("runs");
        leaving.signalled(3);
        let mut same = Container::of(&before).expect("runs");
        same.inherit(&leaving);
        assert!(same.leaving);
        let mut state = before.clone();
        state.state.as_mut().expect("has a state").started_at = Some("t2".into());
        let mut restarted = Container::of(&state).expect("runs");
        restarted.inherit(&leaving);
        assert!(!restarted.leaving);
        assert_ne!(restarted.incarnation, leaving.incarnation);
    }
}
