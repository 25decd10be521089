//! The text that Prometheus reads: OpenMetrics 1.0.
//!
//! Names and labels are those of the exporters for nginx (`server_zone`, `upstream`, `server`, `code`), under a prefix of
//! our own: a dashboard for them needs the prefix changed. A metric of which there is nothing is left out.

use std::{collections::BTreeMap, fmt};

use keel_model::{DURATION_BOUNDS, DataPlaneStatus, PeerStatus, TrafficStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many instances of a service are in each state.
pub type Instances = BTreeMap<(String, String), u64>;

/// Writes everything as text. `instances` are those that Evenkeel runs, if it runs any.
pub fn text(status: DataPlaneStatus, instances: Instances) -> String {
    let mut registry = Registry::with_prefix("evenkeel");
    registry.register_collector(Box::new(Metrics { status, instances }));
    let mut text = String::new();
    // Only the writer could fail, and a string doesn't.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Metrics {
    status: DataPlaneStatus,
    instances: Instances,
}

type Labels<'a> = [(&'static str, &'a str)];

/// A family of metrics on its way out.
struct Family<'e> {
    encoder: MetricEncoder<'e>,
}

impl Family<'_> {
    fn counter(&mut self, labels: &Labels<'_>, value: u64) -> fmt::Result {
        let mut metric = self.encoder.encode_family(&labels)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: &Labels<'_>, value: u64) -> fmt::Result {
        let mut metric = self.encoder.encode_family(&labels)?;
        metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn durations(&mut self, labels: &Labels<'_>, traffic: &TrafficStatus) -> fmt::Result {
        let bounds = DURATION_BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(traffic.durations.iter().copied()).collect();
        let sum = std::time::Duration::from_micros(traffic.took_micros).as_secs_f64();
        let mut metric = self.encoder.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(sum, traffic.requests, &buckets, None)
    }
}

fn family<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    kind: MetricType,
    name: &'e str,
    help: &str,
) -> Result<Family<'e>, fmt::Error> {
    Ok(Family { encoder: encoder.encode_descriptor(name, help, None, kind)? })
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.connections(encoder)?;
        if !self.status.zones.is_empty() {
            self.zones(encoder)?;
        }
        if !self.status.peers.is_empty() {
            self.peers(encoder)?;
        }
        if !self.instances.is_empty() {
            let help = "Instances that Evenkeel runs, by service and state";
            let mut family = family(encoder, MetricType::Gauge, "instances", help)?;
            for ((service, state), count) in &self.instances {
                family.gauge(&[("service", service), ("state", state)], *count)?;
            }
        }
        Ok(())
    }
}

impl Metrics {
    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.status;
        let counters = [
            ("connections_accepted", "Connections accepted from clients", status.accepted),
            ("http_requests", "Requests read from clients", status.requests),
            ("panics", "Panics caught, each of which cost one connection", status.panics),
        ];
        for (name, help, value) in counters {
            family(encoder, MetricType::Counter, name, help)?.counter(&[], value)?;
        }
        let gauges = [
            ("connections_active", "Connections of clients that are open", status.active),
            ("requests_queued", "Requests waiting for an instance that is being started", status.queued),
            ("config_generation", "Number of the configuration in effect", status.generation),
        ];
        for (name, help, value) in gauges {
            family(encoder, MetricType::Gauge, name, help)?.gauge(&[], value)?;
        }
        Ok(())
    }

    fn zones(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let zones =
            || self.status.zones.iter().map(|zone| ([("server_zone", zone.name.as_str())], &zone.traffic));
        let mut counter = |name: &str, help: &str, value: fn(&TrafficStatus) -> u64| {
            let mut family = family(encoder, MetricType::Counter, name, help)?;
            zones().try_for_each(|(labels, traffic)| family.counter(&labels, value(traffic)))
        };
        counter("server_zone_requests", "Requests that have ended", |traffic| traffic.requests)?;
        counter("server_zone_received_bytes", "Bytes received from clients", |traffic| {
            traffic.received_bytes
        })?;
        counter("server_zone_sent_bytes", "Bytes sent to clients", |traffic| traffic.sent_bytes)?;
        let mut responses = family(
            encoder,
            MetricType::Counter,
            "server_zone_responses",
            "Responses to clients by class of status",
        )?;
        for (labels, traffic) in zones() {
            each_class(traffic, |code, count| responses.counter(&[labels[0], code], count))?;
        }
        let help = "From a request's first byte to the end of its response";
        let mut durations =
            family(encoder, MetricType::Histogram, "server_zone_request_duration_seconds", help)?;
        zones().try_for_each(|(labels, traffic)| durations.durations(&labels, traffic))
    }

    fn peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let peers = Peer::all(&self.status.peers);
        for (name, help, value) in PEER_COUNTERS {
            let mut family = family(encoder, MetricType::Counter, name, help)?;
            peers.iter().try_for_each(|peer| family.counter(&peer.labels(), value(peer)))?;
        }
        for (name, help, value) in PEER_GAUGES {
            let mut family = family(encoder, MetricType::Gauge, name, help)?;
            peers.iter().try_for_each(|peer| family.gauge(&peer.labels(), value(peer)))?;
        }
        let help = "Responses of peers by class of status";
        let mut responses = family(encoder, MetricType::Counter, "upstream_server_responses", help)?;
        for peer in &peers {
            let [upstream, server, instance] = peer.labels();
            each_class(&peer.traffic, |code, count| {
                responses.counter(&[upstream, server, instance, code], count)
            })?;
        }
        let help = "From the start of an attempt to the end of its response";
        let mut durations =
            family(encoder, MetricType::Histogram, "upstream_server_response_duration_seconds", help)?;
        peers.iter().try_for_each(|peer| durations.durations(&peer.labels(), &peer.traffic))
    }
}

