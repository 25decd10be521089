//! One instance is stopped and started again: the others take over, and it takes its share again.

use super::{Case, Way, as_it_is, several};
use crate::{Error, stage::Stage};

pub(super) const CASE: Case = Case {
    name: "stop-one",
    what: "one instance is stopped, later started again; the others take over exactly, and nothing is lost",
    allows: "",
    fits: several,
    way: Way::Project { setup: as_it_is, play },
};

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let all = stage.names()?;
    let stopped = stage.any()?.name;
    let others: Vec<String> = all.iter().filter(|name| **name != stopped).cloned().collect();
    stage.even(&format!("{} ready", all.len()), &all)?;
    stage.under_load(|stage| stage.command(&["stop", &stopped]))?;
    stage.even(&format!("{stopped} stopped"), &others)?;
    stage.under_load(|stage| stage.command(&["start", &stopped]))?;
    stage.even(&format!("{stopped} started again"), &all)
}
