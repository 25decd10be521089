//! What a drill found: the schema of `results.json`, and all that a report is made from.
//!
//! Plain data. Times within a case are counted from its first request; a reader never needs a clock, and two reports of
//! the same results are the same bytes.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

pub use keel_report::machine::Machine;

pub use crate::ledger::Source;

/// Version of this schema; grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// A whole drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the project that was tried.
    pub project: String,
    /// When it began, as RFC 3339 in UTC.
    pub started_at: String,
    /// How long the whole took.
    pub took: Seconds,
    /// What gave the order of events; `--seed` plays it again.
    pub seed: u64,
    /// What stood in the balancer's seat, with its version: `Evenkeel 0.1.0`, `nginx 1.31.5, files as they are`.
    pub proxy: String,
    /// How instances ran: `process` or `docker`.
    pub driver: String,
    /// What the machine was.
    pub machine: Machine,
    /// The system as it stood before the first case.
    pub system: System,
    /// Configurations that were used, by file name: the project's, and what was made for the drill.
    pub files: BTreeMap<String, String>,
    /// Cases in the order played.
    pub cases: Vec<Case>,
    /// Why the drill ended before all cases were played, where it did.
    #[serde(default)]
    pub ended_early: Option<String>,
}

/// Client, balancer, upstreams, instances and networks, as the plan says: what the diagram shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Addresses that clients reach, as `127.0.0.1:8080`, with the address inside the seat where it differs.
    pub listeners: Vec<Listener>,
    /// Upstreams and the services that are their peers.
    pub upstreams: Vec<Upstream>,
    /// Instances with their addresses.
    pub instances: Vec<Instance>,
    /// Names of the Compose networks.
    pub networks: Vec<String>,
}

/// An address that clients reach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Where the balancer listens, `127.0.0.1:8080`.
    pub address: String,
    /// What nginx.conf calls it, `80`.
    pub listen: String,
    /// Names of the upstreams that its locations pass to.
    pub upstreams: Vec<String>,
}

/// A named group of peers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// As nginx.conf names it.
    pub name: String,
    /// How a peer is chosen, `round robin`.
    pub policy: String,
    /// Names of the instances in it.
    pub instances: Vec<String>,
}

/// One running copy of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// `app1`.
    pub name: String,
    /// The Compose service.
    pub service: String,
    /// `127.83.7.2:5000`.
    pub address: String,
    /// Compose networks it is in.
    pub networks: Vec<String>,
}

/// One case and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// `kill-one`.
    pub name: String,
    /// One sentence: what was done to the system.
    pub what: String,
    /// Outcomes that count as right here beside a success, in words: `503 under overload`.
    pub allowed: Vec<String>,
    /// Steps with a share of their own, in order; at least one.
    pub steps: Vec<Step>,
    /// What the load was.
    pub load: Load,
    /// Where it is seen what instances received; without it, twice received and shares aren't counted.
    #[serde(default)]
    pub source: Source,
    /// What became of the requests, over all steps.
    pub count: Count,
    /// Time from when a request should have been sent to its last byte, over all answered requests.
    pub latency: Latency,
    /// What was done when.
    pub events: Vec<Event>,
    /// Rate, errors and latency over time, in slices of equal length.
    pub timeline: Vec<Slice>,
    /// How long it took.
    pub took: Seconds,
    /// Empty where the case was clean; else what was wrong, one sentence each.
    pub findings: Vec<Finding>,
    /// Why the case wasn't played, where it wasn't.
    pub skipped: Option<String>,
}

/// A part of a case in which the peers didn't change, and the share that each instance had.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `app2 stopped`.
    pub condition: String,
    /// Requests received by each instance for the first time.
    pub received: BTreeMap<String, u64>,
    /// What each should have received, where that is exact.
    pub expected: Option<BTreeMap<String, u64>>,
    /// What was seen, in a few words: `in turn`, `12 waited 1.2 s`.
    pub observation: String,
}

/// How requests came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests each second that were intended, where there was a rate.
    pub rate: Option<f64>,
    /// Connections at most.
    pub connections: u32,
    /// Requests on one connection before it is closed; none means as many as it lasts.
    pub requests_per_connection: Option<u32>,
    /// Share of POSTs, 0 to 1.
    pub posts: f64,
    /// Requests that were sent later than intended because the generator was behind.
    pub late: u64,
    /// What the generator says of itself, where it could not do what was asked.
    pub limits: Vec<String>,
}

/// What became of requests, from the client's records and the instances' ledgers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Sent by the client.
    pub sent: u64,
    /// Of these, with a method that must not be repeated.
    pub sent_posts: u64,
    /// Answered as they should be.
    pub answered: u64,
    /// Failed in a way that the case allows.
    pub allowed: u64,
    /// Failed in a way that it doesn't: lost.
    pub lost: u64,
    /// Received more than once though that isn't safe.
    pub doubled: u64,
    /// Complete to the client, yet shorter than what was meant.
    pub torn: u64,
    /// Received more than once where that is safe: retries of idempotent requests.
    pub repeated: u64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Something that was done to the system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the case's first request.
    pub at: Seconds,
    /// `kill -9 app2`.
    pub what: String,
}

/// A slice of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Where it begins, since the case's first request.
    pub from: Seconds,
    /// How long it is.
    pub length: Seconds,
    /// Requests that ended in it, each second.
    pub rate: f64,
    /// Failures in it, allowed or not.
    pub errors: u64,
    /// 99th percentile of the requests that ended in it, in milliseconds; none where none ended.
    pub p99: Option<f64>,
}

/// Something that must not be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `3 POSTs were received twice`.
    pub what: String,
    /// Requests it concerns, at most [`Finding::IDS_MAX`] of them.
    pub ids: Vec<String>,
}

impl Finding {
    /// How many ids a finding names.
    pub const IDS_MAX: usize = 20;
}

/// A length of time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Seconds(duration.as_secs_f64())
    }
}

impl Case {
    /// How many requests were received twice that must not be, where that can be counted.
    pub fn doubled(&self) -> Option<u64> {
        (self.source != Source::None).then_some(self.count.doubled)
    }
}

impl Results {
    /// Whether all cases were played that were asked for and fit, at least one of them, and none has a finding.
    pub fn is_clean(&self) -> bool {
        self.ended_early.is_none()
            && self.played().next().is_some()
            && self.cases.iter().all(|case| case.findings.is_empty())
    }

    /// The cases that were played.
    pub fn played(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.skipped.is_none())
    }
}
