//! `ports` and `expose`, short and long.
//!
//! `[HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]`; ranges of equal length are spread into single ports, and a range that is
//! published for one target stays one: a free port of it is chosen.

use std::net::IpAddr;

use keel_diag::Span;
use keel_model::{Port, Protocol};

use crate::{
    Spanned,
    decode::Decoder,
    schema::{self, Care},
    yaml::{Node, Value},
};

/// Ports that one entry may spread into.
const RANGE_MAX: usize = 1024;

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// Where it stands.
    pub span: Span,
    /// The host's address; all of them where none is given.
    pub host_ip: Option<IpAddr>,
    /// The host's port, or the range in which one is chosen; any free one where none is given.
    pub published: Option<PortRange>,
    /// The port in the container.
    pub target: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest; the same for a single port.
    pub last: u16,
}

/// Reads `ports`.
pub(crate) fn ports(decoder: &mut Decoder<'_>, node: &Node) -> Vec<PortMapping> {
    let mut result = Vec::new();
    for item in decoder.items(node) {
        match &item.value {
            Value::Mapping(_) => long(decoder, item, &mut result),
            _ => {
                let Some(text) = decoder.text(item) else { continue };
                match short(&text.value, text.span) {
                    Ok(mappings) => result.extend(mappings),
                    Err(message) => decoder.invalid(
                        text.span,
                        message,
                        "write [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], such as \"8080:80\"",
                    ),
                }
            }
        }
    }
    result
}

/// Reads `expose`.
pub(crate) fn expose(decoder: &mut Decoder<'_>, node: &Node) -> Vec<Spanned<Port>> {
    let mut result = Vec::new();
    for text in decoder.names(node) {
        match exposed(&text.value) {
            Ok(ports) => result.extend(ports.into_iter().map(|port| Spanned::new(port, text.span))),
            Err(message) => decoder.invalid(text.span, message, "write PORT[/PROTOCOL], such as \"5000\""),
        }
    }
    result
}

/// Reads `5000`, `5000-5005/udp`: also what EXPOSE takes.
pub(crate) fn exposed(text: &str) -> Result<Vec<Port>, String> {
    let (text, protocol) = protocol(text)?;
    let range = range(text)?;
    Ok((range.first..=range.last).take(RANGE_MAX).map(|number| Port { number, protocol }).collect())
}

fn short(text: &str, span: Span) -> Result<Vec<PortMapping>, String> {
    let (rest, protocol) = protocol(text)?;
    let (host, target) = match rest.rsplit_once(':') {
        Some((host, target)) => (Some(host), target),
        None => (None, rest),
    };
    let (host_ip, published) = match host.and_then(|host| host.rsplit_once(':')) {
        Some((ip, published)) => (Some(ip), Some(published)),
        None => (None, host),
    };
    let host_ip = host_ip.filter(|ip| !ip.is_empty()).map(address).transpose()?;
    let published = published.filter(|text| !text.is_empty()).map(published_range).transpose()?;
    let target = range(target)?;
    spread(target, published)?
        .into_iter()
        .map(|(target, published)| Ok(PortMapping { span, host_ip, published, target, protocol }))
        .collect()
}

fn spread(target: PortRange, published: Option<PortRange>) -> Result<Vec<(u16, Option<PortRange>)>, String> {
    let count = usize::from(target.last - target.first) + 1;
    if count > RANGE_MAX {
        return Err(format!("a range of more than {RANGE_MAX} ports"));
    }
    if count == 1 {
        return Ok(vec![(target.first, published)]);
    }
    let single = |port| Some(PortRange { first: port, last: port });
    match published {
        None => Ok((target.first..=target.last).map(|port| (port, None)).collect()),
        Some(range) if usize::from(range.last - range.first) + 1 == count => Ok((target.first..=target.last)
            .zip(range.first..=range.last)
            .map(|(target, published)| (target, single(published)))
            .collect()),
        Some(_) => Err("the two ranges have different lengths".to_owned()),
    }
}

