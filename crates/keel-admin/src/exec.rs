//! Commands in instances: a two-way stream of frames over an upgraded control connection.
//!
//! A frame is one byte that tells what it is, the length of its content as u32 in little endian, and the content.

use std::io;

use axum::{
    Json,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use keel_runner::{Exec, ExecOutput, ExecRequest, TerminalSize};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{answer::fail, api::Failure};

/// The protocol's name in `Upgrade`.
pub(crate) const PROTOCOL: &str = "evenkeel-exec";

/// Input that a client may have sent and not yet been told to be taken, in bytes. What else it says, a signal above all, thus
/// never waits behind input that isn't read.
pub const INPUT_BYTES_MAX: usize = 256 << 10;
/// The longest content of a frame, in bytes.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;
/// The longest request that opens a stream, in bytes.
const OPEN_BYTES_MAX: usize = 1 << 20;

/// `POST /v1/exec` and `POST /v1/run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOpen {
    /// The instance, or for `run` the service.
    pub name: String,
    /// The program and its arguments; for `run` empty for the service's own.
    pub argv: Vec<String>,
    /// Rows and columns of the caller's terminal, if the command is to have one.
    pub terminal: Option<(u16, u16)>,
    /// Variables on top of the instance's.
    pub environment: Vec<(String, String)>,
}

/// What goes over the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecFrame {
    /// For the command's standard input; empty closes it.
    Input(Vec<u8>),
    /// The caller's terminal has these rows and columns now.
    Resize(u16, u16),
    /// A signal for the command.
    Signal(i32),
    /// From the command's standard output, or its terminal.
    Output(Vec<u8>),
    /// From the command's standard error.
    Error(Vec<u8>),
    /// So many bytes of input went on to the command: as many more may be sent.
    Taken(u32),
    /// The command has ended: the last frame.
    Exit(i32),
    /// The command could not be run: the last frame.
    Failed(String),
}

impl ExecFrame {
    fn encode(&self) -> Vec<u8> {
        let (kind, content) = match self {
            Self::Input(bytes) => (0, bytes.clone()),
            Self::Resize(rows, columns) => (1, [rows.to_le_bytes(), columns.to_le_bytes()].concat()),
            Self::Signal(number) => (2, number.to_le_bytes().to_vec()),
            Self::Output(bytes) => (3, bytes.clone()),
            Self::Error(bytes) => (4, bytes.clone()),
            Self::Exit(status) => (5, status.to_le_bytes().to_vec()),
            Self::Failed(text) => (6, text.clone().into_bytes()),
            Self::Taken(count) => (7, count.to_le_bytes().to_vec()),
        };
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![kind];
        bytes.extend(length.to_le_bytes());
        bytes.extend(content);
        bytes
    }

    fn decode(kind: u8, content: Vec<u8>) -> io::Result<Self> {
        let number = |bytes: &[u8]| bytes.try_into().map(i32::from_le_bytes).map_err(|_| bad("a number"));
        Ok(match kind {
            0 => Self::Input(content),
            1 => match content.as_slice() {
                [a, b, c, d] => Self::Resize(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])),
                _ => return Err(bad("a size")),
            },
            2 => Self::Signal(number(&content)?),
            3 => Self::Output(content),
            4 => Self::Error(content),
            5 => Self::Exit(number(&content)?),
            6 => Self::Failed(String::from_utf8_lossy(&content).into_owned()),
            7 => Self::Taken(number(&content)?.cast_unsigned()),
            _ => return Err(bad("a known kind of frame")),
        })
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("expected {what}; is the supervisor of another version?"),
    )
}

/// Reads frames.
#[derive(Debug)]
pub struct ExecReader<R> {
    reader: R,
    /// What came of frames that aren't complete.
    held: Vec<u8>,
}

impl<R: AsyncRead + Unpin> ExecReader<R> {
    /// Reads from this.
    pub fn new(reader: R) -> Self {
        Self { reader, held: Vec::new() }
    }

