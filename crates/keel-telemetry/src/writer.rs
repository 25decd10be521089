//! The thread that writes log lines, so that a slow disk or a stalled pipe never holds up a worker.
//!
//! Each worker has a queue of its own for each log. Appending takes the queue's lock, which only the writer ever
//! contends for, and for the moment in which it swaps the queue for an empty one. The writer is woken by the first
//! line after a pause; while lines keep coming it looks again every [`LINGER`] by itself, so that a busy worker pays
//! for no wake-ups. A queue that has reached [`QUEUE_BYTES_MAX`] loses further lines, which is counted and reported.
//!
//! One thread serves all logs and waits for none: a pipe that nobody reads is opened non-blocking, and what it doesn't take
//! now stays for later; standard output and error have threads of their own ([`Outlet`](crate::Outlet)).

use std::{
    collections::HashMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    mem,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    outlet::{self, count_lines},
    syslog::{DatagramAddress, Datagrams},
};

/// How long the writer waits before it looks for more lines.
const LINGER: Duration = Duration::from_millis(10);
/// Bytes that wait in one worker's queue for one log at most.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Files that a log with a path for each line keeps open at most.
const OPEN_FILES_MAX: usize = 64;
/// What a datagram's length takes before it in a queue.
const LENGTH_BYTES: usize = 4;
/// Problems of one log are reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Owns the thread. Dropping it writes all that is queued.
pub struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Where a log goes.
#[derive(Debug)]
pub enum Target {
    /// A file that is open for appending.
    File(File),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Files named anew with each line ([`Log::append_to`]), opened for appending by the writer.
    ByPath,
    /// A socket that gets each record as a datagram ([`Log::append_datagram`]).
    Datagrams(DatagramAddress),
}

/// `buffer=` and `flush=` of an access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffering {
    /// Bytes gathered before they are written; 0 writes lines as soon as they are seen.
    pub bytes: usize,
    /// How long a line may wait in the buffer; `None` until the buffer is full.
    pub flush: Option<Duration>,
}

/// What went wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Lines were lost because the writer couldn't keep up.
    #[error("{lines} log lines were lost: the log can't be written as fast as lines come")]
    Lost {
        /// How many since the last report.
        lines: u64,
    },
    /// A write failed, and what was to be written is lost.
    #[error("a log can't be written")]
    Write(#[source] io::Error),
    /// A datagram can't be sent, and is lost.
    #[error("the syslog server {server} can't be sent to")]
    Send {
        /// Which server.
        server: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file can't be opened.
    #[error("the log {path} can't be opened")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// A handle to a log. Clones share one queue; [`for_worker`](Log::for_worker) makes another for the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    open: Arc<Open>,
    queue: Arc<Queue>,
}

/// All handles of one log. The end of the last one closes it.
struct Open {
    shared: Arc<Shared>,
    file: Arc<LogFile>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.file.is_closed.store(true, SeqCst);
        self.shared.wake();
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the writer sleeps until it is woken.
    asleep: AtomicBool,
}

#[derive(Default)]
struct State {
    logs: Vec<Arc<LogFile>>,
    flushes_asked: u64,
    flushes_done: u64,
    stop: bool,
}

struct LogFile {
    queues: Mutex<Vec<Arc<Queue>>>,
    output: Mutex<Output>,
    /// Whether its last handle is gone: once all it has is written, the writer forgets it.
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    lines: Mutex<Vec<u8>>,
    lost: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogWriter {
    /// Starts the thread. `on_problem` is called on it.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(on_problem: impl Fn(&Problem) + Send + 'static) -> io::Result<Self> {
        let asleep = AtomicBool::new(false);
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), asleep });
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("log".into()).spawn(move || theirs.run(&on_problem))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Adds a log. It is closed after its last handle is dropped and its last line written.
    pub fn open(&self, target: Target, buffering: Buffering) -> Log {
        let queue = Arc::new(Queue::default());
        let output = Output::new(target, buffering);
        let file = Arc::new(LogFile {
            queues: Mutex::new(vec![queue.clone()]),
            output: Mutex::new(output),
            is_closed: AtomicBool::new(false),
        });
        lock(&self.shared.state).logs.push(file.clone());
        let open = Arc::new(Open { shared: self.shared.clone(), file });
        Log { shared: self.shared.clone(), open, queue }
    }

    /// Waits until everything that was appended before is written, buffers included.
    pub fn flush(&self) {
        let mut state = lock(&self.shared.state);
        state.flushes_asked += 1;
        let asked = state.flushes_asked;
        self.shared.changed.notify_all();
        while state.flushes_done < asked && !state.stop {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has no result; should it have panicked, that was printed.
            let _ = thread.join();
        }
    }
}

