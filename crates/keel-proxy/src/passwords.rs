//! Password files, and the threads that verify passwords.
//!
//! A worker verifies only what takes a microsecond, against a file that it finds unchanged. All else is done by a few
//! threads: reading files, and schemes that are slow on purpose. What waits for them is bounded, and a password that was
//! right is known for a short time, by a digest of it together with the entry that it was verified against: another entry
//! for the user makes it unknown at once. That a password was wrong isn't kept: each guess costs its time.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use keel_password::{Cost, UserFile};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::{
    credentials::Credentials,
    files::{Files, Opened},
    stores::Named,
};

/// Threads at most. They share the cores with the workers.
const THREADS_MAX: usize = 4;

/// Passwords that may wait to be verified.
const WAITING_MAX: usize = 1024;

/// How long it is known that a password was right.
const PROVEN_FOR: Duration = Duration::from_secs(10);

/// Passwords of which that is known, at most.
const PROVEN_MAX: usize = 4096;

/// Files of users that are kept, and how large one may be.
const FILES_MAX: usize = 256;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file that was changed so recently may change again without another time of change.
const RECENT: Duration = Duration::from_secs(1);

/// What became of a request's credentials.
#[derive(Debug)]
pub(crate) enum PasswordOutcome {
    Right,
    Wrong,
    NoSuchUser,
    Unreadable(io::Error),
    /// Too many wait to be verified.
    Busy,
}

/// What is to be verified, against which file.
pub(crate) struct Question {
    pub(crate) files: Files,
    pub(crate) path: PathBuf,
    pub(crate) credentials: Credentials,
}

/// All password files, and who verifies.
pub(crate) struct Passwords {
    known: Arc<Known>,
    queue: SyncSender<Waiting>,
    waiting: Arc<Mutex<Receiver<Waiting>>>,
    threads: Arc<AtomicUsize>,
    threads_max: usize,
}

/// Counts a thread until it ends, be it by a panic.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A question and who asked.
struct Waiting {
    question: Question,
    answer: oneshot::Sender<PasswordOutcome>,
}

#[derive(Default)]
struct Known {
    files: Mutex<HashMap<PathBuf, KnownFile>>,
    proven: Mutex<HashMap<Proof, Instant>>,
}

type Proof = [u8; 32];

#[derive(Clone)]
struct KnownFile {
    identity: Identity,
    users: Arc<UserFile>,
}

/// Tells a file's content from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Identity {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Named for Passwords {
    type Settings = ();

    fn new((): &()) -> Self {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        Self {
            known: Arc::default(),
            queue,
            waiting: Arc::new(Mutex::new(waiting)),
            threads: Arc::default(),
            threads_max: thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        }
    }

    fn settings(&self) -> &() {
        &()
    }
}

impl Passwords {
    /// Says whether the credentials are right.
    pub(crate) async fn verify(&self, question: Question) -> PasswordOutcome {
        if let Some(outcome) = self.known.at_once(&question) {
            return outcome;
        }
        let (answer, outcome) = oneshot::channel();
        if let Err(error) = self.start_thread() {
            return PasswordOutcome::Unreadable(error);
        }
        match self.queue.try_send(Waiting { question, answer }) {
            Ok(()) => outcome.await.unwrap_or(PasswordOutcome::Busy),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => PasswordOutcome::Busy,
        }
    }

    /// Starts another thread unless there are enough. The threads end when `Passwords` is dropped.
    fn start_thread(&self) -> io::Result<()> {
        let is_wanted = |threads| (threads < self.threads_max).then_some(threads + 1);
        let Ok(before) = self.threads.fetch_update(Relaxed, Relaxed, is_wanted) else { return Ok(()) };
        let counted = Counted(self.threads.clone());
        let (known, waiting) = (self.known.clone(), self.waiting.clone());
        let started = thread::Builder::new().name("passwords".into()).spawn(move || {
            let _counted = counted;
            loop {
                let next = lock(&waiting).recv();
                let Ok(Waiting { question, answer }) = next else { return };
                // Nobody listens once the client is gone.
                if !answer.is_closed() {
                    let _ = answer.send(known.verify(&question));
                }
            }
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) if before == 0 => Err(error),
            Err(_) => Ok(()),
        }
    }
}

impl Known {
    /// Answers what takes no time: the file is the one that was read, and the entry is cheap to verify or has been.
    fn at_once(&self, question: &Question) -> Option<PasswordOutcome> {
        let (_, identity) = match open(&question.files, &question.path) {
            Ok(opened) => opened,
            Err(error) => return Some(PasswordOutcome::Unreadable(error)),
        };
        let known = lock(&self.files).get(&question.path).cloned();
        let users = known.filter(|known| known.identity == identity)?.users;
        let Some(entry) = users.entry(question.credentials.user()) else {
            return Some(PasswordOutcome::NoSuchUser);
        };
        match keel_password::cost(entry) {
            Cost::Small => Some(verify(question.credentials.password(), entry)),
            Cost::Large => {
                self.is_proven(&proof(&question.credentials, entry)).then_some(PasswordOutcome::Right)
            }
        }
    }

