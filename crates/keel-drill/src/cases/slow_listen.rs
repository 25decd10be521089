//! An instance needs seconds until it listens, its healthcheck asks localhost, and the project is published under the very
//! port on which instances listen: until it listens, nothing else may answer in its place, least of all the balancer.

use std::time::Duration;

use super::{Case, Way, movable};
use crate::{
    Error,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::{PeerPort, Setup},
};

pub(super) const CASE: Case = Case {
    name: "slow-listen",
    what: "instances that listen after seconds are replaced, one at a time; their healthchecks ask localhost for the very \
           port that is published, and nobody else answers them",
    allows: "",
    fits: movable,
    way: Way::Project { setup, play },
};

/// How long an instance needs until it listens.
const LISTENS_AFTER: Duration = Duration::from_millis(1500);

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { listens_after: LISTENS_AFTER, ..Behaviour::default() };
    let script = Script { all, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), port: PeerPort::Published, ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    let step = stage.under_load(|stage| stage.restart(&names))?;
    stage.show(step, "while all restart");
    stage.even("all restarted", &names)
}