impl Log {
    /// A handle with a queue of its own.
    pub fn for_worker(&self) -> Self {
        let queue = Arc::new(Queue::default());
        lock(&self.open.file.queues).push(queue.clone());
        Self { shared: self.shared.clone(), open: self.open.clone(), queue }
    }

    /// Appends what is a line or several, their ends included.
    pub fn append(&self, lines: &[u8]) {
        self.append_with(|out| out.extend_from_slice(lines));
    }

    /// Appends what `write` appends, a line or several with their ends. `write` isn't called if the queue is full.
    pub fn append_with(&self, write: impl FnOnce(&mut Vec<u8>)) {
        {
            let mut lines = lock(&self.queue.lines);
            if lines.len() >= QUEUE_BYTES_MAX {
                self.queue.lost.fetch_add(1, Relaxed);
                return;
            }
            write(&mut lines);
        }
        self.shared.wake();
    }

    /// Appends a line to a file, for a log whose target is [`Target::ByPath`].
    pub fn append_to(&self, path: &Path, line: &[u8]) {
        let path = path.as_os_str().as_bytes();
        let (Ok(path_len), Ok(line_len)) = (u32::try_from(path.len()), u32::try_from(line.len())) else {
            self.queue.lost.fetch_add(1, Relaxed);
            return;
        };
        self.append_with(|out| {
            out.extend_from_slice(&path_len.to_le_bytes());
            out.extend_from_slice(&line_len.to_le_bytes());
            out.extend_from_slice(path);
            out.extend_from_slice(line);
        });
    }

    /// Appends what `write` appends as one datagram, for a log whose target is [`Target::Datagrams`].
    pub fn append_datagram(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.append_with(|out| {
            let begin = out.len();
            out.extend_from_slice(&[0; LENGTH_BYTES]);
            write(out);
            let length = out.len() - begin - LENGTH_BYTES;
            // A queue is far below 4 GiB.
            let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
            if let Some(field) = out.get_mut(begin..begin + LENGTH_BYTES) {
                field.copy_from_slice(&length);
            }
        });
    }

    /// Writes to `target` from now on, after what is queued or buffered has gone to the old one. Files opened by path
    /// are opened anew. May take as long as a write to a disk does: not for workers. What a pipe that nobody reads
    /// hasn't taken by now is lost.
    pub fn reopen(&self, target: Target) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.open.file.drain(Instant::now(), Urgency::Everything, &mut problems);
        let mut output = lock(&self.open.file.output);
        problems.extend(output.give_up());
        output.set_target(target);
        problems
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Buffers stay until they are full or due.
    Buffered,
    /// Buffers are written too.
    Everything,
}

/// What emptying a log's queues came to.
#[derive(Default)]
struct Drained {
    any: bool,
    /// When its buffer is due.
    due: Option<Instant>,
}

impl Shared {
    /// Wakes the writer if it sleeps. What it is to see, a line or a log's end, is there already: either the writer's last
    /// look finds it or, by the fences on both sides, it is seen asleep here.
    fn wake(&self) {
        fence(SeqCst);
        if self.asleep.load(Relaxed) {
            let _state = lock(&self.state);
            self.asleep.store(false, SeqCst);
            self.changed.notify_all();
        }
    }

    fn run(&self, on_problem: &dyn Fn(&Problem)) {
        let mut reports = Reports::default();
        loop {
            let (logs, asked, is_flush, stop) = {
                let state = lock(&self.state);
                let is_flush = state.stop || state.flushes_asked != state.flushes_done;
                (state.logs.clone(), state.flushes_asked, is_flush, state.stop)
            };
            let urgency = if is_flush { Urgency::Everything } else { Urgency::Buffered };
            let now = Instant::now();
            let mut problems = Vec::new();
            let drained: Vec<Drained> =
                logs.iter().map(|log| log.drain(now, urgency, &mut problems)).collect();
            if stop {
                problems.extend(logs.iter().flat_map(|log| log.give_up()));
            }
            drop(logs);
            reports.add(problems);
            if stop || reports.is_due(now) {
                reports.tell(now, on_problem);
            }
            let mut state = lock(&self.state);
            state.logs.retain(|log| !log.is_finished());
            state.flushes_done = asked;
            if is_flush {
                self.changed.notify_all();
            }
            if stop {
                return;
            }
            let due = drained.iter().filter_map(|drained| drained.due).chain(reports.due()).min();
            self.rest(state, drained.iter().any(|drained| drained.any), due);
        }
    }