/// A peer, all its places in a set taken together: a series may stand in the text once.
struct Peer<'a> {
    upstream: &'a str,
    address: String,
    instance: &'a str,
    first_attempts: u64,
    retries: u64,
    failures: u64,
    in_flight: u64,
    is_excluded: bool,
    traffic: TrafficStatus,
}

/// Name, help and value of a metric of peers.
type PeerMetric = (&'static str, &'static str, fn(&Peer<'_>) -> u64);

const PEER_COUNTERS: &[PeerMetric] = &[
    ("upstream_server_requests", "First attempts given to a peer", |peer| peer.first_attempts),
    ("upstream_server_retries", "Retries given to a peer", |peer| peer.retries),
    ("upstream_server_fails", "Attempts that failed", |peer| peer.failures),
    ("upstream_server_received_bytes", "Bytes received from a peer", |peer| peer.traffic.received_bytes),
    ("upstream_server_sent_bytes", "Bytes sent to a peer", |peer| peer.traffic.sent_bytes),
];

const PEER_GAUGES: &[PeerMetric] = &[
    ("upstream_server_active", "Requests in flight at a peer", |peer| peer.in_flight),
    ("upstream_server_excluded", "Whether failures exclude a peer", |peer| u64::from(peer.is_excluded)),
];

impl<'a> Peer<'a> {
    fn all(statuses: &'a [PeerStatus]) -> Vec<Self> {
        let mut peers: BTreeMap<(&str, String, &str), Self> = BTreeMap::new();
        for status in statuses {
            let upstream = status.upstream.0.as_str();
            let instance = status.instance.as_deref().unwrap_or_default();
            let address = status.peer.address.to_string();
            let peer = peers.entry((upstream, address.clone(), instance)).or_insert_with(|| Self {
                upstream,
                address,
                instance,
                first_attempts: 0,
                retries: 0,
                failures: 0,
                in_flight: 0,
                is_excluded: false,
                traffic: TrafficStatus::default(),
            });
            peer.first_attempts += status.first_attempts;
            peer.retries += status.retries;
            peer.failures += status.failures;
            peer.in_flight += u64::from(status.in_flight);
            peer.is_excluded |= status.excluded;
            peer.traffic.add(&status.traffic);
        }
        peers.into_values().collect()
    }

    fn labels(&self) -> [(&'static str, &str); 3] {
        [("upstream", self.upstream), ("server", &self.address), ("service_instance", self.instance)]
    }
}

fn each_class(
    traffic: &TrafficStatus,
    mut write: impl FnMut((&'static str, &'static str), u64) -> fmt::Result,
) -> fmt::Result {
    let codes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    codes.into_iter().zip(traffic.responses).try_for_each(|(code, count)| write(("code", code), count))
}

#[cfg(test)]
mod tests {
    use keel_model::{Address, PeerKey, UpstreamName, ZoneStatus};

    use super::*;

    fn traffic() -> TrafficStatus {
        let mut durations = vec![0; DURATION_BOUNDS.len() + 1];
        durations[0] = 2;
        TrafficStatus {
            requests: 2,
            responses: [0, 1, 0, 0, 1],
            took_micros: 1500,
            durations,
            ..Default::default()
        }
    }

    #[test]
    fn each_series_stands_once_with_its_labels() {
        let peer = PeerStatus {
            upstream: UpstreamName("app".into()),
            peer: PeerKey { address: Address::Tcp(([127, 0, 0, 1], 80).into()), incarnation: 0 },
            instance: Some("app1".into()),
            first_attempts: 2,
            retries: 0,
            failures: 1,
            in_flight: 3,
            excluded: false,
            traffic: traffic(),
        };
        let status = DataPlaneStatus {
            accepted: 7,
            zones: vec![ZoneStatus { name: "a \"quoted\" name".into(), traffic: traffic() }],
            peers: vec![peer.clone(), peer],
            ..DataPlaneStatus::default()
        };
        let text = text(status, Instances::from([(("app".to_owned(), "ready".to_owned()), 3)]));
        let labels = "upstream=\"app\",server=\"127.0.0.1:80\",service_instance=\"app1\"";
        for line in [
            "# TYPE evenkeel_connections_accepted counter",
            "evenkeel_connections_accepted_total 7",
            "evenkeel_server_zone_responses_total{server_zone=\"a \\\"quoted\\\" name\",code=\"5xx\"} 1",
            &format!("evenkeel_upstream_server_requests_total{{{labels}}} 4"),
            &format!("evenkeel_upstream_server_active{{{labels}}} 6"),
            &format!("evenkeel_upstream_server_response_duration_seconds_count{{{labels}}} 4"),
            &format!("evenkeel_upstream_server_response_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 4"),
            "evenkeel_instances{service=\"app\",state=\"ready\"} 3",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
