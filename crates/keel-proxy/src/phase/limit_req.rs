//! `limit_req`: how many requests may come in a time.

use std::{fmt, time::Duration};

use keel_limit::{Limit, Try, wait_ms};
use keel_model::LogLevel;
use smallvec::SmallVec;

use super::pause::pause;
use crate::{
    exchange::LimitReqStatus,
    job::{Flow, Job},
    limits::{Held, TriedAt},
    snapshot::RequestLimit,
};

/// The longest key, as in nginx.
const KEY_BYTES_MAX: usize = 65_535;

/// What the limits say of a request.
enum Ruling<'a> {
    /// None of them counts it.
    Uncounted,
    Passed,
    Delayed {
        wait: Duration,
        excess: u64,
        by: &'a RequestLimit,
    },
    Refused {
        /// `None` where there was no memory for its key.
        excess: Option<u64>,
        by: &'a RequestLimit,
    },
}

/// Lets the request pass, wait or end. Once it has been counted, redirects count it no more.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    if job.ex.routed.limit_req.is_some() {
        return Flow::Next;
    }
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let Some(limits) = &place.limits else { return Flow::Next };
    let scope = &place.scope.limit_req;
    let dry = if scope.dry_run { ", dry run" } else { "" };
    let (status, flow) = match rule(job, &limits.requests) {
        Ruling::Uncounted => return Flow::Next,
        Ruling::Passed => (LimitReqStatus::Passed, Flow::Next),
        Ruling::Refused { excess, by } => {
            match excess.map(Thousandths) {
                Some(excess) => {
                    let text = format!("limiting requests{dry}, excess: {excess} by zone \"{}\"", by.name);
                    job.client.log(job.worker, job.ex, scope.log_level, &text);
                }
                None => {
                    let text = format!("could not allocate node in limit_req zone \"{}\"", by.name);
                    job.client.log(job.worker, job.ex, LogLevel::Alert, &text);
                }
            }
            match scope.dry_run {
                true => (LimitReqStatus::RejectedDryRun, Flow::Next),
                false => (LimitReqStatus::Rejected, Flow::status(scope.status)),
            }
        }
        Ruling::Delayed { wait, excess, by } => {
            let excess = Thousandths(excess);
            let text = format!("delaying request{dry}, excess: {excess}, by zone \"{}\"", by.name);
            job.client.log(job.worker, job.ex, below(scope.log_level), &text);
            if scope.dry_run {
                (LimitReqStatus::DelayedDryRun, Flow::Next)
            } else {
                job.ex.routed.limit_req = Some(LimitReqStatus::Delayed);
                return match pause(job, wait).await {
                    Ok(()) => Flow::Next,
                    Err(flow) => flow,
                };
            }
        }
    };
    job.ex.routed.limit_req = Some(status);
    flow
}

