//! Finds out when an instance listens, by asking the kernel's table of sockets on a thread of its own.
//!
//! A connection attempt would tell as well, but could be answered by Evenkeel's own listener on the wildcard address. Asked
//! quickly after a trapped bind and at the start, then ever more slowly.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use keel_sys::sock_diag::SockDiag;

use super::homes::Homes;
use crate::supervisor::Incarnation;

#[derive(Clone, Copy, Debug)]
enum Word {
    /// Look after one more.
    Watch(Incarnation),
    /// It bound a port.
    Bound(Incarnation),
    /// It has ended.
    Forget(Incarnation),
}

/// The handle to the thread.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    words: mpsc::Sender<Word>,
}

/// Since when one is watched, and when it last bound a port.
#[derive(Clone, Copy, Debug)]
struct Watched {
    since: Instant,
    bound: Option<Instant>,
}

impl Watcher {
    /// Starts the thread. `tell` is called once for each that listens.
    pub(super) fn start(homes: Arc<Homes>, tell: impl Fn(Incarnation) + Send + 'static) -> io::Result<Self> {
        let mut diag = SockDiag::open()?;
        let (words, received) = mpsc::channel();
        let run = move || {
            let mut watched = BTreeMap::new();
            while hear(&received, &mut watched) {
                watched.retain(|incarnation, _| match is_ready(&mut diag, &homes, *incarnation) {
                    true => {
                        tell(*incarnation);
                        false
                    }
                    false => true,
                });
            }
        };
        std::thread::Builder::new().name("keel-listening".into()).spawn(run)?;
        Ok(Self { words })
    }

    pub(super) fn watch(&self, incarnation: Incarnation) {
        let _ = self.words.send(Word::Watch(incarnation));
    }

    pub(super) fn bound(&self, incarnation: Incarnation) {
        let _ = self.words.send(Word::Bound(incarnation));
    }

    pub(super) fn forget(&self, incarnation: Incarnation) {
        let _ = self.words.send(Word::Forget(incarnation));
    }
}

/// Waits for a word or for the time to look again; `false` when the driver is gone.
fn hear(received: &mpsc::Receiver<Word>, watched: &mut BTreeMap<Incarnation, Watched>) -> bool {
    let now = Instant::now();
    let pause = watched.values().map(|one| pause(now, one)).min();
    let word = match pause {
        None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(pause) => received.recv_timeout(pause),
    };
    let mut next = match word {
        Ok(word) => Some(word),
        Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) => return false,
    };
    while let Some(word) = next {
        match word {
            Word::Watch(incarnation) => {
                watched.insert(incarnation, Watched { since: now, bound: None });
            }
            Word::Bound(incarnation) => {
                if let Some(one) = watched.get_mut(&incarnation) {
                    one.bound = Some(now);
                }
            }
            Word::Forget(incarnation) => drop(watched.remove(&incarnation)),
        }
        next = received.try_recv().ok();
    }
    true
}

fn pause(now: Instant, watched: &Watched) -> Duration {
    let after = |at: Instant| now.saturating_duration_since(at);
    let bound = watched.bound.map(after);
    match (bound, after(watched.since)) {
        (Some(bound), _) if bound < Duration::from_millis(50) => Duration::from_micros(300),
        (_, age) if age < Duration::from_secs(3) => Duration::from_millis(4),
        (_, age) if age < Duration::from_secs(30) => Duration::from_millis(20),
        _ => Duration::from_millis(200),
    }
}

fn is_ready(diag: &mut SockDiag, homes: &Homes, incarnation: Incarnation) -> bool {
    let Some(home) = homes.get(incarnation) else { return false };
    let Some(address) = home.ready_at() else { return false };
    let found = diag.listeners_of_port(address.port()).unwrap_or_default();
    // Behind $PORT, on 127.0.0.1, nobody else is on the port, and a wildcard socket serves as well.
    found.iter().any(|one| one.address == address || (!home.own && serves(one.address, address)))
}

fn serves(listening: SocketAddr, wanted: SocketAddr) -> bool {
    let wildcard = listening.ip().is_unspecified() || listening.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    wildcard && listening.port() == wanted.port()
}
