//! Where a project's socket, lock, logs and builds are.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use keel_control::project::{ProjectOptions, place};
use rustix::fs::Access;

use crate::api::FileChoice;

/// The longest path a unix socket can have on Linux, in bytes, without the closing zero.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The folders of one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The control socket: mode 0600 in a folder of mode 0700.
    pub socket: PathBuf,
    /// Held while a supervisor of this project lives.
    pub lock: PathBuf,
    /// Logs and what else outlives a supervisor: `$XDG_STATE_HOME/evenkeel/NAME-HASH`, the hash of the project's folder. Mode
    /// 0700; 0710 while the data plane's group must reach a socket in it.
    pub state: PathBuf,
    /// What can be made again: `$XDG_CACHE_HOME/evenkeel`, shared by all projects of a user.
    pub cache: PathBuf,
}

/// A folder or file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't use {}", path.display())]
pub struct PathError {
    path: PathBuf,
    /// What is to be done about it.
    pub remedy: String,
    #[source]
    source: io::Error,
}

impl Paths {
    /// The folders of a project.
    pub fn of(project: &str, folder: &Path) -> Self {
        let place = place(project, folder);
        let socket = Self::socket_of(project, folder);
        Self {
            lock: socket.with_extension("lock"),
            socket,
            state: state_folder().join(place),
            cache: cache_folder(),
        }
    }

    /// Whether something of the project was kept, by an earlier version too.
    pub fn has_state(&self, project: &str) -> bool {
        self.state.is_dir() || state_folder().join(project).is_dir()
    }

    /// The control socket of a project.
    pub(crate) fn socket_of(project: &str, folder: &Path) -> PathBuf {
        runtime_folder().join(format!("{}.sock", place(project, folder)))
    }

    /// Makes the folders. What an earlier version kept for the project's name becomes this project's, unless its supervisor
    /// still runs.
    ///
    /// # Errors
    /// When one can't be made or written to, or the runtime folder belongs to somebody else.
    pub fn make(&self, project: &str) -> Result<(), PathError> {
        if self.socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let text = format!("a socket's path has {SOCKET_PATH_BYTES_MAX} bytes at most");
            return Err(PathError::of(&self.socket, "XDG_RUNTIME_DIR")(io::Error::other(text)));
        }
        let runtime = runtime_folder();
        make_private(&runtime).map_err(PathError::of(&runtime, "XDG_RUNTIME_DIR"))?;
        let before = state_folder().join(project);
        if !self.state.exists() && before.is_dir() && !is_locked(&before.join("lock")) {
            fs::rename(&before, &self.state).map_err(PathError::of(&before, "XDG_STATE_HOME"))?;
        }
        let states = state_folder();
        let shared = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        make_closed(&states, shared).map_err(PathError::of(&states, "XDG_STATE_HOME"))?;
        let own = [(&self.state, "XDG_STATE_HOME", 0o710), (&self.cache, "XDG_CACHE_HOME", shared)];
        for (folder, variable, widest) in own {
            make_closed(folder, widest)
                .and_then(|()| Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?))
                .map_err(PathError::of(folder, variable))?;
        }
        Ok(())
    }
}

impl PathError {
    /// Makes an error of what the kernel says about a path below the folder that a variable names.
    fn of(path: &Path, variable: &str) -> impl Fn(io::Error) -> Self {
        let (path, variable) = (path.to_owned(), variable.to_owned());
        move |source| {
            let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
            let owner = fs::metadata(there).map(|meta| meta.uid()).unwrap_or_default();
            let me = rustix::process::getuid().as_raw();
            let remedy = if owner == 0 && me != 0 && there.starts_with(home()) && there != home() {
                format!(
                    "{} belongs to root, as after `sudo`: `sudo chown -R {me} {0}` gives it back",
                    there.display()
                )
            } else {
                format!("set {variable} to a folder that you can write to, and that has room")
            };
            Self { path: path.clone(), remedy, source }
        }
    }
}

/// Whether a process holds a lock.
fn is_locked(lock: &Path) -> bool {
    let Ok(file) = fs::File::open(lock) else { return false };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
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
            place: keel_compose::RunPlace::Here,
        };
        Self { compose, state: state_folder(), cache: cache_folder() }
    }
}

/// Root's is not below its home folder, which is closed as a rule: the data plane, another user then, has files in it.
fn state_folder() -> PathBuf {
    let own = || match rustix::process::geteuid().is_root() {
        true => "/var/lib".into(),
        false => home().join(".local/state"),
    };
    absolute_variable("XDG_STATE_HOME").unwrap_or_else(own).join("evenkeel")
}

/// Root's is one that other users may read: services run as such with what is built in it.
fn cache_folder() -> PathBuf {
    let usual = || match rustix::process::geteuid().is_root() {
        true => PathBuf::from("/var/cache"),
        false => home().join(".cache"),
    };
    absolute_variable("XDG_CACHE_HOME").unwrap_or_else(usual).join("evenkeel")
}

/// The folder of all control sockets of this user.
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

/// Makes a folder that only this user can read, or makes it one if it is his. `widest` says who else may pass it: of root's
/// folders all users where several projects share one, of a project's own the group of its data plane, which is given
/// to it when it is needed.
fn make_closed(folder: &Path, widest: u32) -> io::Result<()> {
    let mode = if widest == 0o710 { 0o700 } else { widest };
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    let meta = fs::metadata(folder)?;
    let is_meant = [mode, widest].contains(&(meta.mode() & 0o777));
    // Under a narrow umask it is more closed than asked for.
    if meta.uid() == rustix::process::geteuid().as_raw() && !is_meant {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a folder is this user's and nobody else may write to it.
pub(crate) fn is_private(folder: &Path) -> bool {
    let me = rustix::process::getuid().as_raw();
    let is_ours = |meta: fs::Metadata| meta.is_dir() && meta.uid() == me && meta.mode() & 0o022 == 0;
    fs::symlink_metadata(folder).is_ok_and(is_ours)
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
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else"));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
