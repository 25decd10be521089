//! The container engine: how it is reached, what it lists, what it reports, and why it didn't answer.
//!
//! Discovery reads from an engine which containers there are; the driver has it make them. Both come here, so that
//! DOCKER_HOST, time-outs and events mean the same to both. What either does with an answer is its own. The Docker
//! Engine API is spoken by `bollard`; no other crate depends on it, and its types are [`api`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod connection;
mod containers;
mod error;
mod events;

pub use bollard as api;
pub use bollard::Docker;

pub use connection::{answers, call, connect, host};
pub use containers::{Which, inspect, list};
pub use error::EngineError;
pub use events::{Change, Event, events};
