//! The reuse race: kept connections are closed at random moments, just when the next request may be on its way.

use std::time::Duration;

use super::{Case, Way, any};
use crate::{
    Error,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::Setup,
    verdict::{Allowance, Allowed, Methods, Reached},
};

pub(super) const CASE: Case = Case {
    name: "close-random",
    what: "instances close kept connections at random moments, unannounced, while most requests are POSTs",
    allows: "502 for a POST that had arrived unread when its connection was closed",
    fits: any,
    way: Way::Project { setup, play },
};

/// The longest from a response to the end of its connection.
const WITHIN: Duration = Duration::from_millis(4);

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { closes_at_random: Some((0.3, WITHIN)), ..Behaviour::default() };
    let script = Script { all, one: None, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    stage.posts(0.7);
    stage.allow(Allowance {
        words: "502 for a POST that had arrived unread",
        outcome: Allowed::Status(&[502]),
        methods: Methods::Posts,
        reached: Reached::Closed,
        ..Allowance::default()
    });
    let step = stage.send(stage.context.options.requests)?;
    stage.show(step, "while connections close at random");
    let refused = stage.records_of(step).iter().filter(|record| !record.outcome.is_success()).count();
    let closed = stage.ledger()?.closings.len();
    stage.observe(step, format!("{closed} connections closed, {refused} POSTs answered with 502"));
    if closed == 0 {
        stage.find("instances were to close connections, and never did");
    }
    Ok(())
}
