//! The files are read again and again under load.

use super::{Case, Way, any, as_it_is};
use crate::{Error, stage::Stage};

pub(super) const CASE: Case = Case {
    name: "reload",
    what: "the files are read again 20 times in a row; connections and requests notice nothing",
    allows: "",
    fits: any,
    way: Way::Project { setup: as_it_is, play },
};

const RELOADS: u32 = 20;

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    let step = stage.under_load(|stage| (0..RELOADS).try_for_each(|_| stage.reload()))?;
    stage.show(step, &format!("while it reloads {RELOADS} times"));
    stage.even("reloaded", &names)
}
