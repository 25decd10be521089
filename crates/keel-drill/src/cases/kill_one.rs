//! One instance dies without a word.

use std::time::Duration;

use super::{Case, Way, any, as_it_is};
use crate::{
    Error,
    stage::Stage,
    verdict::{Allowed, Methods},
};

pub(super) const CASE: Case = Case {
    name: "kill-one",
    what: "one instance is killed with SIGKILL; no GET is lost, no POST arrives twice, and it comes back",
    allows: "502 for a POST that was on its way to it: it may have arrived, so it isn't sent again",
    fits: any,
    way: Way::Project { setup: as_it_is, play },
};

/// How long after the kill a request may have been caught by it.
pub(super) const CAUGHT: Duration = Duration::from_millis(500);

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    stage.even(&format!("{} ready", names.len()), &names)?;
    let mut killed = String::new();
    stage.under_load(|stage| {
        killed = stage.any()?.name;
        let at = stage.kill(std::slice::from_ref(&killed))?;
        stage.allow_around("502 for a POST to it", Allowed::Status(&[502]), Methods::Posts, at, CAUGHT);
        stage.come_back(&names)
    })?;
    stage.even(&format!("{killed} killed and back"), &names)
}
