//! `evenkeel data-plane`: the body of the process that serves connections. People don't call it.

use std::{os::fd::AsFd, process::ExitCode};

use crate::terminal::say;

/// Serves until the channel on standard input closes.
pub(crate) fn run() -> ExitCode {
    // Before there is a thread, and before anything that comes from a network.
    if let Err(error) = keel_proxy::confine() {
        say!("evenkeel: the data plane keeps rights that it doesn't need: {error}");
    }
    let channel = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(channel) => channel,
        Err(error) => {
            say!("evenkeel: the data plane has no channel to its supervisor: {error}");
            return ExitCode::from(2);
        }
    };
    match keel_proxy::run(channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("evenkeel: the data plane failed: {}", keel_control::chain(&error));
            ExitCode::FAILURE
        }
    }
}
