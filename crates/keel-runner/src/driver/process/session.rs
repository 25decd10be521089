//! Commands beside the instances: healthchecks, `exec`, `run`.

use std::{
    io,
    os::fd::OwnedFd,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use keel_model::Service;
use keel_sys::{
    process::pidfd_open,
    sandbox::{Group, Namespace, Sandbox, TrapMode, c_path, open_terminal, resize_terminal},
};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, sync::oneshot, task::JoinHandle};

use super::{
    Living, ProcessDriver, SIGKILL,
    child::{Child, Streams, reap, watch_end},
    environment,
    homes::Role,
    launch::{Order, Stdio3, not_started, user_of},
    lock, process_of,
    trap::Whose,
};
use crate::{
    Error, ExecRequest, Exit, Health, TerminalSize,
    driver::exec::{Exec, Running},
    supervisor::{Event, Incarnation, ProbeNumber},
};

/// How much of what a healthcheck printed is kept: its end.
const HEALTH_BYTES_MAX: usize = 4096;
/// How long the rest of it is waited for once the healthcheck has ended.
const LAST_OUTPUT_WITHIN: Duration = Duration::from_millis(100);

impl ProcessDriver {
    /// Runs the healthcheck of a life once; says [`Event::Probed`].
    pub(crate) fn probe(&self, incarnation: Incarnation, number: ProbeNumber) {
        let driver = self.clone();
        tokio::spawn(async move {
            let ran = driver.run_healthcheck(incarnation).await;
            let (passed, output) = ran.unwrap_or_else(|why| (false, tokio::spawn(async { why })));
            // An instance that passed joins the pool at once; reading the output comes later.
            if passed {
                driver.note_health(incarnation, Health { passed, output: String::new() });
                driver.tell(Event::Probed { incarnation, number, passed });
            }
            let output = output.await.unwrap_or_default();
            if !passed {
                driver.note_health(incarnation, Health { passed, output });
                driver.tell(Event::Probed { incarnation, number, passed });
            } else if let Some(living) = lock(&driver.0.lives).get_mut(&incarnation) {
                // Unless another has come to its end meanwhile.
                let mine = living.health.as_mut().filter(|health| health.passed && health.output.is_empty());
                if let Some(health) = mine {
                    health.output = output;
                }
            }
        });
    }

    fn note_health(&self, incarnation: Incarnation, health: Health) {
        if let Some(living) = lock(&self.0.lives).get_mut(&incarnation) {
            living.health = Some(health);
        }
    }

    /// Runs the healthcheck to its end; gives whether it passed, and who will say what it printed.
    async fn run_healthcheck(&self, incarnation: Incarnation) -> Result<(bool, JoinHandle<String>), String> {
        let living = self.living(incarnation).ok_or("it has ended")?;
        let check = living.spec.healthcheck.clone().ok_or("it has no healthcheck")?;
        let text = |error: io::Error| error.to_string();
        let (reader, writer) = io::pipe().map_err(text)?;
        let stdio = Stdio3 {
            stdin: Stdio::null(),
            stdout: writer.try_clone().map_err(text)?.into(),
            stderr: writer.into(),
        };
        let order = Inside { argv: &check.argv, extra: &[], group: Group::Process, role: Role::Healthcheck };
        let pid = self.spawn_inside(incarnation, &living, &order, stdio).await?;
        let mut end = watch_end(pid, Arc::new(pidfd_open(pid).map_err(text)?), move || reap(pid));
        // Read while it runs: it would wait for ever for somebody to take what a pipe doesn't hold.
        let (ended, is_over) = oneshot::channel();
        let output = tokio::spawn(read_end(reader.into(), is_over));
        let exit = tokio::time::timeout(check.timeout, end.wait_for(Option::is_some)).await;
        let passed = match exit {
            Ok(exit) => exit.is_ok_and(|exit| exit.is_some_and(Exit::is_success)),
            Err(_) => {
                keel_sys::children::signal_group(pid, SIGKILL);
                return Err(format!("it took longer than {} s", check.timeout.as_secs_f32()));
            }
        };
        let _ = ended.send(());
        Ok((passed, output))
    }

    /// Runs a command in a running instance.
    pub(crate) async fn exec(&self, incarnation: Incarnation, request: ExecRequest) -> Result<Exec, Error> {
        let not_running = || Error::NotRunning { name: request.name.clone() };
        let living = self.living(incarnation).ok_or_else(not_running)?;
        let (stdio, streams) = streams(request.terminal).map_err(|error| Error::Exec(error.to_string()))?;
        let order = Inside {
            argv: &request.argv,
            extra: &request.environment,
            group: group_of(request.terminal),
            role: Role::Instance,
        };
        let pid = self.spawn_inside(incarnation, &living, &order, stdio).await.map_err(Error::Exec)?;
        let child = Child::new(pid, streams, move || reap(pid));
        let child = child.map_err(|error| Error::Exec(error.to_string()))?;
        Ok(Exec(Running::Child(child)))
    }

