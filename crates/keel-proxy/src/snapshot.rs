//! A configuration made ready for requests: one immutable value behind one pointer.
//!
//! Built from a [`Plan`] without moving traffic; a request takes it once and keeps it to its end. What has a name of
//! its own (peers, pools, log files) lives elsewhere and is only pointed to.

mod fields;
mod geo;
mod identity;
mod limits;
mod locations;
mod program;
mod referers;
mod rewrite;
mod servers;
mod status;
pub(crate) mod tls;
mod variables;
mod zones;

use std::{collections::HashMap, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use keel_lb::Group;
use keel_model::{
    Address, ClientSettings, FileSource, Location, LocationMatcher, Plan, Rewrite, Root, Scope, Secret,
    ServerId, ServerName, Template, UpstreamKeepalive, UpstreamName,
};
use keel_regex::Regex;
use keel_tree::Tree;

pub(crate) use fields::{AddedField, FieldProgram};
pub(crate) use geo::{CompiledGeo, split};
pub(crate) use identity::PlaceIdentity;
pub(crate) use limits::{Limits, RequestLimit};
pub(crate) use locations::{Found, LocationTree};
pub(crate) use program::{
    CookieMatch, CookieProgram, FastCgiProgram, HttpProgram, Params, PeerProgram, Protocol, ProtocolKind,
    RedirectRule, Route, ScgiProgram, ScriptName, UwsgiProgram,
};
pub(crate) use referers::Referers;
pub(crate) use rewrite::{Branch, Program, Rule, Step, Test};
pub(crate) use servers::ServerNames;
pub(crate) use tls::ServerTls;
pub(crate) use variables::{CompiledMap, LookedUp, Source, Variables};
pub(crate) use zones::{ServerTraffic, StatusZone};

use self::identity::PlaceName;
use crate::{
    charset::Charsets,
    error::CompileError,
    files::Files,
    filter::{self, Chain},
    log::{self, AccessLogs, ErrorLogs},
    passwords::Passwords,
    resolver::PlaceResolver,
    stores::{Claimed, Claims, Stores},
    upstream::queue::QueueLength,
};

/// A place of the configuration: a server outside its locations, or a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaceId(u32);

/// What holds in one place.
pub(crate) struct Place {
    pub(crate) identity: Arc<PlaceIdentity>,
    pub(crate) kind: PlaceKind,
    /// How much of a URI an `alias` stands for: the name of the location that has it; `None` where that is an
    /// expression, and without an alias.
    pub(crate) alias_prefix: Option<usize>,
    pub(crate) scope: Scope,
    pub(crate) files: Files,
    /// What is done before the request is answered.
    pub(crate) rewrite: Program,
    pub(crate) proxy: Option<Box<PeerProgram>>,
    /// What `$fastcgi_script_name` and `$fastcgi_path_info` are, where that isn't simply the URI.
    pub(crate) script_name: Option<Box<ScriptName>>,
    pub(crate) filters: Chain,
    pub(crate) types: HashMap<String, String>,
    /// `gzip_disable`.
    pub(crate) gzip_disable: Vec<Regex>,
    pub(crate) nested: LocationTree,
    pub(crate) limits: Option<Box<Limits>>,
    pub(crate) referers: Option<Box<Referers>>,
    pub(crate) limit_except: Option<Box<Excepted>>,
    /// Who is asked for names that only requests show.
    pub(crate) resolver: Option<Box<PlaceResolver>>,
    pub(crate) access_logs: AccessLogs,
    pub(crate) error_logs: ErrorLogs,
    /// Where a location's requests are counted beside its server's.
    pub(crate) traffic: Option<Arc<ServerTraffic>>,
}

/// The place that holds for other methods than these.
pub(crate) struct Excepted {
    pub(crate) methods: Vec<String>,
    pub(crate) place: PlaceId,
}

/// Which kind of place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    Server,
    /// `location /x`, `= /x` and `^~ /x`, with the text.
    Prefix(String),
    Regex,
    Named,
}

