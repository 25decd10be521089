//! ngx_http_upstream_module, and the modules whose directives stand in `upstream` too: zone and keepalive.
//!
//! The directives of balancing algorithms are made from what `keel-lb` says of them. Names are not resolved here.

use std::{net::Ipv4Addr, sync::LazyLock, time::Duration};

use keel_diag::{Diagnostic, Span};
use keel_model::{Address, ByteSize, Peer, PolicyConfig, UpstreamKeepalive, UpstreamName};

use crate::{
    ServerAddress, ServerEntry,
    address::{self, Host, WrittenAddress},
    arguments::{msec, number},
    ast::{Directive, Word},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
};

/// What one `upstream` block sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<UpstreamName>,
    pub(crate) servers: Vec<ServerEntry>,
    pub(crate) policy: Option<(PolicyConfig, Span)>,
    pub(crate) zone: Option<String>,
    connections: Option<u32>,
    local: bool,
    requests: Option<u64>,
    time: Option<Duration>,
    idle_timeout: Option<Duration>,
}

impl Settings {
    /// Gives the model's form of `keepalive` and its companions.
    pub(crate) fn keepalive(&self) -> UpstreamKeepalive {
        let default = UpstreamKeepalive::default();
        UpstreamKeepalive {
            connections: self.connections.unwrap_or(default.connections),
            requests: self.requests.unwrap_or(default.requests),
            time: self.time.unwrap_or(default.time),
            idle_timeout: self.idle_timeout.unwrap_or(default.idle_timeout),
            local: self.local || self.connections.is_none(),
        }
    }
}

/// The directives that are nginx's own.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "upstream",
        syntax: "name { ... }",
        contexts: Contexts::HTTP,
        arity: Arity::ONE,
        default: None,
        doc: "A named group of peers, which `proxy_pass` names. Without another algorithm it is round robin by weight, \
              exact over all workers.",
        set: Setter::Block(upstream),
    },
    Row {
        name: "server",
        syntax: "address [weight=number] [max_conns=number] [max_fails=number] [fail_timeout=time] [backup] [down] \
                 [resolve] [service=name]",
        contexts: Contexts::UPSTREAM,
        arity: Arity::AtLeast(1),
        default: None,
        doc: "A peer: an address, a host name, a Compose service or `unix:path`; port 80 if none is given. A Compose \
              service stands for all of its instances. With `resolve` the name is looked up again and again, as \
              `resolver` says, and stands for all its addresses: one that comes takes part when it accepts a \
              connection, one that goes finishes what it has, and a name without any is an empty group. Where no \
              address accepts one, all take part. `service` names a SRV record, which says ports, weights and who stands by, or \
              a port of a Kubernetes Service in place of its number. Without \
              `resolve` names are looked up once. Counts of connections and failures hold over all workers.",
        set: Setter::Simple(server),
    },
    Row {
        name: "zone",
        syntax: "name [size]",
        contexts: Contexts::UPSTREAM,
        arity: Arity::Take(1, 2),
        default: None,
        doc: "Names the group's shared state. Evenkeel's counts are global with or without it.",
        set: Setter::Simple(zone),
    },
    Row {
        name: "keepalive",
        syntax: "connections [local]",
        contexts: Contexts::UPSTREAM,
        arity: Arity::Take(1, 2),
        default: Some("32 local"),
        doc: "How many idle connections to this group's peers each worker keeps; 0 for none. Up to twice as many stay for \
              100 ms, so that a burst doesn't close what it opens again. With `local` a connection is used again only by \
              the location that made it.",
        set: Setter::Simple(keepalive),
    },
    Row {
        name: "keepalive_requests",
        syntax: "number",
        contexts: Contexts::UPSTREAM,
        arity: Arity::ONE,
        default: Some("1000"),
        doc: "How many requests a connection to a peer serves.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.upstream.requests, number);
        }),
    },
    Row {
        name: "keepalive_time",
        syntax: "time",
        contexts: Contexts::UPSTREAM,
        arity: Arity::ONE,
        default: Some("1h"),
        doc: "How old a connection to a peer may get.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.upstream.time, msec)
        }),
    },
    Row {
        name: "keepalive_timeout",
        syntax: "time",
        contexts: Contexts::UPSTREAM,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long a connection to a peer may idle.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.upstream.idle_timeout, msec);
        }),
    },
];

