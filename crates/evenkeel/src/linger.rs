//! `evenkeel linger`: waits, as what a container runs before it is told to end.
//!
//! A pod that ends is taken out of the cluster's routes while its signal is already on the way, and connections come for a
//! moment longer. The image has no `sleep`, and `preStop: {sleep}` isn't known to every cluster.

use std::{process::ExitCode, time::Duration};

/// `linger`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, such as 5s
    #[arg(value_parser = seconds)]
    time: Duration,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    std::thread::sleep(args.time);
    ExitCode::SUCCESS
}

/// Reads whole seconds, with or without the unit.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().map(Duration::from_secs).map_err(|_| "a number of seconds, such as 5s".to_owned())
}
