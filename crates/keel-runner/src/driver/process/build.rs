//! What must be done before an instance can start: `x-process.build`, and `RUN pip install` in a virtual environment.
//!
//! A step that was done is not done again until it changes or is asked for: a mark says so. Builds run with Evenkeel's own
//! environment, as the user would run them.

use std::{
    fs::Permissions,
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use keel_model::{BuildStep, ProcessSpec, ProcessUser, Run, Service, ServiceName};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    process::Command,
};

use super::{content, environment};
use crate::{
    driver::Rebuild,
    error::{BuildError, at},
};

/// The file in a virtual environment that says it is complete.
const COMPLETE: &str = ".evenkeel-complete";
/// How many of a failed step's last lines are shown.
const LINES_SHOWN_MAX: usize = 20;

/// Does the steps of a service that aren't done; all shell steps with [`Rebuild::All`]. `progress` is told what happens.
pub(crate) async fn build(
    service: &Service,
    marks: &Path,
    rebuild: Rebuild,
    progress: impl Fn(String),
) -> Result<(), BuildError> {
    let Run::Process(process) = &service.run else { return Ok(()) };
    let io = |source| BuildError::Io { service: service.name.clone(), source };
    for step in &process.build {
        match step {
            BuildStep::Shell { command, working_dir } => {
                let mark = marks.join(mark_of(&service.name.0, command, working_dir));
                if rebuild == Rebuild::All || !mark.exists() || is_missing(process) {
                    progress(format!("building: {command}"));
                    let argv = ["/bin/sh".into(), "-c".into(), command.clone()];
                    run(&service.name, command, &argv, working_dir, &progress).await?;
                    std::fs::create_dir_all(marks).map_err(at(marks)).map_err(io)?;
                    std::fs::write(&mark, "").map_err(at(&mark)).map_err(io)?;
                }
            }
            BuildStep::Pip { installs, venv, working_dir } => {
                if !venv.join(COMPLETE).exists() {
                    let venv = Venv { installs, folder: venv, working_dir, user: process.user.as_ref() };
                    make_venv(&service.name, &venv, &progress).await?;
                }
            }
            BuildStep::Context { .. } => {}
        }
    }
    Ok(())
}

/// Takes in what a build of the service contains: what it did when it was last looked at, or does now.
///
/// # Errors
/// When something that it would contain can't be read.
pub(crate) async fn take_in_content(
    service: &mut Service,
    known: Option<String>,
) -> Result<Option<String>, BuildError> {
    let Run::Process(process) = &service.run else { return Ok(None) };
    let content = match known {
        Some(known) => Some(known),
        None => {
            let process = process.clone();
            let digest = tokio::task::spawn_blocking(move || content::digest(&process)).await;
            let digest = digest.map_err(io::Error::other).flatten();
            digest.map_err(|source| BuildError::Io { service: service.name.clone(), source })?
        }
    };
    if let Some(content) = &content {
        // It may have been taken in before: `start` and `scale` go by what the last `up` left.
        let of_files = service.digest.split(' ').next().unwrap_or_default();
        service.digest = format!("{of_files} {content}");
    }
    Ok(content)
}

/// A virtual environment that is to be made.
struct Venv<'a> {
    installs: &'a [Vec<String>],
    folder: &'a Path,
    working_dir: &'a Path,
    /// Who uses it, if that isn't this process's user.
    user: Option<&'a ProcessUser>,
}

async fn make_venv(
    service: &ServiceName,
    venv: &Venv<'_>,
    progress: &impl Fn(String),
) -> Result<(), BuildError> {
    let io = |source| BuildError::Io { service: service.clone(), source };
    let Venv { folder, working_dir, .. } = *venv;
    // What an interrupted build left isn't to be trusted.
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(at(folder)).map_err(io)?;
    }
    if let Some(parent) = folder.parent() {
        let made = folders_to_make(parent);
        std::fs::create_dir_all(parent).map_err(at(parent)).map_err(io)?;
        if venv.user.is_some() {
            // Another user passes them, under any umask of this process.
            for folder in made.into_iter().chain([parent]) {
                std::fs::set_permissions(folder, Permissions::from_mode(0o711))
                    .map_err(at(folder))
                    .map_err(io)?;
            }
        }
    }
    progress("making a virtual environment".into());
    let folder_text = folder.to_string_lossy().into_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The first one that its user may run.
    let python = environment::find_program("python3", Path::new("/"), &path, venv.user);
    let python = python.map_or_else(|_| "python3".into(), |path| path.to_string_lossy().into_owned());
    let argv = [python.clone(), "-m".into(), "venv".into(), folder_text.clone()];
    let for_all = |argv: &[String]| with_open_umask(argv, venv.user);
    run(service, &format!("{python} -m venv {folder_text}"), &for_all(&argv), working_dir, progress).await?;
    for install in venv.installs {
        let command = format!("pip install {}", install.join(" "));
        progress(command.clone());
        let python = folder.join("bin/python").to_string_lossy().into_owned();
        let fixed = ["-m", "pip", "--disable-pip-version-check", "install"].map(str::to_owned);
        let argv: Vec<String> = [python].into_iter().chain(fixed).chain(install.iter().cloned()).collect();
        run(service, &command, &for_all(&argv), working_dir, progress).await?;
    }
    std::fs::write(folder.join(COMPLETE), "").map_err(io)
}

/// The folders above `folder`, and it itself, that don't exist yet.
fn folders_to_make(folder: &Path) -> Vec<&Path> {
    folder.ancestors().take_while(|folder| !folder.exists()).collect()
}

