//! ngx_http_realip_module: whom to believe about a client's address.

use keel_diag::Diagnostic;
use keel_model::{Clients, RealIpHeader};

use super::http_access::network;
use crate::{
    arguments::flag,
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "set_real_ip_from",
        syntax: "address | CIDR | unix: | host",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "Believes these clients when they say for which address they ask: it is `$remote_addr` then, decides in \
              `allow`, `deny` and `ip_hash`, and stands in logs. A host's addresses are looked up when the file is \
              read. A block with any of these inherits none.",
        set: Setter::Simple(from),
    },
    Row {
        name: "real_ip_header",
        syntax: "field | X-Real-IP | X-Forwarded-For | proxy_protocol",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("X-Real-IP"),
        doc: "Where they say it: in the last address of all `X-Forwarded-For` fields, in the first field of another \
              name, or in the header of the PROXY protocol, which has the client's port, too.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.real_ip.header, |_, directive| header(directive))
        }),
    },
    Row {
        name: "real_ip_recursive",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Takes the last address in the field that isn't one of those believed, instead of the last.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.real_ip.recursive, flag)
        }),
    },
];

fn from(reader: &mut Reader<'_>, directive: &Directive) {
    let Some(word) = directive.args.first() else { return };
    let found = match word.text.as_str() {
        "unix:" => vec![Clients::Unix],
        _ => match network(reader, word) {
            Some(network) => vec![network],
            None => host(reader, directive),
        },
    };
    reader.frame.scope.real_ip.from.get_or_insert_default().extend(found);
}

/// Looks a host's addresses up.
fn host(reader: &mut Reader<'_>, directive: &Directive) -> Vec<Clients> {
    let Some(word) = directive.args.first() else { return Vec::new() };
    let name = word.text.as_str();
    match reader.files.resolve(name) {
        Ok(mut found) => {
            found.sort();
            found.dedup();
            let alone = |address: std::net::IpAddr| Clients::Network {
                address,
                prefix: if address.is_ipv4() { 32 } else { 128 },
            };
            found.into_iter().map(alone).collect()
        }
        Err(error) => {
            reader.diagnostics.push(
                Diagnostic::error("nginx::host-not-found", format!("the host `{name}` is not found"))
                    .at(word.span, error.to_string())
                    .help("give an address, a network such as `10.0.0.0/8`, or `unix:`")
                    .nginx(format!("host not found in set_real_ip_from \"{name}\"")),
            );
            Vec::new()
        }
    }
}

fn header(directive: &Directive) -> Option<RealIpHeader> {
    let name = directive.args.first()?.text.as_str();
    Some(match name {
        "proxy_protocol" => RealIpHeader::ProxyProtocol,
        _ if name.eq_ignore_ascii_case("x-forwarded-for") => RealIpHeader::ForwardedFor,
        _ => RealIpHeader::Field(name.to_ascii_lowercase()),
    })
}
