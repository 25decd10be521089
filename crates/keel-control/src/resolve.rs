//! From the `server` lines of an upstream to what they stand for.
//!
//! A name is a Compose service, its alias or container name, where there is a Compose file; otherwise the host's
//! own resolver is asked, once, when the configuration is read, as nginx does.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
};

use keel_diag::{Diagnostic, suggest};
use keel_model::{Address, Peer, PeerKey, ServiceName};
use keel_nginx::{ServerAddress, ServerEntry, UpstreamSource};

use crate::peers::{Binding, Entry};

/// The names that stand for services, each with the services that answer to it, in the file's order.
pub type ServiceNames = BTreeMap<String, Vec<ServiceName>>;

/// Finds what every upstream's servers stand for. Names that nothing is known of are errors that point to them.
pub fn bind(upstreams: &[UpstreamSource], services: &ServiceNames) -> (Vec<Binding>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let bindings = upstreams
        .iter()
        .map(|upstream| Binding {
            upstream: upstream.name.clone(),
            entries: upstream
                .servers
                .iter()
                .filter_map(|server| match entry(server, services) {
                    Ok(entry) => Some(entry),
                    Err(diagnostic) => {
                        diagnostics.push(*diagnostic);
                        None
                    }
                })
                .collect(),
        })
        .collect();
    (bindings, diagnostics)
}

fn entry(server: &ServerEntry, services: &ServiceNames) -> Result<Entry, Box<Diagnostic>> {
    let fixed = |addresses: Vec<Address>| {
        let peer = |address| Peer { key: PeerKey { address, incarnation: 0 }, ..server.peer.clone() };
        Entry::Fixed(addresses.into_iter().map(peer).collect())
    };
    match &server.address {
        ServerAddress::Ip(address) => Ok(fixed(vec![Address::Tcp(*address)])),
        ServerAddress::Unix(path) => Ok(fixed(vec![Address::Unix(path.clone())])),
        ServerAddress::Name { host, port } => match services.get(&host.to_ascii_lowercase()) {
            Some(found) => {
                Ok(Entry::Services { services: found.clone(), port: *port, like: server.peer.clone() })
            }
            None => look_up(host, *port)
                .map(|addresses| fixed(addresses.into_iter().map(Address::Tcp).collect()))
                .ok_or_else(|| Box::new(not_found(server, host, services))),
        },
    }
}

fn look_up(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().ok()?.collect();
    addresses.dedup();
    (!addresses.is_empty()).then_some(addresses)
}

fn not_found(server: &ServerEntry, host: &str, services: &ServiceNames) -> Diagnostic {
    let message = format!("host not found in upstream `{}`", server.text);
    let diagnostic = Diagnostic::error("nginx::unknown-host", message)
        .nginx(format!("host not found in upstream \"{}\"", server.text));
    if services.is_empty() {
        return diagnostic
            .at(server.span, "the system's resolver doesn't know this name")
            .help("name an address, or add the host to /etc/hosts or DNS");
    }
    let diagnostic =
        diagnostic.at(server.span, "neither a Compose service nor a name that the system's resolver knows");
    match suggest(host, services.keys().map(String::as_str)) {
        Some(near) => diagnostic.help(format!("did you mean the service `{near}`?")),
        None => {
            let known: Vec<_> = services.keys().map(|name| format!("`{name}`")).collect();
            diagnostic.help(format!("the Compose file has {}", known.join(", ")))
        }
    }
}
