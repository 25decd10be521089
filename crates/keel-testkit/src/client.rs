//! A client that reads what is there and nothing into it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use anyhow::{Context, bail, ensure};

use crate::DEADLINE;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The head as it came, without the empty line.
    pub head: String,
    /// The body, decoded from chunks if it came in them.
    pub body: Vec<u8>,
}

impl Response {
    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(address: impl Into<SocketAddr>) -> anyhow::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address.into(), DEADLINE)?)
    }

    /// Takes over a connection that somebody else has accepted.
    ///
    /// # Errors
    /// When it is broken already.
    pub fn over(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Ends its own side and leaves the other open.
    ///
    /// # Errors
    /// When the other side has gone.
    pub fn end_sending(&self) -> anyhow::Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes.as_ref())?)
    }

    /// Reads one response to a request that was not HEAD.
    ///
    /// # Errors
    /// When the connection ends first, time runs out, or it isn't HTTP.
    pub fn response(&mut self) -> anyhow::Result<Response> {
        let mut response = self.response_without_body()?;
        let status = response.status;
        if (100..200).contains(&status) || status == 204 || status == 304 {
            return Ok(response);
        }
        response.body =
            if response.field("Transfer-Encoding").is_some_and(|coding| coding.contains("chunked")) {
                self.chunks()?
            } else if let Some(length) = response.field("Content-Length") {
                let length = length.parse().context("has a length")?;
                self.take(length)?
            } else {
                while self.fill()? > 0 {}
                std::mem::take(&mut self.buffer)
            };
        Ok(response)
    }

    /// Reads the head of a response, as after HEAD. What follows stays to be read.
    ///
    /// # Errors
    /// As [`response`](Self::response).
    pub fn response_without_body(&mut self) -> anyhow::Result<Response> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("has a status")?;
        Ok(Response { status, head, body: Vec::new() })
    }

    /// Reads the head of a message and gives it without the empty line.
    ///
    /// # Errors
    /// When the connection ends first, or time runs out.
    pub fn head(&mut self) -> anyhow::Result<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            ensure!(
                self.fill()? > 0,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).into_owned();
        self.buffer.drain(..end + 4);
        Ok(head)
    }

    /// Reads away exactly so many bytes without keeping them.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn skip(&mut self, mut length: u64) -> anyhow::Result<()> {
        let held = length.min(self.buffer.len() as u64);
        self.buffer.drain(..usize::try_from(held)?);
        length -= held;
        let copied = std::io::copy(&mut (&self.stream).take(length), &mut std::io::sink())?;
        ensure!(copied == length, "the connection ended {} bytes early", length - copied);
        Ok(())
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`response`](Self::response).
    pub fn request(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<Response> {
        self.send(bytes)?;
        self.response()
    }

    /// Reads until the other side closes.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn rest(&mut self) -> anyhow::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn take(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                bail!("the connection ended after {} of {length} bytes", self.buffer.len());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads a chunked body to its end and gives it decoded, without trailers.
    ///
    /// # Errors
    /// When it isn't one, or as [`take`](Self::take).
    pub fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).with_context(|| format!("{line:?} is a chunk's size"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            ensure!(self.line()?.is_empty(), "a chunk ends with its line");
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            ensure!(self.fill()? > 0, "the connection ended within a line");
        }
    }

    fn fill(&mut self) -> anyhow::Result<usize> {
        let mut space = [0; 16 << 10];
        let read = self.stream.read(&mut space)?;
        self.buffer.extend_from_slice(space.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Asks for a path on a connection of its own and gives the body.
///
/// # Errors
/// When there is no response.
pub fn get(address: impl Into<SocketAddr>, path: &str) -> anyhow::Result<Response> {
    Client::connect(address)?
        .request(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
}
