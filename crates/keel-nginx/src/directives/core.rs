//! ngx_core_module: the process.

use std::{path::PathBuf, time::Duration};

use keel_diag::{Diagnostic, Span};
use keel_model::{ErrorDestination, ErrorLog, LogLevel};

use super::syslog::{self, LEVELS};
use crate::{
    WorkerProcesses,
    arguments::{flag, msec, number, path},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// What the main context sets.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) daemon: Option<bool>,
    pub(crate) master_process: Option<bool>,
    pub(crate) pid: Option<PathBuf>,
    pub(crate) lock_file: Option<PathBuf>,
    pub(crate) error_logs: Vec<ErrorLog>,
    pub(crate) user: Option<UserText>,
    pub(crate) env: Vec<(String, Option<String>)>,
    pub(crate) worker_processes: Option<WorkerProcesses>,
    pub(crate) open_files_max: Option<u64>,
    pub(crate) shutdown_timeout: Option<Duration>,
    pub(crate) http: Option<Span>,
}

/// A `user` directive; the names are not looked up here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserText {
    /// The user's name.
    pub name: String,
    /// The group's name; `None` for the group of the same name.
    pub group: Option<String>,
    /// The directive.
    pub span: Span,
}

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "include",
        syntax: "file | pattern",
        contexts: Contexts::ANY,
        arity: Arity::ONE,
        default: None,
        doc: "Reads another file, or all that a pattern with `*`, `?` and `[` matches, as if their text stood here. \
              Relative paths begin beside the configuration file. `mime.types` and `proxy_params` are there even \
              where nginx is not installed.",
        // `include.rs` has replaced it before anything is read.
        set: Setter::Simple(|_, _| {}),
    },
    Row {
        name: "daemon",
        syntax: "on | off",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether `evenkeel serve` goes to the background once its ports listen.",
        set: Setter::Simple(|reader, directive| reader.once(directive, |frame| &mut frame.core.daemon, flag)),
    },
    Row {
        name: "master_process",
        syntax: "on | off",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Read for the sake of existing files; the data plane is a process of its own either way.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.core.master_process, flag);
        }),
    },
    Row {
        name: "pid",
        syntax: "file",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: Some("logs/nginx.pid"),
        doc: "The file that holds the supervisor's process id. It appears once the ports listen.",
        set: Setter::Simple(|reader, directive| reader.once(directive, |frame| &mut frame.core.pid, path)),
    },
    Row {
        name: "lock_file",
        syntax: "file",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: Some("logs/nginx.lock"),
        doc: "Read for the sake of existing files; workers need no lock between them.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.core.lock_file, path)
        }),
    },
    Row {
        name: "error_log",
        syntax: "file | stderr | syslog:server=address[,parameter=value] [debug | info | notice | warn | error | crit | alert | emerg]",
        contexts: Contexts::MAIN,
        arity: Arity::AtLeast(1),
        default: Some("logs/error.log error"),
        doc: "Where errors are logged and from which severity on. It may be given several times.",
        set: Setter::Simple(|reader, directive| {
            if let Some(log) = error_log(reader, directive) {
                reader.frame.core.error_logs.push(log);
            }
        }),
    },
    Row {
        name: "user",
        syntax: "user [group]",
        contexts: Contexts::MAIN,
        arity: Arity::Take(1, 2),
        default: Some("nobody nobody"),
        doc: "The user and group that the data plane becomes when it is started by root. Without a group, the group \
              of the same name.",
        set: Setter::Simple(|reader, directive| reader.once(directive, |frame| &mut frame.core.user, user)),
    },
    Row {
        name: "env",
        syntax: "variable[=value]",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: Some("TZ"),
        doc: "Read for the sake of existing files: nothing in the data plane reads its environment. The times of logs \
              follow the `TZ` that Evenkeel is started with.",
        set: Setter::Simple(|reader, directive| {
            let text = directive.arg(0);
            if text.starts_with("TZ=") {
                reader.diagnostics.push(
                    Diagnostic::warning("nginx::ignored-timezone", "`env TZ=...` has no effect")
                        .at(directive.span(), "logs have the time of the zone that Evenkeel is started in")
                        .help(format!("start Evenkeel with {text}")),
                );
            }
            let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
            reader.frame.core.env.push(pair.unwrap_or_else(|| (text.to_owned(), None)));
        }),
    },
    Row {
        name: "worker_processes",
        syntax: "number | auto",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: Some("1"),
        doc: "How many workers the data plane has; each is a thread with connections of its own. `auto` is one for \
              each core.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.core.worker_processes, worker_processes);
        }),
    },
    Row {
        name: "worker_rlimit_nofile",
        syntax: "number",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: None,
        doc: "The limit of open files for each worker; the data plane may open as many as all of them together.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.core.open_files_max, number);
        }),
    },
    Row {
        name: "worker_shutdown_timeout",
        syntax: "time",
        contexts: Contexts::MAIN,
        arity: Arity::ONE,
        default: None,
        doc: "How long connections may go on after a graceful shutdown began.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.core.shutdown_timeout, msec);
        }),
    },
];

/// Reads an `error_log` directive, here or in `http`.
pub(crate) fn error_log(reader: &mut Reader<'_>, directive: &Directive) -> Option<ErrorLog> {
    let (destination, levels) = directive.args.split_first()?;
    let mut level = None;
    for word in levels {
        match LEVELS.iter().find(|(name, _)| *name == word.text) {
            Some((_, found)) if level.is_none() => level = Some(*found),
            // debug_core, debug_http and their like are parts of debug.
            None if word.text.starts_with("debug_") => level = Some(LogLevel::Debug),
            Some(_) => {
                let nginx = format!("duplicate log level \"{}\"", word.text);
                reader.error("nginx::duplicate-log-level", "a second log level", word.span, nginx);
            }
            None => {
                let nginx = format!("invalid log level \"{}\"", word.text);
                reader.invalid(directive, word, nginx, "a level from `debug` to `emerg`");
            }
        }
    }
    let level = level.unwrap_or(LogLevel::Error);
    let text = destination.text.as_str();
    if text.starts_with("syslog:") {
        let syslog = syslog::read(reader, directive, destination)?;
        return Some(ErrorLog { destination: ErrorDestination::Syslog(syslog), level });
    }
    if text.starts_with("memory:") {
        reader.diagnostics.push(
            Diagnostic::warning("nginx::unsupported-log", "this log destination is not there yet")
                .at(destination.span, "nothing is written here")
                .help("log to a file or to `stderr`"),
        );
        return None;
    }
    let destination = match text {
        "" | "stderr" => ErrorDestination::Stderr,
        path => ErrorDestination::File(reader.absolute(path)),
    };
    Some(ErrorLog { destination, level })
}

fn user(_: &mut Reader<'_>, directive: &Directive) -> Option<UserText> {
    let name = directive.args.first()?.text.clone();
    let group = directive.args.get(1).map(|word| word.text.clone());
    Some(UserText { name, group, span: directive.span() })
}

fn worker_processes(reader: &mut Reader<'_>, directive: &Directive) -> Option<WorkerProcesses> {
    let word = directive.args.first()?;
    if word.text == "auto" {
        return Some(WorkerProcesses::Auto);
    }
    let count =
        value::number(&word.text).and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0);
    if count.is_none() {
        let nginx = "\"worker_processes\" directive invalid value".to_owned();
        reader.invalid(directive, word, nginx, "a number, at least 1, or `auto`");
    }
    count.map(WorkerProcesses::Count)
}
