//! What is tried: the user's project, as its files say, and which way through it the load takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use keel_control::{
    Entry,
    project::{Joined, ProjectOptions, Reading},
};
use keel_diag::Sources;
use keel_model::{
    Location, LocationMatcher, Plan, ProxyTarget, RestartCondition, Run, Service, ServiceName, UpstreamName,
};
use keel_nginx::Directive;

use crate::Error;

/// The service that stands in the balancer's seat where the project has none.
pub(crate) const SEAT: &str = "drill-balancer";

/// A project, and the way through it that the load takes.
#[derive(Debug)]
pub(crate) struct Subject {
    /// As its files were read.
    pub(crate) joined: Joined,
    /// How they were found.
    pub(crate) options: ProjectOptions,
    /// The main nginx.conf: the project's, the image's, or the one that Evenkeel writes.
    pub(crate) configuration: Vec<Directive>,
    /// Its text.
    pub(crate) configuration_text: String,
    /// The way of the load.
    pub(crate) route: Route,
    /// The services whose instances answer.
    pub(crate) services: Vec<Tried>,
    /// Networks of each service.
    pub(crate) networks: BTreeMap<String, Vec<String>>,
    /// Services other than the seat that publish ports.
    pub(crate) publishing: Vec<String>,
}

/// The way through listener, server and location to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The port that `listen` names.
    pub(crate) listen: u16,
    /// A name that the server goes by.
    pub(crate) host: String,
    /// A path that the location takes.
    pub(crate) path: String,
    /// The upstream's name.
    pub(crate) upstream: String,
}

/// A service whose instances answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    /// Its name.
    pub(crate) name: String,
    /// The port that its instances listen on.
    pub(crate) port: u16,
    /// Instances at the start; none for a service that is started by name.
    pub(crate) replicas: u32,
    /// Whether it may have more than one.
    pub(crate) can_scale: bool,
    /// Whether an instance that dies is started again.
    pub(crate) restarts: bool,
    /// The image, where instances are containers.
    pub(crate) image: Option<String>,
}

impl Subject {
    /// Reads a project.
    ///
    /// # Errors
    /// When it can't be run, or nothing in it is balanced that a drill could try.
    pub(crate) fn read(options: ProjectOptions) -> Result<Self, Error> {
        let reading = options.read();
        let Reading { sources, joined, .. } = reading;
        let joined = joined.ok_or_else(|| {
            Error::Project("this project can't be run: `evenkeel config` says why".to_owned())
        })?;
        let (configuration, configuration_text) = main_configuration(&sources)
            .ok_or_else(|| Error::Project("no file of this project has an `http` block".to_owned()))?;
        let (route, services) = joined
            .plan
            .listeners
            .iter()
            .find_map(|listener| {
                let server = joined.plan.servers.get(listener.default_server.0 as usize)?;
                let (path, upstream) = balanced_location(&joined.plan, &server.locations)?;
                let services = tried_services(&joined, &upstream)?;
                let name = server.primary_name();
                let plain =
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
                let host = if plain { name.into_owned() } else { "localhost".to_owned() };
                Some((Route { listen: listener.declared_port, host, path, upstream: upstream.0 }, services))
            })
            .ok_or_else(|| {
                Error::Project("no location of this project passes to services that Evenkeel runs".to_owned())
            })?;
        let compose = keel_compose::load(&options.compose, &mut Sources::default()).project;
        let compose: Vec<_> = compose.iter().flat_map(|project| project.services.values()).collect();
        let seat = joined.seat.as_ref().map(|seat| seat.service.clone());
        let publishing = compose
            .iter()
            .filter(|service| !service.ports.is_empty() && Some(&service.name.value) != seat.as_ref())
            .map(|service| service.name.value.clone())
            .collect();
        let networks =
            compose.iter().map(|service| (service.name.value.clone(), network_names(service))).collect();
        Ok(Self { joined, options, configuration, configuration_text, route, services, networks, publishing })
    }

