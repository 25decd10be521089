//! ngx_http_log_module: access logs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Part, Template, Variable, settings::settings};

settings! {
    /// `access_log`.
    pub struct LogScope, set by LogLayer {
        /// Every log that a request here is written to. Empty for `off`.
        logs: Vec<AccessLog> = vec![AccessLog::combined("logs/access.log")];
    }
}

/// One access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Where to; a template with variables opens files per request.
    pub destination: LogDestination,
    /// What a line holds.
    pub format: LogFormat,
    /// `buffer=`; `None` writes each line as soon as it can be.
    pub buffer: Option<ByteSize>,
    /// `flush=`: how long a line may wait in the buffer.
    pub flush: Option<Duration>,
    /// `if=`: nothing is logged when this is empty or `0`.
    pub condition: Option<Template>,
}

impl AccessLog {
    /// Makes a log of every request in the format `combined`.
    pub fn combined(path: &str) -> Self {
        Self {
            destination: LogDestination::File(Template::literal(path)),
            format: LogFormat::combined(),
            buffer: None,
            flush: None,
            condition: None,
        }
    }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDestination {
    /// A file; relative paths have been made absolute with the prefix.
    File(Template),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A syslog server.
    Syslog(Syslog),
}

/// `syslog:server=...`: a server that gets a datagram for each line (RFC 3164).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Syslog {
    /// Where it is.
    pub server: SyslogServer,
    /// `facility=`, 0 to 23. Default 23, `local7`.
    pub facility: u8,
    /// `severity=` of access logs; error logs have that of the entry. Default `info`.
    pub severity: LogLevel,
    /// `tag=`, 32 letters, digits and underscores at most. Default `nginx`.
    pub tag: String,
    /// Whether this host's name stands in the message; not so with `nohostname`.
    pub has_hostname: bool,
}

/// Where a syslog server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SyslogServer {
    /// At an address, by UDP.
    Udp(SocketAddr),
    /// At the path of a unix socket.
    Unix(PathBuf),
    /// A host's name, until it is looked up; nothing is sent before.
    Name {
        /// The name as written.
        host: String,
        /// The port, 514 if none is written.
        port: u16,
    },
}

/// `log_format`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFormat {
    /// Its name; `combined` is built in.
    pub name: String,
    /// How values are escaped.
    pub escape: LogEscape,
    /// The line without its end.
    pub line: Template,
}

impl LogFormat {
    /// Makes the built-in format `combined`.
    pub fn combined() -> Self {
        let literal = |text: &str| Part::Literal(text.to_owned());
        let header = |name: &str| Part::Variable(Variable::RequestHeader(name.to_owned()));
        let parts = vec![
            Part::Variable(Variable::RemoteAddr),
            literal(" - "),
            Part::Variable(Variable::RemoteUser),
            literal(" ["),
            Part::Variable(Variable::TimeLocal),
            literal("] \""),
            Part::Variable(Variable::Request),
            literal("\" "),
            Part::Variable(Variable::Status),
            literal(" "),
            Part::Variable(Variable::BodyBytesSent),
            literal(" \""),
            header("referer"),
            literal("\" \""),
            header("user_agent"),
            literal("\""),
        ];
        Self { name: "combined".into(), escape: LogEscape::Default, line: Template { parts } }
    }
}

/// `escape=` of `log_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogEscape {
    /// `\xXX` for quotes, backslashes and control bytes; a missing value is `-`.
    #[default]
    Default,
    /// JSON strings; a missing value is empty.
    Json,
    /// As it is; a missing value is empty.
    None,
}

/// Severity of a log line, most severe first (`error_log`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "syslog's names")]
pub enum LogLevel {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}
