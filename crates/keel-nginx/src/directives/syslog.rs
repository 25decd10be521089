//! `syslog:server=address[,parameter=value ...]`, a place for `access_log` and `error_log`.

use keel_diag::{Diagnostic, Span, suggest};
use keel_model::{LogLevel, Syslog, SyslogServer};

use crate::{
    address::{self, Host, WrittenAddress},
    ast::{Directive, Word},
    reader::Reader,
};

/// RFC 3164 §4.1.1; the number of each is its place.
const FACILITIES: &[&str] = &[
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp",
    "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
/// Severities, as `error_log` names them too.
pub(crate) const LEVELS: [(&str, LogLevel); 8] = [
    ("emerg", LogLevel::Emerg),
    ("alert", LogLevel::Alert),
    ("crit", LogLevel::Crit),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("notice", LogLevel::Notice),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];
const PARAMETERS: &[&str] = &["server", "facility", "severity", "tag", "nohostname"];
const PORT: u16 = 514;
const LOCAL7: u8 = 23;
/// RFC 3164 §4.1.3.
const TAG_BYTES_MAX: usize = 32;

/// The name of a syslog server, to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogName {
    /// The name as written.
    pub host: String,
    /// The port, 514 if none is written.
    pub port: u16,
    /// Where it is written.
    pub span: Span,
}

/// Parameters read so far.
#[derive(Default)]
struct Parameters {
    server: Option<SyslogServer>,
    facility: Option<u8>,
    severity: Option<LogLevel>,
    tag: Option<String>,
    no_hostname: bool,
}

/// What is wrong with a parameter: nginx's words, and what is taken instead.
struct Wrong {
    nginx: String,
    expects: String,
}

impl Wrong {
    fn new(nginx: String, expects: impl Into<String>) -> Self {
        Self { nginx, expects: expects.into() }
    }
}

/// Reads the destination of a log, if it is a syslog server; `None` where it is wrong, which is noted then.
pub(crate) fn read(reader: &mut Reader<'_>, directive: &Directive, word: &Word) -> Option<Syslog> {
    let text = word.text.strip_prefix("syslog:")?;
    let mut parameters = Parameters::default();
    for parameter in text.split(',') {
        if let Err(Wrong { nginx, expects }) = parameters.add(parameter) {
            reader.invalid(directive, word, nginx, &expects);
            return None;
        }
    }
    let Some(server) = parameters.server else {
        reader.invalid(directive, word, "no syslog server specified".into(), "`syslog:server=ADDRESS`");
        return None;
    };
    if let SyslogServer::Name { host, port } = &server {
        let name = SyslogName { host: host.clone(), port: *port, span: word.span };
        reader.http.syslog_names.push(name);
    }
    Some(Syslog {
        server,
        facility: parameters.facility.unwrap_or(LOCAL7),
        severity: parameters.severity.unwrap_or(LogLevel::Info),
        tag: parameters.tag.unwrap_or_else(|| "nginx".into()),
        has_hostname: !parameters.no_hostname,
    })
}

impl Parameters {
    fn add(&mut self, text: &str) -> Result<(), Wrong> {
        match text.split_once('=') {
            Some(("server", address)) => set_once(&mut self.server, "server", server(address)?),
            Some(("facility", name)) => set_once(&mut self.facility, "facility", facility(name)?),
            Some(("severity", name)) => set_once(&mut self.severity, "severity", severity(name)?),
            Some(("tag", text)) => set_once(&mut self.tag, "tag", tag(text)?),
            None if text == "nohostname" => {
                self.no_hostname = true;
                Ok(())
            }
            _ => {
                let name = text.split('=').next().unwrap_or_default();
                let near = suggest(name, PARAMETERS.iter().copied()).unwrap_or("server");
                Err(Wrong::new(format!("unknown syslog parameter \"{text}\""), format!("`{near}`")))
            }
        }
    }
}

fn set_once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Wrong> {
    if slot.replace(value).is_some() {
        return Err(Wrong::new(format!("duplicate syslog \"{name}\""), format!("one `{name}`")));
    }
    Ok(())
}

fn server(text: &str) -> Result<SyslogServer, Wrong> {
    let wrong = |why: &str| {
        Wrong::new(
            format!("{why} in syslog server \"{text}\""),
            "an address such as `192.0.2.1:514` or `unix:/dev/log`",
        )
    };
    let (place, uri) = address::peer(text).map_err(wrong)?;
    if !uri.is_empty() {
        return Err(wrong("invalid host"));
    }
    Ok(match place {
        WrittenAddress::Unix(path) => SyslogServer::Unix(path),
        WrittenAddress::Tcp { host: Host::Ip(ip), port, .. } => {
            SyslogServer::Udp((ip, port.unwrap_or(PORT)).into())
        }
        WrittenAddress::Tcp { host: Host::Name(host), port, .. } => {
            SyslogServer::Name { host, port: port.unwrap_or(PORT) }
        }
    })
}

fn facility(name: &str) -> Result<u8, Wrong> {
    (0..).zip(FACILITIES).find_map(|(number, known)| (*known == name).then_some(number)).ok_or_else(|| {
        let near = suggest(name, FACILITIES.iter().copied()).unwrap_or("local7");
        Wrong::new(format!("unknown syslog facility \"{name}\""), format!("a facility such as `{near}`"))
    })
}

fn severity(name: &str) -> Result<LogLevel, Wrong> {
    LEVELS.iter().find_map(|(known, level)| (*known == name).then_some(*level)).ok_or_else(|| {
        Wrong::new(format!("unknown syslog severity \"{name}\""), "a level from `debug` to `emerg`")
    })
}

fn tag(text: &str) -> Result<String, Wrong> {
    if text.len() > TAG_BYTES_MAX {
        return Err(Wrong::new(
            format!("syslog tag length exceeds {TAG_BYTES_MAX}"),
            format!("{TAG_BYTES_MAX} characters at most"),
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(Wrong::new(
            "syslog \"tag\" only allows alphanumeric characters and underscore".into(),
            "letters, digits and `_`",
        ));
    }
    Ok(text.to_owned())
}

impl SyslogName {
    /// The error of a name that can't be looked up.
    pub fn not_found(&self) -> Diagnostic {
        Diagnostic::error("nginx::unknown-host", format!("host not found in syslog server `{}`", self.host))
            .at(self.span, "the system's resolver doesn't know this name")
            .help("name an address, or add the host to /etc/hosts or DNS")
            .nginx(format!("host not found in syslog server \"{}\"", self.host))
    }

    /// The warning about a name that stands for a Compose service.
    pub fn is_a_service(&self) -> Diagnostic {
        let message = format!("logging to the service `{}` is not there yet", self.host);
        Diagnostic::warning("nginx::unsupported-log", message)
            .at(self.span, "nothing is written here: ports of services that are UDP aren't followed")
            .help("log to a file or to `/dev/stdout`, or to a syslog server with an address of its own")
    }
}
