//! From what was read to the model: inheritance, defaults, listeners, upstreams.

use std::{collections::BTreeMap, path::PathBuf};

use keel_diag::{Diagnostic, Span};
use keel_model::{
    AccessLog, Address, ByteSize, CharsetMap, ClientSettings, If, Layer, LimitExcept, Listener, Location,
    LogDestination, LogFormat, PeerSet, Rewrite, RewriteStep, Root, Scope, ServerId, ServerName, Template,
    Upstream, UpstreamKeepalive, VirtualServer,
};

use crate::{
    UpstreamOrigin, UpstreamSource,
    directives::syslog::SyslogName,
    directives::{
        http_charset,
        http_listen::Listen,
        http_proxy_pass::To,
        http_proxy_upstreams::Literals,
        http_rewrite::Step,
        http_ssl,
        http_upstream::check_zones,
        limit_zones::{self, LimitZones},
        resolver,
    },
    known::{self, CacheZones},
    reader::{Frame, Reader},
    registry::Contexts,
    variables::Names,
};

/// What the `http` block gathers while it is read, and what becomes of it.
#[derive(Default)]
pub(crate) struct HttpSettings {
    /// Names of variables.
    pub(crate) names: Names,
    /// `log_format`s so far.
    pub(crate) formats: Vec<LogFormat>,
    /// `server` blocks, closed.
    pub(crate) servers: Vec<Frame>,
    /// `upstream` blocks, closed.
    pub(crate) upstreams: Vec<Frame>,
    /// `charset_map`s so far.
    pub(crate) charset_maps: Vec<CharsetMap>,
    /// Zones of upstreams, by name: the first place, and the size that any place gives.
    pub(crate) zones: BTreeMap<String, (Span, Option<ByteSize>)>,
    /// Certificates and keys read so far, by the places that name them.
    pub(crate) pairs: Vec<http_ssl::Loaded>,
    /// Zones of limits.
    pub(crate) limit_zones: LimitZones,
    /// Zones of caches.
    pub(crate) cache_zones: CacheZones,
    /// Names of syslog servers.
    pub(crate) syslog_names: Vec<SyslogName>,
    /// What all that came to.
    pub(crate) lowered: LoweredHttp,
}

/// The `http` block in the model's form.
#[derive(Default)]
pub(crate) struct LoweredHttp {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) servers: Vec<VirtualServer>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) sources: Vec<UpstreamSource>,
    /// Logs that `http` itself names.
    pub(crate) outer_logs: Vec<PathBuf>,
}

/// Lowers a whole `http` block, which is closed now.
pub(crate) fn lower_http(reader: &mut Reader<'_>, mut http: Frame) {
    let mut upstreams = std::mem::take(&mut reader.http.upstreams);
    let named =
        upstreams.iter().filter_map(|frame| Some((frame.upstream.name.clone()?, frame.opened))).collect();
    let mut literals = Literals::new(named, http.resolver.lower());
    let mut servers = std::mem::take(&mut reader.http.servers);
    let mut lowered = LoweredHttp::default();
    // What holds in `http` is checked once more where no server changes it.
    lower_scope(reader, &mut literals, &mut http);
    let access = http.scope.log.logs.iter().flatten().filter_map(AccessLog::fixed_path);
    let errors =
        http.scope.core.error_logs.iter().flatten().filter_map(|log| log.fixed_path().map(PathBuf::from));
    lowered.outer_logs = access.chain(errors).collect();
    for server in &mut servers {
        server.inherit(&http);
        lowered.servers.push(lower_server(reader, &mut literals, server));
    }
    lowered.listeners = listeners(reader, &mut servers);
    for frame in &mut upstreams {
        lower_upstream(frame, &http.resolver, &mut lowered);
    }
    let Literals { made, diagnostics, .. } = literals;
    for source in made {
        lowered.upstreams.push(Upstream {
            name: source.name.clone(),
            policy: Default::default(),
            keepalive: UpstreamKeepalive::default(),
            zone: None,
            peers: PeerSet::default(),
        });
        lowered.sources.push(source);
    }
    reader.diagnostics.extend(diagnostics);
    reader.check_pending_variables();
    known::check_cache_zones(reader);
    check_zones(reader);
    limit_zones::check(reader);
    http.locations.clear();
    reader.http.lowered = lowered;
}

