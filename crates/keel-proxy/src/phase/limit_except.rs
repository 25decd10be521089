//! `limit_except`: what holds in a location for other methods than some.

use crate::{job::Job, snapshot::Excepted};

/// Takes the request to the block of its location that holds for its method, where there is one.
pub(super) fn run(job: &mut Job<'_>) {
    if let Some(excepted) = &job.place().limit_except
        && !allows(excepted, method(job))
    {
        job.ex.routed.place = Some(excepted.place);
    }
}

/// The request's method, unless a redirect made it a GET.
fn method<'a>(job: &'a Job<'_>) -> &'a [u8] {
    if job.ex.routed.as_get { b"GET" } else { job.ex.received.head.method.of(&job.ex.received.input) }
}

fn allows(excepted: &Excepted, method: &[u8]) -> bool {
    let is_named = |name: &[u8]| excepted.methods.iter().any(|method| method.as_bytes() == name);
    is_named(method) || method == b"HEAD" && is_named(b"GET")
}

#[cfg(test)]
mod tests {
    use keel_model::{AccessOutcome, AccessRule, Clients, LimitExcept, Location, Return};

    use crate::rig::{Rig, location};

    /// A location with a block for what isn't GET, in which nobody may come in.
    fn guarded(path: &str) -> Location {
        let mut location = location(path);
        let mut scope = location.scope.clone();
        scope.access.rules = vec![AccessRule { clients: Clients::All, outcome: AccessOutcome::Deny }];
        let methods = vec!["GET".into(), "PUT".into()];
        location.scope.core.limit_except = Some(Box::new(LimitExcept { methods, scope }));
        location
    }

    #[test]
    fn other_methods_get_the_blocks_settings_and_none_of_the_locations_rewrites() {
        let rig = Rig::new(|plan| {
            let mut returning = guarded("/return");
            returning.rewrite = Return { status: 204, text: None }.into();
            plan.servers[0].locations.extend([guarded("/"), returning]);
        });
        let check = |method: &str, uri: &str, expect: u16| {
            let got =
                rig.request(&format!("{method} {uri} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"));
            assert!(got.starts_with(&format!("HTTP/1.1 {expect} ")), "{method} {uri}: {got}");
        };
        // What may pass finds no file, or may not do that to files.
        check("GET", "/", 404);
        check("HEAD", "/", 404);
        check("PUT", "/", 405);
        check("POST", "/", 403);
        check("DELETE", "/", 403);
        check("ODD", "/", 403);
        check("GET", "/return", 204);
        check("POST", "/return", 403);
    }
}
