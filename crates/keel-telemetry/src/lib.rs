//! Counters, access logs and error logs.
//!
//! What a worker does here never blocks: it adds to counters of its own, and puts lines into queues of its own that
//! one thread, the [`LogWriter`], empties into files. A queue that is full loses lines, which is counted and reported.
//! Standard output and error have a thread each ([`Outlet`]): a terminal may take nothing for hours.
//! Formats and times take the time as an argument; only the writer's thread reads a clock, for `flush=`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod access_log;
mod bounded_file;
mod counter;
mod error_log;
mod escape;
mod outlet;
mod syslog;
mod time;
mod writer;

pub use access_log::{Format, Values};
pub use bounded_file::BoundedFile;
pub use counter::{Counter, Counters, Totals, WorkerCounters};
pub use error_log::{Entry, ErrorLog, level_name};
pub use outlet::{Outlet, left_out_text, stderr, stdout};
pub use syslog::{DatagramAddress, Datagrams, SyslogHeader};
pub use time::TimeText;
pub use writer::{Buffering, Log, LogWriter, Problem, Target};
