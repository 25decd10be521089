//! An instance accepts, reads, and never answers.

use std::time::Duration;

use super::{Case, Way, several};
use crate::{
    Error,
    peer::{Behaviour, Script},
    record::Moment,
    stage::{Context, Stage},
    system::Setup,
};

pub(super) const CASE: Case = Case {
    name: "never-answers",
    what: "one instance accepts requests and never answers; GETs go elsewhere after the time-out, none is lost",
    allows: "504 for a POST to it: it has arrived, so it isn't sent again",
    fits: several,
    way: Way::Project { setup, play },
};

/// How long load flows: the time-out is over for many requests.
const PASSES: Duration = Duration::from_secs(5);

fn setup(context: &Context<'_>) -> Setup {
    let one = Behaviour { never_answers: true, ..Behaviour::default() };
    let script = Script {
        all: Behaviour::default(),
        one: Some(one),
        seed: context.seed.split("peers").next(),
        ..Script::default()
    };
    let mut setup = Setup { peers: Some(script), ..Setup::with_timeouts() };
    if context.subject.has_upstream_block() {
        setup.tuning.server_parameters =
            vec![("max_fails", "1".to_owned()), ("fail_timeout", "1s".to_owned())];
    }
    setup
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let silent = stage.system.odd_one()?;
    let from = Moment::now();
    let step = stage.under_load(|stage| stage.load.pass(PASSES))?;
    stage.allow_silent(&silent, (from, Moment::now()));
    stage.show(step, &format!("while {silent} never answers"));
    if !stage.ledger()?.entries.iter().any(|entry| entry.instance == silent) {
        stage.find(format!("{silent} was to keep requests without an answer, and never got one"));
    }
    Ok(())
}
