//! Syslog as nginx speaks it: each line a datagram in the form of RFC 3164, to a UDP port or a unix socket.
//!
//! Nobody answers, so nothing says whether a message arrived. A server that can't be reached costs the messages of that
//! time; the next one tries anew.

use std::{
    fmt,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    path::PathBuf,
};

use keel_model::{LogLevel, Syslog, SyslogServer};

/// What stands before the text of each message.
#[derive(Clone, Debug)]
pub struct SyslogHeader {
    facility: u8,
    severity: LogLevel,
    /// The host's name with a space behind it, or nothing.
    host: String,
    tag: String,
}

impl SyslogHeader {
    /// Makes it out of its configuration. `host` is this host's name.
    pub fn new(syslog: &Syslog, host: &str) -> Self {
        let host = if syslog.has_hostname { format!("{host} ") } else { String::new() };
        Self { facility: syslog.facility, severity: syslog.severity, host, tag: syslog.tag.clone() }
    }

    /// Appends it with the configured severity. `time` is [`TimeText::syslog`](crate::TimeText::syslog).
    pub fn append(&self, time: &str, out: &mut Vec<u8>) {
        self.append_as(self.severity, time, out);
    }

    /// Appends it with another severity.
    pub fn append_as(&self, severity: LogLevel, time: &str, out: &mut Vec<u8>) {
        let priority = self.facility * 8 + severity_number(severity);
        let Self { host, tag, .. } = self;
        // Writing to memory doesn't fail.
        let _ = write!(out, "<{priority}>{time} {host}{tag}: ");
    }
}

/// RFC 3164 §4.1.1.
fn severity_number(level: LogLevel) -> u8 {
    match level {
        LogLevel::Emerg => 0,
        LogLevel::Alert => 1,
        LogLevel::Crit => 2,
        LogLevel::Error => 3,
        LogLevel::Warn => 4,
        LogLevel::Notice => 5,
        LogLevel::Info => 6,
        LogLevel::Debug => 7,
    }
}

/// Where datagrams go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DatagramAddress {
    /// To an address by UDP.
    Udp(SocketAddr),
    /// To a unix socket.
    Unix(PathBuf),
}

impl DatagramAddress {
    /// The address of a syslog server; none for a name that was not looked up.
    pub fn of(server: &SyslogServer) -> Option<Self> {
        match server {
            SyslogServer::Udp(address) => Some(Self::Udp(*address)),
            SyslogServer::Unix(path) => Some(Self::Unix(path.clone())),
            SyslogServer::Name { .. } => None,
        }
    }
}

impl fmt::Display for DatagramAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Sends datagrams without waiting.
#[derive(Debug)]
pub struct Datagrams {
    address: DatagramAddress,
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Datagrams {
    /// Connects with the first datagram.
    pub fn to(address: DatagramAddress) -> Self {
        Self { address, socket: None }
    }

    pub(crate) fn address(&self) -> &DatagramAddress {
        &self.address
    }

    /// Sends one. A socket may report what became of the datagram before, or that its server was started anew: a second
    /// socket gets a second try.
    ///
    /// # Errors
    /// `WouldBlock` when the server takes them too slowly, else what the socket says. The datagram is lost.
    pub fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let is_new = self.socket.is_none();
        match self.send_once(datagram) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.socket = None;
                if is_new { Err(error) } else { self.send_once(datagram).inspect_err(|_| self.socket = None) }
            }
            result => result,
        }
    }

    fn send_once(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::connect(&self.address)?,
        };
        let sent = match &socket {
            Socket::Udp(socket) => socket.send(datagram),
            Socket::Unix(socket) => socket.send(datagram),
        };
        self.socket = Some(socket);
        sent.map(drop)
    }
}

impl Socket {
    fn connect(address: &DatagramAddress) -> io::Result<Self> {
        match address {
            DatagramAddress::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            DatagramAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syslog(facility: u8, tag: &str, has_hostname: bool) -> Syslog {
        let server = SyslogServer::Unix("/dev/log".into());
        Syslog { server, facility, severity: LogLevel::Info, tag: tag.into(), has_hostname }
    }

    #[test]
    fn writes_the_header_of_rfc_3164() {
        let check = |syslog: &Syslog, severity, expect: &str| {
            let mut out = Vec::new();
            SyslogHeader::new(syslog, "host").append_as(severity, "Sep 28 12:00:00", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(&syslog(23, "nginx", true), LogLevel::Info, "<190>Sep 28 12:00:00 host nginx: ");
        check(&syslog(0, "a_b", false), LogLevel::Emerg, "<0>Sep 28 12:00:00 a_b: ");
        check(&syslog(23, "x", false), LogLevel::Debug, "<191>Sep 28 12:00:00 x: ");
    }

    #[test]
    fn a_server_that_is_started_anew_gets_the_next_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut datagrams = Datagrams::to(DatagramAddress::Unix(path.clone()));
        assert!(datagrams.send(b"nobody is there").is_err());
        for text in ["one", "two"] {
            let server = UnixDatagram::bind(&path).unwrap();
            datagrams.send(text.as_bytes()).unwrap();
            let mut received = [0; 9];
            let length = server.recv(&mut received).unwrap();
            assert_eq!(received.get(..length).unwrap(), text.as_bytes());
            std::fs::remove_file(&path).unwrap();
        }
    }
}
