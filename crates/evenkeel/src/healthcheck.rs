//! `evenkeel healthcheck`: the check that a container's image declares.

use std::process::ExitCode;

use keel_control::{ask_health, chain};

use crate::terminal::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the balancer with this process id; without it every one in this container must serve
    pid: Option<u32>,
}

/// Ends with 0 when the balancer here serves, with 1 when it doesn't.
pub(crate) fn run(args: &Args) -> ExitCode {
    match ask_health(args.pid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The engine keeps what is said as the check's output.
            say!("evenkeel: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
