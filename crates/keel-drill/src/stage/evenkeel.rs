//! Faults of Evenkeel itself: all its processes killed, commands in the middle of a restart, output that isn't read.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::{COMES_BACK, Killed, Stage, described};
use crate::{
    Error,
    ledger::Event,
    process::kill_at_once,
    record::Moment,
    results,
    system::{Begun, Instance},
    unread::Shown,
};

/// How long a restart of all instances may take.
const RESTARTS_WITHIN: Duration = Duration::from_secs(120);
/// Supervisor, guardian and data plane.
const OWN_PROCESSES_MIN: usize = 3;

impl Stage<'_> {
    /// Kills all of Evenkeel's own processes, at once, and notes it; gives when.
    pub(crate) fn kill_evenkeel(&mut self) -> Result<Killed, Error> {
        let pids = self.system.own_processes()?;
        if pids.len() < OWN_PROCESSES_MIN {
            let found = pids.len();
            return Err(Error::Fault(format!(
                "{found} processes of Evenkeel's own run, not {OWN_PROCESSES_MIN}"
            )));
        }
        let from = self.note(format!("kill -KILL {} processes of Evenkeel's own", pids.len()));
        kill_at_once(&pids, &self.context.ground.stop)?;
        Ok(Killed { pids, from, to: Moment::now() })
    }

    /// Starts the system again that was killed.
    pub(crate) fn up_again(&mut self, names: &[String]) -> Result<(), Error> {
        self.command(&["up", "-d"])?;
        self.wait_ready(names, &[])
    }

    /// Finds processes of peers that belong to no instance.
    pub(crate) fn find_leftovers(&mut self) -> Result<(), Error> {
        let left = self.system.leftovers()?;
        self.find_processes(&left, "that belong to no instance");
        Ok(())
    }

    /// Takes the system down, of which nobody is left to be asked, and finds what runs on.
    pub(crate) fn find_after_down(&mut self) -> Result<(), Error> {
        self.command(&["down"])?;
        let left = self.system.peers();
        self.find_processes(&left, "after `down`");
        Ok(())
    }

    fn find_processes(&mut self, left: &[Pid], which: &str) {
        if !left.is_empty() {
            let pids: Vec<String> = left.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
            self.find(format!("{} processes run {which}: pid {}", left.len(), pids.join(", ")));
        }
    }

    /// Begins to replace instances, and waits until the first is being replaced.
    pub(crate) fn begin_restart(&mut self, names: &[String]) -> Result<Restart, Error> {
        let before = self.ready()?;
        let words: Vec<&str> = ["restart"].into_iter().chain(names.iter().map(String::as_str)).collect();
        self.note(format!("evenkeel {}", words.join(" ")));
        let command = self.system.begin(&words)?;
        let has_begun = |instances: &[Instance]| {
            before.iter().any(|one| !instances.iter().any(|now| is_untouched(one, now)))
        };
        self.system.wait_until("an instance is being replaced", COMES_BACK, has_begun)?;
        Ok(Restart { command, before })
    }

    /// Takes an instance whose turn to be replaced hasn't come yet.
    pub(crate) fn any_to_be_restarted(&mut self, restart: &Restart) -> Result<Instance, Error> {
        let now = self.system.instances()?;
        let untouched = |one: &&Instance| now.iter().any(|now| is_untouched(one, now));
        let waiting: Vec<Instance> = restart.before.iter().filter(untouched).cloned().collect();
        let chosen = self.seed.choose(&waiting).cloned();
        chosen
            .ok_or_else(|| Error::Fault("all instances were replaced before a command could come".to_owned()))
    }

    /// Waits until a restart has ended. What it says of an instance that somebody else has ended meanwhile is its affair.
    pub(crate) fn end_restart(&mut self, restart: Restart) -> Result<(), Error> {
        restart.command.wait(RESTARTS_WITHIN)?;
        self.note("the restart has ended");
        Ok(())
    }

    /// Expects an instance to be ended.
    pub(crate) fn find_running(&mut self, name: &str) -> Result<(), Error> {
        let instances = self.system.instances()?;
        let state = instances.iter().find(|one| one.name == name).map_or("gone", |one| &one.state);
        if !matches!(state, "exited" | "gone") {
            self.find(format!("{name} is {state} after a command ended it while all were being replaced"));
        }
        Ok(())
    }

    /// Reads what `up` printed while nobody read, all of it, and compares it with what the peers printed: so many lines of
    /// each request that they received.
    pub(crate) fn account_for_output(&mut self, lines_each: u64, within: Duration) -> Result<Output, Error> {
        self.note("the output is read");
        let ledger = self.system.ledger(self.source)?;
        let received = ledger.entries.iter().filter(|entry| entry.event == Event::Received).count() as u64;
        let printed = received * lines_each;
        let deadline = Instant::now() + within;
        loop {
            let Shown { lines, left_out } = self.system.unread()?.read();
            // A line that is shown twice makes up for none that is missing.
            let shown = lines.values().map(|count| (*count).min(lines_each)).sum();
            let output = Output { printed, shown, left_out };
            if output.is_complete() || Instant::now() > deadline {
                return Ok(output);
            }
            self.load.pass(Duration::from_millis(5))?;
        }
    }

    /// Notes what the system is, where nobody may be left to be asked at the case's end.
    pub(crate) fn describe(&mut self) -> Result<(), Error> {
        self.described = Some(described(self.context.subject, &self.system)?);
        Ok(())
    }

    /// Presses Ctrl-C where `up` runs in the foreground, and expects its end.
    pub(crate) fn interrupt(&mut self, within: Duration) -> Result<(), Error> {
        self.note("Ctrl-C");
        if !self.system.unread()?.interrupt(within) {
            self.find(format!("Ctrl-C didn't end `up` within {} s while nobody read", within.as_secs()));
        }
        Ok(())
    }
}

