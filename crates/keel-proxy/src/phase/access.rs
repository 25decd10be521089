//! The access phase: `allow` and `deny`, `auth_basic`, `auth_request`, and `satisfy`, which says whether one of them is enough.

use std::net::IpAddr;

use keel_model::{AccessOutcome, AccessRule, Clients, LogLevel};

use super::{auth_basic, auth_request, pause};
use crate::{
    answer::Special,
    exchange::Remote,
    job::{Flow, Job},
};

/// What one of them says.
pub(super) enum Access {
    /// Nothing.
    Declined,
    Allowed,
    Denied(Special),
}

/// One of them.
#[derive(Clone, Copy)]
enum Check {
    Address,
    Password,
    Subrequest,
}

/// All of them, in nginx's order.
const CHECKS: [Check; 3] = [Check::Address, Check::Password, Check::Subrequest];

/// Says whether the place has something to say here. Most have not, and are spared the rest. A subrequest always may pass.
pub(super) fn is_set(job: &Job<'_>) -> bool {
    let scope = &job.place().scope;
    let is_open = scope.access.rules.is_empty()
        && scope.auth_basic.realm.is_none()
        && scope.auth_request.path.is_none();
    !is_open && job.ex.routed.depth == 0
}

/// Decides whether the request may pass.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    let is_one_enough = job.place().scope.core.satisfy_any;
    let mut denied: Option<Special> = None;
    for check in CHECKS {
        let access = match check {
            Check::Address => by_address(job),
            Check::Password => auth_basic::check(job).await,
            Check::Subrequest => match auth_request::check(job).await {
                Ok(access) => access,
                Err(flow) => return flow,
            },
        };
        match access {
            Access::Declined => {}
            Access::Allowed if is_one_enough => return Flow::Next,
            Access::Allowed => {}
            Access::Denied(special) if is_one_enough && matches!(special.status, 401 | 403) => {
                // That the client may yet say who it is counts more than that it may not come in.
                if denied.as_ref().is_none_or(|denied| denied.status != 401) {
                    denied = Some(special);
                }
            }
            Access::Denied(special) => {
                if matches!(check, Check::Address) {
                    log_forbidden(job);
                }
                return deny(job, special).await;
            }
        }
    }
    match denied {
        None => Flow::Next,
        Some(special) => {
            if special.status == 403 {
                log_forbidden(job);
            }
            deny(job, special).await
        }
    }
}

fn log_forbidden(job: &Job<'_>) {
    job.client.log_error(job.worker, job.ex, "access forbidden by rule");
}

async fn deny(job: &mut Job<'_>, special: Special) -> Flow {
    let delay = job.place().scope.core.auth_delay;
    if special.status == 401 && !delay.is_zero() {
        job.client.log(job.worker, job.ex, LogLevel::Info, "delaying unauthorized request");
        if let Err(flow) = pause::pause(job, delay).await {
            return flow;
        }
    }
    Flow::Status(Box::new(special))
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

    #[test]
    fn satisfy_says_what_addresses_and_passwords_mean_together() {
        use crate::rig::{Rig, location};
        use keel_model::{AuthUserFile, Template};

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("users"), "a:{PLAIN}b\n").unwrap();
        let user_file =
            |name: &str| AuthUserFile { path: Template::literal(name), folder: folder.path().into() };
        let rig = Rig::new(|plan| {
            for (path, satisfy_any, outcome, file) in [
                ("/open", false, AccessOutcome::Allow, "users"),
                ("/closed", false, AccessOutcome::Deny, "users"),
                ("/either", true, AccessOutcome::Allow, "users"),
                ("/known", true, AccessOutcome::Deny, "users"),
                ("/missing", false, AccessOutcome::Allow, "none"),
                ("/missing-any", true, AccessOutcome::Deny, "none"),
                ("/broken", true, AccessOutcome::Deny, ""),
            ] {
                let mut location = location(path);
                location.scope.access.rules = vec![AccessRule { clients: Clients::Unix, outcome }];
                location.scope.auth_basic.realm = Some(Template::literal("here"));
                location.scope.auth_basic.user_file = Some(user_file(file));
                location.scope.core.satisfy_any = satisfy_any;
                plan.servers[0].locations.push(location);
            }
        });
        // What may pass finds no file.
        let check = |path: &str, nobody: u16, right: u16, wrong: u16| {
            for (credentials, expect) in [
                ("", nobody),
                ("Authorization: Basic YTpi\r\n", right),
                ("Authorization: Basic YTpj\r\n", wrong),
                ("Authorization: Basic Yjpi\r\n", wrong),
            ] {
                let got = rig.request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{credentials}\r\n"));
                assert!(got.starts_with(&format!("HTTP/1.1 {expect} ")), "{path} {credentials:?}: {got}");
                let asks = got.contains("WWW-Authenticate: Basic realm=\"here\"\r\n");
                assert_eq!(asks, expect == 401, "{path} {credentials:?}: {got}");
            }
        };
        check("/open", 401, 404, 401);
        check("/closed", 403, 403, 403);
        check("/either", 404, 404, 404);
        check("/known", 401, 404, 401);
        check("/missing", 401, 403, 403);
        check("/missing-any", 401, 403, 403);
        check("/broken", 401, 500, 500);
    }
}
