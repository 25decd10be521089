//! Finds out when an instance listens, by asking the kernel's table of sockets on a thread of its own.
//!
//! It listens when the socket that would take a connection to its port is one that its own processes have open. A
//! connection attempt doesn't show that: a socket on the wildcard address would answer it. Asked quickly after
//! a trapped bind and at the start, then ever more slowly; of one that was seen to listen, again when requests fail there.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use keel_sys::sock_diag::SockDiag;

use super::homes::Homes;
use crate::supervisor::Incarnation;

/// How long a socket that isn't the instance's isn't looked for again among its processes, which takes milliseconds.
const STRANGER_FOR: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
enum Word {
    /// Look after one more.
    Watch(Incarnation),
    /// It bound a port.
    Bound(Incarnation),
    /// Requests fail there: look whether it listens still.
    Doubt(Incarnation),
    /// It has ended.
    Forget(Incarnation),
}

/// How an instance listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It listens.
    Listens,
    /// It did, and doesn't any more. It is watched on.
    IsDeaf,
}

/// The handle to the thread.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    words: mpsc::Sender<Word>,
}

/// Since when one is watched, and what is known of it.
#[derive(Clone, Copy, Debug)]
struct Watched {
    since: Instant,
    /// When it last bound a port.
    bound: Option<Instant>,
    /// Whether it was last told to listen.
    listened: bool,
    /// A socket on its port that isn't its own, and when that was found out.
    stranger: Option<(u64, Instant)>,
}

impl Watched {
    fn new(since: Instant) -> Self {
        Self { since, bound: None, listened: false, stranger: None }
    }
}

impl Watcher {
    /// Starts the thread.
    pub(super) fn start(
        homes: Arc<Homes>,
        tell: impl Fn(Incarnation, Hearing) + Send + 'static,
    ) -> io::Result<Self> {
        let mut diag = SockDiag::open()?;
        let (words, received) = mpsc::channel();
        let run = move || {
            let mut watched = BTreeMap::new();
            while hear(&received, &mut watched) {
                watched.retain(|incarnation, one: &mut Watched| {
                    let listens = listens(&mut diag, &homes, *incarnation, one);
                    match (listens, one.listened) {
                        (true, false) => tell(*incarnation, Hearing::Listens),
                        (false, true) => {
                            one.listened = false;
                            tell(*incarnation, Hearing::IsDeaf);
                        }
                        (true, true) | (false, false) => {}
                    }
                    !listens
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

    /// Looks whether one that was seen to listen does so still.
    pub(super) fn doubt(&self, incarnation: Incarnation) {
        let _ = self.words.send(Word::Doubt(incarnation));
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
                watched.insert(incarnation, Watched::new(now));
            }
            Word::Bound(incarnation) => {
                if let Some(one) = watched.get_mut(&incarnation) {
                    one.bound = Some(now);
                }
            }
            Word::Doubt(incarnation) => {
                // One that is watched hasn't been told to listen.
                let doubted = Watched { listened: true, ..Watched::new(now) };
                watched.entry(incarnation).or_insert(doubted);
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

fn listens(diag: &mut SockDiag, homes: &Homes, incarnation: Incarnation, one: &mut Watched) -> bool {
    let Some(home) = homes.get(incarnation) else { return false };
    let Some(address) = home.ready_at() else { return false };
    let taker = diag.taker_of(address).unwrap_or_else(|error| {
        tracing::debug!("the kernel doesn't say who listens on {address}: {error}");
        // An answer to this question may still be in it.
        if let Ok(new) = SockDiag::open() {
            *diag = new;
        }
        None
    });
    let Some(taker) = taker else { return false };
    let is_stranger = |(inode, found): (u64, Instant)| inode == taker.inode && found.elapsed() < STRANGER_FOR;
    if one.stranger.is_some_and(is_stranger) {
        return false;
    }
    match home.owns(&taker, address) {
        Some(seen) => {
            homes.saw(incarnation, seen);
            true
        }
        None => {
            one.stranger = Some((taker.inode, Instant::now()));
            false
        }
    }
}
