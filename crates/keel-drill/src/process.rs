//! Processes as the kernel lists them: whose group is dead or stopped, and who carries a mark on its command line.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};

use keel_sys::proc::{Stat, pids, stat};

use crate::{Error, Stop};

/// The command of a guard: its line bears the name of what it guards, and it isn't one of those processes.
pub(crate) const GUARD: &str = "drill-guard";

/// How long the kernel may take to do what a signal says.
const OBEYED_WITHIN: Duration = Duration::from_secs(180);
/// How long to wait between two looks at something that has no other way to be seen.
const GLANCE: Duration = Duration::from_millis(2);

/// The processes of one instance: its main process and those that this one started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The main process.
    pub(crate) main: Pid,
    /// Whether it leads a group, which then is signalled as a whole.
    leads: bool,
}

impl Group {
    /// Takes the group of a process, or the process alone where another one leads its group; `None` where it is dead.
    pub(crate) fn of(main: Pid) -> Option<Self> {
        let stat = stat(main.as_raw_nonzero().get())?;
        let leads = getpgid(Some(main)).is_ok_and(|group| group == main);
        (!stat.is_over()).then_some(Self { main, leads })
    }

    /// Sends a signal to all of it.
    pub(crate) fn signal(self, signal: Signal) -> Result<(), Error> {
        let sent =
            if self.leads { kill_process_group(self.main, signal) } else { kill_process(self.main, signal) };
        sent.map_err(|error| Error::io("an instance can't be signalled", error.into()))
    }

    /// Kills all of it; one that is gone already is dead, as was wanted.
    fn end(self) -> Result<(), Error> {
        match self.signal(Signal::KILL) {
            Err(_) if Self::of(self.main).is_none() => Ok(()),
            sent => sent,
        }
    }

    /// Waits until all of it is dead, its sockets closed: on a busy machine that takes its time.
    pub(crate) fn wait_dead(self, stop: &Stop) -> Result<(), Error> {
        wait(stop, "a killed process doesn't die", || self.members().is_empty())
    }

    /// Waits until all of it is stopped.
    pub(crate) fn wait_stopped(self, stop: &Stop) -> Result<(), Error> {
        wait(stop, "a frozen process isn't stopped", || {
            let members = self.members();
            !members.is_empty() && members.iter().all(|one| matches!(one.state, 'T' | 't'))
        })
    }

    /// The members that aren't dead. One whose first thread has ended while others are ending still is.
    fn members(self) -> Vec<Stat> {
        let main = self.main.as_raw_nonzero().get();
        let is_ours = |pid: i32, stat: &Stat| pid == main || (self.leads && stat.group == main);
        let found =
            pids().filter_map(|pid| Some((pid, stat(pid)?))).filter(|(pid, stat)| is_ours(*pid, stat));
        found.filter(|(pid, stat)| !stat.is_over() || threads(*pid) > 1).map(|(_, stat)| stat).collect()
    }
}

/// Waits until something holds that only looking shows.
fn wait(stop: &Stop, or: &str, holds: impl Fn() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + OBEYED_WITHIN;
    while !holds() {
        stop.check()?;
        if Instant::now() > deadline {
            return Err(Error::TooSlow(or.to_owned()));
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

/// Ends every process, and what it leads, whose command line has this word. Guards stay.
pub(crate) fn end_all_of(mark: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let marked: Vec<Pid> = pids().filter(|pid| bears(*pid, mark)).filter_map(Pid::from_raw).collect();
        if marked.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in marked {
            if let Some(group) = Group::of(pid) {
                // A process that has ended meanwhile needs no signal.
                drop(group.signal(Signal::KILL));
            }
        }
        std::thread::sleep(GLANCE);
    }
}

/// The processes that aren't dead and have this word on their command line; guards, and this process, aside.
pub(crate) fn all_of(mark: &str) -> Vec<Pid> {
    pids().filter(|pid| bears(*pid, mark)).filter_map(Pid::from_raw).filter(|pid| lives(*pid)).collect()
}

/// Whether a process is there and isn't dead.
pub(crate) fn lives(pid: Pid) -> bool {
    stat(pid.as_raw_nonzero().get()).is_some_and(|stat| !stat.is_over())
}

/// Whether a process has this word on its command line.
pub(crate) fn has_word(pid: Pid, word: &str) -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    line_has_word(&line, word)
}

/// Kills processes all at once: none of them can do anything once another is dead.
pub(crate) fn kill_at_once(pids: &[Pid], stop: &Stop) -> Result<(), Error> {
    let groups: Vec<Group> =
        pids.iter().filter_map(|pid| Some(Group { leads: false, ..Group::of(*pid)? })).collect();
    if groups.len() < pids.len() {
        return Err(Error::Fault("a process that was to be killed is gone already".to_owned()));
    }
    groups.iter().try_for_each(|group| group.signal(Signal::STOP))?;
    groups.iter().try_for_each(|group| group.wait_stopped(stop))?;
    // The kernel ends the data plane with its parent: it may be gone before its own turn comes.
    groups.iter().try_for_each(|group| group.end())?;
    groups.iter().try_for_each(|group| group.wait_dead(stop))
}

/// Whether a process that lives has a word on its command line, and is neither this one nor a guard.
fn bears(pid: i32, mark: &str) -> bool {
    let own = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !own && !line_has_word(&line, GUARD) && line_has_word(&line, mark)
}

/// Whether a word stands on a command line: between zeros, between the spaces of one that was rewritten, or between the
/// quotes of an argument that is JSON.
fn line_has_word(line: &[u8], word: &str) -> bool {
    line.split(|byte| matches!(byte, 0 | b' ' | b'"')).any(|one| one == word.as_bytes())
}

/// The processes that a process started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

fn threads(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn words_are_whole_words() {
        let line = b"evenkeel\0-p\0shop-drill-7-1\0up";
        assert!(line_has_word(line, "shop-drill-7-1") && !line_has_word(line, "shop-drill-7"));
        assert!(line_has_word(b"evenkeel\0drill-peer\0{\"ledger\":\"/x/1/ledger\"}", "/x/1/ledger"));
        assert!(line_has_word(b"nginx: master process nginx -c /tmp/x/nginx.conf", "/tmp/x/nginx.conf"));
    }

    #[test]
    fn a_process_that_died_with_another_needs_no_signal() {
        let mut process = Command::new("sleep").arg("600").spawn().unwrap();
        let group = Group::of(Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap()).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        group.signal(Signal::KILL).unwrap_err();
        group.end().unwrap();
    }

    #[test]
    fn a_group_is_stopped_and_killed_as_a_whole() {
        let mut main = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(main.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let worker: i32 = line.trim().parse().unwrap();
        let group = Group::of(Pid::from_raw(i32::try_from(main.id()).unwrap()).unwrap()).unwrap();
        let stop = Stop::default();
        group.signal(Signal::STOP).unwrap();
        group.wait_stopped(&stop).unwrap();
        assert_eq!(stat(worker).map(|stat| stat.state), Some('T'));
        group.signal(Signal::KILL).unwrap();
        group.wait_dead(&stop).unwrap();
        assert!(stat(worker).is_none_or(|stat| stat.is_over()));
        // A zombie isn't there to be signalled.
        assert_eq!(Group::of(group.main), None);
        main.wait().unwrap();
        assert_eq!(Group::of(group.main), None);
    }
}
