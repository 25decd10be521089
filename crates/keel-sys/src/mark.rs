//! Marks by which the processes of a run are recognised after its end.
//!
//! Process ids are given anew, groups and sessions are left, parents die. What stays with a process and all that it starts
//! is its environment, and the root that it sees. So the mark is a variable whose value nobody else has, and a file that
//! is mounted over the process's `/etc/nsswitch.conf`. Either one is enough; a program that clears its environment *and* enters
//! another root loses both.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// What tells a process of a run from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    variable: Vec<u8>,
    file: Option<FileId>,
}

/// A file's identity on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of the file at a path.
    ///
    /// # Errors
    /// What stat(2) says.
    pub fn of(path: &std::path::Path) -> io::Result<Self> {
        let stat = rustix::fs::stat(path)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

impl Mark {
    /// Makes one of a piece of an environment (`NAME=value`, the closing zero included if the value ends there; empty for
    /// none) and of the file that is the processes' `/etc/nsswitch.conf`.
    pub fn new(variable: impl Into<Vec<u8>>, file: Option<FileId>) -> Self {
        Self { variable: variable.into(), file }
    }

    /// Whether a process carries it, by its folder in `/proc`. `false` when it can't be looked at. Allocates nothing.
    pub fn is_on(&self, proc: impl AsFd, pid: &[u8]) -> bool {
        let proc = proc.as_fd();
        let file = self.file.is_some_and(|file| {
            let seen =
                at(pid, b"/root/etc/nsswitch.conf", |path| rustix::fs::statat(proc, path, AtFlags::empty()));
            seen.is_some_and(|stat| FileId { device: stat.st_dev, inode: stat.st_ino } == file)
        });
        file || self.is_in_environment(proc, pid)
    }

    fn is_in_environment(&self, proc: impl AsFd, pid: &[u8]) -> bool {
        if self.variable.is_empty() {
            return false;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open = at(pid, b"/environ", |path| rustix::fs::openat(proc, path, flags, Mode::empty()));
        open.is_some_and(|file| contains(&file, &self.variable))
    }
}

/// Opens `/proc`.
///
/// # Errors
/// What open(2) says.
pub fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?)
}

/// Does something with a path below a process's folder, made on the stack.
pub(crate) fn at<T>(
    pid: &[u8],
    suffix: &[u8],
    then: impl FnOnce(&std::ffi::CStr) -> Result<T, rustix::io::Errno>,
) -> Option<T> {
    let mut path = [0; 48];
    let length = pid.len() + suffix.len();
    // The last byte stays zero.
    if length >= path.len() {
        return None;
    }
    path[..pid.len()].copy_from_slice(pid);
    path[pid.len()..length].copy_from_slice(suffix);
    then(std::ffi::CStr::from_bytes_until_nul(&path).ok()?).ok()
}

/// Whether a file holds these bytes.
fn contains(file: &OwnedFd, needle: &[u8]) -> bool {
    let mut buffer = [0; 4096];
    let mut kept = 0;
    if needle.len() >= buffer.len() {
        return false;
    }
    loop {
        let read = match rustix::io::read(file, &mut buffer[kept..]) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
        };
        let filled = kept + read;
        if buffer[..filled].windows(needle.len()).any(|window| window == needle) {
            return true;
        }
        // It may begin in what was read and end in what is read next.
        kept = (needle.len() - 1).min(filled);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn knows_a_process_by_its_environment() {
        let mut child = Command::new("sleep").arg("60").env("KEEL_MARK_TEST", "abc.1").spawn().unwrap();
        let pid = child.id().to_string();
        let proc = open_proc().unwrap();
        // It has none for a moment while it becomes another program.
        while std::fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let check = |variable: &str, expect: bool| {
            let mark = Mark::new(variable, None);
            assert_eq!(mark.is_on(&proc, pid.as_bytes()), expect, "{variable:?}");
        };
        check("KEEL_MARK_TEST=abc", true);
        check("KEEL_MARK_TEST=abc.1\0", true);
        check("KEEL_MARK_TEST=abc\0", false);
        check("KEEL_MARK_TEST=abd", false);
        check("", false);
        child.kill().unwrap();
        child.wait().unwrap();
        check("KEEL_MARK_TEST=abc", false);
    }

    #[test]
    fn knows_a_process_by_the_file_that_it_sees() {
        let Ok(file) = FileId::of(std::path::Path::new("/etc/nsswitch.conf")) else {
            keel_testkit::not_run("there is no /etc/nsswitch.conf");
            return;
        };
        let proc = open_proc().unwrap();
        let me = std::process::id().to_string();
        assert!(Mark::new("", Some(file)).is_on(&proc, me.as_bytes()));
        let another = FileId { inode: file.inode + 1, ..file };
        assert!(!Mark::new("", Some(another)).is_on(&proc, me.as_bytes()));
    }

    #[test]
    fn finds_bytes_wherever_the_reads_end() {
        use std::io::Write;
        for before in 4050..4110 {
            for (needle, expect) in [("needle", true), ("noodle", false)] {
                // It holds that much unread.
                let (reader, mut writer) = std::io::pipe().unwrap();
                writer.write_all(&vec![b'x'; before]).unwrap();
                writer.write_all(b"needle").unwrap();
                drop(writer);
                assert_eq!(contains(&OwnedFd::from(reader), needle.as_bytes()), expect, "{before}");
            }
        }
    }
}
