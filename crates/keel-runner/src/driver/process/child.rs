//! A process that this one started: its end, and its streams.

use std::{io, mem, os::fd::OwnedFd, sync::Arc, time::Duration};

use keel_sys::{
    children,
    process::{exit_of_unreaped, kill_group, pidfd_open, pidfd_send_signal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::unix::pipe,
    sync::watch,
};

use crate::{
    Exit,
    driver::exec::{ExecOutput, TerminalSize},
};

/// The status of a process whose end couldn't be learnt.
const LOST: i32 = 255;

#[expect(
    deprecated,
    reason = "an OwnedFd is as sound as the unsafe successor asks for, which has no place here"
)]
fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// Waits until a process has ended.
pub(super) async fn until_ended(pidfd: OwnedFd) {
    match register(pidfd) {
        Ok(waiting) => drop(waiting.readable().await),
        Err(error) => tracing::warn!("the end of a process can't be waited for: {error}"),
    }
}

/// Waits for the end of a child that nobody else waits for. It isn't reaped: until that is done its group is its own.
pub(super) async fn wait_for(pid: i32, pidfd: Arc<OwnedFd>) -> Exit {
    let lost = Exit::Status(LOST);
    // A duplicate: the readiness registration is this waiter's own.
    let Ok(waiting) = pidfd.try_clone().and_then(register) else { return lost };
    loop {
        if waiting.readable().await.is_err() {
            return lost;
        }
        match exit_of_unreaped(pid) {
            Ok(Some(keel_sys::process::Exit::Status(status))) => return Exit::Status(status),
            Ok(Some(keel_sys::process::Exit::Signal(signal))) => return Exit::Signal(signal),
            // Ready, and not to be waited for yet: only when its threads end apart. Ask again.
            Ok(None) => tokio::task::yield_now().await,
            Err(_) => return lost,
        }
    }
}

/// A command that runs in an instance's surroundings.
#[derive(Debug)]
pub(in crate::driver) struct Child {
    input: Option<Input>,
    /// What is still to be written to its input.
    held: Vec<u8>,
    /// Bytes that will never be.
    lost: usize,
    /// Whether its input ends after that.
    input_ends: bool,
    output: Option<OutputEnd>,
    error: Option<pipe::Receiver>,
    pid: i32,
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
}

/// Our ends of a command's streams.
#[derive(Debug)]
pub(super) enum Streams {
    /// The controlling end of its terminal.
    Terminal(OwnedFd),
    /// Pipes.
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
}

#[derive(Debug)]
enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

#[derive(Debug)]
enum OutputEnd {
    Pipe(pipe::Receiver),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;
/// How long what an ended command has left in its streams is waited for: a child of its may hold them open.
const LAST_OUTPUT_WITHIN: Duration = Duration::from_millis(200);

impl Child {
    /// Takes a child that was just started. `then` is done when it has ended, and has it reaped.
    pub(super) fn new(pid: i32, streams: Streams, then: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd_open(pid)?);
        let exit = watch_end(pid, Arc::clone(&pidfd), then);
        let (input, output, error) = match streams {
            Streams::Pipes { stdin, stdout, stderr } => (
                Input::Pipe(pipe::Sender::from_owned_fd(stdin)?),
                OutputEnd::Pipe(pipe::Receiver::from_owned_fd(stdout)?),
                Some(pipe::Receiver::from_owned_fd(stderr)?),
            ),
            Streams::Terminal(terminal) => {
                rustix::io::ioctl_fionbio(&terminal, true)?;
                let terminal = Arc::new(register(terminal)?);
                (Input::Terminal(Arc::clone(&terminal)), OutputEnd::Terminal(terminal), None)
            }
        };
        Ok(Self {
            input: Some(input),
            held: Vec::new(),
            lost: 0,
            input_ends: false,
            output: Some(output),
            error,
            pid,
            pidfd,
            exit,
        })
    }

    /// Waits for what comes next, and meanwhile passes on what [`write`](Self::write) was given; at the end
    /// [`ExecOutput::Exit`], again and again. May be cancelled and called anew.
    pub(in crate::driver) async fn next(&mut self) -> ExecOutput {
        let mut exit = self.exit.clone();
        loop {
            let ended = *exit.borrow();
            if self.lost > 0 {
                return ExecOutput::InputTaken(mem::take(&mut self.lost));
            }
            if let Some(exit) = ended
                && self.output.is_none()
                && self.error.is_none()
            {
                return ExecOutput::Exit(status_of(exit));
            }
            tokio::select! {
                biased;
                bytes = read(&mut self.output), if self.output.is_some() => match bytes {
                    Some(bytes) => return ExecOutput::Output(bytes),
                    None => self.output = None,
                },
                bytes = read_pipe(&mut self.error), if self.error.is_some() => match bytes {
                    Some(bytes) => return ExecOutput::Error(bytes),
                    None => self.error = None,
                },
                written = write_some(&mut self.input, &self.held), if !self.held.is_empty() => {
                    return ExecOutput::InputTaken(self.note_written(written));
                }
                _ = exit.wait_for(Option::is_some), if ended.is_none() => {}
                () = tokio::time::sleep(LAST_OUTPUT_WITHIN), if ended.is_some() => {
                    (self.output, self.error) = (None, None);
                }
            }
        }
    }

