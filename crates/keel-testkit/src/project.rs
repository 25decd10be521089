//! A project of its own: files, folders, and the commands on it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Binary;

/// How long a command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// A project in a folder of its own, with runtime, state and cache folders that no other test sees. Its supervisor is
/// ended when it is dropped.
#[derive(Debug)]
pub struct Project {
    binary: Binary,
    folder: TempDir,
    name: String,
}

impl Project {
    /// Writes files into a new folder. `FOLDER` in their text stands for that folder.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn new(binary: Binary, files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keel").tempdir()?;
        let suffix =
            folder.path().file_name().and_then(|name| name.to_str()).context("a folder has a name")?;
        let name = suffix.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let project = Self { binary, folder, name };
        for hidden in ["run", "state", "cache"] {
            std::fs::create_dir(project.folder().join(format!(".{hidden}")))?;
        }
        for (name, text) in files {
            project.write(name, text)?;
        }
        Ok(project)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text.replace("FOLDER", &self.folder().to_string_lossy()))?)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The supervisor's lock file, which holds its process id.
    ///
    /// # Errors
    /// When there was none yet.
    pub fn lock_file(&self) -> anyhow::Result<PathBuf> {
        let entries = std::fs::read_dir(self.folder().join(".run/evenkeel"))?.filter_map(Result::ok);
        let mut locks = entries.map(|entry| entry.path());
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&format!("{}-", self.name)) && name.ends_with(".lock")
        };
        locks.find(is_ours).context("no supervisor was started")
    }

    /// The folder of what outlives a supervisor: logs and its record.
    ///
    /// # Errors
    /// When there was none yet.
    pub fn state_folder(&self) -> anyhow::Result<PathBuf> {
        let entries = std::fs::read_dir(self.folder().join(".state/evenkeel"))?.filter_map(Result::ok);
        entries.map(|entry| entry.path()).find(|path| path.is_dir()).context("no supervisor was started")
    }

    /// The supervisor's process id.
    ///
    /// # Errors
    /// When there was none yet.
    pub fn supervisor(&self) -> anyhow::Result<u32> {
        Ok(std::fs::read_to_string(self.lock_file()?)?.trim().parse()?)
    }

    /// A command of the binary on this project.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.binary.command();
        command
            .args(["-p", &self.name])
            .args(arguments)
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .env("XDG_RUNTIME_DIR", self.folder().join(".run"))
            .env("XDG_STATE_HOME", self.folder().join(".state"))
            .env("XDG_CACHE_HOME", self.folder().join(".cache"))
            .env("NO_COLOR", "1");
        command
    }

    /// Runs a command that must succeed and gives its standard output.
    ///
    /// # Errors
    /// When it fails; the message has what it said.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?} failed with {}: {said}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command and gives everything that came of it.
    ///
    /// # Errors
    /// When it can't be started, doesn't end in time, or leaves its output open to others.
    pub fn output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.output_within(arguments, COMMAND_DEADLINE)
    }

    /// Runs a command that may take so long, and gives everything that came of it.
    ///
    /// # Errors
    /// As [`Project::output`].
    pub fn output_within(&self, arguments: &[&str], deadline: Duration) -> anyhow::Result<Output> {
        let mut command = self.command(arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start the binary")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        match receiver.recv_timeout(deadline) {
            Ok(output) => Ok(output?),
            Err(_) => {
                _ = pid.map(|pid| kill_process(pid, Signal::KILL));
                bail!("{arguments:?} doesn't end within {deadline:?}, or leaves its output open to others")
            }
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [["ps"].as_slice(), &["logs", "-n", "5"]] {
                if let Ok(output) = self.output(arguments) {
                    let (out, err) =
                        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                    eprintln!("--- {arguments:?}\n{out}{err}");
                }
            }
        }
        // Whether it still runs or not: afterwards it doesn't.
        drop(self.output(&["down", "-t", "0"]));
    }
}