/// The directives of balancing algorithms, all but the default's, which has none.
pub(crate) fn policy_rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
        let named = keel_lb::policies().iter().filter(|info| info.name != PolicyConfig::default().name);
        named.map(policy_row).collect()
    });
    &ROWS
}

fn policy_row(info: &'static keel_lb::PolicyInfo) -> Row {
    let words: Vec<String> = info
        .parameters
        .iter()
        .map(|parameter| match (parameter.required, parameter.values.join(" | ")) {
            (true, values) => values,
            (false, values) => format!("[{values}]"),
        })
        .collect();
    let words: Vec<String> = info.key.iter().map(|key| key.name.to_owned()).chain(words).collect();
    let keys = usize::from(info.key.is_some());
    let required = info.parameters.iter().filter(|parameter| parameter.required).count() + keys;
    let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Row {
        name: info.name,
        // Made once for the life of the process.
        syntax: words.join(" ").leak(),
        contexts: Contexts::UPSTREAM,
        arity: Arity::Take(count(required), count(info.parameters.len() + keys)),
        default: None,
        doc: info.doc,
        set: Setter::Simple(policy),
    }
}

fn policy(reader: &mut Reader<'_>, directive: &Directive) {
    let mut words = directive.args.iter();
    let is_keyed = |info: &&keel_lb::PolicyInfo| info.name == directive.name.text && info.key.is_some();
    let mut key = None;
    if keel_lb::policies().iter().any(|info| is_keyed(&info)) {
        let Some(template) = words.next().and_then(|word| reader.template(word)) else { return };
        key = Some(template);
    }
    let parameters = words.map(|word| word.text.clone()).collect();
    let config = PolicyConfig { name: directive.name.text.clone(), key, parameters };
    if let Err(error) = keel_lb::check_policy(&config) {
        let word = directive.args.last().unwrap_or(&directive.name);
        let nginx = format!("invalid parameter \"{}\"", word.text);
        return reader.error("nginx::invalid-parameter", error.to_string(), word.span, nginx);
    }
    let redefined = reader.frame.upstream.policy.replace((config, directive.span()));
    if let Some((_, first)) = redefined {
        reader.diagnostics.push(
            Diagnostic::warning("nginx::policy-redefined", "a second balancing algorithm in one `upstream`")
                .at(directive.span(), "this one holds")
                .at(first, "not this one")
                .nginx("load balancing method redefined"),
        );
    }
}

fn upstream(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let Some(name) = directive.args.first() else {
        return;
    };
    let mut frame = Frame::new(Contexts::UPSTREAM, Some(directive.span()));
    frame.upstream.name = Some(UpstreamName(name.text.clone()));
    let frame = reader.inside(frame, block);
    let same_name = |other: &&Frame| {
        other.upstream.name.as_ref().is_some_and(|other| other.0.eq_ignore_ascii_case(&name.text))
    };
    if let Some(first) = reader.http.upstreams.iter().find(same_name).and_then(|other| other.opened) {
        reader.diagnostics.push(
            Diagnostic::error("nginx::duplicate-upstream", format!("a second upstream `{}`", name.text))
                .at(directive.span(), "again here")
                .at(first, "first here")
                .nginx(format!("duplicate upstream \"{}\"", name.text)),
        );
        return;
    }
    if frame.upstream.servers.is_empty() && !frame.seen.contains_key("server") {
        reader.diagnostics.push(
            Diagnostic::error("nginx::empty-upstream", format!("upstream `{}` has no peers", name.text))
                .at(directive.span(), "")
                .help("add a line `server host:port;` for each peer")
                .nginx("no servers are inside upstream"),
        );
    }
    reader.http.upstreams.push(frame);
}

