//! What the kernel knows of a process and all its descendants.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Memory of a family of processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Proportional set size: pages shared by n processes count 1/n.
    pub(crate) pss: u64,
    /// Of that, what is no file's: heap and stacks.
    pub(crate) anonymous: u64,
}

/// Whether somebody asked this program to end, which it does in order, so that no proxy outlives it.
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Watches for TERM and INT. The second one ends the program at once.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 1, flag.clone())?;
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// Lets this process, and what it starts, open so many files, or as many as may be. Gives how many that is.
pub(crate) fn allow_files(count: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= count);
    if !enough(limit.current) {
        let maximum = if enough(limit.maximum) { limit.maximum } else { Some(count) };
        // Root may raise the maximum; others get what there is.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum });
        if raised.is_err() {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(count)
}

/// A process and its descendants.
pub(crate) fn family(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some(parent) = parent(&stat) else { continue };
        children.entry(parent).or_default().push(pid);
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children.get(pid).into_iter().flatten().copied().collect::<Vec<_>>());
        next += 1;
    }
    Ok(family)
}

/// Reads the parent's pid out of `/proc/PID/stat`, in which the name may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The CPU time that the scheduler has charged to all threads of these processes.
pub(crate) fn cpu_time(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut total = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the proxy has ended")?;
        for task in tasks {
            // A thread may have ended meanwhile; what it used is lost, but none of a proxy's workers ends.
            let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let on_cpu: u64 = schedstat.split(' ').next().unwrap_or_default().parse()?;
            total += on_cpu;
        }
    }
    Ok(Duration::from_nanos(total))
}

/// The memory of these processes.
pub(crate) fn memory(pids: &[u32]) -> anyhow::Result<Memory> {
    let mut memory = Memory::default();
    for pid in pids {
        let rollup =
            fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the proxy has ended")?;
        memory.pss += kilobytes(&rollup, "Pss:") * 1024;
        memory.anonymous += kilobytes(&rollup, "Pss_Anon:") * 1024;
    }
    Ok(memory)
}

fn kilobytes(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        assert_eq!(parent("12 (a) b) c) S 7 12 12"), Some(7));
        assert_eq!(kilobytes("Rss: 9 kB\nPss:     120 kB\nPss_Anon: 100 kB\n", "Pss:"), 120);
        assert_eq!(kilobytes("Pss:     120 kB\nPss_Anon: 100 kB\n", "Pss_Anon:"), 100);
    }

    #[test]
    fn knows_this_process() {
        let pids = family(std::process::id()).unwrap();
        assert_eq!(pids[0], std::process::id());
        assert!(cpu_time(&pids[..1]).unwrap() > Duration::ZERO);
        assert!(memory(&pids[..1]).unwrap().anonymous > 0);
    }
}