/// A restart that goes on.
#[derive(Debug)]
pub(crate) struct Restart {
    command: Begun,
    /// The instances before it.
    before: Vec<Instance>,
}

/// Whether an instance is ready still in the process in which it was.
fn is_untouched(before: &Instance, now: &Instance) -> bool {
    now.name == before.name && now.state == "ready" && now.pid == before.pid
}

/// What became of the lines that peers printed while nobody read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    printed: u64,
    shown: u64,
    left_out: u64,
}

impl Output {
    /// Whether every line is there or said to be missing. Other lines may be left out with them.
    fn is_complete(self) -> bool {
        self.shown + self.left_out >= self.printed
    }

    /// Says it in a few words.
    pub(crate) fn words(self) -> String {
        let Self { printed, shown, left_out } = self;
        format!("{printed} lines printed, {shown} shown later, {left_out} said to be left out")
    }

    /// Finds lines that are missing without a word.
    pub(crate) fn finding(self) -> Option<results::Finding> {
        let missing = self.printed.saturating_sub(self.shown + self.left_out);
        let what = format!("{missing} of {} printed lines are missing without a word", self.printed);
        (missing > 0).then(|| results::Finding { what, ids: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(state: &str, pid: i32) -> Instance {
        Instance {
            name: "app1".into(),
            service: "app1".into(),
            state: state.into(),
            pid: Some(pid),
            address: None,
        }
    }

    #[test]
    fn an_instance_is_untouched_until_its_turn_comes() {
        let before = instance("ready", 7);
        assert!(is_untouched(&before, &instance("ready", 7)));
        assert!(!is_untouched(&before, &instance("ready", 8)), "replaced");
        assert!(!is_untouched(&before, &instance("draining", 7)), "being replaced");
    }

    #[test]
    fn lines_are_shown_or_said_to_be_missing() {
        let output = |shown, left_out| Output { printed: 40, shown, left_out };
        assert_eq!(output(30, 10).finding(), None);
        assert!(output(30, 12).is_complete(), "other lines may be among those");
        let what = output(30, 0).finding().map(|finding| finding.what);
        assert_eq!(what.as_deref(), Some("10 of 40 printed lines are missing without a word"));
    }
}