    fn rest(&self, state: MutexGuard<'_, State>, busy: bool, due: Option<Instant>) {
        let is_idle = |state: &mut State| !state.stop && state.flushes_asked == state.flushes_done;
        if busy {
            drop(self.changed.wait_timeout_while(state, LINGER, is_idle));
            return;
        }
        self.asleep.store(true, SeqCst);
        fence(SeqCst);
        let asleep = |state: &mut State| is_idle(state) && self.asleep.load(SeqCst);
        if state.logs.iter().all(|log| !log.has_lines() && !log.is_closed()) {
            match due {
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    drop(self.changed.wait_timeout_while(state, left, asleep));
                }
                None => drop(self.changed.wait_while(state, asleep)),
            }
        }
        self.asleep.store(false, SeqCst);
    }
}

/// Limits how often problems are told.
#[derive(Default)]
struct Reports {
    lost: u64,
    failure: Option<Problem>,
    told_at: Option<Instant>,
}

impl Reports {
    fn add(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            match problem {
                Problem::Lost { lines } => self.lost += lines,
                problem => self.failure = Some(problem),
            }
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL)
    }

    /// Gives when what is still to be told may be.
    fn due(&self) -> Option<Instant> {
        let told_at = self.told_at.filter(|_| self.lost > 0 || self.failure.is_some())?;
        told_at.checked_add(REPORT_INTERVAL)
    }

    fn tell(&mut self, now: Instant, on_problem: &dyn Fn(&Problem)) {
        let lost = Some(mem::take(&mut self.lost)).filter(|lines| *lines > 0);
        let lost = lost.map(|lines| Problem::Lost { lines });
        for problem in lost.into_iter().chain(self.failure.take()) {
            on_problem(&problem);
            self.told_at = Some(now);
        }
    }
}

impl LogFile {
    fn has_lines(&self) -> bool {
        lock(&self.queues).iter().any(|queue| !lock(&queue.lines).is_empty())
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Whether nobody has it any more and everything is written.
    fn is_finished(&self) -> bool {
        self.is_closed() && !self.has_lines() && lock(&self.output).is_empty()
    }

    /// Gives up what can't be written at the end.
    fn give_up(&self) -> Option<Problem> {
        let is_datagrams = matches!(lock(&self.output).target, Target::Datagrams(_));
        let count = if is_datagrams { count_datagrams } else { count_lines };
        let missed = |queue: &Arc<Queue>| count(&lock(&queue.lines)) + queue.lost.swap(0, Relaxed);
        let queued: u64 = lock(&self.queues).iter().map(missed).sum();
        let pending = lock(&self.output).give_up();
        let pending = if let Some(Problem::Lost { lines }) = pending { lines } else { 0 };
        Some(queued + pending).filter(|lines| *lines > 0).map(|lines| Problem::Lost { lines })
    }

    fn drain(&self, now: Instant, urgency: Urgency, problems: &mut Vec<Problem>) -> Drained {
        // Nothing more comes that could fill its buffer.
        let urgency = if self.is_closed() { Urgency::Everything } else { urgency };
        let mut output = lock(&self.output);
        let mut any = false;
        if !output.catch_up(problems) {
            // Its queues fill up meanwhile, and then lose lines.
            return Drained { any: true, due: None };
        }
        let queues = lock(&self.queues).clone();
        for queue in &queues {
            let lost = queue.lost.swap(0, Relaxed);
            if lost > 0 {
                problems.push(Problem::Lost { lines: lost });
            }
            let mut lines = mem::take(&mut output.spare);
            mem::swap(&mut lines, &mut *lock(&queue.lines));
            any |= !lines.is_empty();
            output.take(&lines, now, problems);
            lines.clear();
            output.spare = lines;
        }
        drop(queues);
        let in_use = |queue: &Arc<Queue>| Arc::strong_count(queue) > 1 || !lock(&queue.lines).is_empty();
        lock(&self.queues).retain(in_use);
        output.write_if_due(now, urgency, problems);
        any |= !output.pending.is_empty();
        Drained { any, due: output.due() }
    }
}

/// Where a log's lines end up. Only the writer's thread and `reopen` touch it.
struct Output {
    target: Target,
    buffering: Buffering,
    buffer: Vec<u8>,
    buffered_since: Option<Instant>,
    /// An empty vector with room, to be swapped for a queue's.
    spare: Vec<u8>,
    /// What a pipe didn't take yet.
    pending: Vec<u8>,
    by_path: HashMap<PathBuf, File>,
    datagrams: Option<Datagrams>,
}

impl Output {
    fn new(target: Target, buffering: Buffering) -> Self {
        Self {
            target,
            buffering,
            buffer: Vec::new(),
            buffered_since: None,
            spare: Vec::new(),
            pending: Vec::new(),
            by_path: HashMap::new(),
            datagrams: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.pending.is_empty()
    }

    fn set_target(&mut self, target: Target) {
        self.target = target;
        self.by_path.clear();
        self.datagrams = None;
    }

    fn due(&self) -> Option<Instant> {
        self.buffered_since?.checked_add(self.buffering.flush?)
    }

    fn take(&mut self, lines: &[u8], now: Instant, problems: &mut Vec<Problem>) {
        if lines.is_empty() {
            return;
        }
        match self.target {
            Target::ByPath => return self.write_by_path(lines, problems),
            Target::Datagrams(_) => return self.send(lines, problems),
            Target::File(_) | Target::Stdout | Target::Stderr => {}
        }
        if self.buffering.bytes == 0 {
            return self.write(lines, problems);
        }
        if self.buffer.len() + lines.len() > self.buffering.bytes {
            self.write_buffer(problems);
        }
        if lines.len() >= self.buffering.bytes {
            return self.write(lines, problems);
        }
        self.buffer.extend_from_slice(lines);
        self.buffered_since.get_or_insert(now);
    }

    fn write_if_due(&mut self, now: Instant, urgency: Urgency, problems: &mut Vec<Problem>) {
        if urgency == Urgency::Everything || self.due().is_some_and(|due| now >= due) {
            self.write_buffer(problems);
        }
    }

    fn write_buffer(&mut self, problems: &mut Vec<Problem>) {
        self.buffered_since = None;
        let mut buffer = mem::take(&mut self.buffer);
        if !buffer.is_empty() {
            self.write(&buffer, problems);
        }
        buffer.clear();
        self.buffer = buffer;
    }

    fn write(&mut self, bytes: &[u8], problems: &mut Vec<Problem>) {
        match &mut self.target {
            Target::File(_) if !self.pending.is_empty() => self.pending.extend_from_slice(bytes),
            Target::File(file) => match write_some(file, bytes) {
                Ok(rest) => self.pending.extend_from_slice(rest),
                Err(error) => problems.push(Problem::Write(error)),
            },
            Target::Stdout => outlet::stdout().push(bytes),
            Target::Stderr => outlet::stderr().push(bytes),
            Target::ByPath | Target::Datagrams(_) => {}
        }
    }

    fn send(&mut self, mut records: &[u8], problems: &mut Vec<Problem>) {
        let Target::Datagrams(address) = &self.target else { return };
        let datagrams = self.datagrams.get_or_insert_with(|| Datagrams::to(address.clone()));
        while let Some((datagram, rest)) = split_datagram(records) {
            records = rest;
            match datagrams.send(datagram) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    problems.push(Problem::Lost { lines: 1 });
                }
                Err(error) => {
                    problems.push(Problem::Send { server: datagrams.address().to_string(), error });
                }
            }
        }
    }

