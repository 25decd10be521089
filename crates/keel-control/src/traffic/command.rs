//! How the data plane's process is started.

use std::path::{Path, PathBuf};

/// How the data plane's process is started: the program and what comes before its own arguments.
#[derive(Clone, Debug)]
pub struct DataPlaneCommand {
    /// The program; normally this one, even if its file has been replaced since.
    pub program: PathBuf,
    /// The name it shows in `ps`.
    pub name: String,
    /// The project's own folder: new logs in it are for its owner alone. Others are as nginx makes them.
    pub private_logs: Option<PathBuf>,
}

impl Default for DataPlaneCommand {
    fn default() -> Self {
        Self { program: own_program(), name: "evenkeel: data plane".into(), private_logs: None }
    }
}

/// A path by which this very program can be started again: its own, so that `ps` shows its name, unless another
/// file lies there by now.
pub fn own_program() -> PathBuf {
    let by_link = || PathBuf::from("/proc/self/exe");
    let Ok(path) = std::env::current_exe() else { return by_link() };
    let is_this = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let (file, this) = (std::fs::metadata(path).ok()?, std::fs::metadata("/proc/self/exe").ok()?);
        Some((file.dev(), file.ino()) == (this.dev(), this.ino()))
    };
    if is_this(&path) == Some(true) { path } else { by_link() }
}
