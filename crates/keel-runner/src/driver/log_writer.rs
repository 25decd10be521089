//! Writes what instances print into their files, on a thread of its own: a disk that is full or slow holds up neither the
//! supervisor nor any instance for long.
//!
//! Lines wait in a queue of [`QUEUE_BYTES_MAX`], of one instance [`INSTANCE_BYTES_MAX`]; what the thread is writing may be
//! as much again. An instance that prints faster than the disk takes it is held up for [`HELD_UP_MAX`]. After that its
//! lines are left out until the disk has taken what waits; their number is written in their place.

use std::{
    collections::BTreeMap,
    io, mem,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use keel_telemetry::{BoundedFile, left_out_text};
use tokio::sync::{Notify, oneshot};

use super::{
    output::{LogLine, Stream},
    past::{InstanceLog, Past},
};
use crate::{error::at, named::Named};

/// One file's size at which the next is begun; two are kept.
pub(super) const FILE_BYTES_MAX: u64 = 5 << 20;
/// Files held open at once. One more closes the others, which open again at their next line.
const OPEN_FILES_MAX: usize = 256;
/// Bytes of lines that wait for the disk at most.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of them that are one instance's.
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// What a line takes beside its text, about.
const LINE_OVERHEAD_BYTES: usize = 128;
/// How long an instance is held up for a disk that takes nothing.
const HELD_UP_MAX: Duration = Duration::from_secs(1);

/// The handle to the thread.
#[derive(Debug)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<LogJob>,
    waiting: BTreeMap<String, Waiting>,
    bytes: usize,
    is_closed: bool,
}

/// What of one instance waits for the disk.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    bytes: usize,
    /// Lines that aren't among it: there was no room.
    left_out: u64,
    /// Whether the instance was held up as long as it may be.
    was_held_up: bool,
}

#[derive(Debug)]
enum LogJob {
    /// Write these, which are of one instance.
    Keep(Vec<Arc<LogLine>>),
    /// A life of this instance begins: a file that was removed is made again.
    Reopen(String),
    /// Say what was kept of these up to here.
    Look { of: Vec<Named>, tail: Option<usize>, reply: oneshot::Sender<Past> },
    /// Stand still, as on a disk that takes nothing.
    #[cfg(test)]
    Stall(std::sync::mpsc::Receiver<()>),
}

impl LogWriter {
    /// Starts the thread.
    pub(super) fn start(folder: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), room: Notify::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("keel-logs".into()).spawn(move || theirs.run(&folder))?;
        Ok(Self { shared })
    }

    /// Takes in lines of one instance. Never waits.
    pub(super) fn keep(&self, lines: Vec<Arc<LogLine>>) {
        let Some(first) = lines.first() else { return };
        let bytes: usize = lines.iter().map(|line| line.text.len() + LINE_OVERHEAD_BYTES).sum();
        let mut state = self.shared.lock();
        let all = state.bytes + bytes;
        let waiting = state.waiting.entry(first.instance.clone()).or_default();
        if waiting.left_out > 0 || all > QUEUE_BYTES_MAX || waiting.bytes + bytes > INSTANCE_BYTES_MAX {
            waiting.left_out += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        } else {
            waiting.bytes += bytes;
            state.bytes = all;
            state.jobs.push(LogJob::Keep(lines));
        }
        self.shared.work.notify_one();
    }

    /// Notes that a life of an instance begins.
    pub(super) fn reopen(&self, instance: &str) {
        self.give(LogJob::Reopen(instance.to_owned()));
    }

    /// What is kept of these instances once all is that was taken in by now: the last lines of each, or all.
    pub(super) fn look(&self, of: &[Named], tail: Option<usize>) -> oneshot::Receiver<Past> {
        let (reply, past) = oneshot::channel();
        self.give(LogJob::Look { of: of.to_vec(), tail, reply });
        past
    }

    /// Waits until an instance may print more, or it was held up for as long as it may be.
    pub(super) async fn room(&self, instance: &str) {
        // Made before the look: a notice between both counts.
        let changed = self.shared.room.notified();
        let is_full = |state: &State| {
            let waiting = state.waiting.get(instance).copied().unwrap_or_default();
            let is_full = waiting.bytes > INSTANCE_BYTES_MAX / 2 || state.bytes > QUEUE_BYTES_MAX / 2;
            is_full && !waiting.was_held_up
        };
        let waits = is_full(&self.shared.lock());
        if waits && tokio::time::timeout(HELD_UP_MAX, changed).await.is_err() {
            let mut state = self.shared.lock();
            state.waiting.entry(instance.to_owned()).or_default().was_held_up = true;
        }
    }

    fn give(&self, job: LogJob) {
        self.shared.lock().jobs.push(job);
        self.shared.work.notify_one();
    }

    #[cfg(test)]
    pub(super) fn stall(&self) -> std::sync::mpsc::Sender<()> {
        let (goes_on, stalled) = std::sync::mpsc::channel();
        self.give(LogJob::Stall(stalled));
        goes_on
    }
}

