//! A folder with a Compose file, and perhaps an nginx.conf: read, joined and run.

mod command;
mod container;
mod direct;
mod export;
mod joined;
mod left_out;
mod merge;
mod path_map;
mod place;
mod process;
mod published;
mod readable;
mod run_as;
mod seat;
mod seats;
mod supervise;
mod texts;
mod tree;

pub use command::{UpError, UpOptions};
pub use direct::{DirectPort, direct_configuration};
#[cfg(feature = "kubernetes")]
pub use export::KubernetesOptions;
pub use export::{Exported, ExportedFile, Part, Readers, SwarmOptions};
pub use joined::{Joined, LoadedFiles, ProjectOptions, Reading, Seat};
pub use path_map::PathMap;
pub use place::{Identity, place};
pub use supervise::{ProjectError, ProjectEvent, RunningProject};
pub use texts::{SeatTexts, TextError};
