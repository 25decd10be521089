//! An instance needs seconds until it is ready: it gets nothing before.
//!
//! It listens all the while and says by its healthcheck that it isn't ready, so that a request which comes too early can be
//! seen: it notes it.

use std::time::Duration;

use super::{Case, Way, any};
use crate::{
    Error,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::Setup,
};

pub(super) const CASE: Case = Case {
    name: "slow-start",
    what: "an instance that needs seconds to start is replaced; it gets requests when it is ready and not before",
    allows: "",
    fits: any,
    way: Way::Project { setup, play },
};

/// How long an instance needs until it is ready.
const READY_AFTER: Duration = Duration::from_millis(1500);

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { ready_after: READY_AFTER, ..Behaviour::default() };
    let script = Script { all, one: None, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    let replaced = stage.any()?.name;
    let step = stage.under_load(|stage| stage.command(&["restart", &replaced]))?;
    stage.show(step, &format!("while {replaced} starts slowly"));
    stage.even(&format!("{replaced} replaced"), &names)
}
