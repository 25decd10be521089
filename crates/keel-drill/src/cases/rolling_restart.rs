//! Every instance is replaced, one at a time.

use super::{Case, Way, any, as_it_is};
use crate::{Error, stage::Stage};

pub(super) const CASE: Case = Case {
    name: "rolling-restart",
    what: "every instance is replaced, one at a time, the new one first; nothing is lost",
    allows: "",
    fits: any,
    way: Way::Project { setup: as_it_is, play },
};

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    let step = stage.under_load(|stage| stage.restart(&names))?;
    stage.show(step, "while all restart");
    stage.even("all restarted", &names)
}
