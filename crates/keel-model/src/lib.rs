//! Plain types that every other crate speaks.
//!
//! The supervisor reads files and builds these values; the data plane and the runner act on them. They are data: no
//! file format, no span, no I/O, no clock. Everything the data plane needs crosses a process boundary, so all of
//! it is `Serialize` and `Deserialize`, and patterns stay text until the data plane compiles them.

#![forbid(unsafe_code)]

mod container;
mod files;
mod http;
mod listener;
mod message;
mod plan;
mod resolver;
mod secret;
mod service;
mod settings;
mod signal;
mod template;
mod units;
mod upstream;
mod variable;

pub use container::*;
pub use files::*;
pub use http::*;
pub use listener::*;
pub use message::*;
pub use plan::*;
pub use resolver::*;
pub use secret::*;
pub use service::*;
pub use settings::*;
pub use signal::*;
pub use template::*;
pub use units::*;
pub use upstream::*;
pub use variable::*;
