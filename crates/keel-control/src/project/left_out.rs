//! Services that have only an image and that no engine runs.
//!
//! Such a service is written for the image's own root: its `command`, run here, could delete or overwrite this host's
//! files. So it goes to a container engine or is left out. One diagnostic names all that are left out and what that means
//! for the others; it is an error if another service needs one of them.

use std::collections::BTreeMap;

use keel_compose::{Project, Service, is_balancer_seat};
use keel_diag::{Diagnostic, Severity};
use keel_model::{Driver, DriverChoice, Protocol, ServiceName};

/// The services that are left out, by name.
pub(super) type LeftOut = BTreeMap<ServiceName, Why>;

/// Why nobody runs a service that has only an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Local processes were asked for.
    NoDriver,
    /// `auto` was asked for, and no engine answers.
    NoEngine,
}

/// Finds the services that have only an image, and neither an engine that runs them nor a word on what runs here.
pub(super) fn left_out(project: &Project, engine_answers: impl Fn() -> bool) -> LeftOut {
    let images =
        project.services.values().filter(|service| has_only_an_image(service) && !is_balancer_seat(service));
    let why = |service: &Service| match service.driver {
        Driver::Process => Some(Why::NoDriver),
        Driver::Docker if service.driver_choice == DriverChoice::Auto && !engine_answers() => {
            Some(Why::NoEngine)
        }
        Driver::Docker => None,
    };
    images.filter_map(|service| Some((ServiceName(service.name.value.clone()), why(service)?))).collect()
}

/// Those that an engine would run, if one answered.
pub(super) fn without_engine(left_out: &LeftOut) -> Vec<ServiceName> {
    let of_engine = left_out.iter().filter(|(_, why)| **why == Why::NoEngine);
    of_engine.map(|(name, _)| name.clone()).collect()
}

/// A balancer is none of them: Evenkeel takes its place where no engine runs it.
fn has_only_an_image(service: &Service) -> bool {
    let own = service.process.as_ref();
    let is_told = own.is_some_and(|own| own.command.is_some() || own.address.is_some());
    service.image.is_some() && service.build.is_none() && !is_told
}

/// Names everything that is left out, with its effect and one remedy for all. `balanced` tells which of them nginx.conf
/// sends requests to.
pub(super) fn diagnose(
    project: &Project,
    left_out: &LeftOut,
    balanced: impl Fn(&ServiceName) -> bool,
) -> Option<Diagnostic> {
    let mut severity = Severity::Warning;
    let mut diagnostic: Option<Diagnostic> = None;
    let services: Vec<&Service> = left_out
        .keys()
        .filter_map(|name| project.services.get(&name.0))
        .filter(|service| service.enabled && !service.faulty)
        .collect();
    let names: Vec<String> = services.iter().map(|service| format!("`{}`", service.name.value)).collect();
    let message = match names.as_slice() {
        [one] => format!("{one} has only an image, so it isn't run"),
        several => format!("{} have only an image, so they aren't run", several.join(", ")),
    };
    for service in &services {
        let name = ServiceName(service.name.value.clone());
        let needs = needed_by(project, &name.0, left_out);
        let mut effects: Vec<String> = Vec::new();
        if !needs.is_empty() {
            effects.push(format!("{} will miss it", needs.join(" and ")));
        }
        if balanced(&name) {
            effects.push("requests that nginx.conf sends there fail".into());
        }
        if !effects.is_empty() {
            severity = Severity::Error;
        }
        let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        effects.extend(
            tcp.filter_map(|port| port.published)
                .map(|range| format!("port {} isn't opened for it", range.first)),
        );
        let text = match effects.is_empty() {
            true => "meant for a container".to_owned(),
            false => format!("meant for a container; {}", effects.join("; ")),
        };
        let span = service.image.as_ref().map_or(service.name.span, |image| image.span);
        let so_far =
            diagnostic.unwrap_or_else(|| Diagnostic::warning("process::image-only", message.clone()));
        diagnostic = Some(so_far.at(span, text));
    }
    let first = services.first()?;
    let port = first.container_ports().first().map_or(5432, |port| port.number);
    let engine = match left_out.values().any(|why| *why == Why::NoEngine) {
        true => {
            format!("no container engine answers at {}: start one, or set DOCKER_HOST", keel_engine::host())
        }
        false => {
            "a container engine runs it with `evenkeel up --driver auto`, or `x-driver: auto` in the file"
                .into()
        }
    };
    let diagnostic = diagnostic?.help(engine).help(format!(
        "or say where it is found, or what runs on this host instead:\n    {}:\n      x-process:\n        \
         address: 127.0.0.1:{port}      # or `command: ...`",
        first.name.value
    ));
    Some(Diagnostic { severity, ..diagnostic })
}

/// The services that run and depend on one that doesn't.
fn needed_by(project: &Project, name: &str, left_out: &LeftOut) -> Vec<String> {
    let runs = |service: &&Service| {
        service.enabled && !service.faulty && !left_out.contains_key(&ServiceName(service.name.value.clone()))
    };
    let depends =
        |service: &&Service| service.depends_on.iter().any(|one| one.required && one.service.value == name);
    let needing = project.services.values().filter(runs).filter(depends);
    needing.map(|service| format!("`{}`", service.name.value)).collect()
}
