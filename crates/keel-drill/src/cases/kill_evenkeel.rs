//! Everything of Evenkeel's own is killed at one moment: supervisor, guardian and data plane. Nobody is left to end what the
//! instances started; the next `up` must find it.

use super::{Case, Way, own};
use crate::{
    Error,
    peer::Script,
    stage::{Context, Stage},
    system::Setup,
    verdict::{Allowance, Allowed},
};

pub(super) const CASE: Case = Case {
    name: "kill-evenkeel",
    what: "supervisor, guardian and data plane are killed at once, then `up`, later `down`; nothing of before is left or doubled",
    allows: "no response to a request between the kill and the end of `up`",
    fits: own,
    way: Way::Project { setup, play },
};

fn setup(context: &Context<'_>) -> Setup {
    let script = Script { has_worker: true, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    stage.even(&format!("{} ready", names.len()), &names)?;
    let step = stage.under_load(|stage| {
        let killed = stage.kill_evenkeel()?;
        stage.up_again(&names)?;
        let until = stage.note("up again");
        stage.allow(Allowance {
            words: "no response between the kill and the end of `up`",
            outcome: Allowed::Broken,
            during: Some((killed.from, until)),
            ..Allowance::default()
        });
        Ok(())
    })?;
    stage.show(step, "while all of Evenkeel is killed");
    let failed = stage.records_of(step).iter().filter(|record| !record.outcome.is_success()).count();
    stage.observe(step, format!("{failed} without a response"));
    stage.find_leftovers()?;
    stage.even("killed and up again", &names)?;
    stage.kill_evenkeel()?;
    stage.find_after_down()?;
    stage.up_again(&names)?;
    stage.find_leftovers()?;
    stage.even("killed, down and up again", &names)
}
