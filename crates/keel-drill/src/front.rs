//! A balancer on its own: `evenkeel serve`, or an nginx, with a configuration that was made for it.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::{
    Error,
    guard::{self, Guard},
    process::{children, end_all_of},
    system::Ground,
};

/// How long it may take until it listens.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Which program.
#[derive(Clone, Debug)]
pub(crate) enum Program<'a> {
    /// This one.
    Evenkeel(&'a Path),
    /// An nginx.
    Nginx(&'a Path),
}

/// A running balancer. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Front {
    child: Child,
    /// The configuration's path, which stands on its command line and nobody else's.
    mark: String,
    /// Ends it if this process can't.
    guard: Option<Guard>,
    folder: TempDir,
}

impl Front {
    /// Starts it and waits until it listens. `PREFIX` in the text stands for a folder of its own.
    pub(crate) fn start(program: &Program<'_>, configuration: &str, ground: &Ground) -> Result<Self, Error> {
        let io = |source| Error::io("the balancer can't be started", source);
        let folder = tempfile::Builder::new().prefix("evenkeel-drill").tempdir().map_err(io)?;
        let conf = folder.path().join("nginx.conf");
        std::fs::create_dir_all(folder.path().join("logs")).map_err(io)?;
        std::fs::write(&conf, placed(configuration, folder.path())).map_err(io)?;
        let mark = conf.to_string_lossy().into_owned();
        let order =
            guard::Order { marks: vec![mark.clone()], down: None, folders: vec![folder.path().to_owned()] };
        let guard = Guard::start(&ground.program, &order).map_err(io)?;
        let mut command = match program {
            Program::Evenkeel(path) => {
                let mut command = Command::new(path);
                command.arg("serve");
                command
            }
            Program::Nginx(path) => Command::new(path),
        };
        command
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&conf)
            .arg("-e")
            .arg(folder.path().join("error.log"));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let said = std::fs::File::create(folder.path().join("said")).map_err(io)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = command.spawn().map_err(io)?;
        let mut front = Self { child, mark, guard: Some(guard), folder };
        let deadline = Instant::now() + STARTS_WITHIN;
        while std::fs::read(front.folder.path().join("pid")).map_or(true, |text| text.is_empty()) {
            ground.stop.check()?;
            if matches!(front.child.try_wait(), Ok(Some(_))) || Instant::now() > deadline {
                let said = std::fs::read_to_string(front.folder.path().join("said")).unwrap_or_default();
                return Err(Error::Fault(format!("the balancer doesn't start: {}", said.trim())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(front)
    }

    /// What every configuration begins with.
    pub(crate) fn preamble() -> &'static str {
        "daemon off;\npid PREFIX/pid;\nerror_log PREFIX/error.log;\n"
    }

    /// What its `http` block needs, so that it writes into its own folder alone.
    pub(crate) fn folders() -> &'static str {
        "access_log off;\n    client_body_temp_path PREFIX/client_body;\n    proxy_temp_path PREFIX/proxy;\n"
    }

    /// Writes another configuration and has it read.
    pub(crate) fn reload(&self, configuration: &str) -> Result<(), Error> {
        let io = |source| Error::io("the balancer can't be reloaded", source);
        std::fs::write(self.folder.path().join("nginx.conf"), placed(configuration, self.folder.path()))
            .map_err(io)?;
        let pid = self.pid().ok_or(io::ErrorKind::NotFound).map_err(|kind| io(kind.into()))?;
        kill_process(pid, Signal::HUP).map_err(|error| io(error.into()))
    }

    /// The processes that serve connections.
    pub(crate) fn workers(&self) -> Vec<Pid> {
        let pids = children(self.child.id());
        pids.into_iter().filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw)).collect()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Not yet waited for, so its number is still its own; its workers are in its group.
            _ = self.pid().map(|pid| kill_process_group(pid, Signal::KILL));
            drop(self.child.wait());
        }
        end_all_of(&self.mark);
        self.guard = None;
    }
}

fn placed(configuration: &str, folder: &Path) -> String {
    configuration.replace("PREFIX", &folder.to_string_lossy())
}

/// Asks an nginx for its version: `1.31.5`.
pub(crate) fn nginx_version(path: &PathBuf) -> Result<String, Error> {
    let output = Command::new(path).arg("-v").stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::io(format!("{} can't be run", path.display()), source))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = said.split('/').nth(1).unwrap_or(said.as_str());
    Ok(version.split_whitespace().next().unwrap_or_default().to_owned())
}