/// A virtual server.
pub(crate) struct Server {
    pub(crate) name: String,
    /// Where its requests are counted.
    pub(crate) traffic: Arc<ServerTraffic>,
    pub(crate) client: ClientSettings,
    /// How TLS is spoken, where that is configured.
    pub(crate) tls: Option<ServerTls>,
    pub(crate) root: PlaceId,
    pub(crate) tree: LocationTree,
    pub(crate) named: HashMap<String, PlaceId>,
}

/// A socket and who answers on it.
pub(crate) struct ListenerConf {
    pub(crate) address: Address,
    pub(crate) declared_port: u16,
    pub(crate) proxy_protocol: bool,
    pub(crate) http2: bool,
    pub(crate) tls: bool,
    pub(crate) keepalive: keel_model::TcpKeepalive,
    pub(crate) names: ServerNames,
    pub(crate) by_local_address: HashMap<std::net::SocketAddr, ServerNames>,
}

/// An upstream and its settings.
pub(crate) struct UpstreamConf {
    pub(crate) name: UpstreamName,
    pub(crate) group: Arc<Group>,
    /// What its algorithm goes by, where that is a text of each request.
    pub(crate) key: Option<Template>,
    pub(crate) keepalive: UpstreamKeepalive,
    pub(crate) queue: Arc<QueueLength>,
}

/// A configuration made ready for requests.
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) listeners: Vec<ListenerConf>,
    pub(crate) servers: Vec<Server>,
    pub(crate) upstreams: Vec<UpstreamConf>,
    pub(crate) variables: Variables,
    pub(crate) shutdown_timeout: Option<std::time::Duration>,
    pub(crate) connections_max: usize,
    pub(crate) error_log: Arc<keel_telemetry::ErrorLog>,
    /// Who verifies passwords, where any place asks for some.
    pub(crate) passwords: Option<Arc<Passwords>>,
    upstream_by_name: HashMap<UpstreamName, usize>,
    places: Vec<Place>,
    /// Where requests of servers are counted.
    pub(crate) zones: Vec<StatusZone>,
}

impl Snapshot {
    /// Gives a place. Ids come from this snapshot only.
    pub(crate) fn place(&self, id: PlaceId) -> &Place {
        &self.places[id.0 as usize]
    }

    /// Finds the upstream of a name.
    pub(crate) fn upstream(&self, name: &str) -> Option<usize> {
        self.upstream_by_name.get(&UpstreamName(name.to_owned())).copied()
    }

    /// Finds the listener of an address.
    pub(crate) fn listener(&self, address: &Address) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.address == *address)
    }
}

/// A snapshot that waits to be committed, with the state it names.
pub(crate) struct PreparedSnapshot {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) claimed: Claimed,
}

/// What a plan's files come along as: open.
#[derive(Default)]
pub(crate) struct PlanFiles {
    /// Log files by path.
    pub(crate) logs: Vec<(PathBuf, OwnedFd)>,
    /// Folders of trees by path.
    pub(crate) folders: HashMap<PathBuf, Arc<OwnedFd>>,
}

