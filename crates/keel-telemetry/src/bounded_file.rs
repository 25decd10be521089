//! A log file that never grows beyond a bound: at the bound it becomes the old one (`NAME.1`), and the next begins.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A file of at most that many bytes and the one before it, which only their owner reads (mode 0600).
#[derive(Debug)]
pub struct BoundedFile {
    file: File,
    path: PathBuf,
    length: u64,
    bytes_max: u64,
}

impl BoundedFile {
    /// Opens it to append to. Another program may have put a pipe in its place: that is not waited for.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, path: path.to_owned(), length, bytes_max })
    }

    /// Where the file before this one is.
    pub fn old_path(path: &Path) -> PathBuf {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        old.into()
    }

    /// Writes whole lines, all of them or none. They may exceed the bound if they are all that the file has.
    ///
    /// # Errors
    /// What the disk says.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let bytes = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.length > 0 && self.length.saturating_add(bytes) > self.bytes_max {
            match std::fs::rename(&self.path, Self::old_path(&self.path)) {
                // Somebody removed the file or moved it away: the next one begins all the same.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            self.file = append_to(&self.path)?;
            self.length = self.file.metadata()?.len();
        }
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would spoil the next one. What isn't a file has no length.
            drop(self.file.set_len(self.length));
            return Err(error);
        }
        self.length += bytes;
        Ok(())
    }
}

impl Write for BoundedFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.append(lines).map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).read(true).mode(0o600).custom_flags(flags).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_within_its_bound_and_goes_on_where_another_run_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.log");
        let mut file = BoundedFile::open(&path, 100).unwrap();
        for number in 0..1000 {
            if number == 500 {
                file = BoundedFile::open(&path, 100).unwrap();
            }
            file.append(format!("line {number}\n").as_bytes()).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let (old, new) = (read(&BoundedFile::old_path(&path)), read(&path));
        assert!(old.len() <= 100 && new.len() <= 100);
        let both = format!("{old}{new}");
        let first: usize = both.split(['\n', ' ']).nth(1).unwrap().parse().unwrap();
        let expect: String = (first..1000).map(|number| format!("line {number}\n")).collect();
        assert_eq!(both, expect);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), std::fs::read_dir(folder.path()).unwrap().count()), (0o600, 2));
    }

    #[test]
    fn goes_on_where_its_file_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let mut file = BoundedFile::open(&path, 100).unwrap();
        file.append(&[b'x'; 90]).unwrap();
        std::fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            file.append(b"goes on, and on\n").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "goes on, and on\n".repeat(2));
    }
}
