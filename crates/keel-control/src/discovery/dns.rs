//! What DNS says about a name.
//!
//! hickory-resolver asks; its cache is off, because how long an answer holds is decided by the follower.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, RecordType, rdata::SRV},
    },
    system_conf::read_system_conf,
};
use keel_model::{FollowedName, NameServer, Resolver, ResolverSource};
use tokio::time::Instant;

use crate::located::SrvRecord;

/// Docker's DNS in every container of a network that a user made. Its TTL is always 600 s.
const DOCKER_DNS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));
/// How often Docker's DNS is asked: the question doesn't leave the host.
const DOCKER_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds of what a TTL may ask for.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// How long nothing holds when the server says that there is nothing: what is looked for may just be starting.
const EMPTY_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Names that need no DNS, and how often they are looked at.
const HOSTS_FILE: &str = "/etc/hosts";
const HOSTS_FILE_INTERVAL: Duration = Duration::from_secs(5);
/// Hosts of one service at most; further ones are left out.
const SERVICES_MAX: usize = 256;
/// Aliases that a service's name may lead over.
const ALIASES_MAX: usize = 8;
/// How long one server may take before it is asked again, or another one.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a question has no answer. Not that there is no address: that is one.
#[derive(Debug, thiserror::Error)]
pub(super) enum DnsFailure {
    /// The servers aren't known themselves.
    #[error("can't tell which DNS servers to ask")]
    Servers(#[source] io::Error),
    /// No server answers, or it says that it can't.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It took longer than `resolver_timeout`.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// The addresses of a name, and how long they hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<Place>,
    pub(super) holds: Duration,
}

/// An address with its port, and what a SRV record says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) record: Option<SrvRecord>,
}

/// Asks certain servers.
pub(super) struct Dns {
    resolver: TokioResolver,
    /// Whether Docker's own server is the one that is asked.
    is_docker: bool,
}

/// Records of one kind, and how long they hold.
#[derive(Default)]
struct Records {
    addresses: Vec<IpAddr>,
    services: Vec<SRV>,
    alias: Option<String>,
    ttl: Option<Duration>,
}

