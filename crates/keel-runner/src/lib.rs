//! Starts, watches and stops the instances.
//!
//! `supervisor` decides: a state machine without I/O or clock. `driver` acts: it starts processes with an address of
//! their own, or containers in an engine, and notices their end. `event_loop` connects the two. [`Runner`] is the handle
//! that the rest of Evenkeel holds. No file format and no span is known here; services come in as
//! [`keel_model::Service`].

#![forbid(unsafe_code)]

mod driver;
mod error;
mod event_loop;
mod named;
mod notice;
mod runner;
mod supervisor;

pub use driver::{
    Exec, ExecOutput, ExecRequest, Follower, LogLine, LogNews, Past, Stream, TerminalSize,
    process::{Finding, doctor},
};
pub use error::{BuildError, Error};
pub use notice::{Exit, Health, InstanceState, InstanceStatus, Notice, PoolInstance};
pub use runner::{ApplyOptions, Begun, Runner, Settings, end_leftovers, seat_address, start};
pub use supervisor::{CommandError, Ending, Failure, Recreate};
