//! Groups as their users see them.

#![expect(clippy::unwrap_used, reason = "a test may")]

mod common;
mod drain;
mod failures;
mod fairness;
mod policies;
