//! Log files: one for each destination, with a queue for each worker.
//!
//! Files arrive open from the supervisor, which may open what this process may not; a thread of `keel-telemetry` writes
//! them. A log that two configurations name is one log; one that the committed configuration doesn't name is closed when
//! the last request is done that was to be written to it.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use keel_telemetry::{Buffering, DatagramAddress, Log, LogWriter, Problem, Target};

use crate::error::CompileError;

/// How long standard output or error may take nothing at the end before what waits for it is given up.
const READER_PATIENCE: Duration = Duration::from_millis(100);

/// The logs of the committed configuration.
pub(super) struct LogFiles {
    writer: LogWriter,
    workers: usize,
    open: HashMap<LogKey, OpenLog>,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LogTarget {
    File(PathBuf),
    Stdout,
    Stderr,
    /// Files that requests name.
    ByPath,
    /// A syslog server.
    Datagrams(DatagramAddress),
}

/// What makes two configured logs one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LogKey {
    target: LogTarget,
    buffer_bytes: usize,
    flush: Option<Duration>,
}

/// A log for lines.
#[derive(Clone)]
pub(crate) struct OpenLog {
    /// For threads that aren't workers, and for what is rare.
    pub(crate) shared: Log,
    /// One queue for each worker.
    pub(crate) workers: Arc<[Log]>,
}

/// The logs that one configuration names, while it is compiled.
pub(crate) struct LogClaims<'a> {
    known: &'a LogFiles,
    files: HashMap<PathBuf, File>,
    claimed: Claimed,
}

/// The logs that a configuration names, until it is committed.
#[derive(Default)]
pub(super) struct Claimed {
    open: HashMap<LogKey, OpenLog>,
    /// Known logs, with the files that they go to from the commit on.
    reopened: Vec<(Log, File)>,
}

impl LogFiles {
    pub(super) fn new(workers: usize) -> io::Result<Self> {
        let writer = LogWriter::start(report)?;
        Ok(Self { writer, workers, open: HashMap::new() })
    }

    pub(super) fn claims(&self, files: Vec<(PathBuf, OwnedFd)>) -> LogClaims<'_> {
        let files = files.into_iter().map(|(path, file)| (path, File::from(file))).collect();
        LogClaims { known: self, files, claimed: Claimed::default() }
    }

    pub(super) fn commit(&mut self, claimed: Claimed) {
        for (log, file) in claimed.reopened {
            log.reopen(Target::File(file)).iter().for_each(report);
        }
        self.open = claimed.open;
    }

    /// Writes to these files from now on, and opens anew those that requests name.
    pub(super) fn reopen(&self, files: Vec<(PathBuf, OwnedFd)>) {
        let files: HashMap<PathBuf, File> =
            files.into_iter().map(|(path, file)| (path, File::from(file))).collect();
        for (key, log) in &self.open {
            let target = match &key.target {
                LogTarget::File(path) => match files.get(path).map(File::try_clone) {
                    Some(Ok(file)) => Target::File(file),
                    Some(Err(error)) => {
                        report(&Problem::Open { path: path.clone(), error });
                        continue;
                    }
                    None => continue,
                },
                LogTarget::ByPath => Target::ByPath,
                LogTarget::Stdout | LogTarget::Stderr | LogTarget::Datagrams(_) => continue,
            };
            log.shared.reopen(target).iter().for_each(report);
        }
    }

    pub(super) fn flush(&self) {
        self.writer.flush();
        keel_telemetry::stdout().flush(READER_PATIENCE);
        keel_telemetry::stderr().flush(READER_PATIENCE);
    }

    fn open(&self, target: Target, buffering: Buffering) -> OpenLog {
        let shared = self.writer.open(target, buffering);
        let workers = (0..self.workers).map(|_| shared.for_worker()).collect();
        OpenLog { shared, workers }
    }
}

/// Says what is wrong with a log: where nothing else is left to say it.
fn report(problem: &Problem) {
    keel_telemetry::stderr().push(format!("{problem}\n").as_bytes());
}

