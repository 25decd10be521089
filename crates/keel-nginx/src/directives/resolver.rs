//! `resolver` and `resolver_timeout` (ngx_http_core_module, ngx_http_upstream_module): who is asked for names while
//! requests are served.
//!
//! They act on the names of peers in `upstream` blocks, on those that the variables of a `proxy_pass` may come to by what
//! the file itself says, and on those that only a request shows.

use std::time::Duration;

use keel_model::{Layer, NameServer, Resolver, ResolverSource};

use crate::{
    address::{self, Host, WrittenAddress},
    arguments::msec,
    ast::{Directive, Word},
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
};

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// What one block sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    resolver: Option<Resolver>,
    timeout: Option<Duration>,
}

impl Settings {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.resolver.inherit(&outer.resolver);
        self.timeout.inherit(&outer.timeout);
    }

    /// Gives the model's form.
    pub(crate) fn lower(&self) -> Option<Resolver> {
        let resolver = self.resolver.clone()?;
        Some(Resolver { timeout: self.timeout.unwrap_or(resolver.timeout), ..resolver })
    }
}

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "resolver",
        syntax: "address ... | system | docker | kubernetes [valid=time] [ipv4=on|off] [ipv6=on|off]",
        contexts: Contexts::HTTP_ALL.or(Contexts::UPSTREAM),
        arity: Arity::AtLeast(1),
        default: None,
        doc: "The DNS servers that are asked for names of `server ... resolve`, and for those that `set`, `map`, `geo` and \
              `split_clients` give the variables of a `proxy_pass`, all at a time. A name that only a request shows is asked for when it \
              comes up, of the servers one after the other; `docker` and `kubernetes` tell of names in the file alone. `system` stands for \
              /etc/hosts and the servers of /etc/resolv.conf. `docker` asks no DNS but the container engine, at DOCKER_HOST or its socket: a container \
              joins when it is healthy or, without a healthcheck, accepts a connection, and leaves when it is paused, \
              unhealthy or sent the signal that ends it. `kubernetes` asks the cluster's API, by the pod's service account or by \
              KUBECONFIG: `app`, `app.namespace` or `app.namespace.svc.cluster.local` stands for the endpoints of that Service that are \
              ready; other names are left to `system`. An answer holds for its TTL or for `valid`; Docker's own server 127.0.0.11, whose TTL \
              says nothing, is asked every second. When none answers, the addresses known last stay.",
        set: Setter::Simple(|reader, directive| {
            if reader.frame.resolver.resolver.is_some() {
                return reader.duplicate(directive);
            }
            reader.frame.resolver.resolver = resolver(reader, directive);
        }),
    },
    Row {
        name: "resolver_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL.or(Contexts::UPSTREAM),
        arity: Arity::ONE,
        default: Some("30s"),
        doc: "How long a question to the resolver may take.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.resolver.timeout, msec);
        }),
    },
];

/// Reads the arguments of a `resolver` that stands outside of any file.
///
/// # Errors
/// What is wrong with them.
pub fn parse_resolver(text: &str) -> Result<Resolver, String> {
    let mut draft = Draft::default();
    for word in text.split_whitespace() {
        draft.take(word)?;
    }
    draft.finish()
}

fn resolver(reader: &mut Reader<'_>, directive: &Directive) -> Option<Resolver> {
    let mut draft = Draft::default();
    let mut sound = true;
    for word in &directive.args {
        if let Err(text) = draft.take(&word.text) {
            refuse(reader, directive, word, text);
            sound = false;
        }
    }
    if !sound {
        return None;
    }
    match draft.finish() {
        Ok(resolver) => Some(resolver),
        Err(text) => {
            reader.error("nginx::invalid-resolver", text.clone(), directive.span(), text);
            None
        }
    }
}

fn refuse(reader: &mut Reader<'_>, directive: &Directive, word: &Word, nginx: String) {
    let expected =
        "an address, `system`, `docker`, `kubernetes`, `valid=time`, `ipv4=on|off` or `ipv6=on|off`";
    reader.invalid(directive, word, nginx, expected);
}

/// A `resolver` while its words are read.
#[derive(Default)]
struct Draft {
    servers: Vec<NameServer>,
    keywords: Vec<ResolverSource>,
    valid: Option<Duration>,
    no_ipv4: bool,
    no_ipv6: bool,
}