    /// Gives up what a pipe didn't take before.
    fn give_up(&mut self) -> Option<Problem> {
        let pending = mem::take(&mut self.pending);
        (!pending.is_empty()).then(|| Problem::Lost { lines: count_lines(&pending) })
    }

    /// Writes what a pipe didn't take before. Tells whether that is done.
    fn catch_up(&mut self, problems: &mut Vec<Problem>) -> bool {
        let pending = mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.write(&pending, problems);
        }
        self.pending.is_empty()
    }

    fn write_by_path(&mut self, mut lines: &[u8], problems: &mut Vec<Problem>) {
        while let Some((path, line, rest)) = split_record(lines) {
            lines = rest;
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            let result = self.open(path).map(|mut file| write_some(&mut file, line));
            match result {
                Ok(Ok([])) => {}
                // There may be any number of them: none is waited for.
                Ok(Ok(_)) => problems.push(Problem::Lost { lines: 1 }),
                Ok(Err(error)) => problems.push(Problem::Write(error)),
                Err(error) => problems.push(Problem::Open { path: path.to_owned(), error }),
            }
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<&File> {
        if self.by_path.len() >= OPEN_FILES_MAX && !self.by_path.contains_key(path) {
            self.by_path.clear();
        }
        if !self.by_path.contains_key(path) {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)?;
            self.by_path.insert(path.to_owned(), file);
        }
        self.by_path.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Writes as much as the file takes without waiting, which is everything unless it is a pipe; gives the rest.
fn write_some<'a>(file: &mut impl Write, mut bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Splits what [`Log::append_datagram`] put together into the first datagram and the rest.
fn split_datagram(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn count_datagrams(mut records: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((_, rest)) = split_datagram(records) {
        (records, count) = (rest, count + 1);
    }
    count
}

/// Splits what [`Log::append_to`] put together into path, line and the rest.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (path_len, rest) = bytes.split_first_chunk::<4>()?;
    let (line_len, rest) = rest.split_first_chunk::<4>()?;
    let (path, rest) = rest.split_at_checked(u32::from_le_bytes(*path_len) as usize)?;
    let (line, rest) = rest.split_at_checked(u32::from_le_bytes(*line_len) as usize)?;
    Some((path, line, rest))
}
