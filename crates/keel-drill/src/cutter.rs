//! Peers that break a connection after exactly so many bytes of a request or of a response: by FIN or by RST, once for
//! each order. They run in the drill's own process, behind a balancer that has nothing else to do.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use crate::{
    checksum::Checksum,
    ledger::{Entry, Event, Ledger, Source},
    peer::Request,
};

/// How long a peer waits for bytes before it gives a connection up.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is done to the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) side: Side,
    /// After how many bytes.
    pub(crate) at: usize,
    pub(crate) how: How,
}

/// Which message breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Fin,
    Rst,
}

/// How peers answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Whether responses are framed by chunks instead of their length.
    pub(crate) chunked: bool,
    /// Whether connections are kept.
    pub(crate) keeps: bool,
}

/// What became of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// No request came.
    No,
    /// The message was over before.
    TooLate,
    /// It was.
    Yes { place: CutIn },
}

/// Where a message was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutIn {
    Head,
    Body,
}

/// Peers that share their orders. They end when dropped.
#[derive(Debug)]
pub(crate) struct Cutters {
    pub(crate) addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

#[derive(Debug)]
struct State {
    armed: Option<Cut>,
    made: Made,
    manner: Manner,
    entries: Vec<Entry>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: &str, name: &str, event: Event) {
        if let Ok(id) = id.parse() {
            self.lock().entries.push(Entry { id, instance: name.to_owned(), event });
        }
    }
}

impl Cutters {
    /// Starts so many peers on free ports.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let manner = Manner { chunked: false, keeps: true };
        let state = State { armed: None, made: Made::No, manner, entries: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), over: AtomicBool::new(false) });
        let mut addresses = Vec::new();
        for number in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            addresses.push(listener.local_addr()?);
            let (shared, name) = (shared.clone(), format!("peer{number}"));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if shared.over.load(Ordering::Relaxed) {
                        return;
                    }
                    let peer = Peer { shared: shared.clone(), name: name.clone(), stream };
                    // A connection that fails is the other side's affair.
                    thread::spawn(move || peer.serve().ok());
                }
            });
        }
        Ok(Self { addresses, shared })
    }

    /// Sets how peers answer from now on.
    pub(crate) fn set_manner(&self, manner: Manner) {
        self.shared.lock().manner = manner;
    }

    /// Orders a cut of the next request, whichever peer gets it.
    pub(crate) fn arm(&self, cut: Cut) {
        let mut state = self.shared.lock();
        (state.armed, state.made) = (Some(cut), Made::No);
    }

    /// Takes the order back, and says what became of it.
    pub(crate) fn disarm(&self) -> Made {
        let mut state = self.shared.lock();
        state.armed = None;
        state.made
    }

    /// What the peers noted.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger { source: Source::File, entries: self.shared.lock().entries.clone(), ..Ledger::default() }
    }
}

impl Drop for Cutters {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for address in &self.addresses {
            // Wakes the accepting thread, which then sees that it is over.
            drop(TcpStream::connect(address));
        }
    }
}

struct Peer {
    shared: Arc<Shared>,
    name: String,
    stream: TcpStream,
}

impl Peer {
    fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        loop {
            // The first byte decides whose turn it is: a connection may be opened and left alone.
            if self.stream.peek(&mut [0])? == 0 {
                return Ok(());
            }
            let (cut, manner) = {
                let mut state = self.shared.lock();
                (state.armed.take(), state.manner)
            };
            let stop_at = cut.filter(|cut| cut.side == Side::Request).map(|cut| (cut.at, cut.how));
            let Some((id, sum)) = self.read_request(stop_at)? else { return Ok(()) };
            let (head, body) = self.response(&id, manner);
            let mut message = head.clone();
            message.extend_from_slice(&body);
            match cut {
                Some(Cut { side: Side::Response, at, how }) if at < message.len() => {
                    let place = if at < head.len() { CutIn::Head } else { CutIn::Body };
                    self.made(Made::Yes { place });
                    self.stream.write_all(message.get(..at).unwrap_or_default())?;
                    return self.break_off(how);
                }
                Some(_) => self.made(Made::TooLate),
                None => {}
            }
            self.stream.write_all(&message)?;
            self.shared.note(&id, &self.name, Event::Answered(Some(sum)));
            if !manner.keeps {
                return Ok(());
            }
        }
    }

    /// Reads a request to its end, or to the byte where it breaks off; `None` then.
    fn read_request(&mut self, stop_at: Option<(usize, How)>) -> io::Result<Option<(String, String)>> {
        let mut bytes = Vec::new();
        let mut parsed: Option<(String, usize, usize)> = None;
        loop {
            if let Some((id, head, length)) = &parsed
                && bytes.len() >= head + length
            {
                let body = bytes.get(*head..head + length).unwrap_or_default();
                return Ok(Some((id.clone(), Checksum::of(body).to_string())));
            }
            if let Some((_, how)) = stop_at.filter(|(at, _)| bytes.len() >= *at) {
                let place = if parsed.is_none() { CutIn::Head } else { CutIn::Body };
                self.made(Made::Yes { place });
                return self.break_off(how).map(|()| None);
            }
            // Not a byte more is taken than was ordered.
            let room = stop_at.map_or(HEAD_BYTES_MAX, |(at, _)| at - bytes.len());
            let mut buffer = vec![0; room.min(HEAD_BYTES_MAX)];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 || bytes.len() > HEAD_BYTES_MAX {
                return Ok(None);
            }
            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if parsed.is_none()
                && let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(bytes.get(..at + 4).unwrap_or_default()).into_owned();
                let request = Request::parse(&head);
                self.shared.note(request.id, &self.name, Event::Received);
                parsed = Some((request.id.to_owned(), at + 4, request.length));
            }
        }
    }

    fn made(&self, made: Made) {
        self.shared.lock().made = made;
    }

    fn break_off(&mut self, how: How) -> io::Result<()> {
        match how {
            How::Rst => set_socket_linger(&self.stream, Some(Duration::ZERO))?,
            How::Fin => {
                self.stream.shutdown(Shutdown::Write)?;
                // Unread bytes would make a reset of the close.
                let mut buffer = [0; 4096];
                while self.stream.read(&mut buffer)? > 0 {}
            }
        }
        Ok(())
    }

    fn response(&self, id: &str, manner: Manner) -> (Vec<u8>, Vec<u8>) {
        let text = format!("Hello from {}\n", self.name);
        let sum = Checksum::of(text.as_bytes());
        let (framing, body) = if manner.chunked {
            let (first, second) = text.split_at(5);
            let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
            ("Transfer-Encoding: chunked".to_owned(), format!("{}{}0\r\n\r\n", chunk(first), chunk(second)))
        } else {
            (format!("Content-Length: {}", text.len()), text)
        };
        let connection = if manner.keeps { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 200 OK\r\n{framing}\r\nConnection: {connection}\r\nX-Instance: {}\r\nX-Body: {sum}\r\n\
             X-Request-Id: {id}\r\n\r\n",
            self.name
        );
        (head.into_bytes(), body.into_bytes())
    }
}
