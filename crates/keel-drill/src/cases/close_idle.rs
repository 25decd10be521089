//! The reuse race as servers have it: a kept connection is closed when it has idled for a while, and requests come just
//! then.

use std::time::Duration;

use super::{Case, Way, any};
use crate::{
    Error,
    generator::Pace,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::Setup,
    verdict::{Allowance, Allowed, Methods, Reached},
};

pub(super) const CASE: Case = Case {
    name: "close-idle",
    what: "instances close kept connections that have idled, and POSTs come in bursts just at that time",
    allows: "502 for a POST that had arrived unread when its connection was closed",
    fits: any,
    way: Way::Project { setup, play },
};

/// After how long a connection is closed.
const IDLE: Duration = Duration::from_millis(100);
/// How much the pause between two bursts differs from it.
const JITTER: f64 = 0.1;
const BURST: u32 = 24;

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { closes_idle: Some(IDLE), ..Behaviour::default() };
    let script = Script { all, one: None, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    stage.posts(0.8);
    stage.shape.pace = Pace::Bursts { size: BURST, pause: IDLE, jitter: JITTER };
    stage.allow(Allowance {
        words: "502 for a POST that had arrived unread",
        outcome: Allowed::Status(&[502]),
        methods: Methods::Posts,
        reached: Reached::Closed,
        ..Allowance::default()
    });
    // Fewer than elsewhere: what counts are bursts.
    let step = stage.send(stage.context.options.requests / 4)?;
    stage.show(step, "while idle connections close");
    let refused = stage.records_of(step).iter().filter(|record| !record.outcome.is_success()).count();
    let closed = stage.ledger()?.closings.len();
    stage.observe(step, format!("{closed} connections closed, {refused} POSTs answered with 502"));
    if closed == 0 {
        stage.find("instances were to close connections, and never did");
    }
    Ok(())
}
