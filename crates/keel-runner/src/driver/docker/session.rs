//! Commands that a user runs: in a container that is there, or in one of their own.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keel_engine::{
    Docker, EngineError,
    api::{
        container::{AttachContainerResults, LogOutput},
        errors::Error as ApiError,
        exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
        query_parameters::{AttachContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder},
    },
    call,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_stream::{Stream, StreamExt};

use super::{Birth, ContainerDriver, LOST, SIGKILL, create::Once, life::send, signal::signal_exec};
use crate::{
    Error, ExecOutput, ExecRequest, Exit, TerminalSize,
    driver::exec::{Exec, Running},
    supervisor::Incarnation,
};

/// How often it is asked how a command ended whose output has ended.
const ASK_EVERY: Duration = Duration::from_millis(20);
const SIGHUP: i32 = 1;

/// A command in the engine.
pub(in crate::driver) struct Session {
    docker: Docker,
    what: What,
    output: Option<Unshared<Output>>,
    input: Option<Unshared<Input>>,
    /// What is still to be written to its input.
    held: Vec<u8>,
    /// Bytes that will never be.
    lost: usize,
    /// Whether its input ends after that.
    input_ends: bool,
    has_terminal: bool,
    exit: Option<i32>,
}

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, ApiError>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Something that nobody reaches through a shared reference, so that a shared reference may be sent anywhere.
struct Unshared<T>(Mutex<T>);

impl<T> Unshared<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn get(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session is about.
#[derive(Clone, Debug)]
enum What {
    /// A further process of a container.
    Exec { id: String },
    /// A container of its own.
    Container { id: String, driver: ContainerDriver, incarnation: Incarnation },
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("what", &self.what).field("exit", &self.exit).finish_non_exhaustive()
    }
}

impl ContainerDriver {
    /// Runs a command in a running container.
    pub(crate) async fn exec(&self, incarnation: Incarnation, request: ExecRequest) -> Result<Exec, Error> {
        let not_running = || Error::NotRunning { name: request.name.clone() };
        let container = self.id_of(incarnation).ok_or_else(not_running)?;
        let failed = |error: EngineError| Error::Exec(error.to_string());
        let docker = self.engine().await.map_err(failed)?;
        let variables = request.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(request.terminal.is_some()),
            env: Some(variables.collect()),
            cmd: Some(request.argv.clone()),
            ..Default::default()
        };
        let id = call(docker.create_exec(&container, options)).await.map_err(failed)?.id;
        let start = StartExecOptions { tty: request.terminal.is_some(), ..Default::default() };
        let started = call(docker.start_exec(&id, Some(start))).await.map_err(failed)?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(Error::Exec("the engine doesn't let it be attached to".into()));
        };
        let session = Session::begin(docker, What::Exec { id }, output, input, request.terminal);
        request.terminal.into_iter().for_each(|size| session.resize(size));
        Ok(Exec(Running::Session(session)))
    }

    /// Runs a service's command, or another in its place, in a container of its own.
    pub(crate) async fn run_once(&self, birth: Birth, request: ExecRequest) -> Result<Exec, Error> {
        let session = self.begin_once(&birth, &request).await;
        if session.is_err() {
            self.bury(birth.incarnation);
        }
        let session = session.map_err(Error::Exec)?;
        request.terminal.into_iter().for_each(|size| session.resize(size));
        Ok(Exec(Running::Session(session)))
    }

    async fn begin_once(&self, birth: &Birth, request: &ExecRequest) -> Result<Session, String> {
        let text = |error: EngineError| error.to_string();
        let docker = self.engine().await.map_err(text)?;
        let once = Once {
            argv: request.argv.clone(),
            environment: request.environment.clone(),
            terminal: request.terminal.is_some(),
        };
        let id = self.create(docker, birth, Some(&once)).await.map_err(|error| error.to_string())?;
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true);
        let attached = call(docker.attach_container(&id, Some(options.build()))).await.map_err(text)?;
        let AttachContainerResults { output, input } = attached;
        call(docker.start_container(&id, None)).await.map_err(text)?;
        let what = What::Container { id, driver: self.clone(), incarnation: birth.incarnation };
        Ok(Session::begin(docker, what, output, input, request.terminal))
    }
}

impl Session {
    fn begin(
        docker: &Docker,
        what: What,
        output: Output,
        input: Input,
        terminal: Option<TerminalSize>,
    ) -> Self {
        Self {
            docker: docker.clone(),
            what,
            output: Some(Unshared::new(output)),
            input: Some(Unshared::new(input)),
            held: Vec::new(),
            lost: 0,
            input_ends: false,
            has_terminal: terminal.is_some(),
            exit: None,
        }
    }

