//! Which processes belong to an instance, and the end of all of them.
//!
//! A process that left the group of its instance still lives in its mount namespace; where there is none, parents tell.
//! What outlived an earlier run of Evenkeel is found by process id and start time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::Arc,
};

use keel_sys::process::{kill_group, pidfd_open, pidfd_send_signal, reap, reap_follower};

const SIGKILL: i32 = 9;
/// A process may fork while we look: how often we look again.
const ROUNDS_MAX: u32 = 16;

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
}

impl Family {
    /// Looks at a process that has just been started.
    pub(super) fn of(pid: i32) -> Self {
        let own = mount_namespace("self");
        let namespace = File::open(format!("/proc/{pid}/ns/mnt")).ok();
        let inode = namespace.as_ref().and_then(|namespace| namespace.metadata().ok()).map(|open| open.ino());
        let inode = inode.filter(|inode| *inode != own);
        Self {
            pid,
            start_time: stat(pid).map_or(0, |stat| stat.start_time),
            mount_namespace: inode.unwrap_or(0),
            namespace: inode.and(namespace).map(Arc::new),
        }
    }

    /// Gives its own mount namespace, open; `None` where it shares this process's.
    pub(super) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(|namespace| namespace.as_fd())
    }

    /// Gives all processes of it that live.
    pub(super) fn members(&self) -> BTreeSet<i32> {
        let all = processes();
        if self.mount_namespace != 0 {
            let ours = |pid: &i32| mount_namespace(&pid.to_string()) == self.mount_namespace;
            return all.keys().copied().filter(ours).collect();
        }
        let mut members: BTreeSet<i32> = all
            .iter()
            .filter(|(pid, stat)| **pid == self.pid || stat.group == self.pid)
            .map(|(pid, _)| *pid)
            .collect();
        loop {
            let children = all.iter().filter(|(_, stat)| members.contains(&stat.parent)).map(|(pid, _)| *pid);
            let more: Vec<i32> = children.filter(|pid| !members.contains(pid)).collect();
            if more.is_empty() {
                return members;
            }
            members.extend(more);
        }
    }

    /// Sends SIGKILL to all of them until none is left, and reaps those that became our children.
    pub(super) fn end(&self) {
        let _ = kill_group(self.pid, SIGKILL);
        for _ in 0..ROUNDS_MAX {
            let members: Vec<i32> = self.members().into_iter().filter(|pid| *pid != self.pid).collect();
            if members.is_empty() {
                return;
            }
            for pid in members {
                let _ = pidfd_open(pid).and_then(|pidfd| pidfd_send_signal(pidfd, SIGKILL));
                // Ours only if it was orphaned; otherwise its parent's.
                let _ = reap(pid);
            }
            std::thread::yield_now();
        }
    }
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) start_time: u64,
    pub(super) zombie: bool,
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold anything, closing brackets too: the fields begin after the last one.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(Stat {
        zombie: *fields.first()? == "Z",
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

fn processes() -> BTreeMap<i32, Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| !stat.zombie).collect()
}

/// Gives the processes of a group that live.
pub(in crate::driver) fn members_of_group(group: i32) -> Vec<i32> {
    processes().into_iter().filter(|(_, stat)| stat.group == group).map(|(pid, _)| pid).collect()
}

fn mount_namespace(pid: &str) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/ns/mnt")).map_or(0, |metadata| metadata.ino())
}

/// Reaps what was orphaned within lives and has ended: all of their groups but the main processes, which lead them and
/// are waited for by who started them.
pub(super) fn reap_orphans(groups: &BTreeSet<i32>) {
    for group in groups {
        while matches!(reap_follower(*group), Ok(true)) {}
    }
}

/// Writes down what lives, for a later run to end should this one be killed.
pub(super) fn write_down<'a>(path: &Path, families: impl Iterator<Item = &'a Family>) -> io::Result<()> {
    let text: String = families.map(|family| format!("{} {}\n", family.pid, family.start_time)).collect();
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, path)
}

/// Ends what an earlier run wrote down and left behind: only what still is that process, and whatever is with it.
pub(super) fn end_leftovers(path: &Path) {
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let Some((pid, start_time)) = line.split_once(' ') else { continue };
        let (Ok(pid), Ok(start_time)) = (pid.parse(), start_time.parse::<u64>()) else { continue };
        let family = Family::of(pid);
        if stat(pid).is_some_and(|stat| !stat.zombie && stat.start_time == start_time) {
            tracing::info!(pid, "ends what an earlier run left behind");
            let _ = pidfd_open(pid).and_then(|pidfd| pidfd_send_signal(pidfd, SIGKILL));
            family.end();
        }
    }
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        let text = "42 (a) b) (c) S 7 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 8754321 1 2 3";
        let expect = Stat { parent: 7, group: 40, start_time: 8_754_321, zombie: false };
        assert_eq!(parse_stat(text), Some(expect));
        assert_eq!(parse_stat("42 (x) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn ends_leftovers_by_pid_and_start_time_only() {
        use std::os::unix::process::CommandExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances");
        let sleep = || std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let (mut mine, mut another) = (sleep(), sleep());
        let family = |child: &std::process::Child| Family::of(i32::try_from(child.id()).unwrap());
        let wrong = Family { start_time: family(&another).start_time + 1, ..family(&another) };
        write_down(&path, [&family(&mine), &wrong].into_iter()).unwrap();
        end_leftovers(&path);
        assert!(!mine.wait().unwrap().success());
        assert!(another.try_wait().unwrap().is_none());
        another.kill().unwrap();
        another.wait().unwrap();
        assert!(!path.exists());
    }
}
