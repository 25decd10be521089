//! For tests only: the real binary, scripted peers, a client, load with a ledger.
//!
//! Blocking and simple on purpose: what judges the product shares no code with it, so that one mistake isn't made twice.
//! Everything has a deadline; nothing sleeps to wait for something that can be observed.

#![forbid(unsafe_code)]

mod binary;
mod client;
mod demo;
mod engine;
mod engine_way;
mod fake_cluster;
mod fleet;
mod front;
mod load;
mod name_server;
mod not_run;
mod peer;
mod project;
mod saboteur;

pub use binary::{Binary, Running, free_port, wait_until};
pub use client::{Client, Response, get};
pub use demo::{DEMO_NGINX_CONF, Demo, demo_app};
pub use engine::Engine;
pub use engine_way::EngineWay;
pub use fake_cluster::{ClusterMood, FakeCluster, FakeState};
pub use fleet::Fleet;
pub use front::{Front, equal};
pub use load::{Ledger, Load, Outcome, Report, Shares};
pub use name_server::{NameAnswer, NameServer};
pub use not_run::not_run;
pub use peer::{Peer, PeerBehaviour};
pub use project::Project;
pub use saboteur::{Saboteur, Vice};

/// How long anything may take before a test gives up.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
