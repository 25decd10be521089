//! Which group of peers a request goes to.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use keel_lb::Group;
use keel_model::{Address, Peer, PeerSet, Template, Upstream, UpstreamKeepalive, UpstreamName};

use super::{
    attempt::{Waited, wait},
    pool::Pool,
    queue::QueueLength,
};
use crate::{
    job::Job,
    resolver::Failure,
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

    /// What the group's algorithm goes by, where that is a text of each request.
    pub(super) fn key(&self) -> Option<&Template> {
        match self {
            Target::Known { upstream, view } => view.snapshot.upstreams.get(*upstream)?.key.as_ref(),
            Target::Dynamic(_) => None,
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

/// The port that requests go to where none is written.
const HTTP_PORT: u16 = 80;

/// What the name of a location's peers has led to.
pub(super) enum Found {
    Target(Target),
    /// Somebody has to be asked first.
    Unresolved(Box<Unresolved>),
}

/// A name that only the request shows.
pub(super) struct Unresolved {
    /// With its port, if it has one.
    text: String,
    /// As it is asked for.
    host: String,
    port: u16,
    uri: Option<Vec<u8>>,
}

/// Finds the group of a location, evaluating its name where it depends on the request.
pub(super) fn find(job: &mut Job<'_>, program: &PeerProgram) -> Result<Found, u16> {
    match &program.route {
        Route::Upstream(upstream) => {
            Ok(Found::Target(Target::Known { upstream: *upstream, view: job.view.clone() }))
        }
        Route::Evaluated(template) => evaluate(job, program, template),
    }
}

fn evaluate(job: &mut Job<'_>, program: &PeerProgram, template: &Template) -> Result<Found, u16> {
    let text = job.text(template);
    let refuse = |job: &Job<'_>, text: String, status| {
        job.client.log_error(job.worker, job.ex, &text);
        Err(status)
    };
    let Some(rest) = without_scheme(&text, program.kind()) else {
        let text = format!("invalid URL prefix in \"{}\"", String::from_utf8_lossy(&text));
        return refuse(job, text, 500);
    };
    let (host, uri) = split(rest);
    // Only HTTP asks for a URI.
    let uri = uri.filter(|_| program.kind() == ProtocolKind::Http);
    let host = String::from_utf8_lossy(host).into_owned();
    if host.is_empty() || host.starts_with(':') {
        return refuse(job, format!("no host in upstream \"{}\"", String::from_utf8_lossy(rest)), 500);
    }
    if uri.is_none()
        && let Some(upstream) = job.view.snapshot.upstream(&host)
    {
        return Ok(Found::Target(Target::Known { upstream, view: job.view.clone() }));
    }
    let uri = uri.map(<[u8]>::to_vec);
    let dynamic =
        |name, group, pool, uri| Found::Target(Target::Dynamic(Box::new(Dynamic { name, group, pool, uri })));
    if let Some((group, pool)) = job.worker.dynamic.borrow().get(host.as_bytes()) {
        let (group, pool) = (group.clone(), pool.clone());
        return Ok(dynamic(host, group, pool, uri));
    }
    if let Some(upstream) = job.view.snapshot.upstream(&host) {
        let view = job.view.clone();
        let (group, pool) = (view.snapshot.upstreams[upstream].group.clone(), view.pools[upstream].clone());
        return Ok(dynamic(host, group, pool, uri));
    }
    if program.kind() != ProtocolKind::Http && !has_port(&host) {
        return refuse(job, format!("no port in upstream \"{host}\""), 500);
    }
    // A resolver knows best what `localhost` is.
    let address = parse_address(&host).or_else(|| local(&host).filter(|_| job.place().resolver.is_none()));
    let Some(address) = address else {
        let Some((name, port)) = name_and_port(&host) else {
            let text = format!("invalid port in upstream \"{}\"", String::from_utf8_lossy(rest));
            return refuse(job, text, 500);
        };
        return from_what_is_known(job, Unresolved { host: name, port, text: host, uri });
    };
    let upstream = Upstream {
        name: UpstreamName(host.clone()),
        policy: keel_model::PolicyConfig::default(),
        keepalive: UpstreamKeepalive::default(),
        zone: None,
        peers: PeerSet { peers: vec![Peer::new(address, host.clone())], starting: false, managed: false },
    };
    let group = Group::new(&upstream, &job.worker.registry, Arc::new(|_, _| {})).map_err(|_| 500u16)?;
    let pool = pool_of(job, &group, host.clone().into_bytes());
    Ok(dynamic(host, group, pool, uri))
}

/// Finds the peers of a name whose addresses are known and still hold.
fn from_what_is_known(job: &Job<'_>, name: Unresolved) -> Result<Found, u16> {
    let Some(resolver) = &job.place().resolver else {
        let text = format!("no resolver defined to resolve {}", name.host);
        job.client.log_error(job.worker, job.ex, &text);
        return Err(502);
    };
    let now = job.worker.clock.now();
    match resolver.names.known(&name.host, name.port, &job.worker.registry, now) {
        Some(group) => Ok(Found::Target(name.target(job, group))),
        None => Ok(Found::Unresolved(Box::new(name))),
    }
}

/// Waits until it is known which addresses a name has.
pub(super) async fn resolve(job: &mut Job<'_>, name: Unresolved) -> Result<Target, u16> {
    let view = job.view.clone();
    let Some(resolver) = &job.ex.place(&view).resolver else { return Err(502) };
    let mut found = None;
    let worker = job.worker.clone();
    let waited = {
        let asked = async {
            found = Some(resolver.names.resolve(&name.host, name.port, &worker.registry).await);
        };
        let until = job.worker.clock.now() + resolver.timeout;
        wait(job, std::pin::pin!(asked), until).await
    };
    let failure = match (found, waited) {
        (Some(Ok(group)), _) => return Ok(name.target(job, group)),
        (_, Waited::ClientGone) => return Err(499),
        (Some(Err(failure)), _) => failure,
        (None, _) => Failure::TimedOut,
    };
    let text = format!("{} could not be resolved ({failure})", name.host);
    job.client.log_error(job.worker, job.ex, &text);
    Err(502)
}

impl Unresolved {
    fn target(self, job: &Job<'_>, group: Arc<Group>) -> Target {
        // The group's name tells of its resolver, too.
        let pool = pool_of(job, &group, group.name().0.clone().into_bytes());
        Target::Dynamic(Box::new(Dynamic { name: self.text, group, pool, uri: self.uri }))
    }
}

/// This worker's connections to a group that only requests name.
fn pool_of(job: &Job<'_>, group: &Arc<Group>, name: Vec<u8>) -> Rc<Pool> {
    let mut dynamic = job.worker.dynamic.borrow_mut();
    if let Some((known, pool)) = dynamic.get(&name)
        && Arc::ptr_eq(known, group)
    {
        return pool.clone();
    }
    let pool = Rc::new(Pool::default());
    pool.configure(&UpstreamKeepalive::default());
    if dynamic.len() >= DYNAMIC_MAX {
        dynamic.clear();
    }
    dynamic.insert(name, (group.clone(), pool.clone()));
    pool
}

/// Splits a name, which is asked for in lower case and without the root's dot, from its port.
fn name_and_port(text: &str) -> Option<(String, u16)> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, HTTP_PORT),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    Some((name.to_ascii_lowercase(), port))
}

