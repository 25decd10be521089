//! `evenkeel doctor`: what this machine lets local processes have, and what to do where it doesn't.

use std::{io::Write, process::ExitCode};

use crate::terminal::Stdout;

/// Runs the command. Everything that is missing has a fallback, so the exit code says only whether all is there.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let findings = keel_runner::doctor();
    let mut out = Stdout::lock();
    for finding in &findings {
        writeln!(out, "{} {}", if finding.ok { "ok  " } else { "no  " }, finding.what)?;
        if let Some(remedy) = finding.remedy.as_ref().filter(|_| !finding.ok) {
            writeln!(out, "     hint: {remedy}")?;
        }
    }
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
