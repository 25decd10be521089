//! Services whose `ports` are balanced without an nginx.conf.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Span};
use keel_model::{Address, Driver, Protocol, ServiceName};
use keel_nginx::{Files, MainSettings};

use super::{Joiner, Publisher};
use crate::project::{
    direct::{DirectPort, direct_configuration},
    merge::append,
    seat::published,
    texts::SeatTexts,
    tree::Placement,
};

impl Joiner<'_> {
    /// Balances published ports of services other than the seat; gives the configuration that was written for that.
    pub(super) fn direct_ports(
        &mut self,
        running: &BTreeSet<&ServiceName>,
        loaded: &mut Option<(keel_nginx::Configuration, MainSettings)>,
    ) -> Option<String> {
        let mut ports = Vec::new();
        for service in self.project.services.values() {
            // The port of a service that isn't run stays free for others.
            if !running.iter().any(|name| name.0 == service.name.value) {
                continue;
            }
            let is_process = service.driver == Driver::Process;
            let elsewhere = is_process && service.process.as_ref().is_some_and(|own| own.address.is_some())
                || self.publisher(service) == Publisher::Engine;
            if elsewhere || service.faulty || !service.enabled {
                continue;
            }
            for mapping in service.ports.iter().filter(|mapping| mapping.protocol == Protocol::Tcp) {
                let settled = self.chosen.settle(self.project, &service.name.value, mapping);
                let listen = settled.as_ref().map(published).unwrap_or_default();
                let listen: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
                if !listen.is_empty() {
                    ports.push((
                        mapping.span,
                        DirectPort { service: service.name.value.clone(), target: mapping.target, listen },
                    ));
                }
            }
        }
        self.name_clashes(&mut ports, loaded.as_ref());
        if ports.is_empty() && loaded.is_some() {
            return None;
        }
        // Where something is to be mended first, nothing is said of what may follow from it. Where the engine publishes
        // all there is, a balancer with nothing to do is fine.
        let is_engines =
            |service: &keel_compose::Service| service.enabled && self.publisher(service) == Publisher::Engine;
        let is_said = self.errors() > 0 || self.has_faulty_service() || !self.left_out.is_empty();
        if ports.is_empty() && !is_said && !self.project.services.values().any(is_engines) {
            self.reading.diagnostics.push(nothing_to_balance());
        }
        for (span, port) in &ports {
            let addresses = port.listen.iter().filter_map(|text| text.parse().ok());
            self.published_at.extend(addresses.map(|address| (Address::Tcp(address), *span)));
        }
        let ports: Vec<DirectPort> = ports.into_iter().map(|(_, port)| port).collect();
        let text = direct_configuration(&ports);
        let options = keel_nginx::Options {
            prefix: self.state.clone(),
            conf_path: self.state.join("published-ports.conf"),
            globals: Vec::new(),
        };
        let loaded_text = keel_nginx::load(&options, &Written(&text), &mut self.reading.sources);
        // Without ports it has no listener, and that is said in other words.
        let said = loaded_text.diagnostics.into_iter().filter(|one| one.code != "nginx::no-listener");
        self.reading.diagnostics.extend(said);
        let mut written = loaded_text.configuration?;
        let placement = Placement { seat: "published-ports", files: None, state: &self.state };
        placement.apply(&mut written.plan, &mut SeatTexts::default());
        match loaded {
            Some((configuration, _)) => append(configuration, written)
                .unwrap_or_else(|error| tracing::error!("published ports are not balanced: {error}")),
            None => {
                let main = written.main.clone();
                *loaded = Some((written, main));
            }
        }
        Some(text)
    }

    /// Two services, or a service and nginx.conf, that want one address of the host: the first keeps it.
    fn name_clashes(
        &mut self,
        ports: &mut Vec<(Span, DirectPort)>,
        loaded: Option<&(keel_nginx::Configuration, MainSettings)>,
    ) {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for listener in loaded.iter().flat_map(|(configuration, _)| &configuration.plan.listeners) {
            taken.insert(listener.address.to_string(), "nginx.conf".into());
        }
        ports.retain(|(span, port)| {
            let clash = port.listen.iter().find_map(|address| Some((address, taken.get(address)?)));
            if let Some((address, holder)) = clash {
                self.reading.diagnostics.push(
                    Diagnostic::error("join::port-clash", format!("{address} is published twice"))
                        .at(*span, format!("`{}` and {holder} both want it; {holder} keeps it", port.service))
                        .help("publish one of them under another port"),
                );
                return false;
            }
            for address in &port.listen {
                taken.insert(address.clone(), format!("`{}`", port.service));
            }
            true
        });
    }
}

/// A project of workers alone is fine, but `ports` may have been forgotten.
fn nothing_to_balance() -> Diagnostic {
    Diagnostic::warning(
        "join::nothing-to-balance",
        "no service publishes a port: what runs here gets no requests",
    )
    .help("publish one: `ports: [\"8080:5000\"]`")
    .help("or add a service `image: nginx` with an nginx.conf mounted to /etc/nginx/nginx.conf")
}

/// The text that Evenkeel wrote, as the only file there is.
pub(in crate::project) struct Written<'a>(pub(in crate::project) &'a str);

impl Files for Written<'_> {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn glob(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }
}
