//! A second, tiny process that ends what this one started, when this one is gone.
//!
//! PDEATHSIG reaches a child but not its children, and a killed subreaper reaps nothing. The guardian waits on a socket
//! whose other end only this process holds; through it it learns the process groups and mount namespaces of the
//! instances. When the socket ends it sends SIGKILL to all of them, to every process that lives in one of those namespaces or
//! carries the run's [`Mark`], and to the run's control group, and ends. It is handed each namespace open, so that its
//! number can't pass to a stranger's. It is forked, not executed, and needs about as much memory as its stack.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, RawDir},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
    },
    process::{Pid, PidfdFlags, Signal, WaitOptions},
};

use crate::mark::{Mark, at, open_proc};

/// The most instances it looks after.
pub const GUARDED_MAX: usize = 4096;

/// The process that looks after others when this one is gone.
#[derive(Debug)]
pub struct Guardian {
    socket: Option<OwnedFd>,
    pid: Pid,
}

const WATCH: u8 = 1;
const FORGET: u8 = 0;

impl Guardian {
    /// Starts it. `mark` is that of all its charges; `cgroup_kill` is the `cgroup.kill` file of the group that they live
    /// in, open for writing, where there is one.
    ///
    /// # Errors
    /// When the process is out of descriptors or the system of processes.
    pub fn start(mark: &Mark, cgroup_kill: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        crate::children::start(|| Self::fork(mark, cgroup_kill), |guardian| guardian.pid())
    }

    fn fork(mark: &Mark, cgroup_kill: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let (theirs, ours) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // SAFETY: the child makes system calls only, on its stack, and never returns from this branch; it reads `mark`,
        // of which it has a copy.
        match unsafe { libc::fork() } {
            0 => {
                guard(&theirs, mark, cgroup_kill);
                // SAFETY: ends the process at once; nothing of the parent's is flushed or dropped.
                unsafe { libc::_exit(0) }
            }
            pid if pid > 0 => {
                let pid = Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)?;
                Ok(Self { socket: Some(ours), pid })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor that becomes readable when it ends.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(rustix::process::pidfd_open(self.pid, PidfdFlags::empty())?)
    }

    /// Has it look after one more, in this mount namespace (`/proc/PID/ns/mnt`, open) if it has one to itself. Beyond
    /// [`GUARDED_MAX`] it takes no more, and PDEATHSIG has to do.
    ///
    /// # Errors
    /// When the guardian is gone.
    pub fn watch(&self, group: i32, namespace: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.tell(WATCH, group, namespace)
    }

    /// Has it forget one: it has ended, and its group's number may be given to others.
    ///
    /// # Errors
    /// When the guardian is gone.
    pub fn forget(&self, group: i32) -> io::Result<()> {
        self.tell(FORGET, group, None)
    }

    fn tell(&self, what: u8, group: i32, namespace: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let [a, b, c, d] = group.to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: &[BorrowedFd<'_>] = namespace.as_slice();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(socket, &[IoSlice::new(&[what, a, b, c, d])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.socket = None;
        // It ends within milliseconds, once the socket has.
        let wait = || rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
        while wait().is_err_and(|error| error == rustix::io::Errno::INTR) {}
        crate::children::forget(self.pid());
    }
}

/// A process group to end, and the mount namespace that its processes have to themselves.
struct Guarded {
    group: i32,
    /// Open for as long as its number is to mean this one.
    namespace: Option<OwnedFd>,
    inode: u64,
}

/// Takes no place: nobody's.
const NOBODY: Guarded = Guarded { group: 0, namespace: None, inode: 0 };

/// Runs in the guardian, from fork to end.
fn guard(socket: &OwnedFd, mark: &Mark, cgroup_kill: Option<BorrowedFd<'_>>) {
    // A session of its own: neither Ctrl-C nor the terminal's end reaches it.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"keel-guardian");
    close_all_but(socket.as_raw_fd(), cgroup_kill.map(|file| file.as_raw_fd()));
    let mut guarded = [const { NOBODY }; GUARDED_MAX];
    while let Some((what, told)) = hear(socket) {
        // One that is told again takes its own place.
        let known = guarded.iter().position(|place| place.group == told.group);
        let place = known.or_else(|| guarded.iter().position(|place| what == WATCH && place.group == 0));
        if let Some(place) = place.and_then(|place| guarded.get_mut(place)) {
            *place = if what == WATCH { told } else { NOBODY };
        }
    }
    if let Some(file) = cgroup_kill {
        let _ = rustix::io::write(file, b"1");
    }
    end_all(&guarded, mark);
}

fn close_all_but(one: RawFd, another: Option<RawFd>) {
    let another = another.unwrap_or(one);
    let (low, high) = (one.min(another), one.max(another));
    let ranges = [
        (0, low.saturating_sub(1)),
        (low.saturating_add(1), high.saturating_sub(1)),
        (high.saturating_add(1), i32::MAX),
    ];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: closes inherited descriptors; nothing in this process uses them any more.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            // Before Linux 5.9 there is no such call, and sandboxes older than it refuse it.
            return close_one_by_one(low, high);
        }
    }
}

