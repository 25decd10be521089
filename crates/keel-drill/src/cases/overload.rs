//! Twice as much is asked as the instances can give.

use std::time::Duration;

use super::{Case, Way};
use crate::{
    Error,
    generator::Pace,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    subject::Subject,
    system::Setup,
    verdict::{Allowed, Methods},
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
/// How long each takes.
const TAKES: Duration = Duration::from_millis(20);
/// How much more is asked than can be given.
const ASKED: f64 = 2.0;
/// The least share of what could be answered that must be: where a busy machine stalls, what comes then comes at once and
/// is too much.
const ANSWERED_MIN: f64 = 0.3;

fn fits(subject: &Subject) -> Result<(), String> {
    if subject.has_upstream_block() {
        Ok(())
    } else {
        Err("nginx.conf has no `upstream` block whose servers can get max_conns".to_owned())
    }
}

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { at_once: Some(AT_ONCE), takes: TAKES, ..Behaviour::default() };
    let script = Script { all, one: None, seed: context.seed.split("peers").next() };
    let mut setup = Setup { peers: Some(script), ..Setup::with_timeouts() };
    setup.tuning.server_parameters = vec![("max_conns", (AT_ONCE * 2).to_string())];
    setup
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let instances = stage.names()?.len();
    let capacity = f64::from(AT_ONCE) / TAKES.as_secs_f64() * instances as f64;
    stage.shape.pace = Pace::Rate(capacity * ASKED);
    stage.allow("502 or 503 for what is too much", Allowed::Status(&[502, 503]), Methods::All);
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
    Ok(())
}
