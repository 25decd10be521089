//! A command that a user runs in an instance, process or container.

use std::io;

use super::{docker::Session, process::Child};
use crate::Exit;

/// A command to run in an instance, with its environment, names, files and address; or once, as an instance of a
/// service that gets no requests.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// The instance's name, or a service's: then of its first that runs. To run once: the service's.
    pub name: String,
    /// The program and its arguments. To run once: empty for the service's own.
    pub argv: Vec<String>,
    /// Further variables.
    pub environment: Vec<(String, String)>,
    /// The size of the terminal that it has; `None` for pipes.
    pub terminal: Option<TerminalSize>,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in each.
    pub columns: u16,
}

/// What comes from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// From its standard output, or its terminal.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// So many bytes of its input were passed on, or will never be.
    InputTaken(usize),
    /// Its status, or 128 and the signal that ended it; the last.
    Exit(i32),
}

/// A command that runs in an instance's surroundings. It ends when this is dropped.
#[derive(Debug)]
pub struct Exec(pub(super) Running);

/// By whom it is run.
#[derive(Debug)]
pub(super) enum Running {
    /// A process of ours.
    Child(Child),
    /// Something in the engine.
    Session(Session),
}

impl Exec {
    /// Waits for what comes next, and meanwhile passes on what [`write`](Self::write) was given; at the end
    /// [`ExecOutput::Exit`], again and again. May be cancelled and called anew.
    pub async fn next(&mut self) -> ExecOutput {
        match &mut self.0 {
            Running::Child(child) => child.next().await,
            Running::Session(session) => session.next().await,
        }
    }

    /// Gives bytes to its input; [`next`](Self::next) passes them on as they are read, and says so. What it doesn't read is
    /// lost.
    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Child(child) => child.write(bytes),
            Running::Session(session) => session.write(bytes),
        }
    }

    /// Ends its input, behind what was written. A terminal has no end; its user types Ctrl-D.
    pub fn close_input(&mut self) {
        match &mut self.0 {
            Running::Child(child) => child.close_input(),
            Running::Session(session) => session.close_input(),
        }
    }

    /// Does what the end of a terminal or of a connection does: SIGHUP, and no more input.
    pub fn hang_up(&mut self) {
        match &mut self.0 {
            Running::Child(child) => child.hang_up(),
            Running::Session(session) => session.hang_up(),
        }
    }

    /// Waits for its end; its output is dropped.
    pub async fn wait(&mut self) -> Exit {
        match &mut self.0 {
            Running::Child(child) => child.wait().await,
            Running::Session(session) => session.wait().await,
        }
    }

    /// Sends a signal to it and, for a local process, to its process group. Fine if it has ended.
    ///
    /// # Errors
    /// When there is no such signal, or it may not be sent.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.0 {
            Running::Child(child) => child.signal(signal),
            Running::Session(session) => {
                session.signal(signal);
                Ok(())
            }
        }
    }

    /// Tells its terminal, if it has one, the size.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        match &self.0 {
            Running::Child(child) => child.resize(size),
            Running::Session(session) => {
                session.resize(size);
                Ok(())
            }
        }
    }
}