fn lower_upstream(frame: &mut Frame, outer: &resolver::Settings, lowered: &mut LoweredHttp) {
    frame.resolver.inherit(outer);
    let resolver = frame.resolver.lower();
    let slot = &mut frame.upstream;
    let (Some(name), Some(span)) = (slot.name.clone(), frame.opened) else {
        return;
    };
    lowered.upstreams.push(Upstream {
        name: name.clone(),
        policy: slot.policy.clone().map(|(policy, _)| policy).unwrap_or_default(),
        keepalive: slot.keepalive(),
        zone: slot.zone.clone(),
        peers: PeerSet::default(),
    });
    let servers = std::mem::take(&mut slot.servers);
    lowered.sources.push(UpstreamSource { name, span, servers, origin: UpstreamOrigin::Block, resolver });
}

fn lower_server(reader: &mut Reader<'_>, literals: &mut Literals, server: &mut Frame) -> VirtualServer {
    let names = match server.server.names.as_slice() {
        [] => vec![ServerName::Exact(String::new())],
        names => names.iter().map(|(name, _)| name.clone()).collect(),
    };
    VirtualServer {
        names,
        client: server.client.settle(ClientSettings::default()),
        ssl: http_ssl::lower(reader, server),
        scope: lower_scope(reader, literals, server),
        rewrite: Rewrite { steps: lower_steps(reader, literals, server) },
        locations: lower_locations(reader, literals, server),
        files: keel_model::FileSource::Host,
    }
}

/// Settles what holds in a block, which has inherited already.
fn lower_scope(reader: &mut Reader<'_>, literals: &mut Literals, frame: &mut Frame) -> Scope {
    if let Some((To::Evaluated(address), span)) = frame.passes_to() {
        literals.follow(&reader.http.names, address, frame.resolver.lower(), span);
    }
    if let Some(pass) = &frame.gateway {
        frame.scope.content.0 = Some(pass.lower(literals));
    } else if let Some(pass) = &frame.proxy.pass {
        frame.scope.content.0 = Some(pass.lower(literals));
    }
    frame.scope.proxy.redirects.0 = Some(frame.proxy.redirects());
    frame.scope.core.resolver.0 = Some(frame.resolver.lower());
    let mut scope = frame.scope.settle(defaults(reader));
    reader.http.limit_zones.fill(&mut scope);
    if let Some(place) = frame.opened {
        frame.proxy.sizes.check(reader, &scope.proxy.upstream, "proxy", place);
        frame.fastcgi.sizes.check(reader, &scope.fastcgi.upstream, "fastcgi", place);
        frame.uwsgi.sizes.check(reader, &scope.uwsgi.upstream, "uwsgi", place);
        frame.scgi.sizes.check(reader, &scope.scgi.upstream, "scgi", place);
    }
    http_charset::check(reader, frame, &scope.charset);
    scope
}

/// What holds where nothing is set: the model's defaults, whose relative paths begin at the prefix.
fn defaults(reader: &Reader<'_>) -> Scope {
    let mut scope = Scope::default();
    let in_prefix = |path: &mut Template| {
        let absolute = path.as_literal().map(|path| reader.absolute(path).to_string_lossy().into_owned());
        *path = absolute.map_or_else(Template::default, Template::literal);
    };
    let (Root::Root(root) | Root::Alias(root)) = &mut scope.core.root;
    in_prefix(root);
    for log in &mut scope.log.logs {
        if let LogDestination::File(path) = &mut log.destination {
            in_prefix(path);
        }
    }
    let bodies = &mut scope.core.client_body_temp_path;
    *bodies = reader.prefix.join(&*bodies);
    for (_, settings) in scope.all_peer_settings() {
        settings.temp_path = reader.prefix.join(&settings.temp_path);
    }
    scope
}