fn long(decoder: &mut Decoder<'_>, node: &Node, result: &mut Vec<PortMapping>) {
    let Some(entries) = node.as_mapping() else { return };
    schema::check(entries, schema::PORT, "a port", Care::Effects, decoder.report);
    let Some(target) = node.get("target") else {
        return decoder.invalid(node.span, "a port needs `target`, the port in the container", "");
    };
    let mut text = |name: &str| node.get(name).and_then(|node| decoder.text(node));
    let (host_ip, published, protocol) = (text("host_ip"), text("published"), text("protocol"));
    let Some(target) = decoder.number::<u16>(target) else { return };
    let mut checked = |outcome: Result<(), (Span, String)>| {
        if let Err((span, message)) = outcome {
            decoder.invalid(span, message, "");
        }
    };
    let mut mapping = PortMapping {
        span: node.span,
        host_ip: None,
        published: None,
        target: target.value,
        protocol: Protocol::Tcp,
    };
    if target.value == 0 {
        checked(Err((target.span, "port 0 can't be published".to_owned())));
    }
    if let Some(text) = host_ip.filter(|text| !text.value.is_empty()) {
        let outcome = address(&text.value).map(|ip| mapping.host_ip = Some(ip));
        checked(outcome.map_err(|message| (text.span, message)));
    }
    if let Some(text) = published.filter(|text| !text.value.is_empty()) {
        let outcome = published_range(&text.value).map(|range| mapping.published = Some(range));
        checked(outcome.map_err(|message| (text.span, message)));
    }
    if let Some(text) = protocol {
        let outcome = named_protocol(&text.value).map(|protocol| mapping.protocol = protocol);
        checked(outcome.map_err(|message| (text.span, message)));
    }
    result.push(mapping);
}

fn protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.trim().split_once('/') {
        Some((rest, name)) => Ok((rest, named_protocol(name)?)),
        None => Ok((text.trim(), Protocol::Tcp)),
    }
}

fn named_protocol(name: &str) -> Result<Protocol, String> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!("`{name}` is not a protocol that can be published; tcp and udp are")),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

fn range(text: &str) -> Result<PortRange, String> {
    let range = published_range(text)?;
    if range.first == 0 { Err("port 0 is not a port in a container".to_owned()) } else { Ok(range) }
}

fn published_range(text: &str) -> Result<PortRange, String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is not a port (0 to 65535)"));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        return Err(format!("the range {text} runs backwards"));
    }
    Ok(PortRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let span = Span::new(keel_diag::Sources::default().add("f", ""), 0..0);
        let shown = match short(text, span) {
            Ok(mappings) => mappings.iter().map(show).collect::<Vec<_>>().join(", "),
            Err(message) => format!("error: {message}"),
        };
        assert_eq!(shown, expect);
    }

    fn show(mapping: &PortMapping) -> String {
        let ip = mapping.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
        let published = match mapping.published {
            None => "any".to_owned(),
            Some(range) if range.first == range.last => range.first.to_string(),
            Some(range) => format!("{}-{}", range.first, range.last),
        };
        format!("{ip} {published} -> {} {:?}", mapping.target, mapping.protocol)
    }

    #[test]
    fn reads_the_short_form() {
        check("80", "* any -> 80 Tcp");
        check("8080:80", "* 8080 -> 80 Tcp");
        check("127.0.0.1:8080:80/tcp", "127.0.0.1 8080 -> 80 Tcp");
        check("127.0.0.1::80", "127.0.0.1 any -> 80 Tcp");
        check("[::1]:8080:80", "::1 8080 -> 80 Tcp");
        check("::1:8080:80", "::1 8080 -> 80 Tcp");
        check("53:53/udp", "* 53 -> 53 Udp");
        check("8000-8001:5000-5001", "* 8000 -> 5000 Tcp, * 8001 -> 5001 Tcp");
        check("8000-8010:80", "* 8000-8010 -> 80 Tcp");
        check("3000-3001", "* any -> 3000 Tcp, * any -> 3001 Tcp");
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        check("http", "error: `http` is not a port (0 to 65535)");
        check("", "error: `` is not a port (0 to 65535)");
        check("8080:0", "error: port 0 is not a port in a container");
        check("8080:70000", "error: `70000` is not a port (0 to 65535)");
        check("localhost:8080:80", "error: `localhost` is not an IP address");
        check("90-80:1-2", "error: the range 90-80 runs backwards");
        check("1-3:1-2", "error: the two ranges have different lengths");
        check("80/sctp", "error: `sctp` is not a protocol that can be published; tcp and udp are");
        check("1-9999", "error: a range of more than 1024 ports");
    }
}