    /// Runs a service's command, or another in its place, as an instance of its own.
    pub(crate) async fn run_once(
        &self,
        incarnation: Incarnation,
        name: String,
        spec: &Service,
        request: ExecRequest,
    ) -> Result<Exec, Error> {
        let failed = Error::Exec;
        let mut spec = spec.clone();
        if let keel_model::Run::Process(process) = &mut spec.run {
            process.environment.extend(request.environment);
        }
        let spec = Arc::new(spec);
        let argv = Some(request.argv.as_slice()).filter(|argv| !argv.is_empty());
        let order = Order { incarnation, name: &name, spec: &spec, argv, group: group_of(request.terminal) };
        let mut mine = None;
        let started = self.start_process(&order, || {
            let (stdio, streams) = streams(request.terminal)?;
            mine = Some(streams);
            Ok(stdio)
        });
        let pid = match started.await {
            Ok(pid) => pid,
            Err(why) => {
                self.unsettle(incarnation);
                return Err(failed(why));
            }
        };
        let streams = mine.ok_or_else(|| failed("it has no streams".into()))?;
        let driver = self.clone();
        let bury = move || {
            driver.begin_burial();
            drop(tokio::task::spawn_blocking(move || driver.bury(incarnation)));
        };
        let child = Child::new(pid, streams, bury).map_err(|error| failed(error.to_string()))?;
        Ok(Exec(Running::Child(child)))
    }

    async fn spawn_inside(
        &self,
        incarnation: Incarnation,
        living: &Living,
        order: &Inside<'_>,
        stdio: Stdio3,
    ) -> Result<i32, String> {
        let process = process_of(&living.spec).ok_or("it isn't run here")?;
        let working_dir = &process.working_dir;
        let (program, arguments) = order.argv.split_first().ok_or("there is no command")?;
        let path = living.environment.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
        let found = environment::find_program(program, working_dir, &path, process.user.as_ref())?;
        let mut command = Command::new(found);
        command.arg0(program).args(arguments).env_clear().envs(&living.environment);
        command.envs(order.extra.iter().map(|(name, value)| (name, value)));
        command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
        let namespace = match living.namespace {
            false => Namespace::Inherit,
            true => Namespace::Join {
                of: living.pidfd.try_clone().map_err(|error| error.to_string())?,
                with_user: !rustix::process::geteuid().is_root(),
            },
        };
        let refused = lock(&self.0.refused).trap.is_some();
        let sandbox = Sandbox {
            working_dir: c_path(working_dir).ok(),
            namespace,
            trap: if refused { TrapMode::Off } else { TrapMode::On },
            cgroup: None,
            group: order.group,
            user: user_of(process),
        };
        let program = std::path::PathBuf::from(command.get_program());
        let spawned = self.0.spawner.spawn(command, sandbox).await;
        let spawned = spawned.map_err(|error| not_started(&program, process, &error.source))?;
        if let Some(trap) = spawned.trap {
            self.0
                .traps
                .add(trap, Whose { incarnation, role: order.role })
                .map_err(|error| error.to_string())?;
        }
        i32::try_from(spawned.child.id()).map_err(|error| error.to_string())
    }
}

/// A command to run inside an instance.
struct Inside<'a> {
    argv: &'a [String],
    extra: &'a [(String, String)],
    group: Group,
    role: Role,
}

fn group_of(terminal: Option<TerminalSize>) -> Group {
    match terminal {
        None => Group::Process,
        Some(_) => Group::Terminal,
    }
}

/// Makes the streams of a command: the child's ends and ours.
fn streams(terminal: Option<TerminalSize>) -> io::Result<(Stdio3, Streams)> {
    match terminal {
        None => {
            let (stdin_end, stdin) = io::pipe()?;
            let (stdout, stdout_end) = io::pipe()?;
            let (stderr, stderr_end) = io::pipe()?;
            let child =
                Stdio3 { stdin: stdin_end.into(), stdout: stdout_end.into(), stderr: stderr_end.into() };
            let own = Streams::Pipes { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
            Ok((child, own))
        }
        Some(TerminalSize { rows, columns }) => {
            let (controller, terminal) = open_terminal()?;
            resize_terminal(&controller, rows, columns)?;
            let end = |terminal: &OwnedFd| terminal.try_clone().map(Stdio::from);
            let child =
                Stdio3 { stdin: end(&terminal)?, stdout: end(&terminal)?, stderr: Stdio::from(terminal) };
            Ok((child, Streams::Terminal(controller)))
        }
    }
}

/// Reads what a healthcheck prints, and keeps the end of it.
async fn read_end(reader: OwnedFd, mut is_over: oneshot::Receiver<()>) -> String {
    let Ok(mut pipe) = Receiver::from_owned_fd(reader) else { return String::new() };
    let mut kept = Vec::new();
    let mut piece = vec![0; HEALTH_BYTES_MAX];
    let mut until = None;
    loop {
        let read = tokio::select! {
            biased;
            read = pipe.read(&mut piece) => read,
            // A healthcheck that leaves a process behind holds the pipe open: what is there is enough.
            _ = &mut is_over, if until.is_none() => {
                until = Some(tokio::time::Instant::now() + LAST_OUTPUT_WITHIN);
                continue;
            }
            () = tokio::time::sleep_until(until.unwrap_or_else(tokio::time::Instant::now)), if until.is_some() => {
                break;
            }
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                kept.extend_from_slice(piece.get(..n).unwrap_or_default());
                let beyond = kept.len().saturating_sub(HEALTH_BYTES_MAX);
                kept.drain(..beyond);
            }
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}
