//! Access and error logs of places, compiled. The files are in [`stores`](crate::stores).

use std::{path::Path, sync::Arc, time::SystemTime};

use keel_model::{AccessLog, ErrorDestination, LogDestination, LogScope, Template};
use keel_telemetry::{Buffering, DatagramAddress, Entry, ErrorLog, Format, Log, SyslogHeader, Values};

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
    output: AccessOutput,
    /// One queue for each worker.
    queues: Arc<[Log]>,
}

/// Where the lines of an access log go.
enum AccessOutput {
    /// To one file, or to standard output or error.
    Lines,
    /// To the file that the request names.
    Named(Template),
    /// To a syslog server, each with this before it.
    Syslog(SyslogHeader),
}

/// Prepares the access logs of a place.
pub(crate) fn access(scope: &LogScope, claims: &mut LogClaims<'_>) -> Result<AccessLogs, CompileError> {
    scope.logs.iter().filter_map(|log| CompiledAccessLog::compile(log, claims).transpose()).collect()
}

/// Prepares the error log of a place; `None` where the list is empty.
pub(crate) fn errors(
    logs: &[keel_model::ErrorLog],
    claims: &mut LogClaims<'_>,
) -> Result<ErrorLogs, CompileError> {
    if logs.is_empty() {
        return Ok(None);
    }
    let mut errors = ErrorLog::new(Vec::new(), std::process::id());
    for log in logs {
        let target = match &log.destination {
            ErrorDestination::Stderr => LogTarget::Stderr,
            ErrorDestination::File(path) => LogTarget::File(path.clone()),
            ErrorDestination::Syslog(syslog) => {
                if let Some(address) = DatagramAddress::of(&syslog.server) {
                    let log_to = claims.log(LogTarget::Datagrams(address), Buffering::default())?.shared;
                    errors.add_syslog(log_to, log.level, SyslogHeader::new(syslog, &keel_sys::hostname()));
                }
                continue;
            }
        };
        errors.add(claims.log(target, Buffering::default())?.shared, log.level);
    }
    Ok(Some(Arc::new(errors)))
}

/// Prepares the process's error log; standard error where none is configured.
pub(crate) fn process_errors(
    logs: &[keel_model::ErrorLog],
    claims: &mut LogClaims<'_>,
) -> Result<Arc<ErrorLog>, CompileError> {
    let stderr =
        [keel_model::ErrorLog { destination: ErrorDestination::Stderr, level: keel_model::LogLevel::Error }];
    let errors = errors(if logs.is_empty() { &stderr } else { logs }, claims)?;
    Ok(errors.unwrap_or_else(|| Arc::new(ErrorLog::new(Vec::new(), std::process::id()))))
}

impl CompiledAccessLog {
    /// Prepares a log; none where it goes to a server whose name was not looked up.
    fn compile(log: &AccessLog, claims: &mut LogClaims<'_>) -> Result<Option<Self>, CompileError> {
        let bytes = log.buffer.map_or(0, keel_model::ByteSize::as_usize);
        let buffering = Buffering { bytes, flush: log.flush };
        let (target, output) = match &log.destination {
            LogDestination::File(path) => match path.as_literal() {
                Some(path) => (LogTarget::File(path.into()), AccessOutput::Lines),
                None => (LogTarget::ByPath, AccessOutput::Named(path.clone())),
            },
            LogDestination::Stdout => (LogTarget::Stdout, AccessOutput::Lines),
            LogDestination::Stderr => (LogTarget::Stderr, AccessOutput::Lines),
            LogDestination::Syslog(syslog) => {
                let Some(address) = DatagramAddress::of(&syslog.server) else { return Ok(None) };
                let header = SyslogHeader::new(syslog, &keel_sys::hostname());
                (LogTarget::Datagrams(address), AccessOutput::Syslog(header))
            }
        };
        let queues = claims.log(target, buffering)?.workers;
        Ok(Some(Self { format: Format::new(&log.format), condition: log.condition.clone(), output, queues }))
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
        match &self.output {
            AccessOutput::Lines => log.append_with(|out| self.format.append_line(&lookup, out)),
            AccessOutput::Syslog(header) => log.append_datagram(|out| {
                let mut time = lookup.worker.time_text.borrow_mut();
                header.append(time.syslog(lookup.worker.system_time()), out);
                drop(time);
                self.format.append_line(&lookup, out);
                out.pop();
            }),
            AccessOutput::Named(path) => {
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
