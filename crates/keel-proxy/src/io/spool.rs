//! A temporary file that bytes go through, first in first out.
//!
//! The file has no name: it is unlinked as soon as it is open, and its space is given back when it is dropped. Reading
//! and writing block, as in nginx without `aio`: they meet the page cache.
//!
//! Folders are held open from before this process became another user ([`hold`]): the way to them may be closed to that
//! one, as that below root's home is.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Folders for temporary files, of all configurations so far.
static HELD: LazyLock<RwLock<HashMap<PathBuf, Arc<OwnedFd>>>> = LazyLock::new(RwLock::default);

/// Holds folders open for [`Spool::create`]. One that can't be opened is looked for by its path when it is needed.
pub(crate) fn hold<'a>(folders: impl Iterator<Item = &'a Path>) {
    let mut held = HELD.write().unwrap_or_else(PoisonError::into_inner);
    for folder in folders {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(open) = rustix::fs::openat(CWD, folder, flags, Mode::empty()) {
            held.insert(folder.to_owned(), Arc::new(open));
        }
    }
}

fn held(folder: &Path) -> Option<Arc<OwnedFd>> {
    HELD.read().unwrap_or_else(PoisonError::into_inner).get(folder).cloned()
}

/// A file that is written at its end and read from its beginning.
pub(crate) struct Spool {
    file: File,
    read_at: u64,
    end: u64,
}

impl Spool {
    /// Makes one in `folder`, which is made if need be.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = PathBuf::from(format!("{}-{serial:010}", std::process::id()));
        if let Some(held) = held(folder)
            && let Ok(file) = open_nameless(held.as_fd(), &name)
        {
            return Ok(Self { file, read_at: 0, end: 0 });
        }
        let path = folder.join(name);
        let file = match open_nameless(CWD, &path) {
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(folder)?;
                open_nameless(CWD, &path)?
            }
            result => result?,
        };
        Ok(Self { file, read_at: 0, end: 0 })
    }

    /// Gives another reader of the bytes written so far, which begins at the first of them.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, read_at: 0, end: self.end })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Appends up to `length_max` of the bytes not yet read to `buffer`, and counts them as read.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, length_max: usize) -> io::Result<usize> {
        let left = usize::try_from(self.pending()).unwrap_or(usize::MAX);
        let start = buffer.len();
        buffer.resize(start + left.min(length_max), 0);
        let slice = buffer.get_mut(start..).unwrap_or_default();
        let read = self.file.read_at(slice, self.read_at);
        buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        let read = read?;
        if read == 0 && left > 0 && length_max > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_at += read as u64;
        Ok(read)
    }

    /// Reads from the beginning again: a request is sent once more.
    pub(crate) fn rewind(&mut self) {
        self.read_at = 0;
    }

    /// Counts the bytes not yet read.
    pub(crate) fn pending(&self) -> u64 {
        self.end.saturating_sub(self.read_at)
    }

    /// Counts all bytes written.
    pub(crate) fn len(&self) -> u64 {
        self.end
    }
}

fn open_nameless(folder: BorrowedFd<'_>, name: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_written_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("made/here");
        let mut spool = Spool::create(&inside).unwrap();
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
        spool.write(b"hello ").unwrap();
        spool.write(b"world").unwrap();
        let mut bytes = Vec::new();
        assert_eq!(spool.read(&mut bytes, 8).unwrap(), 8);
        assert_eq!(spool.pending(), 3);
        spool.read(&mut bytes, 8).unwrap();
        assert_eq!(bytes, b"hello world");
        assert_eq!(spool.read(&mut bytes, 8).unwrap(), 0);
        spool.rewind();
        assert_eq!((spool.pending(), spool.len()), (11, 11));
    }

    #[test]
    fn a_folder_that_is_held_needs_no_way_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        std::fs::create_dir(&before).unwrap();
        hold(std::iter::once(before.as_path()));
        // Root may go anywhere, so the path is taken away instead.
        std::fs::rename(&before, &after).unwrap();
        Spool::create(&before).unwrap().write(b"x").unwrap();
        assert!(!before.exists());
        // One that is gone is made anew.
        std::fs::remove_dir(&after).unwrap();
        Spool::create(&before).unwrap().write(b"x").unwrap();
        assert!(before.exists());
    }
}