    /// The project's Compose files, absolute.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.joined.files
    }

    /// The service in the balancer's seat; the drill's own where the project has none.
    pub(crate) fn seat(&self) -> &str {
        self.joined.seat.as_ref().map_or(SEAT, |seat| seat.service.as_str())
    }

    /// Whether peers get turns of equal size.
    pub(crate) fn is_even(&self) -> bool {
        self.upstream().is_some_and(|upstream| upstream.policy.name == "round_robin")
            && self.entries().all(|entry| match entry {
                Entry::Fixed(_) | Entry::Name { .. } => false,
                Entry::Services { like, .. } => like.weight == 1 && !like.backup && like.max_conns == 0,
            })
    }

    /// Says how instances run.
    pub(crate) fn driver(&self) -> &'static str {
        let containers = self.services.iter().filter(|service| service.image.is_some()).count();
        match containers {
            0 => "process",
            all if all == self.services.len() => "docker",
            _ => "process and docker",
        }
    }

    /// Says how the upstream picks, as nginx.conf says it.
    pub(crate) fn policy(&self) -> String {
        self.upstream().map_or_else(String::new, |upstream| upstream.policy.name.replace('_', " "))
    }

    /// Whether the upstream stands in nginx.conf as a block, so that its servers can get parameters.
    pub(crate) fn has_upstream_block(&self) -> bool {
        let mut found = false;
        visit(&self.configuration, &mut |directive| {
            found |= directive.name.text == "upstream" && directive.arg(0) == self.route.upstream;
        });
        found
    }

    /// Whether all peers of the upstream are instances of services.
    pub(crate) fn has_services_alone(&self) -> bool {
        self.entries().all(|entry| matches!(entry, Entry::Services { .. }))
    }

    fn upstream(&self) -> Option<&keel_model::Upstream> {
        self.joined.plan.upstreams.iter().find(|upstream| upstream.name.0 == self.route.upstream)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let own = self.joined.bindings.iter().filter(|binding| binding.upstream.0 == self.route.upstream);
        own.flat_map(|binding| &binding.entries)
    }

    /// The ports that `listen` names, each once.
    pub(crate) fn listen_ports(&self) -> BTreeSet<u16> {
        self.joined.plan.listeners.iter().map(|listener| listener.declared_port).collect()
    }
}

/// Calls for every directive, outer before inner.
pub(crate) fn visit<'a>(directives: &'a [Directive], call: &mut impl FnMut(&'a Directive)) {
    for directive in directives {
        call(directive);
        visit(directive.block.as_deref().unwrap_or_default(), call);
    }
}

/// Finds the file that has the `http` block among all that were read.
fn main_configuration(sources: &Sources) -> Option<(Vec<Directive>, String)> {
    sources.iter().find_map(|(id, _, text)| {
        let (directives, _) = keel_nginx::parse(sources, id);
        let has_http = directives.iter().any(|one| one.name.text == "http" && one.block.is_some());
        has_http.then(|| (directives, text.to_owned()))
    })
}

/// Finds a location that passes to an upstream, and a path that it takes.
fn balanced_location(plan: &Plan, locations: &[Location]) -> Option<(String, UpstreamName)> {
    let prefix = |location: &Location| match &location.matcher {
        LocationMatcher::Exact(path) | LocationMatcher::Prefix(path) | LocationMatcher::PrefixFinal(path) => {
            Some(path.clone())
        }
        LocationMatcher::Regex(_) | LocationMatcher::Named(_) => None,
    };
    let passes = |location: &Location| {
        let Some(ProxyTarget::Upstream(name)) = location.scope.content.target() else { return None };
        plan.upstreams.iter().any(|upstream| upstream.name == *name).then(|| name.clone())
    };
    let mut found: Vec<(String, UpstreamName)> =
        locations.iter().filter_map(|location| Some((prefix(location)?, passes(location)?))).collect();
    // The shortest is what most requests of a project take.
    found.sort_by_key(|(path, _)| path.len());
    found.into_iter().next()
}

fn tried_services(joined: &Joined, upstream: &UpstreamName) -> Option<Vec<Tried>> {
    let binding = joined.bindings.iter().find(|binding| binding.upstream == *upstream)?;
    let mut tried: Vec<Tried> = Vec::new();
    for entry in &binding.entries {
        let Entry::Services { services, port, .. } = entry else { continue };
        for name in services {
            if tried.iter().any(|one| one.name == name.0) {
                continue;
            }
            let service = joined.services.iter().find(|service| service.name == *name)?;
            if matches!(service.run, Run::External(_)) {
                return None;
            }
            tried.push(tried_service(service, name, *port));
        }
    }
    let any_runs = tried.iter().any(|service| service.replicas > 0);
    any_runs.then_some(tried)
}

fn tried_service(service: &Service, name: &ServiceName, port: u16) -> Tried {
    Tried {
        name: name.0.clone(),
        port,
        replicas: service.replicas,
        can_scale: service.instance_name.is_none(),
        restarts: service.restart.condition != RestartCondition::Never
            && service.restart.attempts_max.is_none(),
        image: match &service.run {
            Run::Container(container) => Some(container.image.clone()),
            Run::Process(_) | Run::External(_) => None,
        },
    }
}

fn network_names(service: &keel_compose::Service) -> Vec<String> {
    let mut names: Vec<String> = service.networks.keys().cloned().collect();
    if names.is_empty() {
        names.push("default".to_owned());
    }
    names
}
