//! `evenkeel explain`: what a directive of nginx.conf does here.

use std::{io::Write, process::ExitCode};

use crate::{project::Hinted, terminal::Stdout};

/// `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A directive of nginx.conf
    #[arg(value_name = "DIRECTIVE")]
    name: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = keel_nginx::explain(&args.name).ok_or_else(|| {
        Hinted::new(
            format!("`{}` is not a directive that Evenkeel or nginx knows", args.name),
            "docs/reference/directives.md lists all of them",
        )
    })?;
    let mut out = Stdout::lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
