//! A middle-man who does wrong on purpose: what watches a proxy must notice.
//!
//! It stands between client and proxy, understands as much HTTP/1.1 as it needs, and is honest but for its one vice.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::DEADLINE;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    /// Nothing.
    None,
    /// Sends every POST twice.
    RepeatsPosts,
    /// Swallows one request of so many, and closes.
    Drops(u64),
    /// Gives turns away, so that the same peer is passed over again and again.
    SkipsTurns,
    /// Answers every POST itself, with this status, and passes none on.
    AnswersPosts(u16),
    /// Cuts one response body of so many short and frames it as if it were whole.
    Tears(u64),
}

/// A middle-man. It ends when dropped.
#[derive(Debug)]
pub struct Saboteur {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Saboteur {
    /// Stands before this address, on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(target: SocketAddr, vice: Vice) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let saboteur = Self { address: listener.local_addr()?, over: Arc::default() };
        let (over, requests) = (saboteur.over.clone(), Arc::new(AtomicU64::new(0)));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let requests = requests.clone();
                // A connection that fails is closed, as that of an honest proxy would be.
                thread::spawn(move || Between { target, vice, requests }.carry(&client).ok());
            }
        });
        Ok(saboteur)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

struct Between {
    target: SocketAddr,
    vice: Vice,
    requests: Arc<AtomicU64>,
}

/// A message: its head with the empty line, and its body as it is framed.
struct Message {
    head: String,
    body: Vec<u8>,
    chunked: bool,
}

impl Between {
    fn carry(&self, client: &TcpStream) -> io::Result<()> {
        let proxy = TcpStream::connect(self.target)?;
        for stream in [client, &proxy] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(DEADLINE * 2))?;
        }
        let (mut requests, mut responses) = (BufReader::new(client), BufReader::new(&proxy));
        while let Some(request) = Message::read(&mut requests)? {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            match self.vice {
                Vice::Drops(of) if number.is_multiple_of(of) => return Ok(()),
                Vice::SkipsTurns if number.is_multiple_of(2) => {
                    (&proxy).write_all(b"GET /taken HTTP/1.1\r\nHost: x\r\n\r\n")?;
                    Message::read(&mut responses)?;
                }
                Vice::AnswersPosts(status) if request.head.starts_with("POST ") => {
                    let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
                    let mut client = client;
                    client.write_all(head.as_bytes())?;
                    if request.closes() {
                        return Ok(());
                    }
                    continue;
                }
                Vice::RepeatsPosts if request.head.starts_with("POST ") => {
                    request.write(&proxy)?;
                    Message::read(&mut responses)?;
                }
                _ => {}
            }
            request.write(&proxy)?;
            let Some(mut response) = Message::read(&mut responses)? else { return Ok(()) };
            match self.vice {
                Vice::Tears(of) if number.is_multiple_of(of) => response.tear(),
                _ => {}
            }
            response.write(client)?;
            if request.closes() || response.closes() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Message {
    /// Reads a message with its body; `None` at the end of the connection.
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        let mut message = Self { head, body: Vec::new(), chunked: false };
        message.chunked = message.field("transfer-encoding").is_some();
        if message.chunked {
            loop {
                let mut line = String::new();
                input.read_line(&mut line)?;
                let length =
                    usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
                let mut chunk = vec![0; length + 2];
                input.read_exact(&mut chunk)?;
                if length == 0 {
                    break;
                }
                message.body.extend_from_slice(chunk.get(..length).unwrap_or_default());
            }
        } else {
            let length = message.field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            message.body = vec![0; length];
            input.read_exact(&mut message.body)?;
        }
        Ok(Some(message))
    }

    fn write(&self, mut output: &TcpStream) -> io::Result<()> {
        let mut bytes = self.head.clone().into_bytes();
        if self.chunked && !self.body.is_empty() {
            bytes.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
            bytes.extend_from_slice(&self.body);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(if self.chunked { b"0\r\n\r\n" } else { &self.body });
        output.write_all(&bytes)
    }

    fn tear(&mut self) {
        self.body.pop();
        let lines = self.head.lines().filter(|line| !line.is_empty()).map(|line| {
            if line.to_ascii_lowercase().starts_with("content-length:") {
                format!("Content-Length: {}\r\n", self.body.len())
            } else {
                format!("{line}\r\n")
            }
        });
        self.head = lines.collect::<String>() + "\r\n";
    }

    fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}
