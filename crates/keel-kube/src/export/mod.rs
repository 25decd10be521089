//! Manifests of a project: docker-compose.yml and nginx.conf as objects of a cluster.
//!
//! Each service becomes a Deployment and a headless Service, so that its name stands for its instances as it does under
//! Compose; the balancer's seat becomes a Deployment of Evenkeel that follows their endpoints. What the cluster can't be
//! told is a diagnostic that points to its line. Values come from the files alone: no image is looked at, no cluster asked.

mod balancer;
mod container;
mod network;
mod object;
mod storage;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use keel_compose::{Project, Service};
use keel_diag::{Diagnostic, Span};
use keel_model::DependencyCondition;

pub use object::{Object, kustomization};

/// The first version that knows `preStop: {sleep}`.
const SLEEP_HOOK: u32 = 30;

/// What the files don't say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Evenkeel's image, for the seat.
    pub image: String,
    /// The cluster's minor version: 33 for Kubernetes 1.33.
    pub minor_version: u32,
    /// How long an instance serves on after it was told to end, until every balancer has heard of it.
    pub drain: Duration,
}

/// The balancer's seat, as far as manifests need it.
#[derive(Clone, Debug)]
pub struct Seat<'a> {
    /// Its service; `None` where Evenkeel balances published ports without one.
    pub service: Option<&'a Service>,
    /// The files that nginx.conf consists of, by their paths in the container, templates rendered.
    pub files: BTreeMap<PathBuf, String>,
    /// How nginx is called there: the words after its name.
    pub arguments: Vec<String>,
    /// The ports on which it listens.
    pub listens: BTreeSet<u16>,
    /// The published ports, with the ports behind them.
    pub published: Vec<Published>,
    /// Which ports of which names it passes requests to.
    pub upstreams: BTreeMap<String, BTreeSet<u16>>,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where the file says so.
    pub span: Span,
    /// The port that clients use.
    pub port: u16,
    /// The port in the container.
    pub target: u16,
    /// Whether only its host should reach it.
    pub local: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// What can't be said in Kubernetes.
    pub diagnostics: Vec<Diagnostic>,
}

/// Writes a project's services and its balancer as objects.
pub fn export(project: &Project, seat: Option<&Seat<'_>>, options: &Options) -> Export {
    let mut writer = Writer { project, seat, options, export: Export::default() };
    writer.top_level();
    for service in writer.workloads() {
        writer.service(service);
    }
    writer.aliases();
    if let Some(seat) = seat {
        writer.balancer(seat);
    }
    writer.export
}

/// A project while its objects are written.
struct Writer<'a> {
    project: &'a Project,
    seat: Option<&'a Seat<'a>>,
    options: &'a Options,
    export: Export,
}

impl<'a> Writer<'a> {
    /// The services that run in the cluster beside the balancer.
    fn workloads(&self) -> Vec<&'a Service> {
        let seat = self.seat.and_then(|seat| seat.service).map(|service| &service.name.value);
        let services = self.project.services.values();
        services.filter(|service| service.enabled && Some(&service.name.value) != seat).collect()
    }

    fn service(&mut self, service: &'a Service) {
        let name = &service.name;
        if service.faulty {
            let message = format!("`{}` isn't exported: its errors come first", name.value);
            return self.say(Diagnostic::warning("kubernetes::left-out", message).at(name.span, ""));
        }
        if service.image.is_none() && service.build.is_none() {
            let message = format!("`{}` isn't exported: it has no image", name.value);
            let diagnostic = Diagnostic::warning("kubernetes::left-out", message).at(name.span, "");
            return self.say(
                diagnostic.help("a pod runs an image: add `image`, or a Service for what runs elsewhere"),
            );
        }
        self.name(&name.value, name.span);
        if self.is_awaited_end(service) {
            self.job(service);
        } else {
            self.deployment(service);
        }
        self.service_of(service);
    }

    /// Whether others wait for its end: it runs once.
    fn is_awaited_end(&self, service: &Service) -> bool {
        let awaits = |other: &Service| {
            other.depends_on.iter().any(|on| {
                on.condition == DependencyCondition::Completed && on.service.value == service.name.value
            })
        };
        self.project.services.values().any(awaits)
    }

    /// What concerns the project as a whole.
    fn top_level(&mut self) {
        let isolated = self.project.networks.len() > 1;
        if let Some(network) = self.project.networks.values().next().filter(|_| isolated) {
            let message = "networks don't separate pods: each reaches every other";
            let diagnostic = Diagnostic::warning("kubernetes::not-said", message).at(network.span, "");
            self.say(
                diagnostic.help("a NetworkPolicy separates them, where the cluster's network honours it"),
            );
        }
        self.config_objects();
    }

    fn say(&mut self, diagnostic: Diagnostic) {
        self.export.diagnostics.push(diagnostic);
    }

    /// Names something that manifests don't have.
    fn cannot_say(&mut self, span: Span, message: impl Into<String>, help: &str) {
        let diagnostic = Diagnostic::warning("kubernetes::not-said", message).at(span, "");
        self.say(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
    }

    /// Gives the name that objects of a service have, and says where it differs.
    fn name(&mut self, name: &str, span: Span) -> String {
        let label = object::label(name);
        if label != name {
            let message =
                format!("`{name}` is called `{label}` in the cluster: a Service's name is a DNS label");
            let help = format!("name it `{label}` in nginx.conf and in what connects to it");
            self.say(Diagnostic::warning("kubernetes::renamed", message).at(span, "").help(help));
        }
        label
    }
}

/// Whole seconds, a part of one counted as one.
fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// Seconds for a field of 32 bits, at least one.
fn seconds_i32(duration: Duration) -> i32 {
    i32::try_from(seconds(duration)).unwrap_or(i32::MAX).max(1)
}
