//! An instance accepts, reads, and never answers.

use std::time::Duration;

use super::{Case, Way, several};
use crate::{
    Error,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::Setup,
    verdict::{Allowed, Methods},
};

pub(super) const CASE: Case = Case {
    name: "never-answers",
    what: "one instance accepts requests and never answers; GETs go elsewhere after the time-out, none is lost",
    allows: "504 for a POST to it: it has arrived, so it isn't sent again",
    fits: several,
    way: Way::Project { setup, play },
};

fn setup(context: &Context<'_>) -> Setup {
    let one = Behaviour { never_answers: true, ..Behaviour::default() };
    let script =
        Script { all: Behaviour::default(), one: Some(one), seed: context.seed.split("peers").next() };
    let mut setup = Setup { peers: Some(script), ..Setup::with_timeouts() };
    if context.subject.has_upstream_block() {
        setup.tuning.server_parameters =
            vec![("max_fails", "1".to_owned()), ("fail_timeout", "1s".to_owned())];
    }
    setup
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    stage.allow("504 for a POST to it", Allowed::Status(&[504]), Methods::Posts);
    let step = stage.under_load(|stage| stage.load.pass(Duration::from_millis(5000)))?;
    stage.show(step, "while one never answers");
    Ok(())
}
