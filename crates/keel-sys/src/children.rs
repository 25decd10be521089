//! Children that this process waits for, and the reaping of orphans: waitpid(2).
//!
//! A subreaper, or the first process of a container, becomes the parent of every orphan below it. The kernel doesn't say
//! which children are such orphans. So each child that is waited for is entered here, under a lock that is held from
//! before its fork; what isn't entered is an orphan, and is reaped by [`reap_orphans`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::{
    proc,
    process::{Exit, reap as reap_child},
};

#[derive(Debug)]
struct Children {
    waited_for: BTreeSet<i32>,
    /// Orphans that had ended when they were last looked for, and when they started. They are reaped the second time:
    /// who starts a child without entering it has waited for it by then.
    seen: BTreeMap<i32, u64>,
}

static CHILDREN: Mutex<Children> =
    Mutex::new(Children { waited_for: BTreeSet::new(), seen: BTreeMap::new() });

fn children() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held for reading while children are started, which may take long: no orphan is reaped meanwhile.
static STARTS: RwLock<()> = RwLock::new(());

/// Starts a child and enters it. No orphan is reaped meanwhile.
///
/// # Errors
/// Those of `spawn`.
pub fn start<T, E>(spawn: impl FnOnce() -> Result<T, E>, pid_of: impl FnOnce(&T) -> u32) -> Result<T, E> {
    let _starting = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    let started = spawn()?;
    children().waited_for.extend(i32::try_from(pid_of(&started)));
    Ok(started)
}

/// Signals the process group of a child that was entered and isn't reaped yet: until then its number is no other's.
pub fn signal_group(pid: i32, signal: i32) {
    let children = children();
    if children.waited_for.contains(&pid) {
        // It may have ended by itself.
        let _ = crate::process::kill_group(pid, signal);
    }
}

/// Reaps a child that was entered, without waiting. `None` when it hasn't ended.
///
/// # Errors
/// `ECHILD` when it isn't a child of this process or was reaped before.
pub fn reap(pid: i32) -> io::Result<Option<Exit>> {
    let mut children = children();
    let reaped = reap_child(pid);
    if !matches!(reaped, Ok(None)) {
        children.waited_for.remove(&pid);
    }
    reaped
}

/// Waits for the end of a child that was entered, and reaps it.
///
/// # Errors
/// Those of waitpid(2).
pub fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let ended = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while ended().is_err_and(|error| error == rustix::io::Errno::INTR) {}
    }
    let mut children = children();
    let status = child.wait();
    if let Some(pid) = pid {
        children.waited_for.remove(&pid.as_raw_nonzero().get());
    }
    status
}

/// Forgets a child that somebody else has reaped.
pub fn forget(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        children().waited_for.remove(&pid);
    }
}

/// Reaps the orphans that had ended when this was last called. Tells whether to look again.
pub fn reap_orphans() -> bool {
    let Ok(_none_starts) = STARTS.try_write() else { return true };
    // Entered before they are listed, or not there yet.
    let mut children = children();
    children.reap_among(all_children())
}

impl Children {
    fn reap_among(&mut self, all: BTreeSet<i32>) -> bool {
        let mut ended = BTreeMap::new();
        for pid in all {
            if self.waited_for.contains(&pid) || !has_ended(pid) {
                continue;
            }
            let start = proc::stat(pid).map_or(0, |stat| stat.start_time);
            match self.seen.get(&pid) {
                Some(seen) if *seen == start => drop(reap_child(pid)),
                _ => drop(ended.insert(pid, start)),
            }
        }
        self.seen = ended;
        !self.seen.is_empty()
    }
}

fn has_ended(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}

fn all_children() -> BTreeSet<i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")));
    // Kernels may be built without these lists.
    match lists.collect::<Result<Vec<String>, _>>() {
        Ok(lists) => {
            lists.iter().flat_map(|list| list.split_ascii_whitespace()).flat_map(str::parse).collect()
        }
        Err(_) => children_by_parent(),
    }
}

fn children_by_parent() -> BTreeSet<i32> {
    let mine = i32::try_from(std::process::id()).unwrap_or(0);
    proc::pids().filter(|pid| proc::stat(*pid).is_some_and(|stat| stat.parent == mine)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn reaps_what_nobody_waits_for_and_leaves_the_rest() {
        let command = |seconds: &str| {
            let mut command = Command::new("sleep");
            command.arg(seconds);
            command
        };
        let mut entered = start(|| command("0").spawn(), Child::id).unwrap();
        // As good as an orphan: nobody has entered it.
        let mut orphan = command("0").spawn().unwrap();
        let orphan_pid = i32::try_from(orphan.id()).unwrap();
        let entered_pid = i32::try_from(entered.id()).unwrap();
        while !(has_ended(orphan_pid) && has_ended(entered_pid)) {
            std::thread::yield_now();
        }
        // Other tests have children, too.
        let both = BTreeSet::from([orphan_pid, entered_pid]);
        assert!(children().reap_among(both.clone()), "it is left alone at first");
        assert!(has_ended(orphan_pid));
        assert!(!children().reap_among(both));
        assert!(orphan.wait().is_err_and(|error| error.raw_os_error() == Some(libc::ECHILD)));
        assert!(wait(&mut entered).unwrap().success());
        assert!(!children().waited_for.contains(&entered_pid));
    }

    #[test]
    fn finds_children_with_and_without_the_kernels_lists() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(all_children().contains(&pid));
        assert!(children_by_parent().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
