//! The only unsafe code: system calls that the libraries lack.
//!
//! Everything here is a thin, safe face of one Linux facility: what it does is in the manual page named at it, and
//! no policy of Evenkeel's is in here. Where `rustix` has a safe call, that one is used; an `unsafe` block holds one
//! operation and says why it is sound.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod allocator;
pub mod channel;
pub mod children;
pub mod claim;
pub mod confine;
pub mod guardian;
pub mod mark;
pub mod network;
pub mod proc;
pub mod process;
pub mod sandbox;
pub mod seccomp;
pub mod sock_diag;
pub mod tcp;
pub mod user;
pub mod watched;

pub use channel::{Channel, Outgoing};
pub use watched::Watched;

/// The machine's name (`uname -n`) in lower case, as nginx has it.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}