    /// Reads the next frame; `None` at the end of the stream. May be cancelled and called anew.
    ///
    /// # Errors
    /// When the stream breaks, or what comes is no frame.
    pub async fn next(&mut self) -> io::Result<Option<ExecFrame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.held.reserve(READ_BYTES);
            if self.reader.read_buf(&mut self.held).await? == 0 {
                return if self.held.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Takes a frame out of what came, if there is a whole one.
    fn take(&mut self) -> io::Result<Option<ExecFrame>> {
        let Some((header, rest)) = self.held.split_first_chunk::<5>() else { return Ok(None) };
        let [kind, length @ ..] = *header;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(bad("a shorter frame"));
        }
        let Some(content) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.held.drain(..header.len() + length);
        ExecFrame::decode(kind, content).map(Some)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct ExecWriter<W>(pub W);

impl<W: AsyncWrite + Unpin> ExecWriter<W> {
    /// Writes a frame.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn send(&mut self, frame: &ExecFrame) -> io::Result<()> {
        self.0.write_all(&frame.encode()).await?;
        self.0.flush().await
    }
}

/// Starts a command, and passes on what it prints and reads over the upgraded connection.
pub(crate) async fn open<F, Fut>(mut request: Request, start: F) -> Response
where
    F: FnOnce(ExecRequest) -> Fut,
    Fut: Future<Output = Result<Exec, keel_runner::Error>>,
{
    let upgrade = hyper::upgrade::on(&mut request);
    let body = match axum::body::to_bytes(request.into_body(), OPEN_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return fail(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let open: ExecOpen = match serde_json::from_slice(&body) {
        Ok(open) => open,
        Err(error) => return fail(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let request = ExecRequest {
        name: open.name,
        argv: open.argv,
        environment: open.environment,
        terminal: open.terminal.map(|(rows, columns)| TerminalSize { rows, columns }),
    };
    let exec = match start(request).await {
        Ok(exec) => exec,
        Err(error) => {
            let failure = Failure { text: keel_control::chain(&error), hints: Vec::new() };
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(failure)).into_response();
        }
    };
    on_upgrade(upgrade, move |stream| async move {
        if let Err(error) = relay(stream, exec).await {
            tracing::debug!("a command's stream ended: {error}");
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)])
        .into_response()
}

/// Carries frames both ways until the command ends. Neither way waits for the other: a signal reaches a command whose output
/// the client doesn't take. A client that leaves ends the command's input, and a command with a terminal gets the hang-up
/// that a terminal's end is.
async fn relay(stream: impl AsyncRead + AsyncWrite + Unpin, mut exec: Exec) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = ExecReader::new(reader);
    let mut client_is_there = true;
    let mut input_bytes = 0;
    let mut has_ended = false;
    // What the client hasn't taken yet; the command isn't asked for more meanwhile.
    let mut unsent = Vec::new();
    while !(has_ended && unsent.is_empty()) {
        tokio::select! {
            output = exec.next(), if unsent.is_empty() => {
                has_ended = matches!(output, ExecOutput::Exit(_));
                if let ExecOutput::InputTaken(count) = output {
                    input_bytes -= count.min(input_bytes);
                }
                unsent = frame_of(output).encode();
            }
            written = writer.write(&unsent), if !unsent.is_empty() => match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => drop(unsent.drain(..count)),
            },
            frame = reader.next(), if client_is_there => match frame? {
                Some(ExecFrame::Input(bytes)) if bytes.is_empty() => exec.close_input(),
                Some(ExecFrame::Input(bytes)) => {
                    input_bytes += bytes.len();
                    if input_bytes > INPUT_BYTES_MAX {
                        return Err(bad("less input"));
                    }
                    exec.write(&bytes);
                }
                Some(ExecFrame::Resize(rows, columns)) => exec.resize(TerminalSize { rows, columns })?,
                Some(ExecFrame::Signal(number)) => exec.signal(number)?,
                Some(_) => {}
                None => {
                    client_is_there = false;
                    exec.hang_up();
                }
            },
        }
    }
    writer.flush().await
}

fn frame_of(output: ExecOutput) -> ExecFrame {
    match output {
        ExecOutput::Output(bytes) => ExecFrame::Output(bytes),
        ExecOutput::Error(bytes) => ExecFrame::Error(bytes),
        ExecOutput::InputTaken(count) => ExecFrame::Taken(u32::try_from(count).unwrap_or(u32::MAX)),
        ExecOutput::Exit(status) => ExecFrame::Exit(status),
    }
}

/// Waits for a connection that was upgraded; hands it to `serve` in a task of its own.
fn on_upgrade<F, Fut>(upgrade: hyper::upgrade::OnUpgrade, serve: F)
where
    F: FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => serve(TokioIo::new(stream)).await,
            Err(error) => tracing::debug!("a control connection was not upgraded: {error}"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let frames = [
            ExecFrame::Input(b"in".to_vec()),
            ExecFrame::Input(Vec::new()),
            ExecFrame::Resize(24, 80),
            ExecFrame::Signal(2),
            ExecFrame::Output(vec![0; 4096]),
            ExecFrame::Error(b"e".to_vec()),
            ExecFrame::Taken(70_000),
            ExecFrame::Exit(-1),
            ExecFrame::Failed("no".into()),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            ExecWriter(&mut bytes).send(frame).await.unwrap();
        }
        let mut reader = ExecReader::new(bytes.as_slice());
        for frame in &frames {
            assert_eq!(reader.next().await.unwrap().as_ref(), Some(frame));
        }
        assert_eq!(reader.next().await.unwrap(), None);
        // Given up in the middle of a frame, a reader loses nothing of it.
        for at in 0..bytes.len() {
            let (reader, mut writer) = tokio::io::duplex(bytes.len());
            let mut reader = ExecReader::new(reader);
            writer.write_all(&bytes[..at]).await.unwrap();
            let mut seen = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    frame = reader.next() => seen.push(frame.unwrap().unwrap()),
                    () = std::future::ready(()) => break,
                }
            }
            writer.write_all(&bytes[at..]).await.unwrap();
            drop(writer);
            while let Some(frame) = reader.next().await.unwrap() {
                seen.push(frame);
            }
            assert_eq!(seen, frames, "split at {at}");
        }
        assert!(ExecReader::new(&[9, 0, 0, 0, 0][..]).next().await.is_err());
        assert!(ExecReader::new(&[0, 255, 255, 255, 255][..]).next().await.is_err());
    }
}
