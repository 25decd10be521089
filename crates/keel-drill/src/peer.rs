//! A peer that does what a case says: it never answers, closes when nobody expects it, takes its time, or has little to
//! give. It runs as an instance of the project's service, in the program's place, and keeps the same ledger as the demo
//! app.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::Ipv4Addr,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::LocalSet,
};

use crate::{checksum::Checksum, seed::Seed};

/// The hidden command that is a peer.
pub const COMMAND: &str = "drill-peer";
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a peer is told: one argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) script: Script,
    pub(crate) port: u16,
    pub(crate) ledger: PathBuf,
    /// The first instance that makes this file is the one that behaves differently.
    pub(crate) role: PathBuf,
}

/// What the instances of a system do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Script {
    /// Most of them.
    pub(crate) all: Behaviour,
    /// One of them, if it differs.
    pub(crate) one: Option<Behaviour>,
    pub(crate) seed: u64,
}

/// What an instance does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Behaviour {
    /// How long it takes until it listens.
    pub(crate) starts_after: Duration,
    /// Whether it takes requests and never answers.
    pub(crate) never_answers: bool,
    /// How long a request takes.
    pub(crate) takes: Duration,
    /// How many requests it works on at one time; the others wait.
    pub(crate) at_once: Option<u32>,
    /// How long a kept connection may idle before it is closed, unannounced.
    pub(crate) closes_idle: Option<Duration>,
    /// After a response, how likely the connection is closed early and unannounced, and after how long without a request
    /// at most.
    pub(crate) closes_at_random: Option<(f64, Duration)>,
}

/// Serves until a signal ends it. The body of a hidden command.
///
/// # Errors
/// When the order can't be understood, or the port or ledger not be had.
pub fn run(order: &str) -> io::Result<()> {
    let Order { script, port, ledger, role } = serde_json::from_str(order)?;
    let takes_the_role =
        script.one.is_some() && OpenOptions::new().write(true).create_new(true).open(&role).is_ok();
    let behaviour = script.one.filter(|_| takes_the_role).unwrap_or(script.all);
    std::thread::sleep(behaviour.starts_after);
    let instance = std::env::var("HOSTNAME").unwrap_or_default();
    let seed = Seed::new(script.seed).split(&instance);
    let peer = Rc::new(Peer {
        permits: behaviour.at_once.map(|count| Semaphore::new(count as usize)),
        behaviour,
        ledger: OpenOptions::new().append(true).create(true).open(ledger)?,
        instance,
        seed: std::cell::RefCell::new(seed),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let peer = peer.clone();
            // A connection that fails is the other side's affair.
            tokio::task::spawn_local(async move { peer.serve(stream).await.ok() });
        }
    })
}

struct Peer {
    behaviour: Behaviour,
    permits: Option<Semaphore>,
    ledger: std::fs::File,
    instance: String,
    seed: std::cell::RefCell<Seed>,
}

impl Peer {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut bytes = Vec::new();
        let mut patience = self.behaviour.closes_idle;
        loop {
            let head_end = loop {
                if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if bytes.len() > HEAD_BYTES_MAX || !read(&mut stream, &mut bytes, patience).await? {
                    return Ok(());
                }
            };
            let head: Vec<u8> = bytes.drain(..head_end).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let request = Request::parse(&head);
            self.note(&format!("received {} {}", request.id, self.instance))?;
            while bytes.len() < request.length {
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Ok(());
                }
            }
            let body: Vec<u8> = bytes.drain(..request.length).collect();
            if self.behaviour.never_answers {
                std::future::pending::<()>().await;
            }
            self.work().await;
            stream.write_all(self.response(request.id).as_bytes()).await?;
            self.note(&format!("answered {} {} {}", request.id, self.instance, Checksum::of(&body)))?;
            patience = self.closes_after().or(self.behaviour.closes_idle);
        }
    }

    async fn work(&self) {
        // The semaphore is never closed.
        let _permit = match &self.permits {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        if !self.behaviour.takes.is_zero() {
            tokio::time::sleep(self.behaviour.takes).await;
        }
    }

    /// Says whether, and after how long without a request, the connection closes this time.
    fn closes_after(&self) -> Option<Duration> {
        let (likely, within) = self.behaviour.closes_at_random?;
        let mut seed = self.seed.borrow_mut();
        (seed.unit() < likely).then(|| within.mul_f64(seed.unit()))
    }

    fn response(&self, id: &str) -> String {
        let instance = &self.instance;
        let text = format!("Hello from {instance}\n");
        let (length, sum) = (text.len(), Checksum::of(text.as_bytes()));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nX-Instance: {instance}\r\n\
             X-Body: {sum}\r\nX-Request-Id: {id}\r\n\r\n{text}"
        )
    }

    fn note(&self, line: &str) -> io::Result<()> {
        (&self.ledger).write_all(format!("{line}\n").as_bytes())
    }
}

/// Reads more; gives false where nothing came in time, and the connection is to be closed: as servers do it, which look
/// at their clock and not once more at the socket.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>, patience: Option<Duration>) -> io::Result<bool> {
    let read = stream.read_buf(bytes);
    match patience {
        Some(patience) => Ok(matches!(tokio::time::timeout(patience, read).await, Ok(Ok(1..)))),
        None => Ok(read.await? > 0),
    }
}

/// What a peer needs to know of a request. It speaks to a proxy that frames bodies by length.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) length: usize,
}

impl<'a> Request<'a> {
    pub(crate) fn parse(head: &'a str) -> Self {
        let field = |name: &str| {
            let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let target = head.split(' ').nth(1).unwrap_or("-");
        Self {
            id: field("x-request-id").unwrap_or(target),
            length: field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_id_and_length() {
        let request = Request::parse(
            "POST /?drill=d1-2 HTTP/1.1\r\nHost: x\r\nX-Request-ID: d1-2\r\ncontent-length: 17\r\n\r\n",
        );
        assert_eq!((request.id, request.length), ("d1-2", 17));
        let request = Request::parse("GET /health HTTP/1.1\r\n\r\n");
        assert_eq!((request.id, request.length), ("/health", 0));
    }
}