impl Dns {
    /// Finds the servers.
    pub(super) async fn new(settings: &Resolver) -> Result<Self, DnsFailure> {
        let (config, mut options) = match &settings.source {
            // Names that no Service can have.
            ResolverSource::System | ResolverSource::Kubernetes => read_system_conf()?,
            ResolverSource::Docker => (ResolverConfig::default(), ResolverOpts::default()),
            ResolverSource::Servers(servers) => {
                let mut config = ResolverConfig::default();
                for server in servers {
                    for address in addresses(server).await.map_err(DnsFailure::Servers)? {
                        config.add_name_server(name_server(address, server.port));
                    }
                }
                (config, ResolverOpts::default())
            }
        };
        let is_docker = config.name_servers().iter().all(|server| server.ip == DOCKER_DNS);
        options.cache_size = 0;
        options.timeout = TRY_TIMEOUT.min(settings.timeout);
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build()?, is_docker })
    }

    /// Asks for all addresses of a name, or of the service that it names.
    pub(super) async fn ask(&self, name: &FollowedName) -> Result<Answer, DnsFailure> {
        let settings = &name.resolver;
        let answer = async {
            match &name.port_name {
                Some(service) => self.service(service, &name.host, settings).await,
                None => self.host(&name.host, name.port, settings).await,
            }
        };
        let answer = tokio::time::timeout(settings.timeout, answer).await;
        answer.map_err(|_| DnsFailure::Timeout(settings.timeout))?
    }

    /// Whether an address is one that something listens at. Docker's DNS tells of containers in which nothing may listen yet.
    pub(super) fn means_it(&self) -> bool {
        !self.is_docker
    }

    async fn host(&self, host: &str, port: u16, settings: &Resolver) -> Result<Answer, DnsFailure> {
        let (addresses, holds) = self.addresses(host, settings).await?;
        let place = |ip| Place { address: SocketAddr::new(ip, port), record: None };
        Ok(Answer { addresses: addresses.into_iter().map(place).collect(), holds })
    }

    /// Asks for a service's hosts and ports, and for the hosts' addresses. Those of the best priority are used, the others
    /// stand by, as in nginx.
    async fn service(&self, service: &str, host: &str, settings: &Resolver) -> Result<Answer, DnsFailure> {
        let records = self.services(service_name(service, host)).await?;
        let best = records.services.iter().map(|service| service.priority).min();
        let mut holds = self.holds(settings, records.ttl.filter(|_| !records.services.is_empty()));
        let mut addresses: Vec<Place> = Vec::new();
        for service in records.services.iter().take(SERVICES_MAX) {
            let target = service.target.to_ascii();
            let (found, valid) = self.addresses(target.trim_end_matches('.'), settings).await?;
            holds = holds.min(valid);
            for ip in found {
                let address = SocketAddr::new(ip, service.port);
                let (weight, is_backup) = (u32::from(service.weight.max(1)), Some(service.priority) != best);
                let is_same = |place: &&Place| {
                    let record = place.record.filter(|record| record.weight == weight);
                    place.address == address && record.is_some_and(|record| record.is_backup == is_backup)
                };
                let copy = u32::try_from(addresses.iter().filter(is_same).count()).unwrap_or_default();
                addresses.push(Place { address, record: Some(SrvRecord { weight, is_backup, copy }) });
            }
        }
        Ok(Answer { addresses, holds })
    }

    /// Asks for the SRV records of a name, over its aliases: the library takes a record's target for one more of them.
    async fn services(&self, mut name: String) -> Result<Records, DnsFailure> {
        for _ in 0..ALIASES_MAX {
            let found = self.records(&name, Some(RecordType::SRV)).await;
            if found.as_ref().is_ok_and(|records| !records.services.is_empty()) {
                return found;
            }
            let alias = self.records(&name, Some(RecordType::CNAME)).await?.alias;
            match alias {
                Some(alias) => name = alias,
                None => return found,
            }
        }
        Ok(Records::default())
    }

    /// Asks for all addresses of a host, and how long they hold.
    async fn addresses(
        &self,
        host: &str,
        settings: &Resolver,
    ) -> Result<(BTreeSet<IpAddr>, Duration), DnsFailure> {
        if settings.source == ResolverSource::System {
            // As the system does: what stands in /etc/hosts, such as Compose's `extra_hosts`, is the answer.
            let hosts = std::fs::read_to_string(HOSTS_FILE).unwrap_or_default();
            let usable = |ip: &IpAddr| if ip.is_ipv4() { settings.ipv4 } else { settings.ipv6 };
            let addresses: BTreeSet<IpAddr> = in_hosts_file(&hosts, host).filter(usable).collect();
            if !addresses.is_empty() {
                return Ok((addresses, settings.valid.unwrap_or(HOSTS_FILE_INTERVAL)));
            }
        }
        let (v4, v6) = tokio::join!(
            self.records(host, Some(RecordType::A).filter(|_| settings.ipv4)),
            self.records(host, Some(RecordType::AAAA).filter(|_| settings.ipv6))
        );
        // Half an answer could empty half of a group.
        let (v4, v6) = (v4?, v6?);
        let ttl = [&v4, &v6].into_iter().filter_map(|records| records.ttl).min();
        let addresses: BTreeSet<IpAddr> = v4.addresses.into_iter().chain(v6.addresses).collect();
        let holds = self.holds(settings, ttl.filter(|_| !addresses.is_empty()));
        Ok((addresses, holds))
    }

    /// How long an answer holds. An empty one has no `ttl` here: it is asked for again soon.
    fn holds(&self, settings: &Resolver, ttl: Option<Duration>) -> Duration {
        match (settings.valid, ttl) {
            (Some(valid), _) => valid,
            (None, _) if self.is_docker => DOCKER_INTERVAL,
            (None, Some(ttl)) => ttl.clamp(INTERVAL_MIN, INTERVAL_MAX),
            (None, None) => EMPTY_INTERVAL_MAX,
        }
    }

    /// Asks for one kind of records, if any.
    async fn records(&self, host: &str, kind: Option<RecordType>) -> Result<Records, DnsFailure> {
        let Some(kind) = kind else { return Ok(Records::default()) };
        match self.resolver.lookup(host, kind).await {
            Ok(lookup) => {
                let ttl = lookup.valid_until().saturating_duration_since(Instant::now().into_std());
                let mut records = Records { ttl: Some(ttl), ..Records::default() };
                for record in lookup.answers() {
                    match &record.data {
                        RData::A(address) => records.addresses.push(IpAddr::V4(address.0)),
                        RData::AAAA(address) => records.addresses.push(IpAddr::V6(address.0)),
                        RData::SRV(service) => records.services.push(service.clone()),
                        RData::CNAME(alias) => records.alias = Some(alias.0.to_ascii()),
                        _ => {}
                    }
                }
                Ok(records)
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))
                if matches!(nothing.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok(Records::default())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The name under which a service is asked for: `http` is `_http._tcp` in front of the host; one with a dot stands as it is.
fn service_name(service: &str, host: &str) -> String {
    if service.contains('.') { format!("{service}.{host}") } else { format!("_{service}._tcp.{host}") }
}

/// The addresses of a server, which the system knows if it has a name.
async fn addresses(server: &NameServer) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = server.host.parse() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

fn name_server(address: IpAddr, port: u16) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = port;
        connection
    });
    // "No such name" is an answer, and the only one that may empty a group.
    NameServerConfig::new(address, true, connections.into())
}

/// Finds a name in the text of a hosts file (hosts(5)).
fn in_hosts_file<'a>(text: &'a str, host: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    text.lines().filter_map(move |line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_for_by_its_protocol() {
        assert_eq!(service_name("http", "app.test"), "_http._tcp.app.test");
        assert_eq!(service_name("_http._tcp", "app.test"), "_http._tcp.app.test");
    }

    #[test]
    fn finds_names_in_hosts_files() {
        let text = "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\n\
                    # 10.0.0.9 app\n10.0.0.1 host.docker.internal gateway # app\nnonsense app\n";
        let check = |host: &str, expect: &[&str]| {
            let found: Vec<String> = in_hosts_file(text, host).map(|ip| ip.to_string()).collect();
            assert_eq!(found, expect, "{host}");
        };
        check("localhost", &["127.0.0.1", "::1"]);
        check("GATEWAY", &["10.0.0.1"]);
        check("host.docker.internal", &["10.0.0.1"]);
        check("app", &[]);
    }
}
