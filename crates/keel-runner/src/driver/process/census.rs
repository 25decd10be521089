//! Which processes belong to an instance, and the end of all of them.
//!
//! A process that left the group of its instance still lives in its mount namespace or carries its mark
//! ([`keel_sys::mark`]), or its parent does. What is older than the instance is never its. `leftovers` finds what outlived
//! a run.

use std::{
    collections::BTreeSet,
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::Arc,
    time::Duration,
};

use keel_sys::{
    mark::{Mark, open_proc},
    proc::{self, Stat},
    process::{kill_group, pidfd_open, pidfd_send_signal},
};

const SIGKILL: i32 = 9;
/// A process may fork while we look, and take its time to end: how often we look again, and after which time.
const ROUNDS_MAX: u32 = 200;
const ROUND_EVERY: Duration = Duration::from_millis(5);

/// What identifies the processes of a life.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// The main process, which leads a group of that number.
    pub(super) pid: i32,
    /// When it started, in the kernel's ticks since boot.
    pub(super) start_time: u64,
    /// The inode of the mount namespace that it has to itself; 0 for none.
    pub(super) mount_namespace: u64,
    /// That namespace, open: else its number could pass to another's once the last process is gone.
    namespace: Option<Arc<File>>,
    /// What it and all that it starts carry.
    mark: Mark,
}

impl Family {
    /// Looks at a process that has just been started with that mark.
    pub(super) fn of(pid: i32, mark: Mark) -> Self {
        let own = mount_namespace("self");
        let namespace = File::open(format!("/proc/{pid}/ns/mnt")).ok();
        let inode = namespace.as_ref().and_then(|namespace| namespace.metadata().ok()).map(|open| open.ino());
        let inode = inode.filter(|inode| *inode != own);
        Self {
            pid,
            start_time: proc::stat(pid).map_or(0, |stat| stat.start_time),
            mount_namespace: inode.unwrap_or(0),
            namespace: inode.and(namespace).map(Arc::new),
            mark,
        }
    }

    /// Its own mount namespace, open; `None` where it shares this process's.
    pub(super) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(|namespace| namespace.as_fd())
    }

    /// All processes of it that live. Its group counts as long as the main process isn't reaped: then the number may
    /// be another's.
    pub(super) fn members(&self) -> BTreeSet<i32> {
        find(
            self.start_time,
            |pid, stat| {
                pid == self.pid
                    || stat.group == self.pid
                    || stat.session == self.pid
                    || (self.mount_namespace != 0
                        && mount_namespace(&pid.to_string()) == self.mount_namespace)
            },
            &self.mark,
        )
    }

    /// Whether one of its processes has this socket open.
    pub(super) fn holds(&self, inode: u64) -> Holding {
        let mut holding = Holding::No;
        for pid in self.members() {
            match proc::sockets_of(pid) {
                Ok(mut sockets) => {
                    if sockets.any(|socket| socket == inode) {
                        return Holding::Yes;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    holding = Holding::Unknown
                }
                // It has just ended.
                Err(_) => {}
            }
        }
        holding
    }

    /// Sends SIGKILL to all of them until none is left. The main process is not to be reaped before that.
    pub(super) fn end(&self) {
        let _ = kill_group(self.pid, SIGKILL);
        end_all(|| self.members().into_iter().filter(|pid| *pid != self.pid).collect());
    }
}

/// The living processes that are meant or carry the mark, and all that they started. What started before
/// `started_from` (in the kernel's ticks since boot) isn't looked at.
pub(super) fn find(started_from: u64, is_meant: impl Fn(i32, &Stat) -> bool, mark: &Mark) -> BTreeSet<i32> {
    let Ok(proc) = open_proc() else { return BTreeSet::new() };
    let mut all = proc::living();
    // Nothing that this process hangs on is meant, should it run inside an instance itself.
    let mut above = i32::try_from(std::process::id()).ok();
    while let Some(pid) = above {
        above = all.remove(&pid).map(|stat| stat.parent);
    }
    all.remove(&1);
    all.retain(|_, stat| stat.start_time >= started_from);
    let meant =
        |pid: &i32, stat: &Stat| is_meant(*pid, stat) || mark.is_on(&proc, pid.to_string().as_bytes());
    let mut found: BTreeSet<i32> =
        all.iter().filter(|(pid, stat)| meant(pid, stat)).map(|(pid, _)| *pid).collect();
    loop {
        let children = all.iter().filter(|(_, stat)| found.contains(&stat.parent)).map(|(pid, _)| *pid);
        let more: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Sends SIGKILL to what is found, again and again until nothing is. Tells how many processes there were.
pub(super) fn end_all(find: impl Fn() -> BTreeSet<i32>) -> usize {
    let mut ended = BTreeSet::new();
    let mut found_none = 0;
    for round in 0..ROUNDS_MAX {
        // Opened between two looks that both found it: the signal reaches that process or none.
        let held: Vec<(i32, OwnedFd)> =
            find().into_iter().filter_map(|pid| Some((pid, pidfd_open(pid).ok()?))).collect();
        // A process has no environment for a moment while it becomes another program: none twice is none.
        found_none = if held.is_empty() { found_none + 1 } else { 0 };
        if found_none == 2 {
            break;
        }
        let still = if held.is_empty() { BTreeSet::new() } else { find() };
        for (pid, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            if pidfd_send_signal(pidfd, SIGKILL).is_ok() {
                ended.insert(*pid);
            }
        }
        if round > 0 || held.is_empty() {
            std::thread::sleep(ROUND_EVERY);
        }
    }
    ended.len()
}

/// Whether processes have a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    Yes,
    No,
    /// One of them doesn't let this process look: it changed its user.
    Unknown,
}

/// The processes of a group that live.
pub(in crate::driver) fn members_of_group(group: i32) -> Vec<i32> {
    proc::living().into_iter().filter(|(_, stat)| stat.group == group).map(|(pid, _)| pid).collect()
}

fn mount_namespace(pid: &str) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/ns/mnt")).map_or(0, |metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_left_the_group_by_its_mark_and_what_that_started() {
        use std::{os::unix::process::CommandExt, process::Command};
        let mark = |value: &str| Mark::new(format!("KEEL_CENSUS_TEST={value}\0"), None);
        let mut main = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let family = Family::of(i32::try_from(main.id()).unwrap(), mark("1"));
        // A shell with the mark, and below it a process without.
        let mut shell = Command::new("sh");
        shell.args(["-c", "env -u KEEL_CENSUS_TEST sleep 60 & wait"]).env("KEEL_CENSUS_TEST", "1");
        let mut shell = shell.process_group(0).spawn().unwrap();
        let shell_pid = i32::try_from(shell.id()).unwrap();
        let started = || proc::living().into_iter().find(|(_, stat)| stat.parent == shell_pid);
        let below = loop {
            if let Some((pid, _)) = started() {
                break pid;
            }
        };
        let mut stranger =
            Command::new("sleep").arg("60").env("KEEL_CENSUS_TEST", "2").process_group(0).spawn().unwrap();
        let mut members: Vec<i32> = family.members().into_iter().collect();
        let mut expect = [family.pid, shell_pid, below];
        members.sort_unstable();
        expect.sort_unstable();
        assert_eq!(members, expect);
        family.end();
        assert!(!main.wait().unwrap().success());
        assert!(!shell.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