/// Leaves out the scheme, in any case, which only HTTP must have; `None` where it hasn't.
fn without_scheme(text: &[u8], protocol: ProtocolKind) -> Option<&[u8]> {
    let scheme = match protocol {
        ProtocolKind::Http | ProtocolKind::Uwsgi => protocol.scheme().as_bytes(),
        ProtocolKind::FastCgi | ProtocolKind::Scgi => return Some(text),
    };
    match text.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => Some(rest),
        _ => (protocol != ProtocolKind::Http).then_some(text),
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
    with_port.or_else(bare).map(Address::Tcp)
}

/// The address of `localhost`, for which nobody needs to be asked.
fn local(host: &str) -> Option<Address> {
    let port = host.strip_prefix("localhost")?;
    let port = if port.is_empty() { HTTP_PORT } else { port.strip_prefix(':')?.parse().ok()? };
    Some(Address::Tcp(([127, 0, 0, 1], port).into()))
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
    fn a_name_is_asked_for_in_lower_case_without_its_port() {
        let check = |text: &str, expect: Option<(&str, u16)>| {
            assert_eq!(name_and_port(text), expect.map(|(name, port)| (name.to_owned(), port)), "{text}");
        };
        check("App.Example", Some(("app.example", 80)));
        check("app.:81", Some(("app", 81)));
        check("app:", None);
        check("app:0", None);
        check("app:65536", None);
    }

    #[test]
    fn reads_addresses() {
        let tcp = |text: &str| Some(Address::Tcp(text.parse().unwrap()));
        assert_eq!(parse_address("127.0.0.1:5"), tcp("127.0.0.1:5"));
        assert_eq!(parse_address("127.0.0.1"), tcp("127.0.0.1:80"));
        assert_eq!(parse_address("[::1]"), tcp("[::1]:80"));
        assert_eq!(local("localhost:81"), tcp("127.0.0.1:81"));
        assert_eq!(parse_address("unix:/x"), Some(Address::Unix("/x".into())));
        assert_eq!(parse_address("example.org"), None);
    }
}