impl Drop for LogWriter {
    /// What waits is still written.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, folder: &Path) {
        let mut files = BTreeMap::new();
        while let Some((jobs, waiting)) = self.next() {
            self.room.notify_waiters();
            jobs.into_iter().for_each(|job| carry_out(job, folder, &mut files));
            for (instance, waiting) in waiting {
                if waiting.left_out > 0 {
                    let file = file_of(&mut files, folder, &instance);
                    file.lost += waiting.left_out;
                    file.keep(&instance, &[]);
                }
            }
        }
    }

    /// Waits for what is to be done next; `None` at the end.
    fn next(&self) -> Option<(Vec<LogJob>, BTreeMap<String, Waiting>)> {
        let idle = |state: &mut State| state.jobs.is_empty() && state.waiting.is_empty() && !state.is_closed;
        let state = self.work.wait_while(self.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.jobs.is_empty() && state.waiting.is_empty() {
            return None;
        }
        state.bytes = 0;
        Some((mem::take(&mut state.jobs), mem::take(&mut state.waiting)))
    }
}

fn carry_out(job: LogJob, folder: &Path, files: &mut BTreeMap<String, LogFile>) {
    match job {
        LogJob::Keep(lines) => {
            let Some(first) = lines.first() else { return };
            file_of(files, folder, &first.instance).keep(&first.instance, &lines);
        }
        LogJob::Reopen(instance) => {
            if let Some(file) = files.get_mut(&instance) {
                file.close();
            }
        }
        LogJob::Look { of, tail, reply } => {
            let logs = of.into_iter().map(|names| {
                let path = path_of(folder, &names.instance);
                InstanceLog::open(names, &path, tail)
            });
            // Who asked may be gone.
            drop(reply.send(Past::of(logs.collect())));
        }
        #[cfg(test)]
        LogJob::Stall(goes_on) => drop(goes_on.recv()),
    }
}

fn file_of<'a>(files: &'a mut BTreeMap<String, LogFile>, folder: &Path, instance: &str) -> &'a mut LogFile {
    let is_open = files.get(instance).is_some_and(|file| file.file.is_some());
    if !is_open && files.values().filter(|file| file.file.is_some()).count() >= OPEN_FILES_MAX {
        files.values_mut().for_each(LogFile::close);
    }
    files.entry(instance.to_owned()).or_insert_with(|| LogFile::new(path_of(folder, instance)))
}

/// Where the newest lines of an instance are kept.
pub(super) fn path_of(folder: &Path, instance: &str) -> PathBuf {
    // Names of services and instances have no slash; if one had, it would not lead out of the folder.
    folder.join(format!("{}.log", instance.replace('/', "_")))
}

