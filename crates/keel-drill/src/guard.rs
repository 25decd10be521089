//! Ends what a drill started when the drill is gone, however it went: a process that does nothing but wait for that.
//!
//! It holds the reading end of a pipe whose writing end only the drill has. What a drill starts is in a group of its own,
//! or in the background, so nothing else would tell it.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::process::{self, end_all_of};

/// The hidden command that is a guard.
pub const COMMAND: &str = process::GUARD;

/// What a guard does at the end: one argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Words one of which is on the command line of everything that is to end, and of nothing else.
    pub(crate) marks: Vec<String>,
    /// What ends it in good order, before it is killed.
    pub(crate) down: Option<Down>,
    /// Folders to be removed then.
    pub(crate) folders: Vec<PathBuf>,
}

/// A command that ends a system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Down {
    pub(crate) program: PathBuf,
    pub(crate) words: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// A guard. Dropping it says that all has been ended in good order; it acts only where that is never said.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Starts a guard: this program, with a hidden command.
    pub(crate) fn start(program: &Path, order: &Order) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(serde_json::to_string(order)?);
        // A group of its own: a terminal's Ctrl-C must not end it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.spawn().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut said) = self.0.stdin.take() {
            drop(said.write_all(b"ended"));
        }
        drop(self.0.wait());
    }
}

/// Waits until the drill lets go, then ends what it started. The body of a hidden command.
///
/// # Errors
/// When the order can't be understood.
pub fn run(order: &str) -> io::Result<()> {
    let order: Order = serde_json::from_str(order)?;
    let mut said = Vec::new();
    drop(io::stdin().read_to_end(&mut said));
    if !said.is_empty() {
        return Ok(());
    }
    if let Some(Down { program, words, environment }) = &order.down {
        let mut down = Command::new(program);
        down.args(words).envs(environment.iter().map(|(name, value)| (name, value)));
        drop(down.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
    // What didn't hear of that, because it was only starting, say.
    order.marks.iter().for_each(|mark| end_all_of(mark));
    for folder in &order.folders {
        drop(std::fs::remove_dir_all(folder));
    }
    Ok(())
}
