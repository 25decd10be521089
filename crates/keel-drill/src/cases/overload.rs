//! Twice as much is asked as the instances can give.

use std::time::Duration;

use super::{Case, Way};
use crate::{
    Error,
    generator::Pace,
    peer::{Behaviour, Script},
    record::{Outcome, Record},
    results::Finding,
    stage::{Context, Stage},
    system::Setup,
    verdict::{Allowance, Allowed, Reached},
};

pub(super) const CASE: Case = Case {
    name: "overload",
    what: "twice as many requests come as the instances can answer; what is answered stays what they can give",
    allows: "502 or 503 for what is too much",
    fits,
    way: Way::Project { setup, play },
};

/// Requests that an instance works on at one time.
const AT_ONCE: u32 = 2;
/// Requests that it gets at one time at most; what is more is too much.
const CONNECTIONS_MAX: u32 = AT_ONCE * 2;
/// How long each takes.
const TAKES: Duration = Duration::from_millis(20);
/// How much more is asked than can be given.
const ASKED: f64 = 2.0;
/// The least share of POSTs that are answered, as a part of the share of GETs: it is too much of both alike.
const ALIKE_MIN: f64 = 0.5;
/// The least share of what could be answered that must be: where a busy machine stalls, what comes then comes at once and
/// is too much.
const ANSWERED_MIN: f64 = 0.3;

fn fits(context: &Context<'_>) -> Result<(), String> {
    if context.subject.has_upstream_block() {
        Ok(())
    } else {
        Err("nginx.conf has no `upstream` block whose servers can get max_conns".to_owned())
    }
}

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { at_once: Some(AT_ONCE), takes: TAKES, ..Behaviour::default() };
    let script = Script { all, one: None, seed: context.seed.split("peers").next(), ..Script::default() };
    let mut setup = Setup { peers: Some(script), ..Setup::with_timeouts() };
    setup.tuning.server_parameters = vec![("max_conns", CONNECTIONS_MAX.to_string())];
    setup
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let instances = stage.names()?.len();
    let capacity = f64::from(AT_ONCE) / TAKES.as_secs_f64() * instances as f64;
    stage.shape.pace = Pace::Rate(capacity * ASKED);
    stage.allow(Allowance {
        words: "502 or 503 for what is too much",
        outcome: Allowed::Status(&[502, 503]),
        reached: Reached::Nobody,
        ..Allowance::default()
    });
    let step = stage.send(stage.context.options.requests)?;
    let records = stage.records_of(step);
    let first = records.iter().map(|record| record.intended).min().unwrap_or_default();
    let last = records.iter().map(|record| record.ended).max().unwrap_or_default();
    let answered = records.iter().filter(|record| record.outcome.is_success()).count();
    let rate = answered as f64 / last.since(first).as_secs_f64().max(0.001);
    stage.show(step, &format!("at {:.0} requests/s, capacity {capacity:.0}", capacity * ASKED));
    stage.observe(step, format!("{rate:.0} answered each second"));
    let could = records.len() as f64 / ASKED;
    if (answered as f64) < could * ANSWERED_MIN {
        stage.find(format!("only {answered} requests were answered where the instances could {could:.0}"));
    }
    if answered == records.len() {
        stage.find("it was to be too much, and all were answered");
    }
    let room = instances.saturating_mul(CONNECTIONS_MAX as usize);
    stage.find_all(refused_for_nothing(&records, room).into_iter().chain(not_alike(&records)));
    Ok(())
}

/// Finds requests that were refused though the instances had room: fewer were under way beside them than these take.
fn refused_for_nothing(records: &[Record], room: usize) -> Option<Finding> {
    let is_refused = |record: &Record| matches!(record.outcome, Outcome::Answered { status: 502 | 503, .. });
    let taken: Vec<&Record> = records.iter().filter(|record| !is_refused(record)).collect();
    let had_room = |record: &&Record| {
        let beside = taken.iter().filter(|other| other.overlaps(record.sent, record.ended)).count();
        is_refused(record) && beside < room
    };
    let ids: Vec<String> = records.iter().filter(had_room).map(|record| record.id.to_string()).collect();
    let what = format!("{} × refused while the instances had room: they take {room}", ids.len());
    finding(what, ids)
}

/// Finds the POSTs that weren't answered where nearly all were refused, and GETs weren't.
fn not_alike(records: &[Record]) -> Option<Finding> {
    let (posts, gets): (Vec<&Record>, Vec<_>) = records.iter().partition(|record| record.is_post);
    let answered = |of: &[&Record]| {
        of.iter().filter(|record| record.outcome.is_success()).count() as f64 / of.len().max(1) as f64
    };
    if posts.is_empty() || answered(&posts) >= answered(&gets) * ALIKE_MIN {
        return None;
    }
    let refused = posts.iter().filter(|record| !record.outcome.is_success());
    let ids: Vec<String> = refused.map(|record| record.id.to_string()).collect();
    finding("POSTs were refused much more than GETs".to_owned(), ids)
}

fn finding(what: String, mut ids: Vec<String>) -> Option<Finding> {
    ids.truncate(Finding::IDS_MAX);
    (!ids.is_empty()).then_some(Finding { what, ids })
}
