//! A process of this host that isn't the project's and has the port of its instances, on all addresses.
//!
//! It answers every request, as a development server or a database's page would, and records it: no request of the
//! project may reach it.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::peer::{Request, asker};

/// What it is called where an instance would have its name.
const NAME: &str = "a-foreign-process";
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a connection may idle.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A process that has a port on all addresses. It lets go of it when it is dropped.
#[derive(Debug)]
pub(crate) struct Foreign {
    shared: Arc<Shared>,
    port: u16,
    accepts: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    noted: Mutex<String>,
    is_over: AtomicBool,
}

impl Foreign {
    /// Listens.
    pub(crate) fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let accepts = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = theirs.clone();
                // A connection that fails is the other side's affair.
                std::thread::spawn(move || serve(&stream, &shared).ok());
            }
        });
        Ok(Self { shared, port, accepts: Some(accepts) })
    }

    /// What it noted, in a ledger's words.
    pub(crate) fn noted(&self) -> String {
        self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // It wakes up for one who comes.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accepts) = self.accepts.take().filter(|_| woken.is_ok()) {
            drop(accepts.join());
        }
    }
}

fn serve(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_MAX))?;
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
            if bytes.len() > HEAD_BYTES_MAX || !read_more(stream, &mut bytes)? {
                return Ok(());
            }
            continue;
        };
        let head: Vec<u8> = bytes.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let Request { id, length } = Request::parse(&head);
        let line = match asker(&head) {
            Some(asker) => format!("asked {asker} {NAME}\n"),
            None => format!("foreign {id} {NAME}\n"),
        };
        shared.noted.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
        while bytes.len() < length {
            if !read_more(stream, &mut bytes)? {
                return Ok(());
            }
        }
        bytes.drain(..length);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nI am a stranger\n")?;
    }
}

fn read_more(mut stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 4096];
    let count = stream.read(&mut piece)?;
    bytes.extend(piece.iter().take(count));
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::free_ports_of;

    #[test]
    fn answers_and_notes_it() {
        let held = free_ports_of(Ipv4Addr::UNSPECIFIED, 1).unwrap();
        let port = held[0].address.port();
        let foreign = Foreign::start(port).unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        for head in [
            "POST /?drill=d1-2 HTTP/1.1\r\nX-Request-Id: d1-2\r\nContent-Length: 2\r\n\r\nab",
            "GET /drill-ready HTTP/1.1\r\nX-Drill-Asker: app1\r\n\r\n",
        ] {
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 1024];
            let count = stream.read(&mut answer).unwrap();
            assert!(answer[..count].ends_with(b"I am a stranger\n"));
        }
        assert_eq!(foreign.noted(), "foreign d1-2 a-foreign-process\nasked app1 a-foreign-process\n");
        drop(foreign);
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
    }
}
