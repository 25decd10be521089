//! What does what the supervisor decides.

pub(crate) mod process;
