//! A command in the foreground whose output isn't read: a terminal held by Ctrl-S, a pager that isn't scrolled, a stalled
//! connection.

use std::{
    collections::BTreeMap,
    io::{self, PipeReader, Read},
    process::{Child, Command},
    time::{Duration, Instant},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process},
};

use crate::peer::PRINTED;

/// How long to wait between two looks at something that has no other way to be seen.
const GLANCE: Duration = Duration::from_millis(5);

/// A command and the reading end of the pipe that it prints to.
#[derive(Debug)]
pub(crate) struct Unread {
    child: Child,
    output: PipeReader,
    read: Vec<u8>,
}

/// What came out of the pipe once it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Lines of each request that peers printed, by its id.
    pub(crate) lines: BTreeMap<String, u64>,
    /// Lines that are said to have been left out.
    pub(crate) left_out: u64,
}

impl Unread {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        fcntl_setfl(&output, fcntl_getfl(&output)? | OFlags::NONBLOCK)?;
        command.stdout(input.try_clone()?).stderr(input);
        let child = command.spawn()?;
        // The command's ends are its own now; these are closed with it.
        drop(command);
        Ok(Self { child, output, read: Vec::new() })
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Reads what there is now.
    pub(crate) fn read(&mut self) -> Shown {
        // It ends where nothing is left for now.
        drop(self.output.read_to_end(&mut self.read));
        shown(&String::from_utf8_lossy(&self.read))
    }

    /// Everything that was read.
    pub(crate) fn text(&mut self) -> String {
        self.read();
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Presses Ctrl-C, and says whether it has ended then, within a time.
    pub(crate) fn interrupt(&mut self, within: Duration) -> bool {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            _ = kill_process(pid, Signal::INT);
        }
        self.wait(within)
    }

    /// Waits until it has ended, and says whether it has.
    pub(crate) fn wait(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.runs() && Instant::now() < deadline {
            std::thread::sleep(GLANCE);
        }
        !self.runs()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads whole lines: those of peers, and those that say how many are missing.
fn shown(text: &str) -> Shown {
    let mut shown = Shown::default();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        if let Some((_, rest)) = line.split_once(PRINTED) {
            let id = rest.trim_start().split(' ').next().unwrap_or_default();
            *shown.lines.entry(id.to_owned()).or_default() += 1;
        } else if line.contains("left out") {
            let digits = line.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
            shown.left_out += digits.and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_shown_and_what_is_said_to_be_missing() {
        let text = "app1 | drill-printed d1-2 0 ....\napp1 | drill-printed d1-2 1 ....\n[17 lines were left out]\n\
                    app2 | drill-printed d1-3 0 ...\napp2 | drill-printed d1-3 1";
        let lines = BTreeMap::from([("d1-2".to_owned(), 2), ("d1-3".to_owned(), 1)]);
        assert_eq!(shown(text), Shown { lines, left_out: 17 });
    }

    #[test]
    fn a_command_that_waits_for_its_reader_goes_on_when_it_is_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 200000 /dev/zero; echo; echo 'a | drill-printed d0-1 0'"]);
        let mut unread = Unread::start(command).unwrap();
        assert!(!unread.wait(Duration::from_millis(50)), "its pipe is full");
        while unread.runs() {
            unread.read();
        }
        assert_eq!(unread.read().lines.get("d0-1"), Some(&1));
    }
}
