//! Tests that can't run on a machine say so where one sees it.
//!
//! The test harness keeps what a passing test prints with `eprintln!` to itself, so such a test would look like one that
//! passed. [`not_run`] writes to standard error itself.

use std::{fmt::Display, io::Write};

/// Writes that the current test can't run here, by its name, and why: `not run: NAME: WHY`.
///
/// The harness names a test's thread after the test.
pub fn not_run(why: impl Display) {
    let thread = std::thread::current();
    let line = format!("not run: {}: {why}\n", thread.name().unwrap_or("a test"));
    // Nothing better can be done where standard error is closed.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
