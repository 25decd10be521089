//! A peer that does what a case says: it never answers, closes at unexpected moments, takes its time, or has little to
//! give. It runs as an instance of the project's service, in the program's place, and keeps the same ledger as the demo
//! app.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::Ipv4Addr,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::LocalSet,
};

use crate::{checksum::Checksum, record::Moment, seed::Seed};

/// The hidden command that is a peer.
pub const COMMAND: &str = "drill-peer";
/// The hidden command that asks a peer whether it is ready.
pub const READY_COMMAND: &str = "drill-ready";
/// The path that it asks for.
const READY_PATH: &str = "/drill-ready";
/// How long a peer may take to say whether it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// The field in which a healthcheck says whose it is.
const ASKER_FIELD: &str = "x-drill-asker";
/// What a line begins with that a peer prints.
pub(crate) const PRINTED: &str = "drill-printed";
/// The length of a line that a peer prints.
const LINE_BYTES: usize = 500;
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a peer is told: one argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) script: Script,
    pub(crate) port: u16,
    pub(crate) ledger: PathBuf,
    /// The first instance that makes this file is the one that behaves differently; it writes its name there.
    pub(crate) role: PathBuf,
}

/// What the instances of a system do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Script {
    /// Most of them.
    pub(crate) all: Behaviour,
    /// One of them, if it differs.
    pub(crate) one: Option<Behaviour>,
    pub(crate) seed: u64,
    /// Whether a child of the main process serves, as with an app that a shell has started.
    pub(crate) has_worker: bool,
}

impl Script {
    /// Whether peers are asked whether they are ready: where they listen before that, or long after they were started.
    pub(crate) fn says_when_ready(&self) -> bool {
        let takes_time = |one: &Behaviour| !one.ready_after.is_zero() || !one.listens_after.is_zero();
        takes_time(&self.all) || self.one.as_ref().is_some_and(takes_time)
    }
}

/// What an instance does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Behaviour {
    /// How long it takes until it is ready. It listens before, so that a request which comes too early can be seen.
    pub(crate) ready_after: Duration,
    /// How long it takes until it listens.
    pub(crate) listens_after: Duration,
    /// Lines of [`LINE_BYTES`] that it prints of each request, before it answers.
    pub(crate) prints_lines: u32,
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
    let order: Order = serde_json::from_str(order)?;
    if order.script.has_worker {
        return lead_worker(order);
    }
    let Order { script, port, ledger, role } = order;
    // Where an address of its own can't be had, an instance is told another port.
    let port = std::env::var("PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(port);
    let instance = std::env::var("HOSTNAME").unwrap_or_default();
    let role =
        script.one.as_ref().and_then(|_| OpenOptions::new().write(true).create_new(true).open(role).ok());
    if let Some(mut role) = role.as_ref() {
        role.write_all(instance.as_bytes())?;
    }
    let behaviour = script.one.filter(|_| role.is_some()).unwrap_or(script.all);
    let seed = Seed::new(script.seed).split(&instance);
    std::thread::sleep(behaviour.listens_after);
    let peer = Rc::new(Peer {
        permits: behaviour.at_once.map(|count| Semaphore::new(count as usize)),
        ready_at: Instant::now() + behaviour.ready_after,
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
            tokio::task::spawn_local(async move { peer.carry(stream).await.ok() });
        }
    })
}

/// Is the main process of an instance that serves by a child, and ends when that does.
fn lead_worker(order: Order) -> io::Result<()> {
    let order = Order { script: Script { has_worker: false, ..order.script }, ..order };
    let mut worker = std::process::Command::new(std::env::current_exe()?);
    let status = worker.arg(COMMAND).arg(serde_json::to_string(&order)?).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the worker ended with {status}"))) }
}

/// Asks the peer on a port of this machine whether it is ready. The body of a hidden command.
///
/// # Errors
/// When it isn't, or doesn't answer.
pub fn ask_ready(port: u16) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(READY_WITHIN))?;
    let asker = std::env::var("HOSTNAME").unwrap_or_default();
    let head = format!("GET {READY_PATH} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n");
    stream.write_all(format!("{head}{ASKER_FIELD}: {asker}\r\n\r\n").as_bytes())?;
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(stream), &mut line)?;
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("not ready: {}", line.trim()))),
    }
}

/// How a connection ended.
enum End {
    /// The other side ended it, or it failed.
    Theirs,
    /// It was closed unannounced, as the case wants it.
    Closed,
}

struct Peer {
    behaviour: Behaviour,
    permits: Option<Semaphore>,
    ready_at: Instant,
    ledger: std::fs::File,
    instance: String,
    seed: std::cell::RefCell<Seed>,
}

impl Peer {
    /// Serves a connection to its end, and notes it if that was an end which nobody could expect.
    async fn carry(&self, mut stream: TcpStream) -> io::Result<()> {
        let end = self.serve(&mut stream).await?;
        let from = Moment::now();
        drop(stream);
        match end {
            End::Theirs => Ok(()),
            End::Closed => self.note(&format!("closed {} {} {}", from.0, Moment::now().0, self.instance)),
        }
    }

