//! Sockets that clients connect to.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The address of a socket, on either side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An index into [`Plan::servers`](crate::Plan::servers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerId(pub u32);

/// One bound socket and the virtual servers behind it. Its address is its identity across reloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The address to bind. Where a Compose file publishes the port, this is the published one.
    pub address: Address,
    /// The port as the `listen` directive has it, which `$server_port` and redirects show.
    pub declared_port: u16,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether clients may begin with HTTP/2 whatever the default server's `http2` says (`listen ... http2`).
    pub http2: bool,
    /// Whether every connection speaks TLS, behind that header.
    pub tls: bool,
    /// How to open the socket.
    pub options: SocketOptions,
    /// Answers requests whose host no other server claims.
    pub default_server: ServerId,
    /// All servers that listen here, the default one included, in the file's order.
    pub servers: Vec<ServerId>,
    /// For a listener on a wildcard address: servers that `listen` on one address of it and same port (nginx binds
    /// only the wildcard and tells them apart by the connection's local address).
    pub by_local_address: Vec<(SocketAddr, ServerId, Vec<ServerId>)>,
}

/// Parameters of `listen` that act on the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptions {
    /// The accept queue's length. Default 511; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// One socket for each worker (`reuseport`).
    pub reuseport: bool,
    /// Whether a `[::]` socket refuses IPv4. Default true.
    pub ipv6only: bool,
    /// `rcvbuf`, if set.
    pub receive_buffer: Option<u32>,
    /// `sndbuf`, if set.
    pub send_buffer: Option<u32>,
    /// `so_keepalive`: off, on, or on with (idle s, interval s, probes).
    pub keepalive: TcpKeepalive,
    /// `deferred` (TCP_DEFER_ACCEPT).
    pub deferred: bool,
    /// `fastopen` queue length, if set.
    pub fastopen: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: 511,
            reuseport: false,
            ipv6only: true,
            receive_buffer: None,
            send_buffer: None,
            keepalive: TcpKeepalive::System,
            deferred: false,
            fastopen: None,
        }
    }
}

/// TCP keepalive of accepted connections (`so_keepalive`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpKeepalive {
    /// The operating system's setting.
    #[default]
    System,
    /// Off.
    Off,
    /// On; what is `None` stays as the system has it. Seconds, seconds, count.
    On {
        /// Seconds of silence before the first probe.
        idle_s: Option<u32>,
        /// Seconds between probes.
        interval_s: Option<u32>,
        /// Probes before the connection counts as dead.
        probes: Option<u32>,
    },
}
