//! Load in which every request has a name, and the comparison of what was sent with what arrived.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::ensure;

use crate::Client;

/// How often each instance answered, in the order of names.
pub type Shares = BTreeMap<String, usize>;

/// Requests over many kept connections, half of them POST, until stopped.
#[derive(Debug)]
pub struct Load {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name: the path it asked for.
    pub id: String,
    /// Whether it may be repeated.
    pub is_post: bool,
    /// The status, or why there was none.
    pub result: Result<u16, String>,
    /// The body of the answer.
    pub body: String,
}

impl Load {
    /// Starts so many connections.
    pub fn start(address: SocketAddr, connections: usize) -> Self {
        let mut load = Self {
            over: Arc::default(),
            sent: Arc::default(),
            outcomes: Arc::default(),
            threads: Vec::new(),
        };
        for connection in 0..connections {
            let (over, sent, outcomes) = (load.over.clone(), load.sent.clone(), load.outcomes.clone());
            load.threads.push(thread::spawn(move || {
                let mut own = Vec::new();
                run(address, connection, &over, &sent, &mut own);
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
            }));
        }
        load
    }

    /// How many requests have been sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests have been sent.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.sent() + more;
        crate::wait_until(&format!("{more} more requests are sent"), || self.sent() >= goal)
    }

    /// Stops and gives all outcomes.
    pub fn stop(self) -> Report {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            drop(thread.join());
        }
        let outcomes = std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
        Report { outcomes }
    }
}

fn run(
    address: SocketAddr,
    connection: usize,
    over: &AtomicBool,
    sent: &AtomicU64,
    outcomes: &mut Vec<Outcome>,
) {
    let mut client: Option<Client> = None;
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("/{connection}-{number}");
        let is_post = number % 2 == 1;
        let request = if is_post {
            format!("POST {id} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")
        } else {
            format!("GET {id} HTTP/1.1\r\nHost: test\r\n\r\n")
        };
        sent.fetch_add(1, Ordering::Relaxed);
        let answer = match client.take().map_or_else(|| Client::connect(address), Ok) {
            Ok(mut open) => open.request(request).map(|response| (response, open)),
            Err(error) => Err(error),
        };
        let (result, body) = match answer {
            Ok((response, open)) => {
                if response.field("Connection") != Some("close") {
                    client = Some(open);
                }
                (Ok(response.status), response.text())
            }
            Err(error) => (Err(format!("{error:#}")), String::new()),
        };
        outcomes.push(Outcome { id, is_post, result, body });
    }
}

/// All outcomes of a load.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each request.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// The requests that were not answered with 200.
    pub fn failed(&self) -> Vec<&Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.result != Ok(200)).collect()
    }

    /// Checks that every GET was answered with 200. A POST may be lost by those that are gone in the middle of one.
    ///
    /// # Errors
    /// When one was not; the message has a few of them.
    pub fn no_get_was_lost(&self) -> anyhow::Result<()> {
        let lost: Vec<_> = self.failed().into_iter().filter(|one| !one.is_post).take(5).collect();
        ensure!(lost.is_empty(), "lost: {lost:?}");
        Ok(())
    }

    /// Who answered how often. The demo app ends every answer with its name.
    pub fn shares(&self) -> Shares {
        let mut shares = Shares::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.result == Ok(200)) {
            let name = outcome.body.split_ascii_whitespace().next_back().unwrap_or_default();
            *shares.entry(name.to_owned()).or_default() += 1;
        }
        shares
    }
}

/// What arrived, as peers noted it on receipt: a line `received ID` for each request; more may follow the ID.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// Takes the file that peers write to.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The requests that arrived more than once, with how often.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn doubled(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let mut counts = HashMap::<String, u32>::new();
        let text = std::fs::read_to_string(&self.path)?;
        let received = text.lines().filter_map(|line| line.strip_prefix("received "));
        for id in received.map(|rest| rest.split(' ').next().unwrap_or_default()) {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
        Ok(counts.into_iter().filter(|(_, count)| *count > 1).collect())
    }
}
