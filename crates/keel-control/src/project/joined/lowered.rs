//! Services of the Compose file as the runner takes them.

use std::net::SocketAddr;

use keel_compose::Project;
use keel_model::{BuildStep, Dependency, Numbering, Port, Protocol, Run, Service, ServiceName};
use sha2::{Digest, Sha256};

use super::Seat;
use crate::{
    peers::{Binding, Entry},
    project::{process::hex, seat::own_port},
};

/// The seat as the runner sees it: found at its address, run by nobody.
pub(super) fn seat_as_service(
    project: &Project,
    service: &keel_compose::Service,
    seat: &Seat,
) -> Option<Service> {
    let port = service.container_ports().first().map_or(80, |port| port.number);
    let address = SocketAddr::new(seat.address?, own_port(port));
    let mut lowered = lower(project, service, Run::External(address), 1);
    lowered.depends_on.clear();
    Some(lowered)
}

/// A service of the file as the runner takes it.
pub(super) fn lower(project: &Project, service: &keel_compose::Service, run: Run, replicas: u32) -> Service {
    let dependency = |one: &keel_compose::DependsOn| Dependency {
        service: ServiceName(one.service.value.clone()),
        condition: one.condition,
        required: one.required,
        restart: one.restart,
    };
    Service {
        name: ServiceName(service.name.value.clone()),
        replicas,
        instance_name: service.container_name.as_ref().map(|name| name.value.clone()),
        numbering: if project.has_namesake(service) { Numbering::All } else { Numbering::Several },
        run,
        ports: service.container_ports(),
        aliases: service.aliases().map(str::to_owned).collect(),
        healthcheck: service.effective_healthcheck(),
        must_listen: service.declares_tcp_port(),
        restart: service.restart_policy(),
        depends_on: service.depends_on.iter().map(dependency).collect(),
        stop: service.stop(),
        digest: String::new(),
    }
}

/// Waiting for a service that doesn't run here would be waiting for ever; why it doesn't has been said.
pub(super) fn drop_missing_dependencies(services: &mut [Service]) {
    let names: Vec<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
    for service in services {
        service.depends_on.retain(|dependency| names.contains(&dependency.service));
    }
}

/// Tells services which of their ports are balanced: an instance is ready when it listens on the first of them.
pub(super) fn add_balanced_ports(services: &mut [Service], bindings: &[Binding]) {
    let balanced: Vec<(&ServiceName, u16)> = bindings
        .iter()
        .flat_map(|binding| &binding.entries)
        .filter_map(|entry| match entry {
            Entry::Services { services, port, .. } => Some(services.iter().map(|service| (service, *port))),
            Entry::Fixed(_) | Entry::Name { .. } => None,
        })
        .flatten()
        .collect();
    for service in services {
        let own = balanced.iter().filter(|(name, _)| **name == service.name);
        let mut ports: Vec<Port> =
            own.map(|(_, number)| Port { number: *number, protocol: Protocol::Tcp }).collect();
        service.must_listen |= !ports.is_empty();
        ports.append(&mut service.ports);
        for port in ports {
            if !service.ports.contains(&port) {
                service.ports.push(port);
            }
        }
    }
}

/// Digests everything that asks for new instances when it changes; the number of instances doesn't.
pub(super) fn digest(service: &Service) -> String {
    let mut subject = Service { replicas: 0, digest: String::new(), ..service.clone() };
    // What it would be built of counts when it is built.
    if let Run::Process(process) = &mut subject.run {
        process.build.retain(|step| !matches!(step, BuildStep::Context { .. }));
    }
    hex(&Sha256::digest(format!("{subject:?}").as_bytes()), 16)
}
