//! ngx_http_core_module: `listen` and `server_name`, which decide what a server answers for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use keel_diag::{Diagnostic, Span};
use keel_model::{Address, ServerName, SocketOptions, TcpKeepalive};

use crate::{
    address::{self, Host, ListenPlace},
    ast::{Directive, Word},
    reader::Reader,
    value::{self, Resolution},
};

/// One address that a server listens on.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub(crate) address: Address,
    pub(crate) options: SocketOptions,
    pub(crate) default_server: bool,
    pub(crate) proxy_protocol: bool,
    pub(crate) http2: bool,
    /// The parameter `ssl`.
    pub(crate) ssl: Option<Span>,
    /// Whether any parameter of the socket is given, which only one `listen` of an address may do.
    pub(crate) options_set: bool,
    pub(crate) span: Span,
}

/// What the parameters of one `listen` say.
#[derive(Default)]
struct Parameters {
    options: SocketOptions,
    options_set: bool,
    default_server: bool,
    proxy_protocol: bool,
    http2: bool,
    ssl: Option<Span>,
    /// The parameter that keeps this listener from being opened.
    unserved: Option<(Unserved, Span)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unserved {
    Quic,
}

const PARAMETERS: [&str; 17] = [
    "default_server",
    "bind",
    "backlog",
    "rcvbuf",
    "sndbuf",
    "deferred",
    "ipv6only",
    "reuseport",
    "so_keepalive",
    "fastopen",
    "ssl",
    "http2",
    "quic",
    "proxy_protocol",
    "setfib",
    "accept_filter",
    "multipath",
];

/// Reads `listen`.
pub(crate) fn listen(reader: &mut Reader<'_>, directive: &Directive) {
    reader.frame.server.listen_seen = true;
    let Some((place_word, words)) = directive.args.split_first() else {
        return;
    };
    let mut parameters = Parameters::default();
    for word in words {
        parameter(reader, directive, word, &mut parameters);
    }
    let addresses = match address::listen(&place_word.text) {
        Ok(place) => addresses(reader, place, place_word),
        Err(text) => {
            let nginx = format!("{text} in \"{}\" of the \"listen\" directive", place_word.text);
            reader.invalid(directive, place_word, nginx, "`80`, `127.0.0.1:80`, `[::]:80` or `unix:/path`");
            return;
        }
    };
    if let Some((unserved, span)) = parameters.unserved {
        reader.frame.server.skipped.push(span);
        return report_unserved(reader, unserved, &place_word.text, span);
    }
    for address in addresses {
        reader.frame.server.listens.push(Listen {
            address,
            options: parameters.options.clone(),
            default_server: parameters.default_server,
            proxy_protocol: parameters.proxy_protocol,
            http2: parameters.http2,
            ssl: parameters.ssl,
            options_set: parameters.options_set,
            span: directive.span(),
        });
    }
}

fn report_unserved(reader: &mut Reader<'_>, unserved: Unserved, place: &str, span: Span) {
    let (what, code) = match unserved {
        Unserved::Quic => ("HTTP/3", "nginx::unsupported-quic"),
    };
    // The two families of a port are one matter.
    let place = ["[::]:", "0.0.0.0:", "*:"].iter().find_map(|all| place.strip_prefix(all)).unwrap_or(place);
    reader.diagnostics.push(
        Diagnostic::warning(code, format!("{what} is not there yet; `{place}` stays closed"))
            .at(span, "nothing listens here")
            .once_per_run(),
    );
}

fn addresses(reader: &mut Reader<'_>, place: ListenPlace, word: &Word) -> Vec<Address> {
    let (host, ports) = match place {
        ListenPlace::Unix(path) => return vec![Address::Unix(path)],
        ListenPlace::Tcp(host, ports) => (host, ports),
    };
    let ips = match host {
        None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        Some(Host::Ip(ip)) => vec![ip],
        Some(Host::Name(name)) => match reader.files.resolve(&name) {
            Ok(mut ips) => {
                ips.sort();
                ips.dedup();
                ips
            }
            Err(error) => {
                reader.diagnostics.push(
                    Diagnostic::error("nginx::host-not-found", format!("the host `{name}` is not found"))
                        .at(word.span, error.to_string())
                        .help("give an address, `*` for all, or the port alone")
                        .nginx(format!("host not found in \"{}\" of the \"listen\" directive", word.text)),
                );
                Vec::new()
            }
        },
    };
    ports.flat_map(|port| ips.iter().map(move |&ip| Address::Tcp(SocketAddr::new(ip, port)))).collect()
}

fn parameter(reader: &mut Reader<'_>, directive: &Directive, word: &Word, parameters: &mut Parameters) {
    let (key, text) = match word.text.split_once('=') {
        Some((key, text)) => (key, Some(text)),
        None => (word.text.as_str(), None),
    };
    match (key, text) {
        ("default_server" | "default", None) => parameters.default_server = true,
        ("ssl", None) => parameters.ssl = Some(word.span),
        ("quic", None) => parameters.unserved = Some((Unserved::Quic, word.span)),
        ("http2", None) => parameters.http2 = true,
        ("proxy_protocol", None) => parameters.proxy_protocol = true,
        ("multipath" | "setfib" | "accept_filter", _) => {
            parameters.options_set = true;
            reader.diagnostics.push(
                Diagnostic::warning("nginx::ignored-parameter", format!("`{key}` has no effect"))
                    .at(word.span, "connections are accepted without it")
                    .once_per_run(),
            );
        }
        _ => match socket_option(&mut parameters.options, key, text) {
            Some(Ok(())) => parameters.options_set = true,
            Some(Err(nginx)) => {
                reader.invalid(directive, word, nginx, "another value");
            }
            None => reader.invalid_parameter(directive, word, &PARAMETERS),
        },
    }
}

/// Sets a parameter of the socket; `None` if it is none, else nginx's words for what is wrong with its value.
fn socket_option(options: &mut SocketOptions, key: &str, text: Option<&str>) -> Option<Result<(), String>> {
    let full = || format!("{key}={}", text.unwrap_or_default());
    let number = |text: &str| value::number(text).and_then(|number| u32::try_from(number).ok());
    let size = |text: &str| value::size(text).and_then(|size| u32::try_from(size.0).ok());
    let invalid = || Some(Err(format!("invalid {key} \"{}\"", full())));
    match (key, text) {
        ("bind", None) => {}
        ("reuseport", None) => options.reuseport = true,
        ("deferred", None) => options.deferred = true,
        ("ipv6only", Some("on")) => options.ipv6only = true,
        ("ipv6only", Some("off")) => options.ipv6only = false,
        ("ipv6only", Some(text)) if text.starts_with('o') => {
            return Some(Err(format!("invalid ipv6only flags \"{text}\"")));
        }
        ("backlog", Some(text)) => match number(text).filter(|&number| number > 0) {
            Some(number) => options.backlog = number,
            None => return invalid(),
        },
        ("fastopen", Some(text)) => match number(text) {
            Some(number) => options.fastopen = Some(number),
            None => return invalid(),
        },
        ("rcvbuf", Some(text)) => match size(text) {
            Some(size) => options.receive_buffer = Some(size),
            None => return invalid(),
        },
        ("sndbuf", Some(text)) => match size(text) {
            Some(size) => options.send_buffer = Some(size),
            None => return invalid(),
        },
        ("so_keepalive", Some(text)) => match keepalive(text) {
            Some(keepalive) => options.keepalive = keepalive,
            None => return Some(Err(format!("invalid so_keepalive value: \"{text}\""))),
        },
        _ => return None,
    }
    Some(Ok(()))
}

fn keepalive(text: &str) -> Option<TcpKeepalive> {
    match text {
        "on" => return Some(TcpKeepalive::On { idle_s: None, interval_s: None, probes: None }),
        "off" => return Some(TcpKeepalive::Off),
        _ => {}
    }
    let mut fields = text.splitn(3, ':').map(|field| Some(field).filter(|field| !field.is_empty()));
    let seconds = |field: Option<&str>| -> Option<Option<u32>> {
        let Some(field) = field else { return Some(None) };
        let time = value::time(field, Resolution::Seconds)?;
        Some(Some(u32::try_from(time.as_secs()).ok()?))
    };
    let idle_s = seconds(fields.next().flatten())?;
    let interval_s = seconds(fields.next().flatten())?;
    let probes = match fields.next().flatten() {
        Some(field) => Some(u32::try_from(value::number(field)?).ok()?),
        None => None,
    };
    let any = [idle_s, interval_s, probes].into_iter().flatten().any(|number| number > 0);
    any.then_some(TcpKeepalive::On { idle_s, interval_s, probes })
}

/// Reads `server_name`.
pub(crate) fn server_name(reader: &mut Reader<'_>, directive: &Directive) {
    for word in &directive.args {
        if let Some(name) = name(reader, directive, word) {
            reader.frame.server.names.push((name, word.span));
        }
    }
}

fn name(reader: &mut Reader<'_>, directive: &Directive, word: &Word) -> Option<ServerName> {
    let text = word.text.as_str();
    if let Some(pattern) = text.strip_prefix('~') {
        if pattern.is_empty() {
            let nginx = "empty regex in server name \"~\"".to_owned();
            reader.invalid(directive, word, nginx, "a regular expression after `~`");
            return None;
        }
        // Hosts are in lower case, so an expression with upper-case letters must match without regard to case.
        let ignore_case = pattern.contains(|c: char| c.is_ascii_uppercase());
        return reader.pattern(pattern, word.span, ignore_case).map(ServerName::Regex);
    }
    if text.contains('/') {
        reader.diagnostics.push(
            Diagnostic::warning("nginx::suspicious-name", format!("server name `{text}` holds a `/`"))
                .at(word.span, "no request's host does")
                .help("a server's name is a host, without scheme and path")
                .nginx(format!("server name \"{text}\" has suspicious symbols")),
        );
    }
    if text.eq_ignore_ascii_case("$hostname") {
        return Some(ServerName::Exact(hostname()));
    }
    let lower = text.to_ascii_lowercase();
    let stars = lower.matches('*').count();
    match lower.as_str() {
        name if stars == 0 && name.len() > 1 && name.starts_with('.') => Some(ServerName::Dot(lower)),
        name if stars == 0 && !name.starts_with('.') => Some(ServerName::Exact(lower)),
        name if stars == 1 && name.len() > 2 && name.starts_with("*.") => {
            Some(ServerName::WildcardHead(lower))
        }
        name if stars == 1 && name.len() > 2 && name.ends_with(".*") => Some(ServerName::WildcardTail(lower)),
        _ if lower.starts_with('.') || lower.starts_with('*') && stars == 1 => {
            let nginx = format!("server name \"{text}\" is invalid");
            reader.invalid(directive, word, nginx, "a name, `*.name`, `name.*` or `.name`");
            None
        }
        _ => {
            reader.diagnostics.push(
                Diagnostic::warning(
                    "nginx::suspicious-name",
                    format!("server name `{text}` holds a stray `*`"),
                )
                .at(word.span, "matches no request: a wildcard is the first or the last part of a name")
                .help("use a regular expression: `~^...$`"),
            );
            Some(ServerName::Exact(lower))
        }
    }
}

fn hostname() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().to_ascii_lowercase()
}