impl Draft {
    fn take(&mut self, word: &str) -> Result<(), String> {
        let invalid = || format!("invalid parameter: {word}");
        match word.split_once('=') {
            Some(("valid", time)) => {
                let valid = value::time(time, Resolution::Seconds).filter(|time| !time.is_zero());
                self.valid = Some(valid.ok_or_else(invalid)?);
            }
            Some(("ipv4", flag)) => self.no_ipv4 = !on(flag).ok_or_else(invalid)?,
            Some(("ipv6", flag)) => self.no_ipv6 = !on(flag).ok_or_else(invalid)?,
            Some(_) => return Err(invalid()),
            None if word == "system" => self.keywords.push(ResolverSource::System),
            None if word == "docker" => self.keywords.push(ResolverSource::Docker),
            None if word == "kubernetes" => self.keywords.push(ResolverSource::Kubernetes),
            None => self.servers.push(server(word)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Resolver, String> {
        let mut keywords = self.keywords.into_iter();
        let source = match (keywords.next(), self.servers) {
            (None, servers) if servers.is_empty() => return Err("no resolvers defined".into()),
            (None, servers) => ResolverSource::Servers(servers),
            (Some(keyword), servers) if servers.is_empty() && keywords.next().is_none() => keyword,
            (Some(_), _) => {
                let beside = "\"system\", \"docker\" and \"kubernetes\" can't stand beside other resolvers";
                return Err(beside.into());
            }
        };
        if self.no_ipv4 && self.no_ipv6 {
            return Err("\"ipv4\" and \"ipv6\" cannot both be \"off\"".into());
        }
        let (ipv4, ipv6) = (!self.no_ipv4, !self.no_ipv6);
        Ok(Resolver { valid: self.valid, ipv4, ipv6, ..Resolver::new(source) })
    }
}

fn on(flag: &str) -> Option<bool> {
    match flag {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn server(word: &str) -> Result<NameServer, String> {
    match address::peer(word) {
        Ok((WrittenAddress::Tcp { host, port, .. }, "")) => {
            let host = match host {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name,
            };
            Ok(NameServer { host, port: port.unwrap_or(DNS_PORT) })
        }
        Ok(_) => Err(format!("invalid host in resolver \"{word}\"")),
        Err(text) => Err(format!("{text} in resolver \"{word}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolvers() {
        let resolver = |source| Resolver::new(source);
        let servers = |list: &[(&str, u16)]| {
            let list = list.iter().map(|(host, port)| NameServer { host: (*host).into(), port: *port });
            resolver(ResolverSource::Servers(list.collect()))
        };
        let check = |text: &str, expect: Result<Resolver, &str>| {
            assert_eq!(parse_resolver(text), expect.map_err(str::to_owned), "for {text}");
        };
        check("127.0.0.11", Ok(servers(&[("127.0.0.11", 53)])));
        check("10.0.0.1:5353 [::1]", Ok(servers(&[("10.0.0.1", 5353), ("::1", 53)])));
        check("system ipv6=off", Ok(Resolver { ipv6: false, ..resolver(ResolverSource::System) }));
        let valid = Some(Duration::from_secs(10));
        check("127.0.0.11 valid=10s", Ok(Resolver { valid, ..servers(&[("127.0.0.11", 53)]) }));
        check("", Err("no resolvers defined"));
        check("valid=10s", Err("no resolvers defined"));
        check("127.0.0.1 valid=x", Err("invalid parameter: valid=x"));
        check("127.0.0.1 valid=0", Err("invalid parameter: valid=0"));
        check("127.0.0.1 ipv6=maybe", Err("invalid parameter: ipv6=maybe"));
        check("127.0.0.1 status_zone=x", Err("invalid parameter: status_zone=x"));
        check("127.0.0.1 ipv4=off ipv6=off", Err("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
        check("127.0.0.1:0", Err("invalid port in resolver \"127.0.0.1:0\""));
        check("dns.example", Ok(servers(&[("dns.example", 53)])));
        check("unix:/x", Err("invalid host in resolver \"unix:/x\""));
        check("docker", Ok(resolver(ResolverSource::Docker)));
        check("kubernetes", Ok(resolver(ResolverSource::Kubernetes)));
        let beside = "\"system\", \"docker\" and \"kubernetes\" can't stand beside other resolvers";
        check("system 127.0.0.1", Err(beside));
        check("docker system", Err(beside));
    }
}
