//! Where this process's own messages go: standard error, and for a balancer with `error_log` nginx's files.

use std::{
    fmt,
    fs::File,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use keel_control::LogReaders;
use keel_model::{ErrorLog, LogLevel};
use keel_telemetry::left_out_text;
use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::terminal::{self, say};

/// Sends messages to standard error, as a person reads them. `EVENKEEL_LOG` sets levels (`debug`, `keel_runner=trace`).
pub(crate) fn to_stderr() {
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| crate::terminal::Stderr)
        .with_ansi(crate::project::color() == keel_diag::Color::Ansi)
        .without_time()
        .with_target(false);
    drop(tracing_subscriber::registry().with(layer.with_filter(filter)).try_init());
}

/// Sends messages to error logs in nginx's form, once the returned handle has been told which.
pub(crate) fn to_error_logs() -> ErrorLogs {
    let logs = ErrorLogs { destinations: Arc::new(Mutex::new(Vec::new())) };
    drop(tracing_subscriber::registry().with(NginxLayer { logs: logs.clone() }).try_init());
    logs
}

/// The error logs in effect.
#[derive(Clone, Debug)]
pub(crate) struct ErrorLogs {
    destinations: Arc<Mutex<Vec<Destination>>>,
}

#[derive(Debug)]
struct Destination {
    file: Option<File>,
    level: LogLevel,
    /// Lines that the file didn't take since the last one that it took.
    left_out: u64,
}

impl ErrorLogs {
    /// Opens these logs and writes to them from now on. One that can't be opened is said on standard error.
    pub(crate) fn set(&self, logs: &[ErrorLog]) {
        let open = |log: &ErrorLog| {
            let file = match &log.path {
                None => None,
                Some(path) => match keel_control::open_log(path, None, LogReaders::Everybody) {
                    Ok(file) => Some(file),
                    Err(error) => {
                        say!("evenkeel: can't open the error log {}: {error}", path.display());
                        return None;
                    }
                },
            };
            Some(Destination { file, level: log.level, left_out: 0 })
        };
        let opened = logs.iter().filter_map(open).collect();
        *self.destinations.lock().unwrap_or_else(PoisonError::into_inner) = opened;
    }

    fn write(&self, level: LogLevel, line: &str) {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        for destination in destinations.iter_mut().filter(|destination| level <= destination.level) {
            destination.write(line);
        }
    }
}

impl Destination {
    /// Writes a line. A log on a full disk, or a pipe that nobody reads, is no reason to stop serving or to wait; the number
    /// of lines that are missing stands before the next one.
    fn write(&mut self, line: &str) {
        let Some(file) = &mut self.file else { return terminal::say_text(line) };
        let missing =
            if self.left_out > 0 { format!("{}\n", left_out_text(self.left_out)) } else { String::new() };
        match file.write_all(format!("{missing}{line}").as_bytes()) {
            Ok(()) => self.left_out = 0,
            Err(_) => self.left_out += 1,
        }
    }
}

struct NginxLayer {
    logs: ErrorLogs,
}

impl<S: Subscriber> Layer<S> for NginxLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Notice,
            Level::DEBUG | Level::TRACE => LogLevel::Debug,
        };
        let mut text = Text(String::new());
        event.record(&mut text);
        let name = match level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Notice => "notice",
            _ => "debug",
        };
        let pid = std::process::id();
        let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S");
        self.logs.write(level, &format!("{now} [{name}] {pid}#{pid}: {}\n", text.0.escape_debug_controls()));
    }
}

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}{}", self.0);
        } else {
            self.0.push_str(&format!(", {}: {value:?}", field.name()));
        }
    }
}

trait EscapeControls {
    fn escape_debug_controls(&self) -> String;
}

impl EscapeControls for str {
    /// Makes control characters harmless: what came from outside must not end a line or steer a terminal.
    fn escape_debug_controls(&self) -> String {
        let mut out = String::with_capacity(self.len());
        for character in self.chars() {
            if character.is_control() {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        out
    }
}
