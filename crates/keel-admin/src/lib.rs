//! The control socket: HTTP with JSON, server and client.
//!
//! A unix socket of mode 0600 is all the protection there is and all that is needed: who can open it is the user
//! himself. Nothing here listens on TCP.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod answer;
pub mod api;
mod balancer;
mod client;
mod control_socket;
mod exec;
mod find;
mod paths;
mod server;
mod socket;
mod text;

pub use balancer::serve_balancer;
pub use client::{Client, ClientError, Lines};
pub use control_socket::{ControlSocket, ControlSocketError};
pub use exec::{ExecFrame, ExecOpen, ExecReader, ExecWriter, INPUT_BYTES_MAX};
pub use find::{Found, find};
pub use paths::{PathError, Paths, runtime_folder};
pub use server::{Shown, remedies, serve};
pub use socket::{ClaimError, SupervisorClaim};
pub use text::Describe;