fn lower_locations(reader: &mut Reader<'_>, literals: &mut Literals, outer: &mut Frame) -> Vec<Location> {
    let mut locations = Vec::new();
    for mut frame in std::mem::take(&mut outer.locations) {
        frame.inherit(outer);
        let Some(matcher) = frame.matcher.clone() else {
            continue;
        };
        let mut scope = lower_scope(reader, literals, &mut frame);
        scope.core.limit_except = lower_limit_except(reader, literals, &mut frame);
        let rewrite = Rewrite { steps: lower_steps(reader, literals, &mut frame) };
        let inner = lower_locations(reader, literals, &mut frame);
        locations.push(Location { matcher, scope, rewrite, locations: inner });
    }
    locations
}

/// Settles what holds in a location for other methods than some.
fn lower_limit_except(
    reader: &mut Reader<'_>,
    literals: &mut Literals,
    outer: &mut Frame,
) -> Option<Box<LimitExcept>> {
    let mut block = outer.limit_except.take()?;
    block.inside.inherit(outer);
    if block.inside.scope.content.0.is_none() {
        block.inside.scope.content.clone_from(&outer.scope.content);
    }
    // Who answers in the location answers here, too, unless the block names somebody else.
    block.inside.take_answerer(outer);
    let scope = lower_scope(reader, literals, &mut block.inside);
    Some(block.lower(scope))
}

/// Settles the steps of a block, and what holds in those of its `if`s that are in a location.
fn lower_steps(reader: &mut Reader<'_>, literals: &mut Literals, outer: &mut Frame) -> Vec<RewriteStep> {
    let mut steps = Vec::new();
    for step in std::mem::take(&mut outer.steps) {
        let (test, wants, mut inside) = match step {
            Step::Done(step) => {
                steps.push(step);
                continue;
            }
            Step::If { test, wants, inside } => (test, wants, inside),
        };
        let mut scope = None;
        if inside.context == Contexts::LOCATION_IF {
            inside.inherit(outer);
            if inside.scope.content.0.is_none() {
                inside.scope.content.clone_from(&outer.scope.content);
            }
            // Who answers in the location answers here, too, unless the block names somebody else.
            inside.take_answerer(outer);
            scope = Some(Box::new(lower_scope(reader, literals, &mut inside)));
        }
        let steps_inside = lower_steps(reader, literals, &mut inside);
        steps.push(RewriteStep::If(Box::new(If { test, wants, steps: steps_inside, scope })));
    }
    steps
}

/// One address and everything that listens on it.
struct Bound {
    listen: Listen,
    default_server: Option<(ServerId, Span)>,
    servers: Vec<(ServerId, Span)>,
}

impl Bound {
    fn default_id(&self) -> ServerId {
        let first = self.servers.first().map_or(ServerId(0), |(id, _)| *id);
        self.default_server.map_or(first, |(id, _)| id)
    }

    fn ids(&self) -> Vec<ServerId> {
        self.servers.iter().map(|(id, _)| *id).collect()
    }
}

fn listeners(reader: &mut Reader<'_>, servers: &mut [Frame]) -> Vec<Listener> {
    let mut bound: Vec<Bound> = Vec::new();
    for (id, server) in (0..).map(ServerId).zip(servers.iter_mut()) {
        let listens = server_listens(reader, server);
        for listen in listens {
            add_listen(reader, &mut bound, id, listen);
        }
    }
    for bound in &bound {
        conflicting_names(reader, bound, servers);
        if let Some(span) = bound.listen.ssl {
            http_ssl::check_listener(reader, span, bound.default_id(), &bound.ids(), servers);
        }
    }
    name_left_out(reader, &bound, servers);
    fold(bound)
}

