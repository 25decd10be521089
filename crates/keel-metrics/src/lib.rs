//! What is counted of servers and peers, and its text for Prometheus.
//!
//! Counting is a few stores into memory that one worker alone writes ([`Traffic`]); sums and texts are made when somebody
//! asks ([`text`]). Nothing here does I/O or reads a clock: durations are arguments.

#![forbid(unsafe_code)]

mod exposition;
mod traffic;

pub use exposition::{CONTENT_TYPE, Instances, text};
pub use traffic::{Sample, Traffic};
