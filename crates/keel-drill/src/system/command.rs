//! Commands on the system that run, and what they print.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{Error, Stop, ledger::Ledger};

/// A command that runs. Its output goes to files: what stays in the background may hold them longer than it runs. It is
/// killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Begun {
    child: Child,
    words: String,
    out: File,
    err: File,
    stop: Stop,
}

impl Begun {
    pub(super) fn start(mut command: Command, words: String, stop: &Stop) -> std::io::Result<Self> {
        let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command.stdout(out.try_clone()?).stderr(err.try_clone()?).spawn()?;
        Ok(Self { child, words, out, err, stop: stop.clone() })
    }

    /// Waits for its end, within a time.
    pub(crate) fn wait(mut self, within: Duration) -> Result<Output, Error> {
        let io = |source| Error::io(format!("`{}` can't be run", self.words), source);
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(io)? {
                break status;
            }
            self.stop.check()?;
            if Instant::now() > deadline {
                return Err(Error::TooSlow(format!("`{}` doesn't end", self.words)));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let (stdout, stderr) = (written(&mut self.out).map_err(io)?, written(&mut self.err).map_err(io)?);
        Ok(Output { status, stdout, stderr })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What instances print, read as it comes.
#[derive(Debug)]
pub(super) struct Followed {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Followed {
    pub(super) fn start(mut command: Command) -> Result<Self, Error> {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|source| Error::io("`logs` can't be run", source))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = child.stdout.take();
        let kept = lines.clone();
        let reader = std::thread::spawn(move || {
            let read = output
                .into_iter()
                .flat_map(|output| std::io::BufRead::lines(std::io::BufReader::new(output)));
            for line in read.map_while(Result::ok).filter(|line| line.contains("drill=")) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { child, lines, reader: Some(reader) })
    }

    pub(super) fn ledger(&self) -> Ledger {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Ledger::of_output(lines.iter().map(String::as_str))
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// Reads what somebody else has written to a file.
fn written(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
