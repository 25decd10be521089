//! Where this process's own messages go: standard error, and for a balancer with `error_log` nginx's files.

use std::{
    fmt,
    fs::File,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use keel_control::LogReaders;
use keel_model::{ErrorDestination, ErrorLog, LogLevel};
use keel_telemetry::{DatagramAddress, Datagrams, SyslogHeader, TimeText, left_out_text};
use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::terminal::{self, say};

/// The client of the cluster's API says each failed attempt; discovery says once that the API is away, and once that it is
/// back.
const CLUSTER_CLIENT: &str = "kube_client";

/// Sends messages to standard error, as a person reads them. `EVENKEEL_LOG` sets levels (`debug`, `keel_runner=trace`).
pub(crate) fn to_stderr() {
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| crate::terminal::Stderr)
        .with_ansi(crate::color::color() == keel_diag::Color::Ansi)
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
    output: Output,
    level: LogLevel,
}

#[derive(Debug)]
enum Output {
    Stderr,
    File {
        file: File,
        /// Lines that the file didn't take since the last one that it took.
        left_out: u64,
    },
    Syslog {
        header: SyslogHeader,
        datagrams: Datagrams,
        time: Box<TimeText>,
    },
}

impl ErrorLogs {
    /// Opens these logs and writes to them from now on. One that can't be opened is said on standard error.
    pub(crate) fn set(&self, logs: &[ErrorLog]) {
        let opened = logs.iter().filter_map(|log| Some(Destination { output: open(log)?, level: log.level }));
        let opened = opened.collect();
        *self.destinations.lock().unwrap_or_else(PoisonError::into_inner) = opened;
    }

    fn write(&self, level: LogLevel, line: &str) {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        for destination in destinations.iter_mut().filter(|destination| level <= destination.level) {
            destination.output.write(level, line);
        }
    }
}

fn open(log: &ErrorLog) -> Option<Output> {
    match &log.destination {
        ErrorDestination::Stderr => Some(Output::Stderr),
        ErrorDestination::File(path) => match keel_control::open_log(path, None, LogReaders::Everybody) {
            Ok(file) => Some(Output::File { file, left_out: 0 }),
            Err(error) => {
                say!("evenkeel: can't open the error log {}: {error}", path.display());
                None
            }
        },
        ErrorDestination::Syslog(syslog) => Some(Output::Syslog {
            header: SyslogHeader::new(syslog, &keel_sys::hostname()),
            datagrams: Datagrams::to(DatagramAddress::of(&syslog.server)?),
            time: Box::default(),
        }),
    }
}

impl Output {
    /// Writes a line. A log on a full disk, or a pipe that nobody reads, is no reason to stop serving or to wait; the number
    /// of lines that are missing stands before the next one.
    fn write(&mut self, level: LogLevel, line: &str) {
        match self {
            Output::Stderr => terminal::say_text(line),
            Output::File { file, left_out } => {
                let missing =
                    if *left_out > 0 { format!("{}\n", left_out_text(*left_out)) } else { String::new() };
                match file.write_all(format!("{missing}{line}").as_bytes()) {
                    Ok(()) => *left_out = 0,
                    Err(_) => *left_out += 1,
                }
            }
            Output::Syslog { header, datagrams, time } => {
                let mut message = Vec::new();
                header.append_as(level, time.syslog(SystemTime::now()), &mut message);
                message.extend_from_slice(line.trim_end().as_bytes());
                // As with any message to syslog, nobody learns of one that was lost.
                let _ = datagrams.send(&message);
            }
        }
    }
}

struct NginxLayer {
    logs: ErrorLogs,
}

impl<S: Subscriber> Layer<S> for NginxLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with(CLUSTER_CLIENT) {
            return;
        }
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