    pub(in crate::driver) async fn next(&mut self) -> ExecOutput {
        loop {
            if self.lost > 0 {
                return ExecOutput::InputTaken(mem::take(&mut self.lost));
            }
            if let Some(status) = self.exit {
                return ExecOutput::Exit(status);
            }
            if self.output.is_none() {
                let status = self.learn_exit().await;
                self.exit = Some(status);
                self.clean_up();
                continue;
            }
            tokio::select! {
                biased;
                piece = next_piece(&mut self.output) => match piece {
                    Some(LogOutput::StdErr { message }) => return ExecOutput::Error(message.into()),
                    Some(other) => return ExecOutput::Output(other.into_bytes().into()),
                    None => self.output = None,
                },
                // Once all that was held is written an end may follow.
                written = write_or_end(&mut self.input, &self.held), if self.has_input_to_pass_on() => match written {
                    Some(length) if length > 0 => {
                        let length = length.min(self.held.len());
                        self.held.drain(..length);
                        return ExecOutput::InputTaken(length);
                    }
                    _ => {
                        self.input = None;
                        self.lost += mem::take(&mut self.held).len();
                    }
                },
            }
        }
    }

    pub(in crate::driver) fn write(&mut self, bytes: &[u8]) {
        if self.input.is_some() {
            self.held.extend_from_slice(bytes);
        } else {
            self.lost += bytes.len();
        }
    }

    pub(in crate::driver) fn close_input(&mut self) {
        self.input_ends |= !self.has_terminal;
    }

    pub(in crate::driver) fn hang_up(&mut self) {
        if self.has_terminal {
            self.signal(SIGHUP);
        }
        (self.input, self.held) = (None, Vec::new());
    }

    pub(in crate::driver) async fn wait(&mut self) -> Exit {
        loop {
            if let ExecOutput::Exit(status) = self.next().await {
                return Exit::Status(status);
            }
        }
    }

    pub(in crate::driver) fn signal(&self, signal: i32) {
        let (docker, what) = (self.docker.clone(), self.what.clone());
        tokio::spawn(async move {
            match what {
                What::Exec { id } => signal_exec(&docker, &id, signal).await,
                What::Container { id, .. } => drop(send(&docker, &id, signal).await),
            }
        });
    }

    pub(in crate::driver) fn resize(&self, size: TerminalSize) {
        let (docker, what) = (self.docker.clone(), self.what.clone());
        let TerminalSize { rows, columns } = size;
        tokio::spawn(async move {
            let done = match what {
                What::Exec { id } => {
                    call(docker.resize_exec(&id, ResizeExecOptions { height: rows, width: columns })).await
                }
                What::Container { id, .. } => {
                    let options = ResizeContainerTTYOptionsBuilder::default();
                    let options = options.h(rows.into()).w(columns.into()).build();
                    call(docker.resize_container_tty(&id, options)).await
                }
            };
            if let Err(error) = done {
                tracing::debug!("a terminal keeps its size: {error}");
            }
        });
    }

    fn has_input_to_pass_on(&self) -> bool {
        self.input.is_some() && (!self.held.is_empty() || self.input_ends)
    }

    async fn learn_exit(&self) -> i32 {
        let status = match &self.what {
            What::Exec { id } => status_of(&self.docker, id).await,
            What::Container { id, .. } => container_status(&self.docker, id).await,
        };
        status.unwrap_or(LOST)
    }

    fn clean_up(&self) {
        if let What::Container { driver, incarnation, .. } = &self.what {
            driver.bury(*incarnation);
        }
    }
}

impl Drop for Session {
    /// Nobody waits for the command any more: it ends.
    fn drop(&mut self) {
        if self.exit.is_none() && tokio::runtime::Handle::try_current().is_ok() {
            if let What::Exec { .. } = self.what {
                self.signal(SIGKILL);
            }
            self.clean_up();
        }
    }
}

/// The status of a command in a container once it has one.
pub(super) async fn status_of(docker: &Docker, exec: &str) -> Result<i32, EngineError> {
    loop {
        let state = call(docker.inspect_exec(exec)).await?;
        if state.running != Some(true) {
            return Ok(state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(LOST));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn container_status(docker: &Docker, id: &str) -> Result<i32, EngineError> {
    loop {
        let state = call(docker.inspect_container(id, None)).await?.state.unwrap_or_default();
        if state.running != Some(true) {
            return Ok(state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(LOST));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn next_piece(output: &mut Option<Unshared<Output>>) -> Option<LogOutput> {
    output.as_mut()?.get().next().await?.ok()
}

/// Writes what can be written, or ends the input where nothing is; `None` when nobody reads it any more.
async fn write_or_end(input: &mut Option<Unshared<Input>>, bytes: &[u8]) -> Option<usize> {
    let input = input.as_mut()?.get();
    if bytes.is_empty() {
        input.shutdown().await.ok()?;
        return Some(0);
    }
    let length = input.write(bytes).await.ok()?;
    Some(length)
}