/// Builds the snapshot of a plan.
pub(crate) fn compile(
    plan: &Plan,
    stores: &Stores,
    files: PlanFiles,
) -> Result<PreparedSnapshot, CompileError> {
    let folders = &files.folders;
    let trees =
        plan.trees.iter().map(|tree| (tree.name.as_str(), Arc::new(Tree::new(&tree.layers, folders))));
    let trees = trees.collect();
    let mut claims = stores.claims(files.logs);
    let mut upstreams = Vec::new();
    for upstream in &plan.upstreams {
        let group = claims.group(upstream).map_err(|error| CompileError::Policy {
            upstream: upstream.name.to_string(),
            reason: error.to_string(),
        })?;
        upstreams.push(UpstreamConf {
            name: upstream.name.clone(),
            group,
            key: upstream.policy.key.clone(),
            keepalive: upstream.keepalive.clone(),
            queue: claims.named(&upstream.name.0, &()),
        });
    }
    let upstream_by_name = upstreams.iter().enumerate().map(|(id, conf)| (conf.name.clone(), id)).collect();
    let mut builder = Builder {
        places: Vec::new(),
        zones: Vec::new(),
        upstream_by_name: &upstream_by_name,
        claims: &mut claims,
        trees: &trees,
        site: String::new(),
        ticket_seed: tls::ticket_seed(&plan.ticket_seed),
        server_names: Vec::new(),
        files: Files::Host,
        charsets: Arc::new(Charsets::compile(&plan.charset_maps, charset_names(plan))),
    };
    let servers = plan.servers.iter().enumerate().map(|(at, server)| {
        let is_here = |servers: &[ServerId]| servers.iter().any(|id| id.0 as usize == at);
        let listens = plan.listeners.iter().flat_map(|listener| {
            let own = is_here(&listener.servers).then(|| listener.address.clone());
            let local = listener.by_local_address.iter().filter(|(_, _, servers)| is_here(servers));
            own.into_iter().chain(local.map(|(address, ..)| Address::Tcp(*address)))
        });
        let identity = PlaceIdentity::server(listens.collect(), server.names.clone());
        builder.server(identity, server)
    });
    let servers = servers.collect::<Result<Vec<_>, _>>()?;
    let (places, zones) = (builder.places, builder.zones);
    let listeners = plan.listeners.iter().map(|listener| {
        let by_local_address = listener.by_local_address.iter().map(|(address, default, servers)| {
            Ok((*address, ServerNames::compile(&plan.servers, *default, servers)?))
        });
        Ok(ListenerConf {
            address: listener.address.clone(),
            declared_port: listener.declared_port,
            proxy_protocol: listener.proxy_protocol,
            http2: listener.http2,
            tls: listener.tls,
            keepalive: listener.options.keepalive,
            names: ServerNames::compile(&plan.servers, listener.default_server, &listener.servers)?,
            by_local_address: by_local_address.collect::<Result<_, CompileError>>()?,
        })
    });
    let asks_for_passwords = places.iter().any(|place| place.scope.auth_basic.realm.is_some());
    let snapshot = Snapshot {
        generation: plan.generation,
        listeners: listeners.collect::<Result<_, CompileError>>()?,
        servers,
        variables: Variables::compile(&plan.variables)?,
        shutdown_timeout: plan.process.shutdown_timeout,
        connections_max: plan.process.worker_connections as usize,
        error_log: log::process_errors(&plan.process.error_logs, &mut claims.logs)?,
        passwords: asks_for_passwords.then(|| claims.named("", &())),
        upstreams,
        upstream_by_name,
        places,
        zones,
    };
    Ok(PreparedSnapshot { snapshot: Arc::new(snapshot), claimed: claims.finish() })
}

/// Gathers the charsets that places name.
fn charset_names(plan: &Plan) -> Vec<String> {
    let scopes = plan.scopes().into_iter().map(|scope| &scope.charset);
    let named = scopes.flat_map(|scope| [&scope.charset, &scope.source]);
    let mut names: Vec<String> =
        named.flatten().filter_map(|name| name.as_literal().map(str::to_owned)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

struct Builder<'a, 'c> {
    places: Vec<Place>,
    zones: Vec<StatusZone>,
    upstream_by_name: &'a HashMap<UpstreamName, usize>,
    claims: &'a mut Claims<'c>,
    trees: &'a HashMap<&'a str, Arc<Tree>>,
    /// Whose configuration the current server is of, where several share the data plane.
    site: String,
    ticket_seed: Secret,
    /// The names of the current server.
    server_names: Vec<ServerName>,
    /// Where the paths of the current server lead.
    files: Files,
    charsets: Arc<Charsets>,
}

/// What a place is made from.
struct PlaceSettings<'a> {
    scope: &'a Scope,
    rewrite: &'a Rewrite,
    locations: &'a [Location],
}

/// What is in a place, made ready.
struct Inside {
    /// Whether the place may answer with a `return`.
    returns: bool,
    rewrite: Program,
    nested: LocationTree,
    limit_except: Option<Box<Excepted>>,
}

impl Inside {
    /// What is in a block that takes its location's place.
    fn of_block(returns: bool) -> Self {
        Self { returns, rewrite: Program::default(), nested: LocationTree::default(), limit_except: None }
    }
}

/// `root` or `alias` of the place around one, and that place's [`Place::alias_prefix`].
type Outer<'a> = Option<(&'a Root, Option<usize>)>;

