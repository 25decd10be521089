//! Addresses as nginx writes them: `host`, `host:port`, `[::1]:port`, `unix:path`, with a URI behind or not.
//!
//! Nothing is resolved here. The texts of errors are nginx's (`ngx_parse_url`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::PathBuf,
};

use crate::value;

/// A host, not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name.
    Name(String),
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WrittenAddress {
    /// A host and perhaps a port.
    Tcp {
        /// The host.
        host: Host,
        /// The host as written, brackets included.
        text: String,
        /// The port, if one is written.
        port: Option<u16>,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenPlace {
    /// A host, `None` for all IPv4 addresses, and a range of ports.
    Tcp(Option<Host>, RangeInclusive<u16>),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Reads the address of a peer with the URI behind it, which is empty if there is none.
pub(crate) fn peer(text: &str) -> Result<(WrittenAddress, &str), &'static str> {
    if let Some(path) = strip_unix(text) {
        let (path, uri) = path.split_once(':').map_or((path, ""), |(path, uri)| (path, uri));
        return Ok((WrittenAddress::Unix(unix_path(path)?), uri));
    }
    let bracket_end = if text.starts_with('[') { text.find(']').ok_or("invalid host")? } else { 0 };
    let after = text.get(bracket_end..).unwrap_or_default();
    let uri_at = after.find(['/', '?']).map_or(text.len(), |at| bracket_end + at);
    let (authority, uri) = text.split_at(uri_at);
    let (host, port) = split_port(authority)?;
    let port = port.map(port_number).transpose()?;
    if host.is_empty() {
        return Err("no host");
    }
    Ok((WrittenAddress::Tcp { host: parse_host(host)?, text: host.to_owned(), port }, uri))
}

/// Reads the address of a `listen` directive.
pub(crate) fn listen(text: &str) -> Result<ListenPlace, &'static str> {
    if let Some(path) = strip_unix(text) {
        return Ok(ListenPlace::Unix(unix_path(path)?));
    }
    if text.contains('/') {
        return Err("invalid host");
    }
    let (host, ports) = split_port(text)?;
    if let Some(ports) = ports {
        let ports = port_range(ports)?;
        return match host {
            "" => Err("no host"),
            "*" => Ok(ListenPlace::Tcp(None, ports)),
            host => Ok(ListenPlace::Tcp(Some(parse_host(host)?), ports)),
        };
    }
    let looks_like_port = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match host {
        "" => Err("no host"),
        "*" => Ok(ListenPlace::Tcp(None, 80..=80)),
        _ if looks_like_port => Ok(ListenPlace::Tcp(None, port_range(host)?)),
        _ => Ok(ListenPlace::Tcp(Some(parse_host(host)?), 80..=80)),
    }
}

fn strip_unix(text: &str) -> Option<&str> {
    text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("unix:")).and_then(|_| text.get(5..))
}

/// The longest path that fits `sockaddr_un`.
const UNIX_PATH_MAX: usize = 107;

fn unix_path(path: &str) -> Result<PathBuf, &'static str> {
    match path.len() {
        0 => Err("no path in the unix domain socket"),
        length if length > UNIX_PATH_MAX => Err("too long path in the unix domain socket"),
        _ => Ok(PathBuf::from(path)),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if !authority.starts_with('[') {
        return Ok(match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        });
    }
    let end = authority.find(']').ok_or("invalid host")? + 1;
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err("invalid host"),
    }
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        return match inner {
            "" => Err("no host"),
            inner => inner
                .parse::<Ipv6Addr>()
                .map(|address| Host::Ip(address.into()))
                .map_err(|_| "invalid IPv6 address"),
        };
    }
    Ok(host
        .parse::<Ipv4Addr>()
        .map_or_else(|_| Host::Name(host.to_owned()), |address| Host::Ip(address.into())))
}

fn port_number(text: &str) -> Result<u16, &'static str> {
    value::number(text)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|&port| port > 0)
        .ok_or("invalid port")
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port_number(first)?, port_number(last)?);
    if first > last { Err("invalid port range") } else { Ok(first..=last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: Host, text: &str, port: Option<u16>) -> WrittenAddress {
        WrittenAddress::Tcp { host, text: text.into(), port }
    }

    #[test]
    fn peers() {
        let check = |text, expect: Result<(WrittenAddress, &str), &'static str>| {
            assert_eq!(peer(text), expect, "for {text:?}")
        };
        let local = Host::Ip(Ipv4Addr::LOCALHOST.into());
        check("127.0.0.1", Ok((tcp(local.clone(), "127.0.0.1", None), "")));
        check("127.0.0.1:8080/a:b", Ok((tcp(local, "127.0.0.1", Some(8080)), "/a:b")));
        check("app?x", Ok((tcp(Host::Name("app".into()), "app", None), "?x")));
        check("[::1]:5/a", Ok((tcp(Host::Ip(Ipv6Addr::LOCALHOST.into()), "[::1]", Some(5)), "/a")));
        check("unix:/a/b.sock", Ok((WrittenAddress::Unix("/a/b.sock".into()), "")));
        check("unix:/a/b.sock:/uri", Ok((WrittenAddress::Unix("/a/b.sock".into()), "/uri")));
        check("app:0", Err("invalid port"));
        check("app:x", Err("invalid port"));
        check(":80", Err("no host"));
        check("[::1", Err("invalid host"));
        check("[x]", Err("invalid IPv6 address"));
        check("unix:", Err("no path in the unix domain socket"));
    }

    #[test]
    fn listens() {
        let check = |text, expect: Result<ListenPlace, &'static str>| {
            assert_eq!(listen(text), expect, "for {text:?}")
        };
        let local = || Some(Host::Ip(Ipv4Addr::LOCALHOST.into()));
        check("80", Ok(ListenPlace::Tcp(None, 80..=80)));
        check("*:80", Ok(ListenPlace::Tcp(None, 80..=80)));
        check("127.0.0.1", Ok(ListenPlace::Tcp(local(), 80..=80)));
        check("127.0.0.1:81-83", Ok(ListenPlace::Tcp(local(), 81..=83)));
        check("8000-8002", Ok(ListenPlace::Tcp(None, 8000..=8002)));
        check("[::]:80", Ok(ListenPlace::Tcp(Some(Host::Ip(Ipv6Addr::UNSPECIFIED.into())), 80..=80)));
        check("localhost", Ok(ListenPlace::Tcp(Some(Host::Name("localhost".into())), 80..=80)));
        check("83-81", Err("invalid port range"));
        check("0", Err("invalid port"));
        check("99999", Err("invalid port"));
        check("a/b", Err("invalid host"));
        check("unix:/x", Ok(ListenPlace::Unix("/x".into())));
    }
}
