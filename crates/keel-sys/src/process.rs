//! Processes by descriptor, and limits: pidfd_open(2), prctl(2), setrlimit(2).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getrlimit, set_child_subreaper,
    set_parent_process_death_signal, setrlimit,
};

/// Opens a descriptor that stands for one process and becomes readable when it ends. Closed on exec.
///
/// # Errors
/// `ESRCH` when there is no such process; `InvalidInput` when `pid` isn't positive.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid_of(pid)?, PidfdFlags::empty())?)
}

/// Duplicates a descriptor of another process into this one; needs the right to trace it. Closed on exec.
///
/// # Errors
/// `EPERM` without that right, `EBADF` when it has no such descriptor, `ESRCH` when it has ended.
pub fn pidfd_getfd(pidfd: impl AsFd, descriptor: i32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_getfd(pidfd, descriptor, PidfdGetfdFlags::empty())?)
}

/// Sends a signal to exactly the process that the descriptor stands for.
///
/// # Errors
/// `ESRCH` when it has ended and was waited for; `InvalidInput` when there is no such signal.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(pidfd, signal_of(signal)?)?)
}

/// Sends a signal to all processes of a group.
///
/// # Errors
/// `ESRCH` when the group is empty; `InvalidInput` for a signal or group that can't be.
pub fn kill_group(group: i32, signal: i32) -> io::Result<()> {
    Ok(rustix::process::kill_process_group(pid_of(group)?, signal_of(signal)?)?)
}

/// Has the kernel send this process a signal when the thread that started it ends; `None` for none.
///
/// # Errors
/// `InvalidInput` when there is no such signal.
pub fn set_pdeathsig(signal: Option<i32>) -> io::Result<()> {
    let signal = signal.map(signal_of).transpose()?;
    Ok(set_parent_process_death_signal(signal)?)
}

/// Makes orphans among this process's descendants its children.
///
/// # Errors
/// What prctl(2) says.
pub fn set_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Sets the limit of open files, the hard one too where the process may; otherwise as far as the hard limit goes.
/// The limit that holds now.
///
/// # Errors
/// What setrlimit(2) says.
pub fn set_nofile_limit(files_max: u64) -> io::Result<u64> {
    let wanted = Rlimit { current: Some(files_max), maximum: Some(files_max) };
    if setrlimit(Resource::Nofile, wanted).is_ok() {
        return Ok(files_max);
    }
    let hard = getrlimit(Resource::Nofile).maximum;
    let files_max = hard.map_or(files_max, |hard| files_max.min(hard));
    setrlimit(Resource::Nofile, Rlimit { current: Some(files_max), maximum: hard })?;
    Ok(files_max)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// Reaps one ended child of this process without waiting. `None` when it hasn't ended.
///
/// # Errors
/// `ECHILD` when it isn't a child of this process or was reaped before.
pub fn reap(pid: i32) -> io::Result<Option<Exit>> {
    let options = rustix::process::WaitOptions::NOHANG;
    let waited = rustix::process::waitpid(Some(pid_of(pid)?), options)?;
    Ok(waited.map(|(_, status)| exit_of(status)))
}

/// Tells how a child of this process ended, and leaves it to be reaped: until then its number, and that of its group, is
/// nobody else's. `None` when it hasn't ended.
///
/// # Errors
/// `ECHILD` when it isn't a child of this process or was reaped before.
pub fn exit_of_unreaped(pid: i32) -> io::Result<Option<Exit>> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(pid_of(pid)?), options)?;
    Ok(status.map(|status| match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Status(status.exit_status().unwrap_or(0)),
    }))
}

fn exit_of(status: rustix::process::WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Status(status.exit_status().unwrap_or(0)),
    }
}

fn pid_of(pid: i32) -> io::Result<Pid> {
    let what = "process ids are positive";
    // Checked before: a negative number is a programming error to the library.
    let pid = if pid > 0 { Pid::from_raw(pid) } else { None };
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn signal_of(signal: i32) -> io::Result<Signal> {
    let highest = libc::SIGRTMAX();
    if !(1..=highest).contains(&signal) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{signal} isn't a signal")));
    }
    // SAFETY: any number of a signal that the kernel knows is valid; the real-time signals that the C library keeps
    // for itself (32, 33) are sent only to others, by number.
    Ok(unsafe { Signal::from_raw_unchecked(signal) })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn signals_and_reaps_exactly_one_process() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = pidfd_open(pid).unwrap();
        assert_eq!(reap(pid).unwrap(), None);
        pidfd_send_signal(&pidfd, 15).unwrap();
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, None).unwrap();
        assert_eq!(reap(pid).unwrap(), Some(Exit::Signal(15)));
        assert!(child.wait().is_err(), "it was waited for");
        assert_eq!(reap(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(pidfd_send_signal(&pidfd, 15).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn tells_how_a_child_ended_and_leaves_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(exit_of_unreaped(pid).unwrap(), None);
        child.kill().unwrap();
        while exit_of_unreaped(pid).unwrap().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(exit_of_unreaped(pid).unwrap(), Some(Exit::Signal(9)));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn refuses_what_is_no_process_or_signal() {
        for pid in [0, -1] {
            assert_eq!(pidfd_open(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let me = pidfd_open(i32::try_from(std::process::id()).unwrap()).unwrap();
        for signal in [0, -1, 65, 1000] {
            assert_eq!(pidfd_send_signal(&me, signal).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn takes_a_descriptor_of_another() {
        let (reader, writer) = std::io::pipe().unwrap();
        let me = pidfd_open(i32::try_from(std::process::id()).unwrap()).unwrap();
        let copy = pidfd_getfd(&me, std::os::fd::AsRawFd::as_raw_fd(&writer)).unwrap();
        drop(writer);
        rustix::io::write(&copy, b"x").unwrap();
        drop(copy);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
    }

    #[test]
    fn a_limit_beyond_the_hard_one_stops_there() {
        let now = getrlimit(Resource::Nofile).current.unwrap();
        assert_eq!(set_nofile_limit(now).unwrap(), now);
    }
}