fn server(reader: &mut Reader<'_>, directive: &Directive) {
    let Some((place, words)) = directive.args.split_first() else {
        return;
    };
    let has_uri = place.text.contains(['/', '?']) && !place.text.starts_with("unix:");
    let address = match address::peer(&place.text) {
        _ if has_uri => return refuse_address(reader, place, "invalid host"),
        Ok((parsed, "")) => server_address(parsed),
        Ok(_) => return refuse_address(reader, place, "invalid host"),
        Err(text) => return refuse_address(reader, place, text),
    };
    let mut entry = server_entry(address, &place.text, directive.span());
    for word in words {
        if word.text == "resolve" {
            // An address needs no looking up; nginx takes the word there too.
            entry.resolve = matches!(entry.address, ServerAddress::Name { .. });
        } else if let Some(name) = word.text.strip_prefix("service=").filter(|name| !name.is_empty()) {
            entry.port_name = Some(name.to_owned());
        } else {
            parameter(reader, directive, word, &mut entry.peer);
        }
    }
    reader.frame.upstream.servers.push(entry);
}

/// Makes a peer with nginx's defaults. One that is still a name gets the unspecified address, which its resolver
/// replaces.
pub(crate) fn server_entry(address: ServerAddress, text: &str, span: Span) -> ServerEntry {
    let key = match &address {
        ServerAddress::Ip(address) => Address::Tcp(*address),
        ServerAddress::Unix(path) => Address::Unix(path.clone()),
        ServerAddress::Name { port, .. } => Address::Tcp((Ipv4Addr::UNSPECIFIED, *port).into()),
    };
    ServerEntry {
        address,
        text: text.to_owned(),
        peer: Peer::new(key, text),
        span,
        resolve: false,
        port_name: None,
    }
}

/// Gives a peer's address with the port that holds when none is written.
pub(crate) fn server_address(place: WrittenAddress) -> ServerAddress {
    match place {
        WrittenAddress::Unix(path) => ServerAddress::Unix(path),
        WrittenAddress::Tcp { host: Host::Ip(ip), port, .. } => {
            ServerAddress::Ip((ip, port.unwrap_or(80)).into())
        }
        WrittenAddress::Tcp { host: Host::Name(host), port, .. } => {
            ServerAddress::Name { host, port: port.unwrap_or(80) }
        }
    }
}

/// Reports an address that can't be read.
pub(crate) fn refuse_address(reader: &mut Reader<'_>, word: &Word, text: &str) {
    refuse(reader, word, text, &word.text);
}

/// Reports the address of a `proxy_pass`, whose scheme nginx's text leaves out.
pub(crate) fn refuse_url(reader: &mut Reader<'_>, word: &Word, text: &str) {
    let shown = word.text.split_once("://").map_or(word.text.as_str(), |(_, rest)| rest);
    refuse(reader, word, text, shown);
}

fn refuse(reader: &mut Reader<'_>, word: &Word, text: &str, shown: &str) {
    let mut found = Diagnostic::error("nginx::invalid-address", format!("{text} in `{}`", word.text))
        .at(word.span, "expected `host:port` or `unix:/path`")
        .nginx(format!("{text} in upstream \"{shown}\""));
    if let Some(rest) = shown.split_once("://").map(|(_, rest)| rest.trim_end_matches('/')) {
        found = found.help(format!("a peer has no scheme: `{rest}`"));
    }
    reader.diagnostics.push(found);
}

fn parameter(reader: &mut Reader<'_>, directive: &Directive, word: &Word, peer: &mut Peer) {
    let (key, text) = match word.text.split_once('=') {
        Some((key, text)) => (key, Some(text)),
        None => (word.text.as_str(), None),
    };
    match (key, text) {
        ("drain", None) | ("route" | "slow_start", Some(_)) => reader.diagnostics.push(
            Diagnostic::error("nginx::unsupported-parameter", format!("`{key}` is not supported yet"))
                .at(word.span, "requests would go to other peers than the file says"),
        ),
        _ if set_parameter(peer, key, text).is_some() => {}
        _ => {
            let known = ["weight", "max_conns", "max_fails", "fail_timeout", "backup", "down", "resolve"];
            reader.invalid_parameter(directive, word, &known);
        }
    }
}

