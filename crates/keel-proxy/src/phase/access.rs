//! The access phase: `allow` and `deny`.

use std::net::IpAddr;

use keel_model::{AccessRule, Clients, Verdict};

use crate::{
    exchange::Remote,
    job::{Flow, Job},
};

/// Lets the first rule that matches decide; where none does, the request may pass.
pub(super) fn run(job: &mut Job<'_>) -> Flow {
    let place = job.place();
    if place.scope.access.rules.is_empty() || is_allowed(&place.scope.access.rules, job.client.remote) {
        return Flow::Next;
    }
    job.client.log_error(job.worker, job.ex, "access forbidden by rule");
    Flow::Status(403)
}

fn is_allowed(rules: &[AccessRule], client: Remote) -> bool {
    let first = rules.iter().find(|rule| matches(rule.clients, client));
    first.is_none_or(|rule| rule.verdict == Verdict::Allow)
}

fn matches(clients: Clients, client: Remote) -> bool {
    match (clients, client) {
        (Clients::All, _) | (Clients::Unix, Remote::Unix) => true,
        (Clients::Unix, Remote::Tcp(_)) | (Clients::Network { .. }, Remote::Unix) => false,
        (Clients::Network { address, prefix }, Remote::Tcp(client)) => {
            contains(address, prefix, client.ip().to_canonical())
        }
    }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let bits = |octets: &[u8]| octets.iter().fold(0u128, |bits, octet| bits << 8 | u128::from(*octet));
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (bits(&network.octets()), bits(&address.octets()), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => (bits(&network.octets()), bits(&address.octets()), 128),
        _ => return false,
    };
    let ignored = width - u32::from(prefix).min(width);
    ignored >= 128 || (network ^ address) >> ignored == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let check = |network: &str, prefix: u8, address: &str, expect: bool| {
            let got = contains(network.parse().unwrap(), prefix, address.parse().unwrap());
            assert_eq!(got, expect, "{network}/{prefix} {address}");
        };
        check("10.0.0.0", 8, "10.255.0.1", true);
        check("10.0.0.0", 8, "11.0.0.1", false);
        check("0.0.0.0", 0, "11.0.0.1", true);
        check("127.0.0.1", 32, "127.0.0.1", true);
        check("127.0.0.1", 32, "127.0.0.2", false);
        check("::", 0, "::1", true);
        check("2001:db8::", 32, "2001:db8::5", true);
        check("2001:db8::", 32, "127.0.0.1", false);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |clients, verdict| AccessRule { clients, verdict };
        let one = Clients::Network { address: "127.0.0.1".parse().unwrap(), prefix: 32 };
        let rules = [rule(one, Verdict::Allow), rule(Clients::All, Verdict::Deny)];
        assert!(is_allowed(&rules, Remote::Tcp("127.0.0.1:5".parse().unwrap())));
        assert!(is_allowed(&rules, Remote::Tcp("[::ffff:127.0.0.1]:5".parse().unwrap())));
        assert!(!is_allowed(&rules, Remote::Tcp("127.0.0.2:5".parse().unwrap())));
        assert!(!is_allowed(&rules, Remote::Unix));
        assert!(is_allowed(&[], Remote::Unix));
    }
}
