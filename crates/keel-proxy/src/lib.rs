//! The data plane: the process that clients and peers talk to.
//!
//! [`run`] is the whole of it. A control thread takes orders from the supervisor over a unix socket and answers with
//! reports; worker threads serve. The process holds no file format and no span: it is told a
//! [`Plan`](keel_model::Plan), builds a snapshot of it without moving traffic, and switches to it when told.

#![forbid(unsafe_code)]

mod accept;
mod answer;
mod body;
mod browser;
mod charset;
mod client;
mod control;
mod credentials;
mod downstream;
mod error;
mod exchange;
mod files;
mod filter;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http2;
mod io;
mod job;
mod limits;
mod log;
mod passwords;
mod phase;
mod preface;
mod reports;
mod resolver;
#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), expect(dead_code, reason = "fuzz targets use a part of it"))]
mod rig;
mod secure_link;
mod send;
mod sessions;
mod snapshot;
mod ssl_variables;
mod stores;
mod subrequest;
mod transform;
mod transport;
mod upstream;
mod variables;
mod worker;

pub use control::{Error, run};
pub use keel_sys::confine::confine;