/// Gives what a server listens on: without any `listen` the default.
fn server_listens(reader: &mut Reader<'_>, server: &mut Frame) -> Vec<Listen> {
    let span = server.opened;
    if !server.server.listen_seen {
        let port = if reader.files.is_root() { 80 } else { 8000 };
        let address = Address::Tcp((std::net::Ipv4Addr::UNSPECIFIED, port).into());
        let listen = |span| Listen {
            address,
            options: Default::default(),
            default_server: false,
            proxy_protocol: false,
            http2: false,
            ssl: None,
            options_set: false,
            span,
        };
        return span.map(listen).into_iter().collect();
    }
    std::mem::take(&mut server.server.listens)
}

/// Says of the servers whose every `listen` is skipped that they are left out. Where no other server listens, nobody could
/// connect: that is an error, said once.
fn name_left_out(reader: &mut Reader<'_>, bound: &[Bound], servers: &[Frame]) {
    let listens = |id: ServerId| bound.iter().any(|bound| bound.servers.iter().any(|(one, _)| *one == id));
    let left_out = (0..).map(ServerId).zip(servers).filter(|(id, server)| {
        let is_skipped = !server.server.skipped.is_empty();
        is_skipped && !listens(*id)
    });
    let left_out: Vec<&Frame> = left_out.map(|(_, server)| server).collect();
    let skipped: Vec<Span> = left_out.iter().flat_map(|server| server.server.skipped.clone()).collect();
    for label in reader.diagnostics.iter_mut().flat_map(|found| &mut found.labels) {
        if skipped.contains(&label.span) {
            label.text = "nothing listens here, so this server is left out".into();
        }
    }
    let Some(span) = left_out.first().and_then(|server| server.opened) else { return };
    let is_wrong =
        |found: &Diagnostic| matches!(found.code, "nginx::invalid-address" | "nginx::host-not-found");
    if bound.is_empty() && !reader.diagnostics.iter().any(is_wrong) {
        reader.diagnostics.push(
            Diagnostic::error(crate::configuration::UNREACHABLE, "no listener of this server can be opened")
                .at(span, "nobody could reach it, and there is no other")
                .help(
                    "end TLS in front of Evenkeel and let it listen for that alone, on an address that nobody else \
                     reaches: `listen 127.0.0.1:8080;`",
                ),
        );
    }
}

fn add_listen(reader: &mut Reader<'_>, bound: &mut Vec<Bound>, id: ServerId, listen: Listen) {
    let span = listen.span;
    let text = listen.address.to_string();
    let Some(known) = bound.iter_mut().find(|known| known.listen.address == listen.address) else {
        let default_server = listen.default_server.then_some((id, span));
        bound.push(Bound { listen, default_server, servers: vec![(id, span)] });
        return;
    };
    let clash = |code, message: String, first: Span, nginx: String| {
        Diagnostic::error(code, message).at(span, "again here").at(first, "first here").nginx(nginx)
    };
    if let Some((_, first)) = known.servers.iter().find(|(server, _)| *server == id) {
        let found = clash(
            "nginx::duplicate-listen",
            format!("a server listens on {text} twice"),
            *first,
            format!("a duplicate listen {text}"),
        );
        return reader.diagnostics.push(found);
    }
    known.servers.push((id, span));
    // One that has it has it for all, as in nginx.
    let proxy_protocol = known.listen.proxy_protocol || listen.proxy_protocol;
    known.listen.proxy_protocol = proxy_protocol;
    let http2 = known.listen.http2 || listen.http2;
    known.listen.http2 = http2;
    let ssl = known.listen.ssl.or(listen.ssl);
    known.listen.ssl = ssl;
    if listen.options_set {
        if known.listen.options_set {
            let found = clash(
                "nginx::duplicate-listen",
                format!("parameters of the socket {text} are given twice"),
                known.listen.span,
                format!("duplicate listen options for {text}"),
            );
            return reader.diagnostics.push(found);
        }
        known.listen = Listen { proxy_protocol, http2, ssl, ..listen.clone() };
    }
    if listen.default_server {
        match known.default_server {
            Some((_, first)) => reader.diagnostics.push(clash(
                "nginx::duplicate-default-server",
                format!("a second default server for {text}"),
                first,
                format!("a duplicate default server for {text}"),
            )),
            None => known.default_server = Some((id, span)),
        }
    }
}

