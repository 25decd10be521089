//! The generated part of docs/: written anew, or compared with what is there.

use std::{path::Path, process::ExitCode};

use anyhow::Context;

/// What to do with the generated text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it.
    Write,
    /// Fail if it differs from the file.
    Check,
}

/// Generates every reference page.
pub(crate) fn run(mode: Mode) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
    let pages = [("docs/reference/directives.md", keel_nginx::reference())];
    let mut stale = false;
    for (name, text) in pages {
        let path = root.join(name);
        match mode {
            Mode::Write => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                std::fs::write(&path, text).with_context(|| format!("can't write {name}"))?;
            }
            Mode::Check => {
                if std::fs::read_to_string(&path).unwrap_or_default() != text {
                    eprintln!("{name} is stale\nhint: cargo xtask docs");
                    stale = true;
                }
            }
        }
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
