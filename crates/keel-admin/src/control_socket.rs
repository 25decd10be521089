//! The control socket of a balancer alone: a file beside its pid file, or wherever the operator wants it.
//!
//! There is no lock: who answers lives, and what nobody listens on any more is replaced. Only its owner may connect; the
//! mode is set before the file is there.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::paths::SOCKET_PATH_BYTES_MAX;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that is bound. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlSocketError {
    /// Somebody listens there.
    #[error("a balancer is reached by {} already{}", path.display(), .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Live {
        /// Where.
        path: PathBuf,
        /// Its process.
        pid: Option<i32>,
    },
    /// What lies there is something else.
    #[error("{} is there and no socket", path.display())]
    Other {
        /// Where.
        path: PathBuf,
    },
    /// The path is longer than a socket's may be.
    #[error("{} is too long for a socket: {SOCKET_PATH_BYTES_MAX} bytes are the most", path.display())]
    TooLong {
        /// Where.
        path: PathBuf,
    },
    /// The kernel says no.
    #[error("can't make {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        #[source]
        source: io::Error,
    },
}

impl ControlSocket {
    /// Binds one. A socket that a dead process left behind is replaced.
    ///
    /// # Errors
    /// See [`ControlSocketError`].
    pub fn bind(path: &Path) -> Result<Self, ControlSocketError> {
        let path = path.to_owned();
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(ControlSocketError::TooLong { path });
        }
        let bound = match listen(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let is_socket = fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket());
                if !is_socket {
                    return Err(ControlSocketError::Other { path });
                }
                match UnixStream::connect(&path) {
                    Ok(stream) => {
                        let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
                        let pid = peer.map(|peer| peer.pid.as_raw_nonzero().get());
                        return Err(ControlSocketError::Live { path, pid });
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        fs::remove_file(&path).and_then(|()| listen(&path))
                    }
                    Err(error) => Err(error),
                }
            }
            bound => bound,
        };
        match bound {
            Ok(listener) => Ok(Self { path, listener }),
            Err(source) => Err(ControlSocketError::Io { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the listening side to the tokio runtime that this is called on.
    ///
    /// # Errors
    /// When that can't watch it.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(fs::remove_file(&self.path));
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file gets the mode that the socket has.
    rustix::fs::fchmod(&socket, Mode::from(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_its_owner_may_connect_and_it_goes_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nginx.control");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_one_is_replaced_and_a_live_one_or_another_file_never_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nginx.control");
        drop(UnixListener::bind(&path).unwrap());
        let socket = ControlSocket::bind(&path).unwrap();
        match ControlSocket::bind(&path) {
            Err(ControlSocketError::Live { pid, .. }) => {
                assert_eq!(pid.map(i32::cast_unsigned), Some(std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        UnixStream::connect(&path).unwrap();
        drop(socket);
        fs::write(&path, "kept").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlSocketError::Other { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        let long = folder.path().join("x".repeat(SOCKET_PATH_BYTES_MAX));
        assert!(matches!(ControlSocket::bind(&long), Err(ControlSocketError::TooLong { .. })));
    }
}
