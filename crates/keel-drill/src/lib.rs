//! Drills: failure cases played under load, and the proof of what happened.
//!
//! A case does something to a running system while requests come in, and says which outcomes are allowed. What was sent
//! and what instances received is compared afterwards, request by request, so that no balancer is taken at its word.
//! [`results`] is what a drill found; everything else is either how it found it or how it is shown.

#![forbid(unsafe_code)]

pub mod report;
pub mod results;