/// Sets a parameter of a peer; `None` if there is none of that name or its value can't be read.
fn set_parameter(peer: &mut Peer, key: &str, text: Option<&str>) -> Option<()> {
    let number = |text: &str| value::number(text).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    match (key, text) {
        ("weight", Some(text)) => peer.weight = number(text).filter(|&weight| weight > 0)?,
        ("max_conns", Some(text)) => peer.max_conns = number(text)?,
        ("max_fails", Some(text)) => peer.max_fails = number(text)?,
        ("fail_timeout", Some(text)) => peer.fail_timeout = value::time(text, Resolution::Seconds)?,
        ("backup", None) => peer.backup = true,
        ("down", None) => peer.down = true,
        _ => return None,
    }
    Some(())
}

/// nginx refuses zones below eight pages.
const ZONE_SIZE_MIN: ByteSize = ByteSize::kib(32);

fn zone(reader: &mut Reader<'_>, directive: &Directive) {
    let Some(name) = directive.args.first() else {
        return;
    };
    if name.text.is_empty() {
        reader.invalid(directive, name, "invalid zone name \"\"".into(), "a name");
    }
    let mut size = None;
    if let Some(word) = directive.args.get(1) {
        size = value::size(&word.text);
        match size {
            None => reader.invalid(
                directive,
                word,
                format!("invalid zone size \"{}\"", word.text),
                "a size such as `64k`",
            ),
            Some(size) if size < ZONE_SIZE_MIN => {
                reader.invalid(
                    directive,
                    word,
                    format!("zone \"{}\" is too small", name.text),
                    "at least `32k`",
                );
            }
            Some(_) => {}
        }
    }
    let declared = reader.http.zones.entry(name.text.clone()).or_insert_with(|| (directive.span(), None));
    match (declared.1, size) {
        (None, Some(size)) => declared.1 = Some(size),
        (Some(first), Some(size)) if first != size => {
            let (size, first) = (size.0, first.0);
            let nginx = format!(
                "the size {size} of shared memory zone \"{}\" conflicts with already declared size {first}",
                name.text
            );
            reader.invalid(directive, name, nginx, "one size in all places");
        }
        _ => {}
    }
    reader.frame.upstream.zone = Some(name.text.clone());
}

/// Reports zones that no place gives a size.
pub(crate) fn check_zones(reader: &mut Reader<'_>) {
    for (name, (span, size)) in std::mem::take(&mut reader.http.zones) {
        if size.is_none() {
            reader.diagnostics.push(
                Diagnostic::error("nginx::unsized-zone", format!("the zone `{name}` has no size"))
                    .at(span, "nginx needs one; here it means nothing")
                    .help(format!("give it one: `zone {name} 64k;`"))
                    .nginx(format!("zero size shared memory zone \"{name}\"")),
            );
        }
    }
}

fn keepalive(reader: &mut Reader<'_>, directive: &Directive) {
    if reader.frame.upstream.connections.is_some() {
        return reader.duplicate(directive);
    }
    let Some((count, rest)) = directive.args.split_first() else {
        return;
    };
    match value::number(&count.text) {
        Some(number) => {
            reader.frame.upstream.connections = Some(u32::try_from(number).unwrap_or(u32::MAX));
        }
        None => {
            let nginx = format!("invalid value \"{}\" in \"keepalive\" directive", count.text);
            reader.invalid(directive, count, nginx, "a number of connections");
        }
    }
    match rest.first() {
        None => {}
        Some(word) if word.text == "local" => reader.frame.upstream.local = true,
        Some(word) => reader.invalid_parameter(directive, word, &["local"]),
    }
}
