//! Services: the names under which instances are found, and the ports that clients use.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Service as Object, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use keel_compose::{PortMapping, Service};
use keel_model::Port;

use super::{
    Published, Writer, container,
    object::{self, label, metadata, selector, some},
    workload::alias_label,
};

impl<'a> Writer<'a> {
    /// Writes the Service under whose name all instances are found, each by its own address, and the one for ports that
    /// the file publishes and the balancer doesn't serve.
    pub(super) fn service_of(&mut self, service: &'a Service) {
        let ports = self.ports(service);
        let (project, name) = (self.project.name.as_str(), service.name.value.as_str());
        if !ports.is_empty() {
            let object = headless(project, name, selector(project, name), &ports);
            self.export.objects.push(object::Object::of(&object));
        }
        let balanced: Vec<_> =
            self.seat.into_iter().flat_map(|seat| &seat.published).map(|one| one.span).collect();
        let own = service.ports.iter().filter(|mapping| !balanced.contains(&mapping.span));
        let published: Vec<&PortMapping> = own.collect();
        if published.is_empty() {
            return;
        }
        let mut writer = Publisher::default();
        for mapping in &published {
            match mapping.published {
                Some(range) => {
                    writer.add(range.first, Port { number: mapping.target, protocol: mapping.protocol })
                }
                None => self.cannot_say(
                    mapping.span,
                    "no port is given under which clients reach this one",
                    "such as \"8080:80\"",
                ),
            }
        }
        let local = published.iter().all(|mapping| mapping.host_ip.is_some_and(|ip| ip.is_loopback()));
        let object = writer.finish(project, name, if local { Reach::Cluster } else { Reach::Outside });
        self.export.objects.extend(object.map(|object| object::Object::of(&object)));
    }

    /// The further names of a service that are none of a service's.
    pub(super) fn aliases_of(&self, service: &Service) -> BTreeSet<String> {
        let is_free = |alias: &&str| !self.project.services.contains_key(*alias) && label(alias) == **alias;
        service.aliases().filter(is_free).map(str::to_owned).collect()
    }

    /// Writes a Service for each further name; several services may answer to it.
    pub(super) fn aliases(&mut self) {
        let mut ports = BTreeMap::<String, Vec<Port>>::new();
        for service in self.workloads() {
            for alias in self.aliases_of(service) {
                let known = ports.entry(alias).or_default();
                for port in self.ports(service) {
                    if !known.contains(&port) {
                        known.push(port);
                    }
                }
            }
        }
        let project = self.project.name.as_str();
        for (alias, ports) in ports.iter().filter(|(_, ports)| !ports.is_empty()) {
            let selector = [(alias_label(alias), "member".to_owned())].into();
            let object = headless(project, alias, selector, ports);
            self.export.objects.push(object::Object::of(&object));
        }
    }
}

fn headless(project: &str, name: &str, selector: BTreeMap<String, String>, ports: &[Port]) -> Object {
    let port = |port: &Port| ServicePort {
        name: Some(container::port_name(port)),
        port: i32::from(port.number),
        protocol: Some(container::protocol(port)),
        ..ServicePort::default()
    };
    Object {
        metadata: metadata(project, name),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            selector: Some(selector),
            ports: Some(ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// From where published ports are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// From outside of the cluster.
    Outside,
    /// From pods alone.
    Cluster,
}

/// Published ports of one service, each once.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    ports: Vec<ServicePort>,
}

impl Publisher {
    pub(super) fn of(published: &[Published]) -> Self {
        let mut publisher = Self::default();
        for one in published {
            let target = Port { number: one.target, protocol: keel_model::Protocol::Tcp };
            publisher.add(one.port, target);
        }
        publisher
    }

    fn add(&mut self, published: u16, target: Port) {
        let port = ServicePort {
            name: Some(container::port_name(&Port { number: published, ..target })),
            port: i32::from(published),
            target_port: Some(IntOrString::Int(target.number.into())),
            protocol: Some(container::protocol(&target)),
            ..ServicePort::default()
        };
        if self.ports.iter().all(|known| known.name != port.name) {
            self.ports.push(port);
        }
    }

    /// The Service, if there is a port.
    pub(super) fn finish(self, project: &str, name: &str, reach: Reach) -> Option<Object> {
        let ports = some(self.ports)?;
        let mut metadata = metadata(project, name);
        metadata.name = Some(label(&format!("{name}-published")));
        let (kind, policy) = match reach {
            // So that clients' addresses are seen.
            Reach::Outside => ("LoadBalancer", Some("Local".to_owned())),
            Reach::Cluster => ("ClusterIP", None),
        };
        Some(Object {
            metadata,
            spec: Some(ServiceSpec {
                type_: Some(kind.into()),
                external_traffic_policy: policy,
                selector: Some(selector(project, name)),
                ports: Some(ports),
                ..ServiceSpec::default()
            }),
            status: None,
        })
    }
}