impl Builder<'_, '_> {
    fn server(
        &mut self,
        identity: Arc<PlaceIdentity>,
        server: &keel_model::VirtualServer,
    ) -> Result<Server, CompileError> {
        self.server_names.clone_from(&server.names);
        self.site = match &server.files {
            FileSource::Host => String::new(),
            FileSource::Tree(name) => name.clone(),
        };
        self.files = match &server.files {
            FileSource::Host => Files::Host,
            FileSource::Tree(name) => match self.trees.get(name.as_str()) {
                Some(tree) => Files::Tree(tree.clone()),
                None => return Err(CompileError::Dangling { what: format!("a tree of files `{name}`") }),
            },
        };
        let settings = PlaceSettings { scope: &server.scope, rewrite: &server.rewrite, locations: &[] };
        let root = self.place(identity.clone(), PlaceKind::Server, settings, None)?;
        let name = server.primary_name().into_owned();
        let zone = server.scope.core.status_zone.clone().unwrap_or_else(|| name.clone());
        let mut named = HashMap::new();
        let tree = self.tree(&identity, &server.locations, Some(&mut named), None)?;
        Ok(Server {
            traffic: zones::claim(&zone, &mut self.zones, self.claims),
            name,
            client: server.client.clone(),
            tls: match &server.ssl {
                Some(settings) => Some(ServerTls::compile(settings, &self.ticket_seed, self.claims)?),
                None => None,
            },
            root,
            tree,
            named,
        })
    }

    /// Adds a place with what is in it: its locations, and the places of its `if`s.
    fn place(
        &mut self,
        identity: Arc<PlaceIdentity>,
        kind: PlaceKind,
        settings: PlaceSettings<'_>,
        outer: Outer<'_>,
    ) -> Result<PlaceId, CompileError> {
        let PlaceSettings { scope, rewrite, locations } = settings;
        let own = Some((&scope.core.root, alias_prefix(&scope.core.root, &kind, outer)));
        let nested = self.tree(&identity, locations, None, own)?;
        let returns = rewrite::returns(rewrite);
        let mut ifs = 0;
        let rewrite = rewrite::compile(&rewrite.steps, &mut |scope| {
            ifs += 1;
            let identity = PlaceIdentity::inside(&identity, PlaceName::If(ifs));
            self.add(identity, kind.clone(), scope, own, Inside::of_block(returns))
        })?;
        let limit_except = match &scope.core.limit_except {
            None => None,
            Some(except) => {
                let identity = PlaceIdentity::inside(&identity, PlaceName::LimitExcept);
                let place = self.add(identity, kind.clone(), &except.scope, own, Inside::of_block(false))?;
                Some(Box::new(Excepted { methods: except.methods.clone(), place }))
            }
        };
        self.add(identity, kind, scope, outer, Inside { returns, rewrite, nested, limit_except })
    }