/// Wraps a command so that another user can read the files it makes, under any umask of this process.
fn with_open_umask(argv: &[String], user: Option<&ProcessUser>) -> Vec<String> {
    let shell = ["/bin/sh", "-c", "umask 022; exec \"$@\"", "sh"];
    let shell = shell.into_iter().filter(|_| user.is_some()).map(str::to_owned);
    shell.chain(argv.iter().cloned()).collect()
}

async fn run(
    service: &ServiceName,
    shown: &str,
    argv: &[String],
    working_dir: &Path,
    progress: &impl Fn(String),
) -> Result<(), BuildError> {
    let failed = |how: String, lines: Vec<String>| BuildError::Failed {
        service: service.clone(),
        command: shown.to_owned(),
        how,
        lines,
    };
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let io = |source| BuildError::Io { service: service.clone(), source };
    let (reader, writer) = io::pipe().map_err(io)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(working_dir).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(writer.try_clone().map_err(io)?).stderr(writer).process_group(0);
    let started = keel_sys::children::start(|| command.spawn(), |child| child.id().unwrap_or(0));
    let mut child = started.map_err(|error| failed(error.to_string(), Vec::new()))?;
    // It holds the writing ends, which would keep the pipe open.
    drop(command);
    // The command's process group ends when nobody waits for it any more.
    let mut group = GroupGuard(child.id().and_then(|id| i32::try_from(id).ok()));
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(io)?;
    let mut output = BufReader::new(reader).split(b'\n');
    let mut last = Vec::new();
    while let Ok(Some(line)) = output.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        progress(line.clone());
        last.push(line);
        if last.len() > LINES_SHOWN_MAX {
            last.remove(0);
        }
    }
    let status = child.wait().await.map_err(io)?;
    group.ended();
    if status.success() { Ok(()) } else { Err(failed(status.to_string(), last)) }
}

/// Ends a process group when dropped, and leaves its leader to who reaps orphans.
struct GroupGuard(Option<i32>);

impl GroupGuard {
    /// Its leader has ended and was reaped.
    fn ended(&mut self) {
        if let Some(leader) = self.0.take() {
            keel_sys::children::forget(leader.unsigned_abs());
        }
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = keel_sys::process::kill_group(group, super::SIGKILL);
            keel_sys::children::forget(group.unsigned_abs());
        }
    }
}

/// Whether the program that the step is to make isn't there.
fn is_missing(process: &ProcessSpec) -> bool {
    let program = process.argv.first().filter(|program| program.contains('/'));
    program.is_some_and(|program| !process.working_dir.join(program).exists())
}

fn mark_of(service: &str, command: &str, working_dir: &Path) -> PathBuf {
    // FNV-1a: tells one step from another, nothing more.
    let folder = working_dir.to_string_lossy();
    let bytes = service.bytes().chain([0]).chain(command.bytes()).chain([0]).chain(folder.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    PathBuf::from(format!("built-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn service(folder: &Path, command: &str) -> Service {
        let step = BuildStep::Shell { command: command.into(), working_dir: folder.into() };
        let process = ProcessSpec {
            argv: vec!["./app".into()],
            environment: Default::default(),
            working_dir: folder.into(),
            build: vec![step],
            path_map: Vec::new(),
            path_prefix: Vec::new(),
            hostname: None,
            user: None,
        };
        let mut service = crate::supervisor::test_service("app", 1);
        service.run = Run::Process(process);
        service
    }

    #[tokio::test]
    async fn builds_once_and_again_when_asked_or_needed() {
        let folder = tempfile::tempdir().unwrap();
        let (app, marks) = (folder.path().join("app"), folder.path().join("marks"));
        let service = service(folder.path(), "echo line; echo x >> app");
        let told = RefCell::new(Vec::new());
        let progress = |text: String| told.borrow_mut().push(text);
        let times = || std::fs::read_to_string(&app).unwrap().lines().count();
        build(&service, &marks, Rebuild::Missing, progress).await.unwrap();
        build(&service, &marks, Rebuild::Missing, progress).await.unwrap();
        assert_eq!(times(), 1);
        assert_eq!(told.take(), ["building: echo line; echo x >> app", "line"]);
        build(&service, &marks, Rebuild::All, progress).await.unwrap();
        assert_eq!(times(), 2);
        std::fs::remove_file(&app).unwrap();
        build(&service, &marks, Rebuild::Missing, progress).await.unwrap();
        assert_eq!(times(), 1);
    }

    #[tokio::test]
    async fn one_that_is_given_up_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(folder.path(), "sleep 1000 & echo $!; wait");
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let progress = |text: String| drop(told.send(text));
        let pid: i32 = {
            let build = build(&service, folder.path(), Rebuild::Missing, progress);
            let heard = async {
                loop {
                    if let Some(pid) = hears.recv().await.and_then(|line| line.parse().ok()) {
                        return pid;
                    }
                }
            };
            tokio::select! {
                _ = build => panic!("it sleeps"),
                pid = heard => pid,
            }
        };
        let ended = |pid| keel_sys::proc::stat(pid).is_none_or(|stat| stat.is_over());
        while !ended(pid) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_failure_shows_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(folder.path(), "echo no compiler; exit 3");
        let error = build(&service, folder.path(), Rebuild::Missing, |_| ()).await.unwrap_err();
        let expect = "building app failed: `echo no compiler; exit 3`: exit status: 3\n    no compiler";
        assert_eq!(error.to_string(), expect);
    }
}
