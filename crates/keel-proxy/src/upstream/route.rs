//! Which group of peers a request goes to.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use keel_lb::Group;
use keel_model::{Address, Peer, PeerSet, Upstream, UpstreamKeepalive, UpstreamName};

use super::{pool::Pool, queue::QueueLength};
use crate::{
    job::Job,
    snapshot::{PeerProgram, ProtocolKind, Route},
    worker::View,
};

/// Groups for addresses that only requests name; beyond it all are forgotten.
const DYNAMIC_MAX: usize = 1024;

/// A group and this worker's connections to it.
pub(crate) enum Target {
    Known {
        upstream: usize,
        view: Rc<View>,
    },
    /// Boxed: most configurations name no upstream by a variable.
    Dynamic(Box<Dynamic>),
}

/// What is found for an address that only a request names.
pub(crate) struct Dynamic {
    pub(super) name: String,
    pub(super) group: Arc<Group>,
    pub(super) pool: Rc<Pool>,
    pub(super) uri: Option<Vec<u8>>,
}

impl Target {
    pub(crate) fn group(&self) -> &Arc<Group> {
        match self {
            Target::Known { upstream, view } => &view.snapshot.upstreams[*upstream].group,
            Target::Dynamic(dynamic) => &dynamic.group,
        }
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        match self {
            Target::Known { upstream, view } => &view.pools[*upstream],
            Target::Dynamic(dynamic) => &dynamic.pool,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Target::Known { upstream, view } => &view.snapshot.upstreams[*upstream].name.0,
            Target::Dynamic(dynamic) => &dynamic.name,
        }
    }

    pub(super) fn queue<'a>(&self, view: &'a View) -> Option<&'a QueueLength> {
        match self {
            Target::Known { upstream, .. } => view.snapshot.upstreams.get(*upstream).map(|conf| &*conf.queue),
            Target::Dynamic(_) => None,
        }
    }

    /// Gives the URI that came with an evaluated address.
    pub(super) fn uri(&self) -> Option<&[u8]> {
        match self {
            Target::Known { .. } => None,
            Target::Dynamic(dynamic) => dynamic.uri.as_deref(),
        }
    }
}

/// Finds the group of a location, evaluating its name where it depends on the request.
pub(super) fn find(job: &mut Job<'_>, program: &PeerProgram) -> Result<Target, u16> {
    let template = match &program.route {
        Route::Upstream(upstream) => {
            return Ok(Target::Known { upstream: *upstream, view: job.view.clone() });
        }
        Route::Evaluated(template) => template,
    };
    let text = job.text(template);
    let rest = without_scheme(&text, program.kind());
    let (host, uri) = split(rest);
    // Only HTTP asks for a URI.
    let uri = uri.filter(|_| program.kind() == ProtocolKind::Http);
    let host = String::from_utf8_lossy(host).into_owned();
    if host.is_empty() || host.starts_with(':') {
        job.client.log_error(job.worker, job.ex, "no host in upstream");
        return Err(500);
    }
    if uri.is_none()
        && let Some(upstream) = job.view.snapshot.upstream(&host)
    {
        return Ok(Target::Known { upstream, view: job.view.clone() });
    }
    let uri = uri.map(<[u8]>::to_vec);
    if let Some((group, pool)) = job.worker.dynamic.borrow().get(host.as_bytes()) {
        let (group, pool) = (group.clone(), pool.clone());
        return Ok(Target::Dynamic(Box::new(Dynamic { name: host, group, pool, uri })));
    }
    if let Some(upstream) = job.view.snapshot.upstream(&host) {
        let view = job.view.clone();
        let (group, pool) = (view.snapshot.upstreams[upstream].group.clone(), view.pools[upstream].clone());
        return Ok(Target::Dynamic(Box::new(Dynamic { name: host, group, pool, uri })));
    }
    if program.kind() != ProtocolKind::Http && !has_port(&host) {
        job.client.log_error(job.worker, job.ex, &format!("no port in upstream \"{host}\""));
        return Err(500);
    }
    let Some(address) = parse_address(&host) else {
        let name = host.split(':').next().unwrap_or_default();
        let text = format!(
            "{name} can't be resolved: only names that `set`, `map`, `geo` or `split_clients` give are followed"
        );
        job.client.log_error(job.worker, job.ex, &text);
        return Err(502);
    };
    let upstream = Upstream {
        name: UpstreamName(host.clone()),
        policy: keel_model::PolicyConfig::default(),
        keepalive: UpstreamKeepalive::default(),
        zone: None,
        peers: PeerSet { peers: vec![Peer::new(address, host.clone())], starting: false, managed: false },
    };
    let group = Group::new(&upstream, &job.worker.registry, Arc::new(|_, _| {})).map_err(|_| 500u16)?;
    let pool = Rc::new(Pool::default());
    pool.configure(&upstream.keepalive);
    let mut dynamic = job.worker.dynamic.borrow_mut();
    if dynamic.len() >= DYNAMIC_MAX {
        dynamic.clear();
    }
    dynamic.insert(host.clone().into_bytes(), (group.clone(), pool.clone()));
    Ok(Target::Dynamic(Box::new(Dynamic { name: host, group, pool, uri })))
}

