//! The access phase: `allow` and `deny`, `auth_request`, and `satisfy`, which says whether one of them is enough.

use std::net::IpAddr;

use keel_model::{AccessOutcome, AccessRule, Clients};

use super::auth_request;
use crate::{
    answer::Special,
    exchange::Remote,
    job::{Flow, Job},
    subrequest::Subrequest,
};

/// What one of them says.
pub(super) enum Access {
    /// Nothing.
    Declined,
    Allowed,
    Denied(Special),
    /// It depends on the answer to this.
    Ask(Subrequest),
}

/// All of them, in nginx's order.
const CHECKS: [fn(&mut Job<'_>) -> Access; 2] = [by_address, auth_request::check];

/// Decides whether the request may pass. A subrequest always may.
pub(super) fn run(job: &mut Job<'_>) -> Flow {
    let scope = &job.place().scope;
    let is_open = scope.access.rules.is_empty() && scope.auth_request.path.is_none();
    if is_open || job.ex.routed.depth > 0 {
        return Flow::Next;
    }
    let is_one_enough = scope.core.satisfy_any;
    let mut denied: Option<Special> = None;
    for check in CHECKS {
        match check(job) {
            Access::Declined => {}
            Access::Allowed if is_one_enough => return Flow::Next,
            Access::Allowed => {}
            Access::Ask(subrequest) => return Flow::Subrequest(subrequest),
            Access::Denied(special) if is_one_enough && matches!(special.status, 401 | 403) => {
                // That the client may yet say who it is counts more than that it may not come in.
                if denied.as_ref().is_none_or(|denied| denied.status != 401) {
                    denied = Some(special);
                }
            }
            Access::Denied(special) => return deny(job, special),
        }
    }
    denied.map_or(Flow::Next, |special| deny(job, special))
}

fn deny(job: &Job<'_>, special: Special) -> Flow {
    if special.status == 403 {
        job.client.log_error(job.worker, job.ex, "access forbidden by rule");
    }
    Flow::Status(special)
}

/// Lets the first rule of `allow` and `deny` that matches decide.
fn by_address(job: &mut Job<'_>) -> Access {
    match outcome(&job.place().scope.access.rules, job.client.remote_of(job.ex)) {
        None => Access::Declined,
        Some(AccessOutcome::Allow) => Access::Allowed,
        Some(AccessOutcome::Deny) => Access::Denied(403.into()),
    }
}

fn outcome(rules: &[AccessRule], client: Remote) -> Option<AccessOutcome> {
    rules.iter().find(|rule| matches(rule.clients, client)).map(|rule| rule.outcome)
}

/// Says whether a client is one of these.
pub(super) fn matches(clients: Clients, client: Remote) -> bool {
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
        let rule = |clients, outcome| AccessRule { clients, outcome };
        let one = Clients::Network { address: "127.0.0.1".parse().unwrap(), prefix: 32 };
        let rules = [rule(one, AccessOutcome::Allow), rule(Clients::All, AccessOutcome::Deny)];
        let of = |client: &str| outcome(&rules, Remote::Tcp(client.parse().unwrap()));
        assert_eq!(of("127.0.0.1:5"), Some(AccessOutcome::Allow));
        assert_eq!(of("[::ffff:127.0.0.1]:5"), Some(AccessOutcome::Allow));
        assert_eq!(of("127.0.0.2:5"), Some(AccessOutcome::Deny));
        assert_eq!(outcome(&rules, Remote::Unix), Some(AccessOutcome::Deny));
        assert_eq!(outcome(&[], Remote::Unix), None);
    }
}
