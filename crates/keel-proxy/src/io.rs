//! The thin seam between the phases and the operating system: sockets, timers, buffers, the clock.

pub(crate) mod buffer;
pub(crate) mod clock;
pub(crate) mod deadlines;
pub(crate) mod spool;
pub(crate) mod timer;