/// Closes all descriptors but these two. None may be left open: an instance that holds the other end of a pipe in the
/// guardian never sees its end.
fn close_one_by_one(one: RawFd, another: RawFd) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()) else { return };
    let mut room = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&folder, &mut room);
    while let Some(Ok(entry)) = entries.next() {
        let number = number_of(entry.file_name().to_bytes());
        let Some(number) = number.filter(|number| ![one, another, folder.as_raw_fd()].contains(number))
        else {
            continue;
        };
        // SAFETY: closes an inherited descriptor; nothing in this process uses it any more.
        unsafe { libc::close(number) };
    }
}

/// Reads a decimal number.
fn number_of(digits: &[u8]) -> Option<i32> {
    let value = |digit: &u8| digit.is_ascii_digit().then(|| i32::from(digit - b'0'));
    let mut number = None;
    for digit in digits {
        number = Some(number.unwrap_or(0_i32).checked_mul(10)?.checked_add(value(digit)?)?);
    }
    number
}

/// Waits for the next word; `None` when nobody is left to say one.
fn hear(socket: &OwnedFd) -> Option<(u8, Guarded)> {
    let mut word = [0; 5];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    loop {
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut word)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        match received {
            Ok(received) if received.bytes == word.len() => break,
            Err(rustix::io::Errno::INTR) => {}
            _ => return None,
        }
    }
    let namespace = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let inode =
        namespace.as_ref().and_then(|open| rustix::fs::fstat(open).ok()).map_or(0, |stat| stat.st_ino);
    let [what, a, b, c, d] = word;
    Some((what, Guarded { group: i32::from_ne_bytes([a, b, c, d]), namespace, inode }))
}

fn end_all(guarded: &[Guarded], mark: &Mark) {
    for one in guarded {
        if one.group > 1
            && let Some(group) = Pid::from_raw(one.group)
        {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
    // A process that left the group is still in the namespace, or carries the mark. A process may fork while we look, and has no
    // environment for a moment while it becomes another program: until none is found twice.
    const ROUNDS_MAX: u32 = 32;
    let mut found_none = 0;
    for _ in 0..ROUNDS_MAX {
        found_none = if end_found(guarded, mark) == 0 { found_none + 1 } else { 0 };
        if found_none == 2 {
            return;
        }
    }
}

/// Ends all processes in the namespaces and with the mark; gives how many there were.
fn end_found(guarded: &[Guarded], mark: &Mark) -> u32 {
    let Ok(proc) = open_proc() else { return 0 };
    let myself = rustix::process::getpid();
    let mut room = [std::mem::MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&proc, &mut room);
    let mut ended = 0;
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else { return ended };
        let name = entry.file_name().to_bytes();
        let Some(pid) = number_of(name) else { continue };
        let Some(pid) = Pid::from_raw(pid).filter(|pid| !pid.is_init() && *pid != myself) else { continue };
        // Opened before it is looked at: the signal reaches that process or none.
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let namespace = at(name, b"/ns/mnt", |path| rustix::fs::statat(&proc, path, AtFlags::empty()));
        let namespace = namespace.map_or(0, |stat| stat.st_ino);
        let held =
            namespace != 0 && guarded.iter().any(|one| one.namespace.is_some() && one.inode == namespace);
        if (held || mark.is_on(&proc, name))
            && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
        {
            ended += 1;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn ends_what_left_its_group_and_carries_the_mark() {
        let mark = Mark::new(format!("KEEL_GUARDIAN_TEST={}", std::process::id()), None);
        let guardian = Guardian::start(&mark, None).unwrap();
        let mut command = Command::new("sleep");
        command.arg("60").env("KEEL_GUARDIAN_TEST", std::process::id().to_string());
        let mut marked = command.spawn().unwrap();
        // It has no environment for a moment while it becomes another program.
        while std::fs::read(format!("/proc/{}/environ", marked.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let mut other = Command::new("sleep").arg("60").env("KEEL_GUARDIAN_TEST", "0").spawn().unwrap();
        drop(guardian);
        assert_eq!(marked.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn holds_nothing_open_where_the_kernel_has_no_close_range() {
        let (_held, _held_too) = std::io::pipe().unwrap();
        // The guardian is forked by a thread for which the call isn't there.
        let start = || {
            crate::seccomp::fail_on_this_thread(libc::SYS_close_range, libc::ENOSYS)?;
            Guardian::start(&Mark::default(), None)
        };
        let guardian = std::thread::spawn(start).join().unwrap().unwrap();
        let open = || std::fs::read_dir(format!("/proc/{}/fd", guardian.pid())).unwrap().count();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while open() > 1 {
            assert!(std::time::Instant::now() < end, "it holds {} descriptors", open());
            std::thread::yield_now();
        }
    }

    #[test]
    fn ends_groups_that_it_was_not_told_to_forget() {
        let guardian = Guardian::start(&Mark::default(), None).unwrap();
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("60").stdout(Stdio::null()).process_group(0);
            command.spawn().unwrap()
        };
        let (mut watched, mut forgotten) = (sleep(), sleep());
        for (child, forget) in [(&watched, false), (&forgotten, true)] {
            let group = i32::try_from(child.id()).unwrap();
            guardian.watch(group, None).unwrap();
            if forget {
                guardian.forget(group).unwrap();
            }
        }
        drop(guardian);
        assert_eq!(watched.wait().unwrap().signal(), Some(9));
        assert!(forgotten.try_wait().unwrap().is_none());
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
    }
}
