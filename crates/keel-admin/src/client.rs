//! The client's side of the control socket.

use std::{io, path::Path};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::api::{Failure, Message};

/// The longest line of an answer, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A supervisor, reached by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: std::path::PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No supervisor listens there.
    #[error("this project isn't running")]
    NotRunning,
    /// The connection broke, most likely because the supervisor ended.
    #[error("the supervisor went away")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The supervisor is just beginning.
    #[error("the project is still being read")]
    Beginning,
    /// The supervisor said no.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Client {
    /// Makes a client for a socket; whether anybody listens shows with the first request.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for a value.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new(), None).await?;
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        serde_json::from_slice(&body).map_err(broken)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Failed`] is the command's own outcome.
    pub async fn command(
        &self,
        path: &str,
        body: &impl Serialize,
        mut on_message: impl FnMut(Message),
    ) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        let response = self.send(Method::POST, path, body.into(), None).await?;
        let mut lines = Lines::new(response);
        while let Some(message) = lines.next().await? {
            match message {
                Message::Done => return Ok(()),
                Message::Failed(failure) => return Err(failure.into()),
                other => on_message(other),
            }
        }
        Err(broken(io::Error::from(io::ErrorKind::UnexpectedEof)))
    }

    /// Asks for a stream of messages, until it ends.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow(&self, path: &str) -> Result<Lines, ClientError> {
        Ok(Lines::new(self.send(Method::GET, path, Bytes::new(), None).await?))
    }

    /// Opens a two-way stream (`Upgrade`), as `exec` needs it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
        body: &impl Serialize,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        let response = self.send(Method::POST, path, body.into(), Some(protocol)).await?;
        let stream = hyper::upgrade::on(response).await.map_err(broken)?;
        Ok(TokioIo::new(stream))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            _ => broken(error),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!("the control connection ended: {error}");
            }
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "evenkeel")
            .header("content-type", "application/json");
        if let Some(protocol) = upgrade {
            request = request.header("connection", "upgrade").header("upgrade", protocol);
        }
        let request = request.body(Full::new(body)).map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => Ok(response),
            StatusCode::TOO_EARLY => Err(ClientError::Beginning),
            status => {
                let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
                let failure = serde_json::from_slice(&body).unwrap_or_else(|_| Failure {
                    text: format!("the supervisor answers {status}; is it of another version?"),
                    hints: vec!["compare `evenkeel --version` with the running one".into()],
                });
                Err(failure.into())
            }
        }
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken(error.into())
}

/// Messages, one a line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// When the stream breaks or a line can't be understood.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(broken);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(broken(io::Error::from(io::ErrorKind::InvalidData)));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                    }
                }
            }
        }
    }
}
