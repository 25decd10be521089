//! Where files are looked for: on this host, or as in a container whose place Evenkeel takes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the paths of a scope lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSource {
    /// To this host's files, as with nginx. The default.
    #[default]
    Host,
    /// To the [`FileTree`] of this name.
    Tree(String),
}

/// The files of a container whose place Evenkeel takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTree {
    /// The service in whose place.
    pub name: String,
    /// What is where; later ones hide earlier ones.
    pub layers: Vec<FileLayer>,
}

/// A file or folder in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLayer {
    /// Its path there. Absolute.
    pub path: PathBuf,
    /// How it acts on what was there.
    pub kind: FileLayerKind,
    /// Where it is on this host; `None` where something is taken away.
    pub place: Option<HostPlace>,
}

/// How a layer acts on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileLayerKind {
    /// A folder's other files stay.
    Copied,
    /// All that was there is hidden.
    Mounted,
}

/// A place on this host. Everything is looked for in the folder, which is never left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlace {
    /// Absolute, and without links.
    pub folder: PathBuf,
    /// Relative to the folder; empty for the folder itself.
    pub below: PathBuf,
}