    fn add(
        &mut self,
        identity: Arc<PlaceIdentity>,
        kind: PlaceKind,
        scope: &Scope,
        outer: Outer<'_>,
        inside: Inside,
    ) -> Result<PlaceId, CompileError> {
        let Inside { returns, rewrite, nested, limit_except } = inside;
        let proxy = PeerProgram::compile(scope, self.upstream_by_name)?;
        let filters = filter::compile(&filter::Settings { scope, returns, charsets: &self.charsets })?;
        // A server's own zone counts all its requests.
        let zone = scope.core.status_zone.as_ref().filter(|_| kind != PlaceKind::Server);
        let traffic = zone.map(|zone| zones::claim(zone, &mut self.zones, self.claims));
        let place = Place {
            identity,
            traffic,
            alias_prefix: alias_prefix(&scope.core.root, &kind, outer),
            kind,
            rewrite,
            proxy,
            script_name: ScriptName::compile(&scope.fastcgi)?,
            filters,
            types: scope.core.types.iter().cloned().collect(),
            gzip_disable: scope.gzip.disable.patterns.iter().map(regex).collect::<Result<_, _>>()?,
            nested,
            referers: Referers::compile(&scope.referer, &self.server_names)?,
            limit_except,
            limits: Limits::compile(scope, &self.site, self.claims),
            resolver: PlaceResolver::compile(scope, self.claims),
            access_logs: log::access(&scope.log, &mut self.claims.logs)?,
            error_logs: log::errors(&scope.core.error_logs, &mut self.claims.logs)?,
            scope: scope.clone(),
            files: self.files.clone(),
        };
        self.places.push(place);
        Ok(PlaceId(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)))
    }

    fn tree(
        &mut self,
        within: &Arc<PlaceIdentity>,
        locations: &[Location],
        mut named: Option<&mut HashMap<String, PlaceId>>,
        outer: Outer<'_>,
    ) -> Result<LocationTree, CompileError> {
        let mut tree = LocationTree::default();
        for location in locations {
            let kind = match &location.matcher {
                LocationMatcher::Exact(text)
                | LocationMatcher::Prefix(text)
                | LocationMatcher::PrefixFinal(text) => PlaceKind::Prefix(text.clone()),
                LocationMatcher::Regex(_) => PlaceKind::Regex,
                LocationMatcher::Named(_) => PlaceKind::Named,
            };
            let settings = PlaceSettings {
                scope: &location.scope,
                rewrite: &location.rewrite,
                locations: &location.locations,
            };
            let name = PlaceName::Location(location.matcher.clone());
            let identity = PlaceIdentity::inside(within, name);
            let id = self.place(identity, kind, settings, outer)?;
            let redirects = location.scope.peer_settings().is_some();
            match (&location.matcher, &mut named) {
                (LocationMatcher::Named(name), Some(named)) => {
                    named.insert(name.clone(), id);
                }
                (LocationMatcher::Named(_), None) => {}
                (LocationMatcher::Exact(text), _) => tree.add_exact(text, id, redirects),
                (LocationMatcher::Prefix(text), _) => tree.add_prefix(text, id, redirects, true),
                (LocationMatcher::PrefixFinal(text), _) => tree.add_prefix(text, id, redirects, false),
                (LocationMatcher::Regex(pattern), _) => tree.add_regex(regex(pattern)?, id),
            }
        }
        tree.finish();
        Ok(tree)
    }
}

/// Gives how much of a URI an `alias` stands for ([`Place::alias_prefix`]).
fn alias_prefix(root: &Root, kind: &PlaceKind, outer: Outer<'_>) -> Option<usize> {
    let inherited = outer.filter(|(outer, _)| *outer == root).map(|(_, prefix)| prefix);
    match (root, inherited, kind) {
        (Root::Alias(_), Some(prefix), _) => prefix,
        (Root::Alias(_), None, PlaceKind::Prefix(name)) => Some(name.len()),
        _ => None,
    }
}

/// Compiles a pattern of the configuration.
pub(crate) fn regex(pattern: &keel_model::Pattern) -> Result<Regex, CompileError> {
    Regex::new(pattern).map_err(|source| CompileError::Regex { pattern: pattern.source.clone(), source })
}