/// Leaves out the scheme that a variable brought, in any case; one that is written in the file is not in the template.
fn without_scheme(text: &[u8], protocol: ProtocolKind) -> &[u8] {
    let scheme = match protocol {
        ProtocolKind::Http | ProtocolKind::Uwsgi => protocol.scheme().as_bytes(),
        ProtocolKind::FastCgi | ProtocolKind::Scgi => return text,
    };
    match text.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => rest,
        _ => text,
    }
}

/// Says whether an address names a port, or needs none.
fn has_port(host: &str) -> bool {
    let behind_brackets = host.rfind(']').map_or(0, |at| at + 1);
    host.starts_with("unix:") || host.get(behind_brackets..).is_some_and(|rest| rest.contains(':'))
}

/// Splits `host:port/uri`; a unix socket's path ends at a colon.
fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    if text.starts_with(b"unix:") {
        let rest = text.get(5..).unwrap_or_default();
        return match memchr::memchr(b':', rest) {
            Some(colon) => (text.get(..5 + colon).unwrap_or_default(), rest.get(colon + 1..)),
            None => (text, None),
        };
    }
    match memchr::memchr2(b'/', b'?', text) {
        Some(slash) => (text.get(..slash).unwrap_or_default(), text.get(slash..)),
        None => (text, None),
    }
}

/// Gives `$proxy_host` and `$proxy_port` of an evaluated `proxy_pass`: the host with its port unless that is HTTP's own.
pub(crate) fn host_and_port(text: &[u8]) -> (&[u8], &[u8]) {
    let (host, _) = split(text.strip_prefix(b"http://").unwrap_or(text));
    if host.starts_with(b"unix:") {
        return (b"localhost", b"");
    }
    // What is behind the last `]` of an IPv6 address, or all of a name.
    let name_at = memchr::memrchr(b']', host).unwrap_or(0);
    match host.get(name_at..).and_then(|rest| memchr::memchr(b':', rest)).map(|colon| name_at + colon) {
        Some(colon) => match host.get(colon + 1..).unwrap_or_default() {
            port @ (b"80" | b"") => {
                (host.get(..colon).unwrap_or_default(), if port.is_empty() { b"80" } else { port })
            }
            port => (host, port),
        },
        None => (host, b"80"),
    }
}

fn parse_address(host: &str) -> Option<Address> {
    if let Some(path) = host.strip_prefix("unix:") {
        return Some(Address::Unix(path.into()));
    }
    let with_port = host.parse::<SocketAddr>().ok();
    let bare = || host.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, 80));
    let local = || {
        let port = host.strip_prefix("localhost")?;
        let port = if port.is_empty() { 80 } else { port.strip_prefix(':')?.parse().ok()? };
        Some(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    with_port.or_else(bare).or_else(local).map(Address::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_addresses_from_uris() {
        let check = |text: &str, host: &str, uri: Option<&str>| {
            assert_eq!(split(text.as_bytes()), (host.as_bytes(), uri.map(str::as_bytes)), "{text}");
        };
        check("127.0.0.1:80/a?b", "127.0.0.1:80", Some("/a?b"));
        check("u", "u", None);
        check("u?x", "u", Some("?x"));
        check("unix:/a/b:/c", "unix:/a/b", Some("/c"));
        check("unix:/a/b", "unix:/a/b", None);
    }

    #[test]
    fn the_host_of_an_evaluated_address_is_without_its_uri() {
        let check = |text: &str, host: &str, port: &str| {
            assert_eq!(host_and_port(text.as_bytes()), (host.as_bytes(), port.as_bytes()), "{text}");
        };
        check("b/a/b?c=1", "b", "80");
        check("b?c:1", "b", "80");
        check("http://b:81/x", "b:81", "81");
        check("b:80", "b", "80");
        check("[::1]/x", "[::1]", "80");
        check("[::1]:8080", "[::1]:8080", "8080");
        check("unix:/a/b:/c", "localhost", "");
    }

    #[test]
    fn reads_addresses() {
        let tcp = |text: &str| Some(Address::Tcp(text.parse().unwrap()));
        assert_eq!(parse_address("127.0.0.1:5"), tcp("127.0.0.1:5"));
        assert_eq!(parse_address("127.0.0.1"), tcp("127.0.0.1:80"));
        assert_eq!(parse_address("[::1]"), tcp("[::1]:80"));
        assert_eq!(parse_address("localhost:81"), tcp("127.0.0.1:81"));
        assert_eq!(parse_address("unix:/x"), Some(Address::Unix("/x".into())));
        assert_eq!(parse_address("example.org"), None);
    }
}
