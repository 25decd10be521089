//! The process that serves connections dies: another takes its place, with the listening sockets still open.

use super::{Case, Way, any, as_it_is};
use crate::{
    Error,
    stage::Stage,
    verdict::{Allowance, Allowed},
};

pub(super) const CASE: Case = Case {
    name: "kill-data-plane",
    what: "the process that serves connections is killed; another serves at once, and no instance notices",
    allows: "requests in flight at that moment end without a response",
    fits: any,
    way: Way::Project { setup: as_it_is, play },
};

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    let mut killed_at = None;
    let step = stage.under_load(|stage| {
        let killed = stage.kill_data_plane()?;
        killed_at = Some(killed.from);
        stage.allow(Allowance {
            words: "no response to a request in flight",
            outcome: Allowed::Broken,
            during: Some(killed.during()),
            at_most: u64::from(stage.shape.connections),
            ..Allowance::default()
        });
        Ok(())
    })?;
    let answers = stage.records_of(step);
    let first = killed_at.and_then(|at| {
        let sent_after = answers.iter().filter(|record| record.sent > at && record.outcome.is_success());
        sent_after.map(|record| record.ended.since(at)).min()
    });
    stage.show(step, "while it is killed");
    match first {
        Some(time) => stage.observe(step, format!("answers again after {} ms", time.as_millis())),
        None => stage.find("nothing was answered after the data plane had been killed"),
    }
    stage.even("served by another data plane", &names)
}
