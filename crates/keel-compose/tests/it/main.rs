//! The crate as its users see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;
mod container;
mod dockerfile;
mod examples;
mod files;
mod never_panics;
mod seat;
mod service;