/// Tries the request at each limit, and counts it at all of them if none refuses it.
fn rule<'a>(job: &Job<'_>, limits: &'a [RequestLimit]) -> Ruling<'a> {
    let now = job.worker.clock.now();
    let mut held = SmallVec::<[(&RequestLimit, Held<'_>); 2]>::new();
    let mut key = Vec::new();
    let mut last = None;
    for (at, by) in limits.iter().enumerate() {
        key.clear();
        job.lookup().append_template(&by.key, &mut key);
        if key.is_empty() {
            continue;
        }
        if key.len() > KEY_BYTES_MAX {
            let text = format!("a key of the zone \"{}\" is more than {KEY_BYTES_MAX} bytes", by.name);
            job.client.log_error(job.worker, job.ex, &text);
            continue;
        }
        let how = if at + 1 == limits.len() { Try::Count } else { Try::Pin };
        let limit = Limit { rate: by.rate, burst: by.burst };
        match by.zone.try_one(&key, limit, how, now) {
            TriedAt::Held(tried) => held.push((by, tried)),
            TriedAt::Counted(excess) => last = Some((by, excess)),
            TriedAt::Refused(excess) => return Ruling::Refused { excess: Some(excess), by },
            TriedAt::Full => return Ruling::Refused { excess: None, by },
        }
    }
    if last.is_none() && held.is_empty() {
        return Ruling::Uncounted;
    }
    let counted = held.into_iter().rev().map(|(by, tried)| (by, tried.count(by.rate, now)));
    let mut longest: Option<(u64, u64, &RequestLimit)> = None;
    for (by, excess) in last.into_iter().chain(counted) {
        let wait = wait_ms(excess, by.delay, by.rate);
        if wait > longest.map_or(0, |(wait, ..)| wait) {
            longest = Some((wait, excess, by));
        }
    }
    match longest {
        None => Ruling::Passed,
        Some((wait, excess, by)) => Ruling::Delayed { wait: Duration::from_millis(wait), excess, by },
    }
}

/// The level below; delays are logged at it.
fn below(level: LogLevel) -> LogLevel {
    match level {
        LogLevel::Error => LogLevel::Warn,
        LogLevel::Warn => LogLevel::Notice,
        _ => LogLevel::Info,
    }
}

/// Thousandths of requests, as requests.
struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Gives the value of `$limit_req_status`.
pub(crate) fn status_text(status: LimitReqStatus) -> &'static [u8] {
    match status {
        LimitReqStatus::Passed => b"PASSED",
        LimitReqStatus::Delayed => b"DELAYED",
        LimitReqStatus::Rejected => b"REJECTED",
        LimitReqStatus::DelayedDryRun => b"DELAYED_DRY_RUN",
        LimitReqStatus::RejectedDryRun => b"REJECTED_DRY_RUN",
    }
}

#[cfg(test)]
mod tests {
    use keel_model::{ByteSize, LimitZone, Location, RequestLimit, Template, Variable};

    use crate::rig::{Rig, location};

    fn limit(name: &str, rate: u64, burst: u64, delay: Option<u64>) -> RequestLimit {
        let key = Template::variable(Variable::Arg(name.into()));
        let zone = LimitZone { name: name.into(), size: ByteSize::mib(1), key };
        RequestLimit { zone, rate, burst, delay }
    }

    fn limited(path: &str, limits: Vec<RequestLimit>) -> Location {
        let mut location = location(path);
        location.scope.limit_req.limits = limits;
        location
    }

    /// What may pass finds no file.
    fn statuses(rig: &Rig, uris: &[&str]) -> Vec<u16> {
        let ask = |uri: &&str| {
            let got = rig.request(&format!("GET {uri} HTTP/1.1\r\nHost: h\r\n\r\n"));
            got.get(9..12).and_then(|status| status.parse().ok()).unwrap()
        };
        uris.iter().map(ask).collect()
    }

    #[test]
    fn requests_beyond_the_burst_are_refused_by_key() {
        let rig = Rig::new(|plan| {
            let mut a = limited("/a", vec![limit("a", 1, 1, None)]);
            a.scope.limit_req.status = 429;
            let mut dry = limited("/dry", vec![limit("dry", 1, 0, None)]);
            dry.scope.limit_req.dry_run = true;
            plan.servers[0].locations.extend([a, dry]);
        });
        let got = statuses(&rig, &["/a?a=1", "/a?a=1", "/a?a=1", "/a?a=2", "/a", "/a", "/a"]);
        assert_eq!(got, [404, 404, 429, 404, 404, 404, 404]);
        assert_eq!(statuses(&rig, &["/dry?dry=1", "/dry?dry=1"]), [404, 404]);
    }

    #[test]
    fn a_request_that_one_limit_refuses_is_counted_at_none() {
        let rig = Rig::new(|plan| {
            let limits = vec![limit("wide", 1, 3, None), limit("narrow", 1, 0, None)];
            plan.servers[0].locations.push(limited("/", limits));
        });
        let refused = "/?wide=1&narrow=1";
        let free = "/?wide=1&narrow=";
        let got = statuses(&rig, &[refused, refused, refused, refused, free, free, free, free]);
        // The first took one of the wide limit's four; the refused took none.
        assert_eq!(got, [404, 503, 503, 503, 404, 404, 404, 503]);
    }
}
