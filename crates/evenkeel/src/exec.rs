//! `exec` and `run`: a command in an instance, or in a new one, at this terminal.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    os::fd::AsFd,
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use keel_admin::{ExecFrame, ExecOpen, ExecReader, ExecWriter, INPUT_BYTES_MAX};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    project::{ProjectArgs, block_on},
    terminal,
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
        relay(ExecReader::new(reader), ExecWriter(writer)).await
    })
}

/// Carries both ways at once until the command has ended. Neither way waits for the other: a command may print while
/// it is sent more than it reads, end before it has read everything, and be ended while nobody reads what it prints.
async fn relay(
    reader: ExecReader<impl AsyncRead + Unpin>,
    writer: ExecWriter<impl AsyncWrite + Unpin>,
) -> anyhow::Result<ExitCode> {
    let output = Output::default();
    let (taken, room) = mpsc::unbounded_channel();
    let mut receiving = pin!(receive(reader, taken, &output));
    let mut sending = pin!(send(writer, room, &output));
    let mut sends = true;
    loop {
        tokio::select! {
            biased;
            code = &mut receiving => return code,
            sent = &mut sending, if sends => match sent {
                Ok(GivenUp { signal }) => return Ok(ExitCode::from(128 + signal)),
                // What can't be sent doesn't matter to a command that has ended; how it ended is still to be read.
                Err(_) => sends = false,
            },
        }
    }
}

/// Whether this side's output takes what the command prints.
#[derive(Debug, Default)]
struct Output {
    /// Since when something waits to be taken.
    stuck_since: Cell<Option<Instant>>,
}

impl Output {
    async fn write(&self, mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
        self.stuck_since.set(Some(Instant::now()));
        let written = to.write_all(bytes).await;
        let flushed = if written.is_ok() { to.flush().await } else { written };
        self.stuck_since.set(None);
        flushed
    }
}

/// Writes what comes until the command has ended, and tells what of its input was taken.
async fn receive(
    mut reader: ExecReader<impl AsyncRead + Unpin>,
    taken: mpsc::UnboundedSender<usize>,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        match reader.next().await? {
            Some(ExecFrame::Output(bytes)) => {
                output.write(&mut stdout, &bytes).await.map_err(terminal::unwritten)?;
            }
            Some(ExecFrame::Error(bytes)) => output.write(&mut stderr, &bytes).await?,
            Some(ExecFrame::Taken(count)) => drop(taken.send(usize::try_from(count).unwrap_or(usize::MAX))),
            Some(ExecFrame::Exit(status)) => return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
            Some(ExecFrame::Failed(text)) => anyhow::bail!("{text}"),
            Some(_) => {}
            None => anyhow::bail!("the supervisor went away"),
        }
    }
}

/// Nobody reads the output, and this signal has come.
struct GivenUp {
    signal: u8,
}

/// How long output that nobody reads is waited for once a signal has come; a second signal ends that.
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// Sends what is typed and what happens here, until the other side is gone or it is to be given up.
async fn send(
    mut writer: ExecWriter<impl AsyncWrite + Unpin>,
    mut room: mpsc::UnboundedReceiver<usize>,
    output: &Output,
) -> io::Result<GivenUp> {
    let mut input = tokio::io::stdin();
    let mut input_is_open = true;
    let mut bytes_left = INPUT_BYTES_MAX;
    let mut buffer = vec![0; 8 << 10];
    let mut resized = signal(SignalKind::window_change())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    // The signal that came first while the output was stuck, and since when that was.
    let mut last: Option<(u8, Instant)> = None;
    loop {
        let patience = last.map(|(_, at)| tokio::time::Instant::from_std(at + READER_PATIENCE));
        let number = tokio::select! {
            read = input.read(&mut buffer), if input_is_open && bytes_left >= buffer.len() => {
                let length = read.unwrap_or(0);
                input_is_open = length > 0;
                bytes_left -= length;
                writer.send(&ExecFrame::Input(buffer.get(..length).unwrap_or_default().to_vec())).await?;
                continue;
            }
            Some(count) = room.recv() => {
                bytes_left = bytes_left.saturating_add(count).min(INPUT_BYTES_MAX);
                continue;
            }
            _ = resized.recv() => {
                if let Some((rows, columns)) = size() {
                    writer.send(&ExecFrame::Resize(rows, columns)).await?;
                }
                continue;
            }
            () = tokio::time::sleep_until(patience.unwrap_or_else(tokio::time::Instant::now)), if patience.is_some() => {
                match (last.take(), output.stuck_since.get()) {
                    (Some((signal, at)), Some(since)) if since <= at => return Ok(GivenUp { signal }),
                    // It moved meanwhile, and may be stuck again.
                    (Some((signal, _)), Some(since)) => last = Some((signal, since)),
                    _ => {}
                }
                continue;
            }
            _ = interrupted.recv() => 2,
            _ = terminated.recv() => 15,
        };
        writer.send(&ExecFrame::Signal(number.into())).await?;
        match (last, output.stuck_since.get()) {
            (Some((_, at)), Some(since)) if since <= at => return Ok(GivenUp { signal: number }),
            _ => last = Some((number, Instant::now())),
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
