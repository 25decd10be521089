//! Access and error logs, as snapshots use them.
//!
//! Files arrive open from the supervisor, which may open what this process may not; a thread of `keel-telemetry` writes
//! them. A log that two snapshots share is one log.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use keel_model::{AccessLog, LogDestination, LogScope, Template};
use keel_telemetry::{Buffering, Entry, ErrorLog, Format, Log, LogWriter, Target, Values};

use crate::{snapshot::CompileError, variables::Lookup};

/// How long standard output or error may take nothing at the end before what waits for it is given up.
const READER_PATIENCE: Duration = Duration::from_millis(100);

/// All logs of the process.
pub(crate) struct LogFiles {
    writer: LogWriter,
    workers: usize,
    open: Mutex<HashMap<LogKey, Log>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LogTarget {
    File(PathBuf),
    Stdout,
    Stderr,
    ByPath,
}

/// What makes two configured logs one: where it goes, bytes gathered, how long they may wait.
type LogKey = (LogTarget, usize, Option<Duration>);

/// The access logs of one place.
pub(crate) type AccessLogs = Vec<CompiledAccessLog>;

/// The error log of one place, where it isn't the process's.
pub(crate) type ErrorLogs = Option<Arc<ErrorLog>>;

/// One access log, ready for lines.
pub(crate) struct CompiledAccessLog {
    format: Format,
    condition: Option<Template>,
    /// Where a file is named by the request.
    path: Option<Template>,
    /// One queue for each worker.
    logs: Vec<Log>,
}

impl LogFiles {
    pub(crate) fn new(workers: usize) -> std::io::Result<Self> {
        let writer = LogWriter::start(|problem| {
            // The log itself is what fails, so standard error is what is left.
            keel_telemetry::stderr().push(format!("{problem}\n").as_bytes());
        })?;
        Ok(Self { writer, workers, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LogKey, Log>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes files that the supervisor has opened: logs go to these from now on.
    pub(crate) fn take(&self, files: Vec<(PathBuf, OwnedFd)>) {
        let mut open = self.lock();
        for (path, file) in files {
            let file = File::from(file);
            let target = LogTarget::File(path);
            let known: Vec<Log> =
                open.iter().filter(|((known, ..), _)| *known == target).map(|(_, log)| log.clone()).collect();
            for log in &known {
                if let Ok(file) = file.try_clone() {
                    log.reopen(Target::File(file));
                }
            }
            if known.is_empty() {
                let log = self.writer.open(Target::File(file), Buffering::default());
                open.insert((target, 0, None), log);
            }
        }
    }

    fn log(&self, target: LogTarget, buffering: Buffering) -> Result<Log, CompileError> {
        let mut open = self.lock();
        let key = (target, buffering.bytes, buffering.flush);
        if let Some(log) = open.get(&key) {
            return Ok(log.clone());
        }
        let output = match &key.0 {
            LogTarget::File(path) => Target::File(open_file(path)?),
            LogTarget::Stdout => Target::Stdout,
            LogTarget::Stderr => Target::Stderr,
            LogTarget::ByPath => Target::ByPath,
        };
        let log = self.writer.open(output, buffering);
        open.insert(key, log.clone());
        Ok(log)
    }

    /// Prepares the access logs of a place.
    pub(crate) fn access(&self, scope: &LogScope) -> Result<AccessLogs, CompileError> {
        scope.logs.iter().map(|log| self.access_log(log)).collect()
    }

    fn access_log(&self, log: &AccessLog) -> Result<CompiledAccessLog, CompileError> {
        let bytes = log.buffer.map_or(0, keel_model::ByteSize::as_usize);
        let buffering = Buffering { bytes, flush: log.flush };
        let (target, path) = match &log.destination {
            LogDestination::File(path) => match path.as_literal() {
                Some(path) => (LogTarget::File(path.into()), None),
                None => (LogTarget::ByPath, Some(path.clone())),
            },
            LogDestination::Stdout => (LogTarget::Stdout, None),
            LogDestination::Stderr => (LogTarget::Stderr, None),
        };
        let handle = self.log(target, buffering)?;
        Ok(CompiledAccessLog {
            format: Format::new(&log.format),
            condition: log.condition.clone(),
            path,
            logs: (0..self.workers).map(|_| handle.for_worker()).collect(),
        })
    }

    /// Prepares the error log of a place; `None` where the list is empty.
    pub(crate) fn errors(&self, logs: &[keel_model::ErrorLog]) -> Result<ErrorLogs, CompileError> {
        if logs.is_empty() {
            return Ok(None);
        }
        let logs = logs.iter().map(|log| {
            let target = log.path.clone().map_or(LogTarget::Stderr, LogTarget::File);
            Ok((self.log(target, Buffering::default())?, log.level))
        });
        let logs = logs.collect::<Result<Vec<_>, CompileError>>()?;
        Ok(Some(Arc::new(ErrorLog::new(logs, std::process::id()))))
    }

    /// Prepares the process's error log; standard error where none is configured.
    pub(crate) fn process_errors(
        &self,
        logs: &[keel_model::ErrorLog],
    ) -> Result<Arc<ErrorLog>, CompileError> {
        let stderr = [keel_model::ErrorLog { path: None, level: keel_model::LogLevel::Error }];
        let errors = self.errors(if logs.is_empty() { &stderr } else { logs })?;
        Ok(errors.unwrap_or_else(|| Arc::new(ErrorLog::new(Vec::new(), std::process::id()))))
    }

    /// Waits until everything logged so far is written.
    pub(crate) fn flush(&self) {
        self.writer.flush();
        keel_telemetry::stdout().flush(READER_PATIENCE);
        keel_telemetry::stderr().flush(READER_PATIENCE);
    }
}

fn open_file(path: &Path) -> Result<File, CompileError> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path);
    opened.map_err(|source| CompileError::Log { path: path.display().to_string(), source })
}

impl CompiledAccessLog {
    /// Writes the line of a request, unless the log's condition says not to.
    pub(crate) fn write(&self, lookup: Lookup<'_>) {
        if let Some(condition) = &self.condition {
            let mut value = Vec::new();
            lookup.append_template(condition, &mut value);
            if value.is_empty() || value == b"0" {
                return;
            }
        }
        let Some(log) = self.logs.get(lookup.worker.index) else { return };
        match &self.path {
            None => log.append_with(|out| self.format.append_line(&lookup, out)),
            Some(path) => {
                use std::os::unix::ffi::OsStrExt;
                let mut name = Vec::new();
                lookup.append_template(path, &mut name);
                let mut line = Vec::new();
                self.format.append_line(&lookup, &mut line);
                log.append_to(Path::new(std::ffi::OsStr::from_bytes(&name)), &line);
            }
        }
    }
}

impl Values for Lookup<'_> {
    fn append(&self, variable: &keel_model::Variable, out: &mut Vec<u8>) -> bool {
        Lookup::append(self, variable, out)
    }
}

/// Writes an entry about the process as a whole.
pub(crate) fn process_entry(errors: &ErrorLog, level: keel_model::LogLevel, text: std::fmt::Arguments<'_>) {
    errors.write(&Entry { now: SystemTime::now(), level, tid: thread_id(), connection: None, text });
}

/// Gives the kernel's number of this thread.
pub(crate) fn thread_id() -> u64 {
    u64::from(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
}
