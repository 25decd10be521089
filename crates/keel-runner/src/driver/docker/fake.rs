//! An engine for tests that does what a real one does only at the wrong moment: it takes its time to make a container,
//! or makes one and breaks off before it says so.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use keel_engine::{Docker, api::models::EventMessage};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::lock;

/// It; cheap to clone.
#[derive(Clone)]
pub(super) struct FakeEngine(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    /// Name and labels by id.
    containers: Mutex<BTreeMap<String, (String, Value)>>,
    making: watch::Sender<Making>,
    /// Whether nobody is told what a container is like, until that changes.
    holds_descriptions: watch::Sender<bool>,
    /// What happened, by its time in nanoseconds.
    events: watch::Sender<Vec<(i64, Value)>>,
    /// How often it has broken off telling that.
    breaks: watch::Sender<u32>,
    /// Every request, without what is behind the path.
    heard: watch::Sender<Vec<String>>,
}

/// What becomes of a wish for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    Done,
    /// Nothing, until that changes.
    Held,
    /// It is made, and the connection breaks.
    Unsaid,
    /// The connection breaks.
    Undone,
}

impl FakeEngine {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Inner {
            address: listener.local_addr().unwrap(),
            containers: Mutex::default(),
            making: watch::Sender::new(Making::Done),
            holds_descriptions: watch::Sender::new(false),
            events: watch::Sender::new(Vec::new()),
            breaks: watch::Sender::new(0),
            heard: watch::Sender::new(Vec::new()),
        };
        let engine = Self(Arc::new(inner));
        let serving = engine.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        engine
    }

    pub(super) fn client(&self) -> Docker {
        client_of(self.0.address)
    }

    /// How many requests it has heard that begin like that.
    pub(super) fn heard(&self, request: &str) -> usize {
        self.0.heard.borrow().iter().filter(|one| one.starts_with(request)).count()
    }

    pub(super) fn make(&self, making: Making) {
        self.0.making.send_replace(making);
    }

    /// Has something happen now.
    pub(super) fn happen(&self, event: &EventMessage) {
        let mut event = serde_json::to_value(event).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_nanos()).unwrap();
        event["timeNano"] = now.into();
        self.0.events.send_modify(|events| events.push((now, event)));
    }

    /// Breaks off telling what happens.
    pub(super) fn break_off(&self) {
        self.0.breaks.send_modify(|breaks| *breaks += 1);
    }

    pub(super) fn hold_descriptions(&self, held: bool) {
        self.0.holds_descriptions.send_replace(held);
    }

    /// Puts a container there.
    pub(super) fn put(&self, name: &str, labels: Value) {
        lock(&self.0.containers).insert(format!("put-{name}"), (name.to_owned(), labels));
    }

    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.0.containers).values().map(|(name, _)| name.clone()).collect()
    }

    /// Waits until it has heard so many requests that begin like that.
    pub(super) async fn hears(&self, request: &str, times: usize) {
        let count = |all: &Vec<String>| all.iter().filter(|one| one.starts_with(request)).count();
        let wait = self.0.heard.subscribe().wait_for(|all| count(all) >= times).await.map(drop);
        wait.unwrap();
    }

    async fn serve(self, mut stream: TcpStream) {
        let Some((method, path, body)) = read(&mut stream).await else { return };
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let words: Vec<&str> = path.split('/').skip(1).collect();
        self.0.heard.send_modify(|heard| heard.push(format!("{method} {}", words.join("/"))));
        if words == ["events"] {
            return self.tell_events(stream, parameters(query)["since"]).await;
        }
        let answer = match (method.as_str(), words.as_slice()) {
            ("POST", ["containers", "create"]) => match self.create(query, &body).await {
                Some(answer) => answer,
                None => return,
            },
            ("GET", ["containers", "json"]) => (200, self.list()),
            ("GET", ["containers", id, "json"]) => {
                drop(self.0.holds_descriptions.subscribe().wait_for(|held| !held).await);
                self.inspect(id)
            }
            ("POST", ["containers", id, "start" | "kill"]) => (self.status_of(id, 204), json!(null)),
            ("POST", ["containers", id, "rename"]) => (self.rename(id, query), json!(null)),
            ("DELETE", ["containers", id]) => {
                let status = self.status_of(id, 204);
                lock(&self.0.containers).remove(*id);
                (status, json!({ "message": "no such container" }))
            }
            ("GET", ["networks"]) => (200, json!([])),
            _ => (404, json!({ "message": "not here" })),
        };
        let text = if answer.0 == 204 { String::new() } else { answer.1.to_string() };
        let head = format!(
            "HTTP/1.1 {} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            answer.0,
            text.len()
        );
        // Who asked may have gone.
        drop(stream.write_all((head + &text).as_bytes()).await);
    }

    async fn tell_events(self, mut stream: TcpStream, since: &str) {
        let (seconds, nanoseconds) = since.split_once('.').unwrap_or((since, "0"));
        let since = seconds.parse::<i64>().unwrap() * 1_000_000_000 + nanoseconds.parse::<i64>().unwrap();
        let (mut events, mut breaks) = (self.0.events.subscribe(), self.0.breaks.subscribe());
        let mut text =
            "HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n".to_owned();
        let mut told = 0;
        loop {
            for (at, event) in events.borrow_and_update().iter().skip(told) {
                told += 1;
                if *at >= since {
                    text += &format!("{event}\n");
                }
            }
            if stream.write_all(std::mem::take(&mut text).as_bytes()).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                _ = breaks.changed() => return,
                _ = events.changed() => {}
            }
        }
    }

    async fn create(&self, query: &str, body: &[u8]) -> Option<(u16, Value)> {
        let making = *self.0.making.subscribe().wait_for(|making| *making != Making::Held).await.ok()?;
        if making == Making::Undone {
            return None;
        }
        let name = name_in(query);
        if self.names().contains(&name) {
            return Some((409, json!({ "message": "the name is in use" })));
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        let id = format!("id{}", self.0.heard.borrow().len());
        lock(&self.0.containers).insert(id.clone(), (name, body["Labels"].clone()));
        (making == Making::Done).then(|| (201, json!({ "Id": id, "Warnings": [] })))
    }

    fn list(&self) -> Value {
        let containers = lock(&self.0.containers);
        let all = containers.iter();
        all.map(|(id, (name, labels))| json!({ "Id": id, "Names": [name], "Labels": labels })).collect()
    }

    fn inspect(&self, id_or_name: &str) -> (u16, Value) {
        let containers = lock(&self.0.containers);
        let found = containers.iter().find(|(id, (name, _))| *id == id_or_name || name == id_or_name);
        match found {
            Some((id, (name, labels))) => (
                200,
                json!({ "Id": id, "Name": name, "State": { "Running": true }, "Config": { "Labels": labels } }),
            ),
            None => (404, json!({ "message": "no such container" })),
        }
    }

    fn rename(&self, id: &str, query: &str) -> u16 {
        let status = self.status_of(id, 204);
        if let Some((name, _)) = lock(&self.0.containers).get_mut(id) {
            *name = name_in(query);
        }
        status
    }

    fn status_of(&self, id: &str, found: u16) -> u16 {
        if lock(&self.0.containers).contains_key(id) { found } else { 404 }
    }
}

/// A client of an engine that is there, or isn't.
pub(super) fn client_of(address: SocketAddr) -> Docker {
    Docker::connect_with_http(&format!("tcp://{address}"), 60, keel_engine::api::API_DEFAULT_VERSION).unwrap()
}

fn parameters(query: &str) -> HashMap<&str, &str> {
    query.split('&').filter_map(|one| one.split_once('=')).collect()
}

fn name_in(query: &str) -> String {
    parameters(query)["name"].to_owned()
}

/// Reads one request: its method, its path and its body.
async fn read(stream: &mut TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() < end + 4 + length {
            continue;
        }
        let first = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut words = first.split_whitespace();
        return Some((words.next()?.into(), words.next()?.into(), bytes[end + 4..].to_vec()));
    }
}