/// The file of one instance.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Option<BoundedFile>,
    /// Lines that couldn't be written since the last one that could.
    lost: u64,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, lost: 0 }
    }

    /// Keeps lines. A file that can't be written costs lines, whose number it has afterwards.
    fn keep(&mut self, instance: &str, lines: &[Arc<LogLine>]) {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mut text = String::new();
        if self.lost > 0 {
            let time = lines.first().map_or_else(SystemTime::now, |line| line.time);
            text.push_str(&format!("{} e {}\n", since(time), left_out_text(self.lost)));
        }
        for line in lines {
            let mark = if line.stream == Stream::Stdout { 'o' } else { 'e' };
            text.push_str(&format!("{} {mark} {}\n", since(line.time), line.text));
        }
        match self.append(text.as_bytes()) {
            Ok(()) if self.lost > 0 => {
                tracing::warn!("output of {instance} is kept again; {} lines are missing", self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!("output of {instance} isn't kept: {error}");
                }
                self.lost += u64::try_from(lines.len()).unwrap_or(u64::MAX);
            }
        }
    }

    /// Closes it. The next line opens it again.
    fn close(&mut self) {
        self.file = None;
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BoundedFile::open(&self.path, FILE_BYTES_MAX).map_err(at(&self.path))?),
        };
        file.append(text).map_err(at(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(instance: &str, text: &str) -> Arc<LogLine> {
        Arc::new(LogLine {
            instance: instance.into(),
            service: instance.into(),
            stream: Stream::Stdout,
            time: SystemTime::now(),
            text: text.into(),
        })
    }

    fn kept(writer: &LogWriter, instance: &str) -> Vec<String> {
        let named = [Named { service: instance.into(), instance: instance.into() }];
        let past = writer.look(&named, None).blocking_recv().unwrap();
        past.map(|line| line.text).collect()
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_lines_whose_number_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LogWriter::start(folder.path().to_owned()).unwrap();
        let goes_on = writer.stall();
        let text = "x".repeat(1000);
        let printed = 2 * INSTANCE_BYTES_MAX / 1000;
        for _ in 0..printed {
            writer.keep(vec![line("loud", &text)]);
        }
        writer.keep(vec![line("quiet", "hello")]);
        assert!(writer.shared.lock().bytes <= QUEUE_BYTES_MAX);
        goes_on.send(()).unwrap();
        let lines = kept(&writer, "loud");
        let (last, whole) = lines.split_last().unwrap();
        // By then the number may not be written yet.
        let last = if last.starts_with('[') { last.clone() } else { kept(&writer, "loud").pop().unwrap() };
        let whole = whole.iter().chain(lines.last()).filter(|line| !line.starts_with('[')).count();
        assert_eq!(last, left_out_text((printed - whole).try_into().unwrap()));
        assert!(whole > INSTANCE_BYTES_MAX / 1200 && whole < printed, "{whole}");
        assert_eq!(kept(&writer, "quiet"), ["hello"]);
        writer.keep(vec![line("loud", "goes on")]);
        assert_eq!(kept(&writer, "loud").pop().unwrap(), "goes on");
    }

    #[tokio::test]
    async fn an_instance_is_held_up_once_for_a_disk_that_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LogWriter::start(folder.path().to_owned()).unwrap();
        let goes_on = writer.stall();
        let at_once =
            async |instance| tokio::time::timeout(Duration::ZERO, writer.room(instance)).await.is_ok();
        assert!(at_once("app").await);
        // The thread has begun to stand still: what comes now waits.
        while !writer.shared.lock().jobs.is_empty() {
            std::thread::yield_now();
        }
        writer.keep(vec![line("app", &"x".repeat(INSTANCE_BYTES_MAX * 3 / 4))]);
        assert!(!at_once("app").await, "it waits for the disk");
        writer.room("app").await;
        assert!(at_once("app").await && at_once("other").await);
        drop(goes_on);
    }

    #[test]
    fn only_so_many_files_are_open_and_none_loses_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for round in 0..2 {
            for instance in (0..=OPEN_FILES_MAX).map(|number| format!("app-{number}")) {
                let lines = vec![line(&instance, &format!("{round}"))];
                carry_out(LogJob::Keep(lines), folder.path(), &mut files);
                assert!(files.values().filter(|file| file.file.is_some()).count() <= OPEN_FILES_MAX);
            }
        }
        let text = std::fs::read_to_string(path_of(folder.path(), "app-0")).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_file_that_takes_nothing_costs_lines_whose_number_it_has_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), "app-1");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut file = LogFile::new(path.clone());
        for _ in 0..100 {
            file.keep("app-1", &[line("app-1", &"x".repeat(2000))]);
        }
        assert!(file.lost > 0 && file.lost < 100, "{}", file.lost);
        std::fs::remove_file(&path).unwrap();
        (file.file, file.lost) = (None, 7);
        file.keep("app-1", &[line("app-1", "goes on")]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
        assert_eq!(lines, ["[7 lines were left out]", "goes on"]);
        assert_eq!(file.lost, 0);
    }
}
