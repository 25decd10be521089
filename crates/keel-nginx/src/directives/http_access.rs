//! ngx_http_access_module: who may come in, by address.

use std::net::IpAddr;

use keel_diag::Diagnostic;
use keel_model::{AccessOutcome, AccessRule, Clients};

use crate::{
    ast::{Directive, Word},
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "allow",
        syntax: "address | CIDR | unix: | all",
        contexts: Contexts::HTTP_ALL.or(Contexts::LIMIT_EXCEPT),
        arity: Arity::ONE,
        default: None,
        doc: "Lets these clients in. `allow` and `deny` are tried in the file's order and the first that matches \
              decides; a block with any of them inherits none.",
        set: Setter::Simple(|reader, directive| rule(reader, directive, AccessOutcome::Allow)),
    },
    Row {
        name: "deny",
        syntax: "address | CIDR | unix: | all",
        contexts: Contexts::HTTP_ALL.or(Contexts::LIMIT_EXCEPT),
        arity: Arity::ONE,
        default: None,
        doc: "Answers these clients with 403.",
        set: Setter::Simple(|reader, directive| rule(reader, directive, AccessOutcome::Deny)),
    },
];

fn rule(reader: &mut Reader<'_>, directive: &Directive, outcome: AccessOutcome) {
    let Some(word) = directive.args.first() else {
        return;
    };
    let clients = match word.text.as_str() {
        "all" => Some(Clients::All),
        "unix:" => Some(Clients::Unix),
        _ => network(reader, word),
    };
    match clients {
        Some(clients) => {
            reader.frame.scope.access.rules.get_or_insert_default().push(AccessRule { clients, outcome })
        }
        None => {
            let nginx = format!("invalid parameter \"{}\"", word.text);
            reader.invalid(
                directive,
                word,
                nginx,
                "an address, a network such as `10.0.0.0/8`, `unix:` or `all`",
            );
        }
    }
}

/// Reads an address with or without a prefix length; warns of bits outside it. `None` where it is neither.
pub(super) fn network(reader: &mut Reader<'_>, word: &Word) -> Option<Clients> {
    let text = word.text.as_str();
    let (address, prefix, exact) = parse_network(text)?;
    if !exact {
        reader.diagnostics.push(
            Diagnostic::warning("nginx::meaningless-bits", "address bits outside the network's prefix")
                .at(word.span, format!("means {address}/{prefix}"))
                .nginx(format!("low address bits of {text} are meaningless")),
        );
    }
    Some(Clients::Network { address, prefix })
}

/// Reads an address with or without a prefix length; the last tells whether host bits were zero.
fn parse_network(text: &str) -> Option<(IpAddr, u8, bool)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(prefix) => u8::try_from(value::number(prefix)?).ok().filter(|prefix| *prefix <= bits)?,
    };
    let masked = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    Some((masked, prefix, masked == address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let check = |text: &str, expect: Option<(&str, u8, bool)>| {
            let expect =
                expect.map(|(address, prefix, exact)| (address.parse().expect("address"), prefix, exact));
            assert_eq!(parse_network(text), expect, "for {text}");
        };
        check("10.0.0.0/8", Some(("10.0.0.0", 8, true)));
        check("10.1.2.3/8", Some(("10.0.0.0", 8, false)));
        check("127.0.0.1", Some(("127.0.0.1", 32, true)));
        check("0.0.0.0/0", Some(("0.0.0.0", 0, true)));
        check("2001:db8::/32", Some(("2001:db8::", 32, true)));
        check("::1", Some(("::1", 128, true)));
        check("10.0.0.0/33", None);
        check("localhost", None);
    }
}
