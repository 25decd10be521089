//! One instance dies without a word.

use super::{Case, Way, any, as_it_is};
use crate::{Error, stage::Stage};

pub(super) const CASE: Case = Case {
    name: "kill-one",
    what: "one instance is killed with SIGKILL; no GET is lost, no POST arrives twice, and it comes back",
    allows: "502 for a POST that was on its way to it: it may have arrived, so it isn't sent again",
    fits: any,
    way: Way::Project { setup: as_it_is, play },
};

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    stage.even(&format!("{} ready", names.len()), &names)?;
    let mut killed = String::new();
    stage.under_load(|stage| {
        killed = stage.any()?.name;
        let only = std::slice::from_ref(&killed);
        let death = stage.kill(only)?;
        stage.allow_killed("502 for a POST to it", only, &death);
        stage.come_back(&names, &death.pids)
    })?;
    stage.even(&format!("{killed} killed and back"), &names)
}
