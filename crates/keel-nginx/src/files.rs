//! Where the texts come from.
//!
//! The reader asks a [`Files`] for everything outside its own text, so that a caller can map the paths of a container
//! to the host's, or serve a test from memory.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What the reader needs from the system.
pub trait Files {
    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`std::fs::read`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Gives the files that a pattern with `*`, `?` and `[` matches, sorted; none is no error.
    fn glob(&self, pattern: &Path) -> Vec<PathBuf>;

    /// Gives the name under which messages show a file: where a person finds it.
    fn shown(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// Resolves the host name of a `listen` directive.
    ///
    /// # Errors
    /// The resolver's, if the name has no address.
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }

    /// Gives the time, by which certificates are valid.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Tells whether this process may bind ports below 1024; without it a server with no `listen` gets port 8000.
    fn is_root(&self) -> bool {
        rustix::process::getuid().is_root()
    }
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFiles;

impl Files for HostFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let Some(pattern) = pattern.to_str() else {
            return Vec::new();
        };
        glob::glob_with(pattern, options).map_or_else(|_| Vec::new(), |paths| paths.flatten().collect())
    }
}