/// Reports names that two servers of one address both claim; the first has it.
fn conflicting_names(reader: &mut Reader<'_>, bound: &Bound, servers: &[Frame]) {
    let mut seen: Vec<(&ServerName, Span)> = Vec::new();
    let empty = ServerName::Exact(String::new());
    for (id, span) in &bound.servers {
        let Some(server) = servers.get(id.0 as usize) else {
            continue;
        };
        let own: Vec<(&ServerName, Span)> = match server.server.names.as_slice() {
            [] => vec![(&empty, server.opened.unwrap_or(*span))],
            names => names.iter().map(|(name, span)| (name, *span)).collect(),
        };
        for (name, place) in own {
            let first = seen.iter().find(|(other, _)| *other == name).map(|(_, first)| *first);
            match (first, name) {
                (_, ServerName::Regex(_)) => {}
                (None, _) => seen.push((name, place)),
                (Some(first), _) => {
                    let (name, address) = (name_text(name), bound.listen.address.to_string());
                    reader.diagnostics.push(
                        Diagnostic::warning(
                            "nginx::conflicting-name",
                            format!("two servers on {address} have the name `{name}`"),
                        )
                        .at(place, "never reached by this name")
                        .at(first, "this one answers")
                        .nginx(format!("conflicting server name \"{name}\" on {address}, ignored")),
                    );
                }
            }
        }
    }
}

fn name_text(name: &ServerName) -> &str {
    match name {
        ServerName::Exact(name)
        | ServerName::WildcardHead(name)
        | ServerName::WildcardTail(name)
        | ServerName::Dot(name) => name,
        ServerName::Regex(pattern) => &pattern.source,
    }
}

/// Makes sockets of addresses: where all addresses of a port are listened on, single ones of it need no socket of
/// their own unless they have parameters of their own, or only one of both has the PROXY protocol.
fn fold(bound: Vec<Bound>) -> Vec<Listener> {
    let wildcard_port = |address: &Address| match address {
        Address::Tcp(address) if address.ip().is_unspecified() => Some((address.is_ipv4(), address.port())),
        _ => None,
    };
    let with_protocol = |bound: &Bound| {
        wildcard_port(&bound.listen.address)
            .map(|port| (port, bound.listen.proxy_protocol, bound.listen.ssl.is_some()))
    };
    let wildcards: Vec<_> = bound.iter().filter_map(with_protocol).collect();
    let mut listeners: Vec<Listener> = Vec::new();
    let mut folded: Vec<(bool, std::net::SocketAddr, Bound)> = Vec::new();
    for bound in bound {
        if let Address::Tcp(address) = &bound.listen.address {
            let (address, key) = (*address, (address.is_ipv4(), address.port()));
            let single = !address.ip().is_unspecified();
            let is_covered =
                wildcards.contains(&(key, bound.listen.proxy_protocol, bound.listen.ssl.is_some()));
            if single && !bound.listen.options_set && is_covered {
                folded.push((key.0, address, bound));
                continue;
            }
        }
        listeners.push(Listener {
            declared_port: match &bound.listen.address {
                Address::Tcp(address) => address.port(),
                Address::Unix(_) => 0,
            },
            proxy_protocol: bound.listen.proxy_protocol,
            http2: bound.listen.http2,
            tls: bound.listen.ssl.is_some(),
            default_server: bound.default_id(),
            servers: bound.ids(),
            by_local_address: Vec::new(),
            address: bound.listen.address,
            options: bound.listen.options,
        });
    }
    for (is_ipv4, address, bound) in folded {
        let key = Some((is_ipv4, address.port()));
        if let Some(listener) = listeners.iter_mut().find(|listener| wildcard_port(&listener.address) == key)
        {
            listener.http2 |= bound.listen.http2;
            listener.by_local_address.push((address, bound.default_id(), bound.ids()));
        }
    }
    listeners
}