impl LogClaims<'_> {
    /// Claims a log.
    ///
    /// # Errors
    /// When its file is none of those that came along and can't be opened.
    pub(crate) fn log(&mut self, target: LogTarget, buffering: Buffering) -> Result<OpenLog, CompileError> {
        let key = LogKey { target, buffer_bytes: buffering.bytes, flush: buffering.flush };
        if let Some(log) = self.claimed.open.get(&key) {
            return Ok(log.clone());
        }
        let log = match self.known.open.get(&key) {
            Some(known) => {
                if let LogTarget::File(path) = &key.target
                    && let Some(file) = self.given_file(path)?
                {
                    self.claimed.reopened.push((known.shared.clone(), file));
                }
                known.clone()
            }
            None => {
                let target = match &key.target {
                    LogTarget::File(path) => Target::File(match self.given_file(path)? {
                        Some(file) => file,
                        None => open_file(path)?,
                    }),
                    LogTarget::Stdout => Target::Stdout,
                    LogTarget::Stderr => Target::Stderr,
                    LogTarget::ByPath => Target::ByPath,
                    LogTarget::Datagrams(address) => Target::Datagrams(address.clone()),
                };
                self.known.open(target, buffering)
            }
        };
        self.claimed.open.insert(key, log.clone());
        Ok(log)
    }

    /// The file that came along for a path; logs of one path that gather lines differently share it.
    fn given_file(&self, path: &Path) -> Result<Option<File>, CompileError> {
        let file = self.files.get(path).map(File::try_clone).transpose();
        file.map_err(|source| CompileError::Log { path: path.display().to_string(), source })
    }

    pub(super) fn finish(self) -> Claimed {
        self.claimed
    }
}

fn open_file(path: &Path) -> Result<File, CompileError> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path);
    opened.map_err(|source| CompileError::Log { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, sync::Arc};

    use super::*;

    fn pipe() -> (io::PipeReader, OwnedFd) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, writer.into())
    }

    fn file(path: &str) -> LogTarget {
        LogTarget::File(path.into())
    }

    #[test]
    fn one_log_has_one_queue_for_each_worker_however_many_places_name_it() {
        let mut logs = LogFiles::new(3).unwrap();
        let (_reader, writer) = pipe();
        let mut claims = logs.claims(vec![("a".into(), writer)]);
        let log = claims.log(file("a"), Buffering::default()).unwrap();
        for _ in 0..5 {
            let again = claims.log(file("a"), Buffering::default()).unwrap();
            assert!(Arc::ptr_eq(&log.workers, &again.workers));
        }
        assert_eq!(log.workers.len(), 3);
        let claimed = claims.finish();
        logs.commit(claimed);
        let (_reader, writer) = pipe();
        let mut claims = logs.claims(vec![("a".into(), writer)]);
        let after_reload = claims.log(file("a"), Buffering::default()).unwrap();
        assert!(Arc::ptr_eq(&log.workers, &after_reload.workers));
    }

    #[test]
    fn a_log_that_no_place_names_is_closed_once_its_last_request_is_done() {
        let mut logs = LogFiles::new(1).unwrap();
        let (mut reader, writer) = pipe();
        let mut claims = logs.claims(vec![("a".into(), writer)]);
        let used = claims.log(file("a"), Buffering::default()).unwrap();
        let claimed = claims.finish();
        logs.commit(claimed);
        let none = logs.claims(Vec::new()).finish();
        logs.commit(none);
        assert!(logs.open.is_empty());
        used.workers[0].append(b"late\n");
        drop(used);
        let mut text = String::new();
        // Ends once the writer has closed the other end.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "late\n");
    }

    #[test]
    fn a_reload_writes_to_the_new_file_from_its_commit_on() {
        let mut logs = LogFiles::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let given = |name: &str| vec![("a".into(), OwnedFd::from(File::create(at(name)).unwrap()))];
        let mut claims = logs.claims(given("old"));
        let log = claims.log(file("a"), Buffering::default()).unwrap();
        let claimed = claims.finish();
        logs.commit(claimed);
        let mut claims = logs.claims(given("new"));
        claims.log(file("a"), Buffering::default()).unwrap();
        log.shared.append(b"before\n");
        let claimed = claims.finish();
        logs.commit(claimed);
        log.shared.append(b"behind\n");
        logs.reopen(given("newest"));
        log.shared.append(b"last\n");
        logs.flush();
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        assert_eq!([read("old"), read("new"), read("newest")], ["before\n", "behind\n", "last\n"]);
    }
}