    fn verify(&self, question: &Question) -> PasswordOutcome {
        let users = match self.users(question) {
            Ok(users) => users,
            Err(error) => return PasswordOutcome::Unreadable(error),
        };
        let credentials = &question.credentials;
        let Some(entry) = users.entry(credentials.user()) else { return PasswordOutcome::NoSuchUser };
        let proof = proof(credentials, entry);
        // Others may have waited for the same.
        if self.is_proven(&proof) {
            return PasswordOutcome::Right;
        }
        let outcome = verify(credentials.password(), entry);
        if matches!(outcome, PasswordOutcome::Right) && keel_password::cost(entry) == Cost::Large {
            self.prove(proof, Instant::now());
        }
        outcome
    }

    /// Gives the users of a file, read anew where it has changed.
    fn users(&self, question: &Question) -> io::Result<Arc<UserFile>> {
        let (file, identity) = open(&question.files, &question.path)?;
        let known = lock(&self.files).get(&question.path).cloned();
        if let Some(known) = known.filter(|known| known.identity == identity) {
            return Ok(known.users);
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let users = Arc::new(UserFile::parse(&text));
        let mut files = lock(&self.files);
        files.remove(&question.path);
        if !is_recent(&identity) {
            if files.len() >= FILES_MAX {
                files.clear();
            }
            files.insert(question.path.clone(), KnownFile { identity, users: users.clone() });
        }
        Ok(users)
    }

    fn is_proven(&self, proof: &Proof) -> bool {
        let now = Instant::now();
        lock(&self.proven).get(proof).is_some_and(|until| now < *until)
    }

    fn prove(&self, proof: Proof, now: Instant) {
        let mut proven = lock(&self.proven);
        if proven.len() >= PROVEN_MAX {
            proven.retain(|_, until| now < *until);
        }
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(proof, now + PROVEN_FOR);
    }
}

fn verify(password: &[u8], entry: &[u8]) -> PasswordOutcome {
    if keel_password::verify(password, entry) { PasswordOutcome::Right } else { PasswordOutcome::Wrong }
}

/// A digest of credentials and of the entry that they are verified against, whose salt is in it.
fn proof(credentials: &Credentials, entry: &[u8]) -> Proof {
    let mut digest = Sha256::new();
    for part in [credentials.user(), credentials.password(), entry] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Opens a regular file.
fn open(files: &Files, path: &Path) -> io::Result<(std::fs::File, Identity)> {
    match files.open(path)? {
        Opened::File(file, meta) if meta.is_file() => Ok((file, Identity::of(&meta))),
        Opened::File(..) => Err(io::ErrorKind::InvalidInput.into()),
        Opened::Folder => Err(io::ErrorKind::IsADirectory.into()),
    }
}

fn is_recent(identity: &Identity) -> bool {
    let (seconds, nanoseconds) = identity.changed.max(identity.modified);
    let since = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since).is_ok_and(|age| age < RECENT)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(path: &Path, user: &str, password: &str) -> Question {
        let credentials = Credentials::new(user, password);
        Question { files: Files::Host, path: path.to_owned(), credentials }
    }

    fn age(path: &Path) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    #[tokio::test]
    async fn the_threads_find_what_the_file_says_and_changes_count_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let passwords = Passwords::new(&());
        let check = async |user: &str, password: &str, expect: &str| {
            let outcome = passwords.verify(question(&path, user, password)).await;
            assert!(format!("{outcome:?}").starts_with(expect), "{user}:{password}: {outcome:?}");
        };
        check("a", "x", "Unreadable").await;
        std::fs::write(&path, "a:{PLAIN}x\nb:$1$salt$qJH7.N4xYta3aEG/dfqo/0\n").unwrap();
        check("a", "x", "Right").await;
        check("a", "y", "Wrong").await;
        check("b", "password", "Right").await;
        check("b", "passwort", "Wrong").await;
        check("c", "x", "NoSuchUser").await;
        std::fs::write(&path, "a:{PLAIN}y\nb:{PLAIN}z\n").unwrap();
        check("a", "x", "Wrong").await;
        check("b", "password", "Wrong").await;
        std::fs::remove_file(&path).unwrap();
        check("a", "y", "Unreadable").await;
    }

    #[test]
    fn a_password_is_proven_for_its_entry_and_for_a_while() {
        let known = Known::default();
        let of = |password: &str, entry: &[u8]| proof(&Credentials::new("u", password), entry);
        known.prove(of("p", b"$1$entry"), Instant::now());
        assert!(known.is_proven(&of("p", b"$1$entry")));
        assert!(!known.is_proven(&of("q", b"$1$entry")));
        assert!(!known.is_proven(&of("p", b"$1$other")));
        if let Some(before) = Instant::now().checked_sub(PROVEN_FOR) {
            known.prove(of("p", b"$1$entry"), before);
            assert!(!known.is_proven(&of("p", b"$1$entry")));
        }
        for other in 0..PROVEN_MAX * 2 {
            known.prove(of(&other.to_string(), b"$1$entry"), Instant::now());
        }
        assert!(lock(&known.proven).len() <= PROVEN_MAX);
    }

    #[test]
    fn a_file_is_known_once_it_has_been_read_and_has_rested() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "a:{PLAIN}x\n").unwrap();
        let known = Known::default();
        let asked = question(&path, "a", "x");
        assert!(matches!(known.verify(&asked), PasswordOutcome::Right));
        assert!(known.at_once(&asked).is_none(), "it may change without another time");
        let identity = Identity { changed: (0, 0), ..open(&Files::Host, &path).unwrap().1 };
        assert!(is_recent(&identity));
        age(&path);
        assert!(!is_recent(&Identity { changed: (0, 0), ..open(&Files::Host, &path).unwrap().1 }));
    }
}
