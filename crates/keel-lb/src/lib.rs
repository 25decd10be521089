//! Peers, failure accounting and one file per balancing algorithm.
//!
//! A [`Group`] is the peers of one upstream and the way to choose among them, shared by all workers. [`Group::publish`]
//! replaces the peers, [`Group::pick`] chooses one and gives a [`Pick`], which is a request in flight until it is
//! dropped. What is remembered of a peer, its [`PeerState`], lives in the [`Registry`] and outlasts reloads.
//!
//! **Exactly even.** Between two changes of the available peers, first attempts to equal peers differ by at most one,
//! over all threads. That holds because each set of available peers has one rotation that every thread
//! turns, and because a peer that becomes unavailable (`max_conns`, `max_fails`) leaves the set: a new set is published
//! without it, and its turns don't go to its neighbour. Retries leave the rotation alone.
//!
//! Nothing here does I/O, reads a clock or draws a random number: `now` and randomness are arguments. It wakes
//! no task either: a task that waits for a peer watches [`Group::version`], and the publisher wakes it.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]
#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "a test's time begins somewhere"))]

mod group;
mod outlier;
mod peer;
mod pick;
mod policy;
mod registry;
mod rotation;
mod tier;

pub use group::{Ask, Attempt, Group, NoPeer};
pub use outlier::{Admission, Limits, Outlier};
pub use peer::{Counts, Drained, PeerState};
pub use pick::{Outcome, Pick, Standing};
pub use policy::{KeyInfo, ParameterInfo, PolicyError, PolicyInfo, check_policy, policies};
pub use registry::{Prepared, Registry};
