//! Reads docker-compose.yml, .env files and Dockerfiles.
//!
//! [`load()`] finds the files, joins them as Compose does and gives a typed [`Project`] with *all* diagnostics: it never
//! stops at the first. A service that can't be understood is marked [`Service::faulty`] and keeps no other from running.
//! Nothing is run here, nothing is written, and no environment is read but the one that is handed in.
//!
//! On the way: [`yaml`] makes a tree with places, [`interpolate`] replaces `${...}`, [`files`] finds and reads the files,
//! [`mod@extends`] and [`mod@include`] pull in others, [`merge`] joins them, [`service`] types the result, [`schema`] says what
//! isn't honoured, [`dockerfile`] reads what `build` leads to, [`seat`] finds the balancer's place.

#![forbid(unsafe_code)]

mod container;
mod decode;
mod dockerfile;
mod dotenv;
mod driver;
mod extends;
mod files;
mod healthcheck;
mod include;
mod indented;
mod interpolate;
mod load;
mod lower;
mod merge;
mod mounts;
mod options;
mod ports;
mod project;
mod report;
mod scalar;
mod schema;
mod seat;
mod service;
mod spanned;
mod words;
mod yaml;

pub use dockerfile::{BuildInputs, Copy, CopySource, Dockerfile, Run, RunCommand, Stage, context_patterns};
pub use healthcheck::{HealthTest, Healthcheck};
pub use load::{Loaded, load, load_text};
pub use options::{Options, RunPlace};
pub use ports::{PortMapping, PortRange};
pub use project::{
    Build, Config, ConfigMount, DependsOn, Mount, MountSource, NamedVolume, Network, NetworkAttachment,
    Origin, Process, Project, Reservations, Service, UpdateConfig, UpdateOrder,
};
pub use seat::{
    ImageTexts, Invocation, Layer, SeatFile, SeatFiles, SeatImage, balancer_seats, is_balancer_seat,
    is_named_seat,
};
pub use spanned::Spanned;
