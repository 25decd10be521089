//! The error log in nginx's form: `2026/01/02 03:04:05 [error] 12#34: *5 text`.

use std::{
    fmt::{self, Write as _},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use keel_model::LogLevel;

use crate::{Log, SyslogHeader, TimeText, escape::write_hex};

/// The longest line, its end included; the rest is cut off.
const LINE_BYTES_MAX: usize = 2048;

/// Logs that errors are written to, each from a level on.
#[derive(Debug)]
pub struct ErrorLog {
    logs: Vec<(Log, LogLevel)>,
    syslogs: Vec<(Log, LogLevel, SyslogHeader)>,
    pid: u32,
    time: Mutex<TimeText>,
}

/// What is logged.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The time.
    pub now: SystemTime,
    /// How bad it is.
    pub level: LogLevel,
    /// The thread's number.
    pub tid: u64,
    /// The connection's number (`*5`), if it is about one.
    pub connection: Option<u64>,
    /// What is said. Control bytes in it are escaped.
    pub text: fmt::Arguments<'a>,
}

impl ErrorLog {
    /// Makes one for a process.
    pub fn new(logs: Vec<(Log, LogLevel)>, pid: u32) -> Self {
        Self { logs, syslogs: Vec::new(), pid, time: Mutex::new(TimeText::new()) }
    }

    /// Adds a log.
    pub fn add(&mut self, log: Log, level: LogLevel) {
        self.logs.push((log, level));
    }

    /// Adds a log whose target is [`Target::Datagrams`](crate::Target::Datagrams).
    pub fn add_syslog(&mut self, log: Log, level: LogLevel, header: SyslogHeader) {
        self.syslogs.push((log, level, header));
    }

    /// Says whether an entry of this level is written anywhere.
    pub fn is_enabled(&self, level: LogLevel) -> bool {
        let levels = self.logs.iter().map(|(_, least)| least);
        levels.chain(self.syslogs.iter().map(|(_, least, _)| least)).any(|least| level <= *least)
    }

    /// Writes an entry to all logs that take its level. Doesn't block.
    pub fn write(&self, entry: &Entry<'_>) {
        if !self.is_enabled(entry.level) {
            return;
        }
        let line = self.line(entry);
        for (log, least) in &self.logs {
            if entry.level <= *least {
                log.append(&line);
            }
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        for (log, least, header) in &self.syslogs {
            if entry.level <= *least {
                let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
                log.append_datagram(|out| {
                    header.append_as(entry.level, time.syslog(entry.now), out);
                    out.extend_from_slice(text);
                });
            }
        }
    }

    fn line(&self, entry: &Entry<'_>) -> Vec<u8> {
        let mut line = String::with_capacity(160);
        {
            let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
            line.push_str(time.error_log(entry.now));
        }
        // Writing to a String fails only if what is written does.
        let _ = write!(line, " [{}] {}#{}: ", level_name(entry.level), self.pid, entry.tid);
        if let Some(connection) = entry.connection {
            let _ = write!(line, "*{connection} ");
        }
        let _ = line.write_fmt(entry.text);
        let mut bytes = Vec::with_capacity(line.len() + 1);
        for byte in line.into_bytes() {
            if byte < 0x20 || byte == 0x7f { write_hex(byte, &mut bytes) } else { bytes.push(byte) }
        }
        bytes.truncate(LINE_BYTES_MAX - 1);
        bytes.push(b'\n');
        bytes
    }
}

/// The word for a level in a line: `emerg` to `debug`.
pub fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Emerg => "emerg",
        LogLevel::Alert => "alert",
        LogLevel::Crit => "crit",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Notice => "notice",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Buffering, LogWriter, Target};

    #[test]
    fn writes_lines_as_nginx_to_logs_of_the_level() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let writer = LogWriter::start(|_| {}).unwrap();
        let open = |name| {
            let file = std::fs::File::create(path(name)).unwrap();
            writer.open(Target::File(file), Buffering::default())
        };
        let errors = ErrorLog::new(vec![(open("all"), LogLevel::Info), (open("bad"), LogLevel::Error)], 12);
        let write = |level, connection, text: &str| {
            errors.write(&Entry {
                now: UNIX_EPOCH,
                level,
                tid: 34,
                connection,
                text: format_args!("{text}"),
            });
        };
        write(LogLevel::Error, Some(5), "connect() failed\r\n\x1b[0m é");
        write(LogLevel::Notice, None, "signal process started");
        write(LogLevel::Debug, None, "nobody reads this");
        write(LogLevel::Crit, None, &"x".repeat(5000));
        writer.flush();
        let all = std::fs::read_to_string(path("all")).unwrap();
        let lines: Vec<&str> = all.lines().map(|line| line.get(20..).unwrap()).collect();
        assert_eq!(lines[0], r"[error] 12#34: *5 connect() failed\x0D\x0A\x1B[0m é");
        assert_eq!(lines[1], "[notice] 12#34: signal process started");
        assert_eq!(lines[2].len() + 20, LINE_BYTES_MAX - 1);
        assert_eq!(lines.len(), 3);
        assert_eq!(std::fs::read_to_string(path("bad")).unwrap().lines().count(), 2);
        assert!(errors.is_enabled(LogLevel::Info) && !errors.is_enabled(LogLevel::Debug));
    }
}
