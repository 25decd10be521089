//! Who is the supervisor of a project: the one that holds its lock.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

use crate::paths::Paths;

/// The right to be a project's supervisor, and the socket it is reached by. Given up when dropped.
#[derive(Debug)]
pub struct SupervisorClaim {
    _lock: File,
    listener: Option<std::os::unix::net::UnixListener>,
    paths: Paths,
}

/// Why there can't be a supervisor.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is one.
    #[error("a supervisor of this project runs already{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Taken {
        /// Its process, as the lock file says.
        pid: Option<u32>,
    },
    /// The lock or the socket can't be made.
    #[error("can't make {path}")]
    Io {
        /// Which file.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl SupervisorClaim {
    /// Claims a project. A socket that a dead supervisor left behind is replaced.
    ///
    /// # Errors
    /// When another supervisor lives, or the files can't be made.
    pub fn take(paths: &Paths) -> Result<Self, ClaimError> {
        let failed = |path: &Path, source| ClaimError::Io { path: path.display().to_string(), source };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&paths.lock)
            .map_err(|error| failed(&paths.lock, error))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(ClaimError::Taken { pid: holder(&paths.lock) });
        }
        std::fs::write(&paths.lock, std::process::id().to_string())
            .map_err(|error| failed(&paths.lock, error))?;
        if let Err(error) = std::fs::remove_file(&paths.socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(&paths.socket, error));
        }
        let listener = std::os::unix::net::UnixListener::bind(&paths.socket)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| failed(&paths.socket, error))?;
        std::fs::set_permissions(&paths.socket, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| failed(&paths.socket, error))?;
        Ok(Self { _lock: lock, listener: Some(listener), paths: paths.clone() })
    }

    /// The socket, once, to the tokio runtime that this is called on.
    pub fn listener(&mut self) -> Option<UnixListener> {
        UnixListener::from_std(self.listener.take()?).ok()
    }
}

impl Drop for SupervisorClaim {
    fn drop(&mut self) {
        // The lock file stays: removing it would let two claim different files of one name.
        drop(std::fs::remove_file(&self.paths.socket));
    }
}

/// The process that holds a lock, as it wrote itself.
fn holder(lock: &Path) -> Option<u32> {
    std::fs::read_to_string(lock).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(folder: &Path) -> Paths {
        Paths {
            socket: folder.join("p.sock"),
            lock: folder.join("p.lock"),
            state: folder.to_owned(),
            cache: folder.to_owned(),
        }
    }

    #[test]
    fn only_one_supervises_and_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        drop(std::os::unix::net::UnixListener::bind(&paths.socket).unwrap());
        let claim = SupervisorClaim::take(&paths).unwrap();
        let mode = std::fs::metadata(&paths.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        match SupervisorClaim::take(&paths) {
            Err(ClaimError::Taken { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(claim);
        assert!(!paths.socket.exists());
        SupervisorClaim::take(&paths).unwrap();
    }
}
