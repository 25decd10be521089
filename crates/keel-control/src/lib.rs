//! The control plane: from files to a plan, from a plan to running processes, and from one plan to the next.
//!
//! Nothing here speaks to a network client. What fails, fails in `prepare`, while the old configuration serves on;
//! `commit` can't fail.

#![forbid(unsafe_code)]

mod balancer;
mod chain;
mod configuration;
mod discovery;
mod health;
mod located;
mod orphans;
mod peers;
pub mod project;
mod resolve;
mod resolvers;
mod serve;
mod sockets;
mod traffic;

pub use balancer::{
    Balancer, BalancerNews, BalancerNotice, BalancerSettings, Departure, FirstNames, InstanceStart, PeerSets,
};
pub use chain::chain;
pub use configuration::{Configuration, DefaultFolder, FileError, Ready, ServeOptions};
pub use health::{Unwell, ask_health};
pub use located::{Located, Names};
pub use peers::{Binding, Entry, Pool, Pools};
pub use resolve::{Known, ServiceNames, bind};
pub use serve::{ReloadError, Reread, ServeError, ServeObserver, ServeSignal, Serving, serve};
pub use sockets::{ListenError, Sharing};
pub use traffic::{ApplyError, DataPlaneCommand, LogReaders, open_log, own_program};
