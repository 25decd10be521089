//! Ends a system when the drill that started it is gone, however it went: a process that does nothing but wait for that.
//!
//! It holds the reading end of a pipe whose writing end only the drill has. The system itself went to the background, so
//! nothing else would tell it.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// The hidden command that is a guard.
pub const COMMAND: &str = "drill-guard";

/// What a guard does at the end: one argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: PathBuf,
    /// Words that end the system.
    pub(crate) down: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Folders to be removed then.
    pub(crate) folders: Vec<PathBuf>,
}

/// A guard. Dropping it says that the system has been ended in good order; it acts only where that is never said.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    pub(crate) fn start(order: &Order) -> io::Result<Self> {
        let mut command = Command::new(&order.program);
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

/// Waits until the drill lets go, then ends its system. The body of a hidden command.
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
    let mut down = Command::new(&order.program);
    down.args(&order.down).envs(order.environment.iter().map(|(name, value)| (name, value)));
    drop(down.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
    for folder in &order.folders {
        drop(std::fs::remove_dir_all(folder));
    }
    Ok(())
}
