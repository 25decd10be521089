//! What the kernel says of processes and their descriptors: proc(5).
//!
//! A process may end between two reads; what is gone is left out, and isn't an error.

use std::{collections::BTreeMap, io, path::Path};

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The state as ps(1) shows it: `R`, `S`, `T`, `Z`.
    pub state: char,
    /// The parent's process id.
    pub parent: i32,
    /// The process group.
    pub group: i32,
    /// The session.
    pub session: i32,
    /// When it started, in the kernel's ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Tells whether it has ended: a zombie only waits to be reaped.
    pub fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Reads what the kernel says of a process; `None` when there is none of that number.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&text(format!("/proc/{pid}/stat")).ok()?)
}

/// The value of a line of `/proc/PID/status`, as `Tgid`. Takes a thread's number too.
///
/// # Errors
/// `NotFound` when there is no process of that number, `InvalidData` when there is no such line.
pub fn status(pid: i32, line: &str) -> io::Result<String> {
    let text = text(format!("/proc/{pid}/status"))?;
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads a file of the kernel's. Names of processes, mounts and sockets in it may be any bytes: a process's name is cut at
/// 15 bytes, within a character if need be.
///
/// # Errors
/// What read(2) says.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold anything, closing brackets too: the fields begin after the last one.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// The numbers of all processes.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All processes that haven't ended.
pub fn living() -> BTreeMap<i32, Stat> {
    pids().filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| !stat.is_over()).collect()
}

/// The inodes of the sockets that a process has open.
///
/// # Errors
/// `PermissionDenied` for a process of another user, or that changed its user; `NotFound` when it has ended.
pub fn sockets_of(pid: i32) -> io::Result<impl Iterator<Item = u64>> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    Ok(descriptors
        .filter_map(|entry| socket_inode(&std::fs::read_link(entry.path()).ok()?.to_string_lossy())))
}

/// The inode of the socket behind a descriptor of a process; `None` when it is no socket, or closed.
pub fn socket_at(pid: i32, descriptor: i32) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
    socket_inode(&link.to_string_lossy())
}

/// Tells whether this process has a socket open.
pub fn is_own_socket(inode: u64) -> bool {
    let own = i32::try_from(std::process::id()).map_err(io::Error::other);
    own.and_then(sockets_of).is_ok_and(|mut sockets| sockets.any(|socket| socket == inode))
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn reads_what_stands_behind_any_name() {
        let text = "42 (a) b) (c) S 7 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 8754321 1 2 3";
        let expect = Stat { state: 'S', parent: 7, group: 40, session: 41, start_time: 8_754_321 };
        assert_eq!(parse_stat(text), Some(expect));
        assert!(!expect.is_over() && Stat { state: 'Z', ..expect }.is_over());
        assert_eq!(parse_stat("42 (x) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_name_that_is_cut_within_a_character_hides_nothing() {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("обработчик".into());
        let thread = thread.spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            std::thread::park();
        });
        let (thread, number) = (thread.unwrap(), told.recv().unwrap());
        assert!(std::fs::read_to_string(format!("/proc/{number}/comm")).is_err(), "the name is whole");
        assert!(stat(number).is_some());
        assert_eq!(status(number, "Tgid").unwrap(), std::process::id().to_string());
        assert_eq!(status(number, "Tg").unwrap_err().kind(), io::ErrorKind::InvalidData);
        thread.thread().unpark();
        thread.join().unwrap();
    }

    #[test]
    fn finds_a_socket_by_its_holder_and_its_descriptor() {
        let me = i32::try_from(std::process::id()).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        assert_eq!(socket_at(me, socket.as_raw_fd()), Some(inode));
        assert!(is_own_socket(inode) && sockets_of(me).unwrap().any(|found| found == inode));
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(socket_at(me, file.as_raw_fd()), None);
        assert!(!is_own_socket(0));
        assert!(living().contains_key(&me));
    }
}
