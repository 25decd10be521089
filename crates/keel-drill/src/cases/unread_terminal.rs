//! `up` runs in a terminal that isn't read while the app prints: the service goes on, commands are answered, Ctrl-C ends
//! it, and a later reader gets every line or the number of missing ones.

use std::time::Duration;

use super::{Case, Way, own};
use crate::{
    Error,
    peer::{Behaviour, Script},
    stage::{Context, Stage},
    system::{Setup, Terminal},
};

pub(super) const CASE: Case = Case {
    name: "unread-terminal",
    what: "the output of `up` isn't read while the app prints; it serves on, obeys, and says later what it left out",
    allows: "",
    fits: own,
    way: Way::Project { setup, play },
};

/// Lines that each request makes: what some dozen of them print is more than a pipe holds.
const LINES: u32 = 32;
/// Connections at most: as many requests as that find out at once that nothing is answered any more.
const CONNECTIONS: u32 = 512;
/// How long `ps` may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// How long the rest of the output may take to come once it is read.
const PRINTED_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

fn setup(context: &Context<'_>) -> Setup {
    let all = Behaviour { prints_lines: LINES, ..Behaviour::default() };
    let script = Script { all, seed: context.seed.split("peers").next(), ..Script::default() };
    Setup { peers: Some(script), terminal: Terminal::Unread, ..Setup::default() }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let names = stage.names()?;
    stage.describe()?;
    let connections = std::mem::replace(&mut stage.shape.connections, CONNECTIONS);
    let unread = stage.send(stage.context.options.requests / 8)?;
    stage.show(unread, "while nobody reads");
    stage.note("evenkeel ps");
    if !stage.system.answers(&["ps"], ANSWERS_WITHIN)? {
        stage.find(format!("`ps` wasn't answered within {} s while nobody read", ANSWERS_WITHIN.as_secs()));
    }
    if stage.records_of(unread).iter().any(|record| !record.outcome.is_success()) {
        // It has stopped: every further request to it times out.
        return Ok(());
    }
    stage.shape.connections = connections;
    stage.even("nobody reads", &names)?;
    let output = stage.account_for_output(u64::from(LINES), PRINTED_WITHIN)?;
    stage.observe(unread, output.words());
    stage.find_all(output.finding().into_iter());
    // Once more nobody reads, and it is to end.
    stage.shape.connections = CONNECTIONS;
    stage.send(stage.context.options.requests / 8)?;
    stage.interrupt(ENDS_WITHIN)
}
