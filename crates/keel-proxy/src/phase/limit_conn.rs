//! `limit_conn`: how many requests there may be at once.

use keel_limit::Counted;

use crate::{
    exchange::LimitConnStatus,
    job::{Flow, Job},
};

/// The longest key, as in nginx.
const KEY_BYTES_MAX: usize = 255;

/// Counts the request until it has been answered, or refuses it. Once it has been counted, redirects count it no more.
pub(super) fn run(job: &mut Job<'_>) -> Flow {
    if job.ex.routed.limit_conn.is_some() {
        return Flow::Next;
    }
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let Some(limits) = &place.limits else { return Flow::Next };
    let scope = &place.scope.limit_conn;
    let mut key = Vec::new();
    for limit in &limits.connections {
        key.clear();
        job.lookup().append_template(&limit.key, &mut key);
        if key.is_empty() {
            continue;
        }
        if key.len() > KEY_BYTES_MAX {
            let text = format!("a key of the zone \"{}\" is more than {KEY_BYTES_MAX} bytes", limit.name);
            job.client.log_error(job.worker, job.ex, &text);
            continue;
        }
        job.ex.routed.limit_conn = Some(LimitConnStatus::Passed);
        let refused = match limit.zone.enter(&key, limit.max) {
            Ok(entered) => {
                job.ex.routed.entered.push(entered);
                continue;
            }
            Err(refused) => refused,
        };
        if refused == Counted::Refused {
            let dry = if scope.dry_run { ", dry run," } else { "" };
            let text = format!("limiting connections{dry} by zone \"{}\"", limit.name);
            job.client.log(job.worker, job.ex, scope.log_level, &text);
        }
        job.ex.routed.entered.clear();
        if scope.dry_run {
            job.ex.routed.limit_conn = Some(LimitConnStatus::RejectedDryRun);
            return Flow::Next;
        }
        job.ex.routed.limit_conn = Some(LimitConnStatus::Rejected);
        return Flow::status(scope.status);
    }
    Flow::Next
}

/// Gives the value of `$limit_conn_status`.
pub(crate) fn status_text(status: LimitConnStatus) -> &'static [u8] {
    match status {
        LimitConnStatus::Passed => b"PASSED",
        LimitConnStatus::Rejected => b"REJECTED",
        LimitConnStatus::RejectedDryRun => b"REJECTED_DRY_RUN",
    }
}

#[cfg(test)]
mod tests {
    use keel_model::{ByteSize, ConnectionLimit, LimitZone, Template, Variable};

    use super::*;
    use crate::rig::{Rig, location};

    #[test]
    fn so_many_requests_of_a_key_are_answered_at_once() {
        let rig = Rig::new(|plan| {
            let limit = |name: &str, max| {
                let key = Template::variable(Variable::Arg(name.into()));
                ConnectionLimit { zone: LimitZone { name: name.into(), size: ByteSize::mib(1), key }, max }
            };
            let mut location = location("/");
            location.scope.limit_conn.limits = vec![limit("a", 2), limit("b", 1)];
            plan.servers[0].locations.push(location);
        });
        let get = |uri: &str| format!("GET {uri} HTTP/1.1\r\nHost: h\r\n\r\n");
        rig.enter(async || {
            let ((), _) = rig
                .with_job(&get("/?a=1&b=1"), async |job| {
                    job.ex.routed.place = None;
                    crate::phase::run(job).await;
                    assert_eq!(job.ex.routed.entered.len(), 2);
                    assert_eq!(job.ex.routed.limit_conn, Some(LimitConnStatus::Passed));
                    let other = async |uri: &str| rig.answer(&get(uri)).await.starts_with("HTTP/1.1 503 ");
                    assert!(other("/?a=1&b=1").await, "another of b");
                    assert!(other("/?a=2&b=1").await, "another of b");
                    assert!(!other("/?a=1&b=2").await);
                    assert!(!other("/").await);
                    // What the second limit refused is no longer counted at the first.
                    assert!(!other("/?a=2").await);
                })
                .await;
            assert!(!rig.answer(&get("/?a=1&b=1")).await.starts_with("HTTP/1.1 503 "));
        });
    }
}
