//! Instances are stopped and killed by a command while all are being replaced: the last word counts, and the replacing
//! doesn't start them again.

use std::time::Duration;

use super::{Case, Way, own, several};
use crate::{
    Error,
    peer::{Behaviour, Script},
    record::Moment,
    stage::{Context, Killed, Stage},
    system::Setup,
};

pub(super) const CASE: Case = Case {
    name: "command-in-restart",
    what: "while all are being replaced, one is stopped by a command, and another time killed by one; the last word counts",
    allows: "502 for a POST that was on its way to the killed one: it may have arrived, so it isn't sent again",
    fits,
    way: Way::Project { setup, play },
};

/// How long an instance needs until it is ready, so that there is time for a command.
const READY_AFTER: Duration = Duration::from_millis(1200);

fn fits(context: &Context<'_>) -> Result<(), String> {
    own(context)?;
    several(context)
}

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { ready_after: READY_AFTER, ..Behaviour::default() };
    let script = Script { all, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let all = stage.names()?;
    for (command, done) in [("stop", "stopped"), ("kill", "killed")] {
        let mut gone = String::new();
        let step = stage.under_load(|stage| {
            let restart = stage.begin_restart(&all)?;
            let chosen = stage.any_to_be_restarted(&restart)?;
            gone = chosen.name;
            let from = Moment::now();
            stage.command(&[command, &gone])?;
            if command == "kill" {
                let death = Killed { pids: Vec::new(), from, to: Moment::now() };
                stage.allow_killed("502 for a POST to it", std::slice::from_ref(&gone), &death);
            }
            stage.end_restart(restart)
        })?;
        stage.show(step, &format!("while all restart and {gone} is {done}"));
        let others: Vec<String> = all.iter().filter(|name| **name != gone).cloned().collect();
        stage.find_running(&gone)?;
        stage.even(&format!("{gone} {done} in a restart"), &others)?;
        stage.command(&["start", &gone])?;
        stage.even(&format!("{gone} started again"), &all)?;
    }
    Ok(())
}
