//! Where a project's socket, lock, logs and builds are.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use keel_control::project::ProjectOptions;

use crate::api::FileChoice;

/// The longest path a unix socket can have on Linux, in bytes, without the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The folders of one project, made when first asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The control socket: mode 0600 in a folder of mode 0700.
    pub socket: PathBuf,
    /// Held while a supervisor of this project lives.
    pub lock: PathBuf,
    /// Logs and what else outlives a supervisor: `$XDG_STATE_HOME/evenkeel/PROJECT`. Mode 0700; as root 0711.
    pub state: PathBuf,
    /// What can be made again: `$XDG_CACHE_HOME/evenkeel`, shared by all projects of a user.
    pub cache: PathBuf,
}

impl Paths {
    /// Finds the folders for a project and makes them.
    ///
    /// # Errors
    /// When one can't be made, or the runtime folder belongs to somebody else.
    pub fn of(project: &str) -> io::Result<Self> {
        let runtime = runtime_folder();
        make_private(&runtime)?;
        let (state, cache) = (state_folder().join(project), cache_folder());
        fs::create_dir_all(&cache)?;
        make_closed(&state)?;
        let socket = runtime.join(format!("{project}.sock"));
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the socket's path {} is longer than {SOCKET_PATH_BYTES_MAX} bytes",
                    socket.display()
                ),
            ));
        }
        Ok(Self { lock: runtime.join(format!("{project}.lock")), socket, state, cache })
    }
}

impl From<FileChoice> for ProjectOptions {
    fn from(choice: FileChoice) -> Self {
        let compose = keel_compose::Options {
            folder: choice.folder,
            files: choice.files,
            project_name: choice.project_name,
            profiles: choice.profiles,
            env_files: choice.env_files,
            environment: choice.environment,
            driver: choice.driver,
        };
        Self { compose, state: state_folder(), cache: cache_folder() }
    }
}

fn state_folder() -> PathBuf {
    absolute_variable("XDG_STATE_HOME").unwrap_or_else(|| home().join(".local/state")).join("evenkeel")
}

fn cache_folder() -> PathBuf {
    absolute_variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("evenkeel")
}

/// Gives the folder of all control sockets of this user.
pub fn runtime_folder() -> PathBuf {
    match absolute_variable("XDG_RUNTIME_DIR") {
        Some(folder) => folder.join("evenkeel"),
        None => {
            let uid = rustix::process::getuid();
            if uid.is_root() {
                "/run/evenkeel".into()
            } else {
                format!("/tmp/evenkeel-{}", uid.as_raw()).into()
            }
        }
    }
}

fn home() -> PathBuf {
    absolute_variable("HOME").unwrap_or_else(|| PathBuf::from("/var/tmp"))
}

fn absolute_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Makes a folder that only this user can read, or makes it one if it is his. Root's lets others pass: the data plane is
/// another user then, and has files in it.
fn make_closed(folder: &Path) -> io::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    let meta = fs::metadata(folder)?;
    if meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o777 != mode {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Makes a folder that only this user can enter, or checks that it is one.
fn make_private(folder: &Path) -> io::Result<()> {
    if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let meta = fs::symlink_metadata(folder)?;
    let me = rustix::process::getuid().as_raw();
    if !meta.is_dir() || meta.uid() != me {
        let message = format!("{} belongs to somebody else; set XDG_RUNTIME_DIR", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
