//! A temporary file that bytes go through, first in first out.
//!
//! The file has no name: it is unlinked as soon as it is open, and its space is given back when it is dropped. Reading
//! and writing block, as in nginx without `aio`: they meet the page cache.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

static SERIAL: AtomicU64 = AtomicU64::new(0);

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
        let path = folder.join(format!("{}-{serial:010}", std::process::id()));
        let open = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(folder)?;
                open()?
            }
            result => result?,
        };
        std::fs::remove_file(&path)?;
        Ok(Self { file, read_at: 0, end: 0 })
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
}
