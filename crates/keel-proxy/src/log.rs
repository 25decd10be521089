//! Access and error logs of places, compiled. The files are in [`stores`](crate::stores).

use std::{path::Path, sync::Arc, time::SystemTime};

use keel_model::{AccessLog, LogDestination, LogScope, Template};
use keel_telemetry::{Buffering, Entry, ErrorLog, Format, Log, Values};

use crate::{
    error::CompileError,
    stores::logs::{LogClaims, LogTarget},
    variables::Lookup,
};

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
    queues: Arc<[Log]>,
}

/// Prepares the access logs of a place.
pub(crate) fn access(scope: &LogScope, claims: &mut LogClaims<'_>) -> Result<AccessLogs, CompileError> {
    scope.logs.iter().map(|log| CompiledAccessLog::compile(log, claims)).collect()
}

/// Prepares the error log of a place; `None` where the list is empty.
pub(crate) fn errors(
    logs: &[keel_model::ErrorLog],
    claims: &mut LogClaims<'_>,
) -> Result<ErrorLogs, CompileError> {
    if logs.is_empty() {
        return Ok(None);
    }
    let logs = logs.iter().map(|log| {
        let target = log.path.clone().map_or(LogTarget::Stderr, LogTarget::File);
        Ok((claims.log(target, Buffering::default())?.shared, log.level))
    });
    let logs = logs.collect::<Result<Vec<_>, CompileError>>()?;
    Ok(Some(Arc::new(ErrorLog::new(logs, std::process::id()))))
}

/// Prepares the process's error log; standard error where none is configured.
pub(crate) fn process_errors(
    logs: &[keel_model::ErrorLog],
    claims: &mut LogClaims<'_>,
) -> Result<Arc<ErrorLog>, CompileError> {
    let stderr = [keel_model::ErrorLog { path: None, level: keel_model::LogLevel::Error }];
    let errors = errors(if logs.is_empty() { &stderr } else { logs }, claims)?;
    Ok(errors.unwrap_or_else(|| Arc::new(ErrorLog::new(Vec::new(), std::process::id()))))
}

impl CompiledAccessLog {
    fn compile(log: &AccessLog, claims: &mut LogClaims<'_>) -> Result<Self, CompileError> {
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
        let queues = claims.log(target, buffering)?.workers;
        Ok(Self { format: Format::new(&log.format), condition: log.condition.clone(), path, queues })
    }

    /// Writes the line of a request, unless the log's condition says not to.
    pub(crate) fn write(&self, lookup: Lookup<'_>) {
        if let Some(condition) = &self.condition {
            let mut value = Vec::new();
            lookup.append_template(condition, &mut value);
            if value.is_empty() || value == b"0" {
                return;
            }
        }
        let Some(log) = self.queues.get(lookup.worker.index) else { return };
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
