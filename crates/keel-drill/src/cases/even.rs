//! Nothing happens: every instance gets exactly its share.

use super::{Case, Way, any, as_it_is};
use crate::{Error, stage::Stage};

pub(super) const CASE: Case = Case {
    name: "even",
    what: "nothing happens; every instance gets exactly its share",
    allows: "",
    fits: any,
    way: Way::Project { setup: as_it_is, play },
};

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    stage.even(&format!("{} ready", names.len()), &names)
}
