//! From the `server` lines of an upstream to what they stand for.
//!
//! A name is a Compose service, its alias or container name, where there is a Compose file. Otherwise it is followed
//! if the file says `resolve` or only variables come to it, and if not the host's own resolver is asked, once, when the configuration is read, as
//! nginx does. In a container where Evenkeel has nginx's place, a resolver for all names can be given beside the file:
//! people's files name services and no resolver, because nginx found them at its start; and `resolve` means it, too.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
};

use keel_diag::{Diagnostic, suggest};
use keel_model::{
    Address, FollowedName, Peer, PeerKey, Plan, Resolver, ResolverSource, ServiceName, SyslogServer,
};
use keel_nginx::{ServerAddress, ServerEntry, SyslogName, UpstreamOrigin, UpstreamSource};

use crate::peers::{Binding, Entry};

/// The names that stand for services, each with the services that answer to it, in the file's order.
pub type ServiceNames = BTreeMap<String, Vec<ServiceName>>;

/// How names are found that only a host knows.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The names that stand for services.
    pub services: ServiceNames,
    /// Follows every name of upstreams that have no resolver of their own.
    pub resolver: Option<Resolver>,
}

/// Finds what every upstream's servers stand for. Names that nothing is known of are errors that point to them, unless only
/// variables may come to them.
pub fn bind(upstreams: &[UpstreamSource], known: &Known) -> (Vec<Binding>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let bindings = upstreams
        .iter()
        .map(|upstream| Binding {
            upstream: upstream.name.clone(),
            entries: upstream
                .servers
                .iter()
                .filter_map(|server| match entry(upstream, server, known) {
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

fn entry(upstream: &UpstreamSource, server: &ServerEntry, known: &Known) -> Result<Entry, Box<Diagnostic>> {
    let fixed = |addresses: Vec<Address>| {
        let peer = |address| Peer { key: PeerKey { address, incarnation: 0 }, ..server.peer.clone() };
        Entry::Fixed(addresses.into_iter().map(peer).collect())
    };
    match &server.address {
        ServerAddress::Ip(address) => Ok(fixed(vec![Address::Tcp(*address)])),
        ServerAddress::Unix(path) => Ok(fixed(vec![Address::Unix(path.clone())])),
        ServerAddress::Name { host, port } => {
            let like = server.peer.clone();
            if let Some(found) = known.services.get(&host.to_ascii_lowercase()) {
                return Ok(Entry::Services { services: found.clone(), port: *port, like });
            }
            let resolver = match &upstream.resolver {
                Some(own) => server.resolve.then_some(own),
                None => known.resolver.as_ref(),
            };
            if let Some(resolver) = resolver {
                check_resolver(resolver, server)?;
                let (resolver, port_name) = (resolver.clone(), server.port_name.clone());
                let name = FollowedName { resolver, host: host.clone(), port: *port, port_name };
                return Ok(Entry::Name { name, like });
            }
            if upstream.origin == UpstreamOrigin::Variables {
                return Err(Box::new(unresolved(server, host)));
            }
            if server.resolve {
                return Err(Box::new(no_resolver(server, upstream)));
            }
            if server.port_name.is_some() {
                return Err(Box::new(no_port_names(server)));
            }
            look_up(host, *port)
                .map(|addresses| fixed(addresses.into_iter().map(Address::Tcp).collect()))
                .ok_or_else(|| Box::new(not_found(server, host, &known.services)))
        }
    }
}

/// Looks the names of syslog servers up, once, as nginx does. Those that stand for services, whose UDP ports nobody
/// follows, get nothing.
pub(crate) fn settle_syslog(plan: &mut Plan, names: &[SyslogName], known: &Known) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut addresses = BTreeMap::new();
    for name in names {
        if known.services.contains_key(&name.host.to_ascii_lowercase()) {
            diagnostics.push(name.is_a_service());
        } else if let Some(found) = look_up(&name.host, name.port).and_then(|found| found.first().copied()) {
            addresses.insert((name.host.clone(), name.port), found);
        } else {
            diagnostics.push(name.not_found());
        }
    }
    plan.for_each_syslog(|syslog| {
        if let SyslogServer::Name { host, port } = &syslog.server
            && let Some(address) = addresses.get(&(host.clone(), *port))
        {
            syslog.server = SyslogServer::Udp(*address);
        }
    });
    diagnostics
}

/// Refuses what the resolver can't do.
fn check_resolver(resolver: &Resolver, server: &ServerEntry) -> Result<(), Box<Diagnostic>> {
    let is_cluster = resolver.source == ResolverSource::Kubernetes;
    let is_engine = resolver.source == ResolverSource::Docker;
    if is_cluster && !cfg!(feature = "kubernetes") {
        let message = "`resolver kubernetes` isn't in this program";
        let diagnostic =
            Diagnostic::error("nginx::no-kubernetes", message).at(server.span, "nobody follows this name");
        return Err(Box::new(
            diagnostic.help("build it with the feature `kubernetes`, or use `resolver system`"),
        ));
    }
    if server.port_name.is_some() && is_engine {
        return Err(Box::new(no_port_names(server)));
    }
    Ok(())
}

fn no_port_names(server: &ServerEntry) -> Diagnostic {
    Diagnostic::error("nginx::unsupported-parameter", "nobody says which port `service` names")
        .at(server.span, "DNS servers and Kubernetes know services, the container engine doesn't")
        .help("write the port's number, or add `resolve` and a `resolver` of either kind")
}

fn no_resolver(server: &ServerEntry, upstream: &UpstreamSource) -> Diagnostic {
    Diagnostic::error("nginx::no-resolver", format!("nobody is named who resolves `{}`", server.text))
        .at(server.span, "`resolve` needs a `resolver`")
        .help("add `resolver 127.0.0.11;` for Docker's DNS, `resolver system;` for the system's")
        .nginx(format!("no resolver defined to resolve names at run time in upstream \"{}\"", upstream.name))
}

pub(crate) fn look_up(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().ok()?.collect();
    addresses.dedup();
    (!addresses.is_empty()).then_some(addresses)
}

/// Warns of a name that nobody is asked for when the variables of a `proxy_pass` come to it.
fn unresolved(server: &ServerEntry, host: &str) -> Diagnostic {
    Diagnostic::warning("nginx::no-resolver", format!("nobody is named who resolves `{host}`"))
        .at(server.span, format!("answered with 502 where the variables come to `{}`", server.text))
        .help("add `resolver 127.0.0.11;` for Docker's DNS, `resolver system;` for the system's")
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

#[cfg(test)]
mod tests {
    use keel_diag::{Severity, Sources};
    use keel_model::UpstreamName;

    use super::*;

    fn sources(pass: &str) -> Vec<UpstreamSource> {
        read(&format!("server {{ listen 127.0.0.1:80; location / {{ {pass} }} }}"))
    }

    fn read(http: &str) -> Vec<UpstreamSource> {
        struct OneFile(String);
        impl keel_nginx::Files for OneFile {
            fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
                Ok(self.0.clone().into_bytes())
            }
            fn glob(&self, _: &std::path::Path) -> Vec<std::path::PathBuf> {
                Vec::new()
            }
            fn resolve(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
                Err(std::io::Error::other("nothing is resolved here"))
            }
            fn is_root(&self) -> bool {
                false
            }
        }
        let text = format!("events {{}} http {{ {http} }}");
        let options = keel_nginx::Options { conf_path: "nginx.conf".into(), ..Default::default() };
        let loaded = keel_nginx::load(&options, &OneFile(text), &mut Sources::default());
        loaded.configuration.expect("is sound").upstreams
    }

    #[test]
    fn names_that_variables_come_to_are_services_or_followed() {
        let services = ServiceNames::from([("app".to_owned(), vec![ServiceName("app".into())])]);
        let known = Known { services, resolver: None };
        let (bindings, problems) = bind(&sources("set $x app:5000; proxy_pass http://$x;"), &known);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(
            matches!(bindings[0].entries.as_slice(), [Entry::Services { port: 5000, .. }]),
            "{bindings:?}"
        );

        let resolved = sources("resolver 127.0.0.11; set $x app:5000; proxy_pass http://$x;");
        let (bindings, problems) = bind(&resolved, &Known::default());
        assert!(problems.is_empty(), "{problems:?}");
        let [Entry::Name { name, .. }] = bindings[0].entries.as_slice() else { panic!("{bindings:?}") };
        assert_eq!((name.host.as_str(), name.port), ("app", 5000));
        assert!(matches!(name.resolver.source, ResolverSource::Servers(_)));

        // Without anybody to ask it is said, and no reason not to start.
        let (bindings, problems) =
            bind(&sources("set $x app:5000; proxy_pass http://$x;"), &Known::default());
        assert!(bindings[0].entries.is_empty());
        assert!(matches!(problems.as_slice(), [one] if one.severity == Severity::Warning), "{problems:?}");
    }

    /// What becomes of one `server` line, beside a resolver that the surroundings name.
    fn follow(line: &str, beside: Option<ResolverSource>) -> Result<FollowedName, String> {
        let upstreams = read(&format!("upstream u {{ {line} }} server {{ listen 127.0.0.1:80; }}"));
        let known = Known { resolver: beside.map(Resolver::new), ..Known::default() };
        let (bindings, diagnostics) = bind(&upstreams, &known);
        if let Some(found) = diagnostics.into_iter().next() {
            return Err(found.nginx_text.unwrap_or(found.message));
        }
        assert_eq!(bindings[0].upstream, UpstreamName("u".into()));
        Ok(bindings[0].names().next().expect("is followed").clone())
    }

    #[test]
    fn resolve_means_the_resolver_beside_the_file() {
        let followed = follow("server app:80 resolve;", Some(ResolverSource::System)).expect("is followed");
        assert_eq!((followed.resolver.source, followed.host.as_str()), (ResolverSource::System, "app"));
        let own = follow("resolver docker; server app:80 resolve;", Some(ResolverSource::System));
        assert_eq!(own.expect("is followed").resolver.source, ResolverSource::Docker);
        let nobody = "no resolver defined to resolve names at run time in upstream \"u\"";
        assert_eq!(follow("server app:80 resolve;", None), Err(nobody.to_owned()));
    }

    #[test]
    fn ports_have_names_in_dns_and_in_a_cluster() {
        let line = "server app.shop service=http resolve;";
        let refused = Err("nobody says which port `service` names".to_owned());
        assert_eq!(follow(line, Some(ResolverSource::Docker)), refused);
        let followed = follow(line, Some(ResolverSource::System)).expect("is followed");
        assert_eq!(followed.port_name.as_deref(), Some("http"));
        if cfg!(feature = "kubernetes") {
            let followed = follow(line, Some(ResolverSource::Kubernetes)).expect("is followed");
            assert_eq!(followed.port_name.as_deref(), Some("http"));
        }
    }
}
