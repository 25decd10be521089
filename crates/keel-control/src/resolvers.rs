//! Who is asked for names that only requests show: DNS servers by their addresses, as the data plane reads no file and knows no
//! other source.

use std::collections::BTreeMap;

use hickory_resolver::system_conf::read_system_conf;
use keel_diag::Diagnostic;
use keel_model::{NameServer, Plan, Resolver, ResolverSource};

use crate::resolve::{Known, look_up};

/// Where Docker's own DNS server, which is in containers only, would be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// In a container, or with a file that means what it says.
    AsWritten,
    /// On the host: the system's servers take the place of Docker's.
    Host,
}

/// Makes the resolvers of places ready for the data plane. Names of servers that the system doesn't know are errors, as in
/// nginx.
pub(crate) fn settle_resolvers(
    plan: &mut Plan,
    known: &Known,
    surroundings: Surroundings,
) -> Vec<Diagnostic> {
    let mut settled: BTreeMap<Resolver, Option<Resolver>> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    plan.for_each_scope(&mut |scope| {
        let Some(resolver) = scope.core.resolver.as_ref().or(known.resolver.as_ref()).cloned() else {
            return;
        };
        let settle = || settle(&resolver, surroundings, &mut diagnostics);
        scope.core.resolver = settled.entry(resolver.clone()).or_insert_with(settle).clone();
    });
    diagnostics
}

fn settle(
    resolver: &Resolver,
    surroundings: Surroundings,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Resolver> {
    let is_dockers = |server: &NameServer| server.host == "127.0.0.11";
    let servers = match &resolver.source {
        ResolverSource::Servers(servers)
            if surroundings == Surroundings::Host && servers.iter().all(is_dockers) =>
        {
            system_servers()
        }
        ResolverSource::Servers(servers) => {
            servers.iter().flat_map(|server| addresses(server, diagnostics)).collect()
        }
        ResolverSource::System => system_servers(),
        // They tell of names that the file shows.
        ResolverSource::Docker | ResolverSource::Kubernetes => return None,
    };
    Some(Resolver { source: ResolverSource::Servers(servers), ..resolver.clone() })
}

fn addresses(server: &NameServer, diagnostics: &mut Vec<Diagnostic>) -> Vec<NameServer> {
    if server.host.parse::<std::net::IpAddr>().is_ok() {
        return vec![server.clone()];
    }
    let Some(found) = look_up(&server.host, server.port) else {
        let nginx = format!("host not found in resolver \"{}\"", server.host);
        let message = format!("the system's resolver doesn't know the DNS server `{}`", server.host);
        let found = Diagnostic::error("nginx::unknown-host", message);
        diagnostics.push(found.help("name it by its address").nginx(nginx));
        return Vec::new();
    };
    let server =
        |address: std::net::SocketAddr| NameServer { host: address.ip().to_string(), port: address.port() };
    found.into_iter().map(server).collect()
}

fn system_servers() -> Vec<NameServer> {
    let Ok((config, _)) = read_system_conf() else { return Vec::new() };
    let mut servers: Vec<NameServer> = Vec::new();
    for server in config.name_servers() {
        let server = NameServer { host: server.ip.to_string(), port: DNS_PORT };
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

const DNS_PORT: u16 = 53;