    /// Gives bytes to its input; [`next`](Self::next) passes them on as they are read. What it doesn't read is lost.
    pub(in crate::driver) fn write(&mut self, bytes: &[u8]) {
        if self.input.is_some() {
            self.held.extend_from_slice(bytes);
        } else {
            self.lost += bytes.len();
        }
    }

    /// How many bytes are no longer held.
    fn note_written(&mut self, written: io::Result<usize>) -> usize {
        let before = self.held.len();
        match written {
            Ok(length) => drop(self.held.drain(..length.min(before))),
            Err(_) => (self.input, self.held) = (None, Vec::new()),
        }
        if self.input_ends && self.held.is_empty() {
            self.input = None;
        }
        before - self.held.len()
    }

    /// Ends its input, behind what was written. A terminal has no end; its user types Ctrl-D.
    pub(in crate::driver) fn close_input(&mut self) {
        if matches!(self.input, Some(Input::Pipe(_))) {
            self.input_ends = true;
            if self.held.is_empty() {
                self.input = None;
            }
        }
    }

    /// Does what the end of a terminal or of a connection does: SIGHUP, and no more input.
    pub(in crate::driver) fn hang_up(&mut self) {
        const SIGHUP: i32 = 1;
        if matches!(self.input, Some(Input::Terminal(_))) {
            children::signal_group(self.pid, SIGHUP);
        }
        (self.input, self.held) = (None, Vec::new());
    }

    /// Waits for its end; its output is dropped.
    pub(in crate::driver) async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Status(LOST)),
            Err(_) => Exit::Status(LOST),
        }
    }

    /// Sends a signal to its process group. Fine if it has ended.
    ///
    /// # Errors
    /// When there is no such signal, or it may not be sent.
    pub(in crate::driver) fn signal(&self, signal: i32) -> io::Result<()> {
        // The descriptor tells that the number is still this process's.
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => {
                children::signal_group(self.pid, signal);
                Ok(())
            }
            Err(_) if self.exit.borrow().is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells its terminal, if it has one, the size.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(in crate::driver) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        match &self.output {
            Some(OutputEnd::Terminal(terminal)) => {
                keel_sys::sandbox::resize_terminal(terminal.get_ref(), size.rows, size.columns)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Child {
    /// Nobody waits for the command any more: it ends.
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            children::signal_group(self.pid, super::SIGKILL);
        }
    }
}

/// Waits for the end of a child also when nobody asks, and does what follows from it; reaping is part of that.
pub(super) fn watch_end(
    pid: i32,
    pidfd: Arc<OwnedFd>,
    then: impl FnOnce() + Send + 'static,
) -> watch::Receiver<Option<Exit>> {
    let (tell, exit) = watch::channel(None);
    tokio::spawn(async move {
        let exit = wait_for(pid, pidfd).await;
        let _ = kill_group(pid, super::SIGKILL);
        then();
        tell.send_replace(Some(exit));
    });
    exit
}

/// Reaps a child that has ended.
pub(super) fn reap(pid: i32) {
    if let Err(error) = children::reap(pid) {
        tracing::debug!(pid, "it can't be reaped: {error}");
    }
}

fn status_of(exit: Exit) -> i32 {
    match exit {
        Exit::Status(status) => status,
        Exit::Signal(signal) => 128 + signal,
    }
}

/// Reads what is there; `None` at the end.
async fn read(reader: &mut Option<OutputEnd>) -> Option<Vec<u8>> {
    match reader {
        Some(OutputEnd::Pipe(pipe)) => read_some(pipe).await,
        Some(OutputEnd::Terminal(terminal)) => read_terminal(terminal).await,
        None => None,
    }
}

async fn read_pipe(pipe: &mut Option<pipe::Receiver>) -> Option<Vec<u8>> {
    read_some(pipe.as_mut()?).await
}

async fn read_some(pipe: &mut pipe::Receiver) -> Option<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    let n = pipe.read(&mut bytes).await.ok().filter(|n| *n > 0)?;
    bytes.truncate(n);
    Some(bytes)
}

async fn read_terminal(terminal: &AsyncFd<OwnedFd>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let mut ready = terminal.readable().await.ok()?;
        match ready.try_io(|terminal| Ok(rustix::io::read(terminal.get_ref(), &mut bytes)?)) {
            // EIO: the last process on the terminal is gone.
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(n)) => {
                bytes.truncate(n);
                return Some(bytes);
            }
            Err(_would_block) => {}
        }
    }
}

/// Writes what can be written now, once anything can.
async fn write_some(input: &mut Option<Input>, bytes: &[u8]) -> io::Result<usize> {
    match input {
        Some(Input::Pipe(pipe)) => pipe.write(bytes).await,
        Some(Input::Terminal(terminal)) => loop {
            let mut ready = terminal.writable().await?;
            if let Ok(written) = ready.try_io(|terminal| Ok(rustix::io::write(terminal.get_ref(), bytes)?)) {
                return written;
            }
        },
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}
