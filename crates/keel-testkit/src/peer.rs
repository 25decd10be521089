//! Peers that do what a test says.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{Client, DEADLINE};

/// What a peer does with a request, once it has read the whole of it.
#[derive(Clone, Debug)]
pub enum PeerBehaviour {
    /// Answers 200 with its name.
    Answer,
    /// Answers 200 with its name, after a while.
    AnswerAfter(Duration),
    /// Answers 200 with its name and then closes without having said so.
    AnswerAndClose,
    /// Closes when a kept connection has been idle for so long.
    CloseWhenIdle(Duration),
    /// Closes without an answer.
    Close,
    /// Sends these bytes and closes.
    Raw(Vec<u8>),
}

/// A peer. It ends when dropped.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Peer {
    /// Starts a peer on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(name: &str, behaviour: PeerBehaviour) -> std::io::Result<Self> {
        Self::with_ledger(name, behaviour, None)
    }

    /// Starts a peer at an address.
    ///
    /// # Errors
    /// When it is taken.
    pub fn at(address: SocketAddr, name: &str, behaviour: PeerBehaviour) -> std::io::Result<Self> {
        Self::over(TcpListener::bind(address)?, name, behaviour, None)
    }

    /// Starts a peer that notes the path of every request in a file on receipt, before it answers.
    ///
    /// # Errors
    /// When there is no port or the file can't be opened.
    pub fn with_ledger(name: &str, behaviour: PeerBehaviour, ledger: Option<&Path>) -> std::io::Result<Self> {
        let ledger = match ledger {
            Some(path) => Some(Arc::new(OpenOptions::new().create(true).append(true).open(path)?)),
            None => None,
        };
        Self::over(TcpListener::bind("127.0.0.1:0")?, name, behaviour, ledger)
    }

    fn over(
        listener: TcpListener,
        name: &str,
        behaviour: PeerBehaviour,
        ledger: Option<Arc<File>>,
    ) -> std::io::Result<Self> {
        let peer = Self {
            address: listener.local_addr()?,
            requests: Arc::default(),
            connections: Arc::default(),
            over: Arc::default(),
        };
        let script = Canned { name: name.to_owned(), behaviour, ledger, requests: peer.requests.clone() };
        peer.accept(listener, move |stream| script.serve(stream));
        Ok(peer)
    }

    /// Starts a peer that runs a script on every connection, on a thread of its own, and closes it where the script
    /// ends. A request counts as soon as the script has said so.
    ///
    /// # Errors
    /// When there is no port.
    pub fn scripted<F>(script: F) -> std::io::Result<Self>
    where
        F: Fn(&mut Client, &AtomicU64) -> anyhow::Result<()> + Clone + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let peer = Self {
            address: listener.local_addr()?,
            requests: Arc::default(),
            connections: Arc::default(),
            over: Arc::default(),
        };
        let requests = peer.requests.clone();
        peer.accept(listener, move |stream| {
            // A script whose connection fails has nothing more to do.
            drop(Client::over(stream).and_then(|mut connection| script(&mut connection, &requests)));
        });
        Ok(peer)
    }

    fn accept(&self, listener: TcpListener, serve: impl Fn(TcpStream) + Clone + Send + 'static) {
        let (over, connections) = (self.over.clone(), self.connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has read.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

#[derive(Clone)]
struct Canned {
    name: String,
    behaviour: PeerBehaviour,
    ledger: Option<Arc<File>>,
    requests: Arc<AtomicU64>,
}

impl Canned {
    fn serve(&self, stream: TcpStream) {
        let patience = match &self.behaviour {
            PeerBehaviour::CloseWhenIdle(idle) => *idle,
            _ => DEADLINE,
        };
        // A peer whose stream fails has nothing more to do.
        drop(self.exchange(stream, patience));
    }

    fn exchange(&self, stream: TcpStream, patience: Duration) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(path) = read_request(&mut reader)? {
            self.requests.fetch_add(1, Ordering::Relaxed);
            if let Some(ledger) = &self.ledger {
                ledger.as_ref().write_all(format!("received {path}\n").as_bytes())?;
            }
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", self.name.len(), self.name);
            match &self.behaviour {
                PeerBehaviour::Answer | PeerBehaviour::CloseWhenIdle(_) => {
                    writer.write_all(answer.as_bytes())?
                }
                PeerBehaviour::AnswerAfter(pause) => {
                    thread::sleep(*pause);
                    writer.write_all(answer.as_bytes())?;
                }
                PeerBehaviour::AnswerAndClose => return writer.write_all(answer.as_bytes()),
                PeerBehaviour::Close => return Ok(()),
                PeerBehaviour::Raw(bytes) => return writer.write_all(bytes),
            }
        }
        Ok(())
    }
}

/// Reads one request with its body and gives its path; `None` at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let field = line.trim_end();
        if field.is_empty() {
            break;
        }
        if let Some((name, value)) = field.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(path))
}