    async fn serve(&self, stream: &mut TcpStream) -> io::Result<End> {
        stream.set_nodelay(true)?;
        let mut bytes = Vec::new();
        let mut patience = self.behaviour.closes_idle;
        loop {
            let head_end = loop {
                if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if bytes.len() > HEAD_BYTES_MAX {
                    return Ok(End::Theirs);
                }
                match read(stream, &mut bytes, patience).await? {
                    Read::Some => {}
                    Read::End => return Ok(End::Theirs),
                    Read::TooLate => return Ok(End::Closed),
                }
            };
            let head: Vec<u8> = bytes.drain(..head_end).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            if let Some(asker) = asker(&head) {
                if !asker.is_empty() && asker != self.instance {
                    self.note(&format!("asked {asker} {}", self.instance))?;
                }
                return self.say_whether_ready(stream).await;
            }
            let request = Request::parse(&head);
            self.note(&format!("received {} {}", request.id, self.instance))?;
            if Instant::now() < self.ready_at {
                self.note(&format!("early {} {}", request.id, self.instance))?;
            }
            while bytes.len() < request.length {
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Ok(End::Theirs);
                }
            }
            let body: Vec<u8> = bytes.drain(..request.length).collect();
            if self.behaviour.never_answers {
                std::future::pending::<()>().await;
            }
            self.print(request.id);
            self.work().await;
            stream.write_all(self.response(request.id).as_bytes()).await?;
            self.note(&format!("answered {} {} {}", request.id, self.instance, Checksum::of(&body)))?;
            patience = self.closes_after().or(self.behaviour.closes_idle);
        }
    }

    async fn say_whether_ready(&self, stream: &mut TcpStream) -> io::Result<End> {
        let status = if Instant::now() < self.ready_at { "503 Service Unavailable" } else { "200 OK" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        Ok(End::Theirs)
    }

    /// Prints as apps do: an unread pipe holds up the whole peer.
    fn print(&self, id: &str) {
        let count = self.behaviour.prints_lines;
        let line = |number: u32| format!("{:.<LINE_BYTES$}\n", format!("{PRINTED} {id} {number} "));
        let text: String = (0..count).map(line).collect();
        let mut out = io::stdout().lock();
        // Where standard output is gone that is no reason not to serve.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
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

/// What came of reading.
enum Read {
    Some,
    End,
    TooLate,
}

/// Reads more. Where nothing came in time the connection is to be closed: as servers do it, which look at their clock and
/// not once more at the socket.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>, patience: Option<Duration>) -> io::Result<Read> {
    let read = stream.read_buf(bytes);
    let count = match patience {
        Some(patience) => match tokio::time::timeout(patience, read).await {
            Ok(count) => count?,
            Err(_) => return Ok(Read::TooLate),
        },
        None => read.await?,
    };
    Ok(if count == 0 { Read::End } else { Read::Some })
}

/// Whose healthcheck a request is, if it is one.
pub(crate) fn asker(head: &str) -> Option<&str> {
    let is_healthcheck = head.split(' ').nth(1) == Some(READY_PATH);
    is_healthcheck.then(|| field(head, ASKER_FIELD).unwrap_or_default())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What a peer needs to know of a request. It speaks to a proxy that frames bodies by length.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) length: usize,
}

impl<'a> Request<'a> {
    pub(crate) fn parse(head: &'a str) -> Self {
        let target = head.split(' ').nth(1).unwrap_or("-");
        Self {
            id: field(head, "x-request-id").unwrap_or(target),
            length: field(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a peer that behaves so answer one request for this target; gives the response and what it noted.
    fn ask(behaviour: Behaviour, target: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let peer = Peer {
            permits: None,
            ready_at: Instant::now() + behaviour.ready_after,
            behaviour,
            ledger: OpenOptions::new().append(true).create(true).open(&path).unwrap(),
            instance: "app1".to_owned(),
            seed: std::cell::RefCell::new(Seed::new(1)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let response = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let client = async {
                let mut response = vec![0; 4096];
                let count = client.read(&mut response).await.unwrap();
                if peer.behaviour.closes_idle.is_some() {
                    assert_eq!(client.read(&mut response[count..]).await.unwrap(), 0, "it is closed");
                }
                drop(client);
                String::from_utf8_lossy(&response[..count]).into_owned()
            };
            let (carried, response) = tokio::join!(peer.carry(stream), client);
            carried.unwrap();
            response
        });
        (response, std::fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn notes_what_comes_before_it_is_ready() {
        let slow = || Behaviour { ready_after: Duration::from_secs(3600), ..Behaviour::default() };
        let (response, noted) = ask(slow(), "d1-2");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        let lines: Vec<&str> = noted.lines().take(2).collect();
        assert_eq!(lines, ["received d1-2 app1", "early d1-2 app1"]);
        let (response, noted) = ask(slow(), READY_PATH);
        assert!(response.starts_with("HTTP/1.1 503 ") && noted.is_empty(), "{response}{noted}");
        let (response, _) = ask(Behaviour::default(), READY_PATH);
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(!ask(Behaviour::default(), "d1-2").1.contains("early"));
    }

    #[test]
    fn notes_the_healthchecks_of_others() {
        let head = |asker: &str| format!("{READY_PATH} HTTP/1.1\r\nX-Drill-Asker: {asker}\r\nX:");
        assert_eq!(ask(Behaviour::default(), &head("app2")).1, "asked app2 app1\n");
        assert_eq!(ask(Behaviour::default(), &head("app1")).1, "");
    }

    #[test]
    fn notes_the_connections_that_it_closes() {
        let closes = Behaviour { closes_idle: Some(Duration::from_millis(50)), ..Behaviour::default() };
        let before = Moment::now();
        let (_, noted) = ask(closes, "d1-2");
        let line = noted.lines().last().unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        let ["closed", from, to, "app1"] = words[..] else { panic!("{noted}") };
        let at = |text: &str| Moment(text.parse().unwrap());
        assert!(before <= at(from) && at(from) <= at(to) && at(to) <= Moment::now());
        // The client ends the other one itself, which needs no excuse.
        assert!(!ask(Behaviour::default(), "d1-2").1.contains("closed"));
    }

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
