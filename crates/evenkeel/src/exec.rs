//! `exec` and `run`: a command in an instance, or in a new one, at this terminal.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    pin::pin,
    process::ExitCode,
};

use keel_admin::{ExecOpen, Frame, FrameReader, FrameWriter};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    signal::unix::{SignalKind, signal},
};

use crate::{
    project::{ProjectArgs, block_on},
    terminal::Stdout,
};

/// `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// No terminal for the command
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Variable for the command
    #[arg(short = 'e', long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Instance, or service of one instance
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// Program and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// No terminal for the command
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Variable for the command
    #[arg(short = 'e', long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Forget the instance when the command has ended, as is always done
    #[arg(long)]
    rm: bool,
    /// Service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Program and its arguments; the service's own where none is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn exec(project: &ProjectArgs, args: ExecArgs) -> anyhow::Result<ExitCode> {
    let open = open(args.instance, args.command, &args.env, args.no_tty);
    stream(project, "/v1/exec", open)
}

pub(crate) fn run(project: &ProjectArgs, args: RunArgs) -> anyhow::Result<ExitCode> {
    let open = open(args.service, args.command, &args.env, args.no_tty);
    stream(project, "/v1/run", open)
}

fn open(name: String, argv: Vec<String>, env: &[String], no_tty: bool) -> ExecOpen {
    let variable = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), std::env::var(text).unwrap_or_default()),
    };
    let wants_terminal = !no_tty && io::stdin().is_terminal() && io::stdout().is_terminal();
    let terminal = wants_terminal.then(|| size().unwrap_or((24, 80)));
    let mut environment: Vec<(String, String)> = env.iter().map(variable).collect();
    if let (Some(_), Ok(term)) = (terminal, std::env::var("TERM")) {
        environment.push(("TERM".into(), term));
    }
    ExecOpen { name, argv, terminal, environment }
}

fn size() -> Option<(u16, u16)> {
    tcgetwinsize(io::stdout().as_fd()).ok().map(|size| (size.ws_row, size.ws_col))
}

fn stream(project: &ProjectArgs, path: &str, open: ExecOpen) -> anyhow::Result<ExitCode> {
    let client = project.client()?;
    block_on(async {
        let stream = client.upgrade(path, "evenkeel-exec", &open).await?;
        let (reader, writer) = tokio::io::split(stream);
        let _raw = open.terminal.is_some().then(RawTerminal::enter).transpose()?;
        relay(FrameReader::new(reader), FrameWriter(writer)).await
    })
}

/// Carries both ways at once until the command has ended. Neither way waits for the other: a command may print while
/// it is sent more than it reads, and end before it has read everything.
async fn relay(
    mut reader: FrameReader<impl tokio::io::AsyncRead + Unpin>,
    writer: FrameWriter<impl AsyncWrite + Unpin>,
) -> anyhow::Result<ExitCode> {
    let mut sending = pin!(send(writer));
    let mut sends = true;
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(Frame::Output(bytes)) => Stdout::lock().write_raw(&bytes)?,
                Some(Frame::Error(bytes)) => io::stderr().write_all(&bytes)?,
                Some(Frame::Exit(status)) => return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
                Some(Frame::Failed(text)) => anyhow::bail!("{text}"),
                Some(_) => {}
                None => anyhow::bail!("the supervisor went away"),
            },
            result = &mut sending, if sends => {
                // What can't be sent doesn't matter to a command that has ended; how it ended is still to be read.
                _ = result;
                sends = false;
            }
        }
    }
}

/// Sends what is typed and what happens here, until the other side is gone.
async fn send(mut writer: FrameWriter<impl AsyncWrite + Unpin>) -> io::Result<()> {
    let mut input = tokio::io::stdin();
    let mut input_is_open = true;
    let mut buffer = vec![0; 8 << 10];
    let mut resized = signal(SignalKind::window_change())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            read = input.read(&mut buffer), if input_is_open => {
                let length = read.unwrap_or(0);
                input_is_open = length > 0;
                writer.send(&Frame::Input(buffer.get(..length).unwrap_or_default().to_vec())).await?;
            }
            _ = resized.recv() => if let Some((rows, columns)) = size() {
                writer.send(&Frame::Resize(rows, columns)).await?;
            },
            _ = interrupted.recv() => writer.send(&Frame::Signal(2)).await?,
            _ = terminated.recv() => writer.send(&Frame::Signal(15)).await?,
        }
    }
}

/// The terminal passes every key on; as it was again when dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}
