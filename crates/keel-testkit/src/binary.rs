//! The real binary, started and ended.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::DEADLINE;

/// Waits until something holds.
///
/// # Errors
/// When it doesn't within [`DEADLINE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A TCP port that nobody uses at the moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The binary under test.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    environment: Vec<(String, String)>,
}

impl Binary {
    /// Takes the path that cargo gives: `env!("CARGO_BIN_EXE_evenkeel")`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), environment: Vec::new() }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command of the binary, without arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts `serve` with a configuration and waits until its ports listen. `PREFIX` in the text stands for a folder
    /// of its own.
    ///
    /// # Errors
    /// When it ends instead; the message has what it said.
    pub fn serve(&self, configuration: &str) -> anyhow::Result<Running> {
        let folder = TempDir::new()?;
        let running = Running::configure(folder, configuration)?;
        let mut command = self.command();
        command.args(["serve", "-p"]).arg(running.folder()).args(["-c", "nginx.conf", "-e", "error.log"]);
        running.start(command)
    }
}

/// A running program with a folder of its own. Ended when dropped.
#[derive(Debug)]
pub struct Running {
    folder: TempDir,
    child: Option<Child>,
}

impl Running {
    fn configure(folder: TempDir, configuration: &str) -> anyhow::Result<Self> {
        let running = Self { folder, child: None };
        running.write_configuration(configuration)?;
        Ok(running)
    }

    /// Writes another configuration, to be read at the next reload.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write_configuration(&self, configuration: &str) -> anyhow::Result<()> {
        let prefix = self.folder().to_str().context("the folder's path is text")?;
        let text =
            format!("pid {prefix}/nginx.pid;\ndaemon off;\n{}", configuration.replace("PREFIX", prefix));
        Ok(std::fs::write(self.folder().join("nginx.conf"), text)?)
    }

    fn start(mut self, mut command: Command) -> anyhow::Result<Self> {
        let said = self.folder().join("said");
        let output = File::create(&said)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let pid_file = self.folder().join("nginx.pid");
        let child = self.child.insert(command.spawn().context("can't start the binary")?);
        let mut ended = None;
        wait_until("the pid file is there", || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || std::fs::read(&pid_file).is_ok_and(|text| !text.is_empty())
        })?;
        if let Some(status) = ended {
            bail!("it ended with {status}: {}", std::fs::read_to_string(said)?);
        }
        Ok(self)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it wrote to its error log.
    pub fn error_log(&self) -> String {
        std::fs::read_to_string(self.folder().join("error.log")).unwrap_or_default()
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has been waited for.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.child.as_ref().context("it has ended")?.id())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(pid(self.pid()?)?, signal)?)
    }

    /// The processes that it started itself, most of all the data plane.
    ///
    /// # Errors
    /// When it has been waited for.
    pub fn children(&self) -> anyhow::Result<Vec<u32>> {
        let id = self.pid()?;
        let mut children = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        Ok(children)
    }

    /// The largest amount of memory that its children, most of all the data plane, have held so far, in KiB.
    ///
    /// # Errors
    /// When a child is gone.
    pub fn children_peak_kib(&self) -> anyhow::Result<u64> {
        let mut peak = 0;
        for pid in self.children()? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let word = line.and_then(|line| line.split_ascii_whitespace().next());
            peak = peak.max(word.context("has a peak")?.parse()?);
        }
        Ok(peak)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it doesn't within [`DEADLINE`].
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("it has ended")?;
        let mut status = None;
        wait_until("it ends", || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        })?;
        self.child = None;
        status.context("it has ended")
    }
}

/// Makes a process id of what the kernel gave as one.
fn pid(id: u32) -> anyhow::Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).context("no process id")
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if thread::panicking() {
            for name in ["said", "error.log"] {
                let text = std::fs::read_to_string(self.folder().join(name)).unwrap_or_default();
                eprintln!("--- {name}\n{text}");
            }
        }
    }
}
