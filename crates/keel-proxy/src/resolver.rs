//! Names that only requests show, resolved while they wait (`resolver`).
//!
//! Each resolver of the configuration has one thread, begun with its first question, which asks and remembers
//! ([`names`]); no worker ever waits for it but the requests that want the name. Workers share what it has found: the
//! addresses of a name are a group of peers, as an upstream's are, so that they take their turns over all workers and
//! keep their connections. Failures of one request say nothing to the next, as in nginx, where such peers are the
//! request's own. All that is kept is bounded.
//!
//! Names that the file itself shows are not here: the supervisor follows them.

mod exchange;
mod message;
mod names;

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use keel_lb::{Group, Registry};
use keel_model::{
    Address, Peer, PeerSet, Resolver, ResolverSource, Scope, Upstream, UpstreamKeepalive, UpstreamName,
};
use tokio::sync::{mpsc, oneshot};

use self::{
    message::Kind,
    names::{Names, Rules},
};
use crate::stores::{Claims, Named};

/// Requests that may wait for the thread to take their question.
const WAITING_MAX: usize = 1024;

/// Names whose addresses workers know at one time; beyond it those that have expired are forgotten, and then all.
const HOSTS_MAX: usize = 1024;

/// Ports of one name that have a group each, at most; beyond it they begin anew.
const PORTS_MAX: usize = 64;

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A server says so, by this code.
    Code(u8),
    /// Nobody answered in time.
    TimedOut,
    /// Too many names are being asked for.
    Busy,
}

impl fmt::Display for Failure {
    /// As nginx's log has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Code(1) => "1: Format error",
            Failure::Code(2) => "2: Server failure",
            Failure::Code(3) => "3: Host not found",
            Failure::Code(4) => "4: Unimplemented",
            Failure::Code(5) => "5: Operation refused",
            Failure::Code(code) => return write!(f, "{code}: Unknown error"),
            Failure::TimedOut => "110: Operation timed out",
            Failure::Busy => "11: Resource temporarily unavailable",
        })
    }
}

/// The resolver of a place, and how long its requests wait.
pub(crate) struct PlaceResolver {
    pub(crate) names: Arc<HostNames>,
    pub(crate) timeout: Duration,
}

impl PlaceResolver {
    /// Makes that of a place; `None` where nothing is resolved there.
    pub(crate) fn compile(scope: &Scope, claims: &mut Claims<'_>) -> Option<Box<Self>> {
        let resolver = scope.core.resolver.as_ref()?;
        let settings = Settings::of(resolver)?;
        let names = claims.named(&settings.identity(), &settings);
        Some(Box::new(Self { names, timeout: resolver.timeout }))
    }
}

/// What makes one resolver another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    rules: Rules,
}

impl Settings {
    /// Takes those of a resolver that asks DNS servers by their addresses.
    fn of(resolver: &Resolver) -> Option<Self> {
        let ResolverSource::Servers(servers) = &resolver.source else { return None };
        let address = |host: &str, port| Some(SocketAddr::new(host.parse().ok()?, port));
        let servers: Vec<_> =
            servers.iter().filter_map(|server| address(&server.host, server.port)).collect();
        let kinds = [(Kind::A, resolver.ipv4), (Kind::Aaaa, resolver.ipv6)];
        let kinds = kinds.into_iter().filter_map(|(kind, is_wanted)| is_wanted.then_some(kind)).collect();
        let is_usable = !servers.is_empty();
        is_usable.then_some(Self { rules: Rules { servers, valid: resolver.valid, kinds } })
    }

    fn identity(&self) -> String {
        let Rules { servers, valid, kinds } = &self.rules;
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let valid = valid.map_or_else(String::new, |valid| format!(" {}s", valid.as_secs()));
        let families = kinds.iter().map(|kind| match kind {
            Kind::A => " ipv4",
            Kind::Aaaa => " ipv6",
        });
        format!("resolver {}{valid}{}", servers.join(" "), families.collect::<String>())
    }
}

/// The names that requests have shown to one resolver.
pub(crate) struct HostNames {
    settings: Settings,
    hosts: Arc<Mutex<Hosts>>,
    questions: Mutex<Option<mpsc::Sender<Question>>>,
}

struct Question {
    host: String,
    answer: oneshot::Sender<Result<(), Failure>>,
}

/// Addresses by name, in lower case.
type Hosts = HashMap<String, Host>;

struct Host {
    addresses: Vec<IpAddr>,
    until: Instant,
    groups: HashMap<u16, Arc<Group>>,
}

impl Named for HostNames {
    type Settings = Settings;

    fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), hosts: Arc::default(), questions: Mutex::new(None) }
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl HostNames {
    /// The peers of a name, in lower case, if its addresses are known and still hold.
    pub(crate) fn known(
        &self,
        host: &str,
        port: u16,
        registry: &Registry,
        now: Instant,
    ) -> Option<Arc<Group>> {
        let mut hosts = lock(&self.hosts);
        let known = hosts.get_mut(host).filter(|known| known.until > now)?;
        self.group(host, port, known, registry)
    }

    /// Asks for the addresses of a name.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) async fn resolve(
        &self,
        host: &str,
        port: u16,
        registry: &Registry,
    ) -> Result<Arc<Group>, Failure> {
        let (answer, outcome) = oneshot::channel();
        let questions = self.questions().map_err(|_| Failure::Busy)?;
        let question = Question { host: host.to_owned(), answer };
        questions.try_send(question).map_err(|_| Failure::Busy)?;
        outcome.await.unwrap_or(Err(Failure::Busy))?;
        // What was found just now may be out of date already, where it holds for no time: this request takes it.
        let mut hosts = lock(&self.hosts);
        let known = hosts.get_mut(host).ok_or(Failure::Busy)?;
        self.group(host, port, known, registry).ok_or(Failure::Busy)
    }

    fn group(&self, host: &str, port: u16, known: &mut Host, registry: &Registry) -> Option<Arc<Group>> {
        if let Some(group) = known.groups.get(&port) {
            return Some(group.clone());
        }
        let upstream = Upstream {
            // No upstream of a file has a blank in its name.
            name: UpstreamName(format!("{host}:{port} {}", self.settings.identity())),
            policy: keel_model::PolicyConfig::default(),
            keepalive: UpstreamKeepalive::default(),
            zone: None,
            peers: peers(&known.addresses, port),
        };
        let group = Group::new(&upstream, registry, Arc::new(|_, _| {})).ok()?;
        if known.groups.len() >= PORTS_MAX {
            known.groups.clear();
        }
        known.groups.insert(port, group.clone());
        Some(group)
    }

    /// The way to the thread that asks, which is begun with the first question.
    fn questions(&self) -> io::Result<mpsc::Sender<Question>> {
        let mut questions = lock(&self.questions);
        if let Some(questions) = questions.as_ref().filter(|questions| !questions.is_closed()) {
            return Ok(questions.clone());
        }
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        let (rules, hosts) = (self.settings.rules.clone(), self.hosts.clone());
        thread::Builder::new().name("resolver".into()).spawn(move || serve(rules, &hosts, queue))?;
        Ok(questions.insert(sender).clone())
    }
}

/// Answers questions until nobody can ask any more.
fn serve(rules: Rules, hosts: &Arc<Mutex<Hosts>>, mut queue: mpsc::Receiver<Question>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    let Ok(runtime) = runtime else { return };
    let names = Names::new(rules);
    runtime.block_on(async {
        while let Some(Question { host, mut answer }) = queue.recv().await {
            let (names, hosts) = (names.clone(), hosts.clone());
            tokio::task::spawn_local(async move {
                let found = tokio::select! {
                    found = names.resolve(&host) => found,
                    () = answer.closed() => return,
                };
                let outcome = found.map(|(addresses, until)| remember(&hosts, host, addresses, until));
                let _ = answer.send(outcome);
            });
        }
    });
}

/// Lets workers know what a name stands for. Its groups follow, and keep what they know of addresses that stay.
fn remember(hosts: &Mutex<Hosts>, host: String, addresses: Vec<IpAddr>, until: Instant) {
    let mut hosts = lock(hosts);
    if let Some(known) = hosts.get_mut(&host) {
        known.until = until;
        // Servers give them in another order each time.
        let is_new = |ip: &IpAddr| !known.addresses.contains(ip);
        if known.addresses.len() != addresses.len() || addresses.iter().any(is_new) {
            known.groups.iter().for_each(|(port, group)| group.publish(&peers(&addresses, *port)));
            known.addresses = addresses;
        }
        return;
    }
    if hosts.len() >= HOSTS_MAX {
        let now = Instant::now();
        hosts.retain(|_, known| known.until > now);
        if hosts.len() >= HOSTS_MAX {
            hosts.clear();
        }
    }
    hosts.insert(host, Host { addresses, until, groups: HashMap::new() });
}

fn peers(addresses: &[IpAddr], port: u16) -> PeerSet {
    let peer = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, port);
        // In nginx these peers are the request's own: a failure excludes nobody from the next request.
        Peer { max_fails: 0, ..Peer::new(Address::Tcp(address), address.to_string()) }
    };
    PeerSet { peers: addresses.iter().map(peer).collect(), starting: false, managed: false }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
