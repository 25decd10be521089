//! An instance is there and does nothing: its port accepts, its process is stopped.

use std::time::Duration;

use super::{Case, Way, several};
use crate::{
    Error,
    stage::{Context, Stage},
    system::Setup,
};

pub(super) const CASE: Case = Case {
    name: "frozen",
    what: "one instance is frozen with SIGSTOP, later thawed; GETs go elsewhere after the time-out, none is lost",
    allows: "504 for a POST to it: it may have arrived, so it isn't sent again",
    fits: several,
    way: Way::Project { setup, play },
};

/// How long it stays frozen: the time-out is over for many requests.
const FROZEN: Duration = Duration::from_millis(4500);
/// How long it is under load afterwards: it must have been tried again, and found well.
const THAWED: Duration = Duration::from_millis(2500);

fn setup(context: &Context<'_>) -> Setup {
    let mut setup = Setup::with_timeouts();
    if context.subject.has_upstream_block() {
        setup.tuning.server_parameters =
            vec![("max_fails", "1".to_owned()), ("fail_timeout", "1s".to_owned())];
    }
    setup
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    let frozen = stage.any()?.name;
    let step = stage.under_load(|stage| {
        let (group, from) = stage.freeze(&frozen)?;
        stage.load.pass(FROZEN)?;
        let to = stage.thaw(&frozen, group)?;
        stage.allow_silent(&frozen, (from, to));
        stage.load.pass(THAWED)
    })?;
    stage.show(step, &format!("while {frozen} is frozen"));
    if stage.context.subject.has_upstream_block() {
        stage.even(&format!("{frozen} thawed"), &names)?;
    }
    Ok(())
}
