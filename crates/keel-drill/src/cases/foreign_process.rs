//! A foreign process of this host has the instances' port on all addresses: it gets no request of theirs, neither when they
//! start nor when one of them is dead.

use std::time::Duration;

use super::{Case, Way, movable};
use crate::{
    Error,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::{PeerPort, Setup},
};

pub(super) const CASE: Case = Case {
    name: "foreign-process",
    what: "a foreign process has the instances' port on all addresses while one is restarted and one killed; it gets nothing",
    allows: "502 for a POST that was on its way to the killed one: it may have arrived, so it isn't sent again",
    fits: movable,
    way: Way::Project { setup, play },
};

/// How long an instance needs until it listens: meanwhile its address has no listener but the foreign one.
const LISTENS_AFTER: Duration = Duration::from_millis(500);

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { listens_after: LISTENS_AFTER, ..Behaviour::default() };
    let script = Script { all, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), port: PeerPort::Foreign, ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    stage.even(&format!("{} ready", names.len()), &names)?;
    let (restarted, killed) = (stage.any()?.name, stage.any()?.name);
    let step = stage.under_load(|stage| {
        stage.command(&["restart", &restarted])?;
        let only = std::slice::from_ref(&killed);
        let death = stage.kill(only)?;
        stage.allow_killed("502 for a POST to it", only, &death);
        stage.come_back(&names, &death.pids)
    })?;
    stage.show(step, &format!("while {restarted} restarts and {killed} is killed"));
    stage.even(&format!("{restarted} restarted, {killed} killed and back"), &names)
}
