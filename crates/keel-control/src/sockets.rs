//! The listening sockets, which the supervisor opens and keeps.
//!
//! A socket outlives the data plane that accepts on it: connections that arrive while a new one starts wait in the
//! accept queue. Accepting, and emptying the queue of a socket that goes, is the data plane's work.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
    time::Duration,
};

use keel_model::{Address, Listener, SocketOptions, TcpKeepalive};
use keel_sys::{
    proc,
    sock_diag::{Listening, SockDiag},
    tcp,
};
use socket2::{Domain, Protocol, Socket, Type};

/// How long a connection may be silent before `deferred` hands it over all the same, as in nginx.
const DEFER_ACCEPT: Duration = Duration::from_secs(1);

/// Whether the instances of this project may listen on the same port at addresses of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The port is this listener's alone.
    Exclusive,
    /// Instances may bind the port on loopback addresses of their own: `SO_REUSEPORT` lets the more specific
    /// address win. A bind without it comes first, so that a stranger on the port is noticed all the same.
    WithInstances,
}

/// Whether other sockets may be bound to the same port (`SO_REUSEPORT`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReusePort {
    Yes,
    No,
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
pub struct ListenError {
    /// Which address.
    pub address: Address,
    /// The process that holds it, where that can be known.
    pub culprit: Option<String>,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// All listening sockets, by address.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: BTreeMap<Address, OwnedFd>,
}

impl Sockets {
    /// Opens what `listeners` ask for and isn't open yet; what is open already stays as it is.
    ///
    /// # Errors
    /// One error for each address that can't be had; then nothing has been kept.
    pub(crate) fn open_missing(
        &self,
        listeners: &[Listener],
        sharing: Sharing,
    ) -> Result<BTreeMap<Address, OwnedFd>, Vec<ListenError>> {
        let mut opened = BTreeMap::new();
        let mut errors = Vec::new();
        for listener in listeners {
            let address = &listener.address;
            if self.open.contains_key(address) || opened.contains_key(address) {
                continue;
            }
            match open(address, &listener.options, sharing) {
                Ok(socket) => drop(opened.insert(address.clone(), socket)),
                Err(source) => errors.push(ListenError {
                    culprit: culprit(address, &source),
                    address: address.clone(),
                    source,
                }),
            }
        }
        if errors.is_empty() { Ok(opened) } else { Err(errors) }
    }

    /// Takes newly opened sockets in.
    pub(crate) fn add(&mut self, opened: BTreeMap<Address, OwnedFd>) {
        self.open.extend(opened);
    }

    /// Closes every socket that none of `listeners` uses, and removes the files of unix sockets.
    pub(crate) fn retain(&mut self, listeners: &[Listener]) {
        self.open.retain(|address, _| {
            let used = listeners.iter().any(|listener| listener.address == *address);
            if !used {
                remove_file(address);
            }
            used
        });
    }

    /// All sockets, with their addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Address, BorrowedFd<'_>)> {
        self.open.iter().map(|(address, socket)| (address, socket.as_fd()))
    }

    /// Closes all sockets.
    pub(crate) fn close(&mut self) {
        self.retain(&[]);
    }
}

fn remove_file(address: &Address) {
    if let Address::Unix(path) = address
        && let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("can't remove the socket {}: {error}", path.display());
    }
}

fn open(address: &Address, options: &SocketOptions, sharing: Sharing) -> io::Result<OwnedFd> {
    match address {
        Address::Tcp(address) => {
            if sharing == Sharing::WithInstances && address.ip().is_unspecified() {
                match bind_tcp(*address, options, ReusePort::No) {
                    Err(error)
                        if error.kind() == io::ErrorKind::AddrInUse && only_instances_hold(*address) => {}
                    probe => drop(probe?),
                }
                return listen(bind_tcp(*address, options, ReusePort::Yes)?, options);
            }
            listen(bind_tcp(*address, options, ReusePort::No)?, options)
        }
        Address::Unix(path) => open_unix(path, options),
    }
}

/// Tries whether an address can be bound, without listening on it. One that is in use is the running balancer's, and a
/// port that needs root is for the user who will serve: neither fails.
pub(crate) fn test_bind(address: SocketAddr, options: &SocketOptions) -> io::Result<()> {
    match bind_tcp(address, options, ReusePort::No) {
        Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            Ok(())
        }
        bound => bound.map(drop),
    }
}

fn bind_tcp(address: SocketAddr, options: &SocketOptions, port: ReusePort) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if port == ReusePort::Yes {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6only)?;
    }
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size as usize)?;
    }
    if let Some(size) = options.send_buffer {
        socket.set_send_buffer_size(size as usize)?;
    }
    set_keepalive(&socket, options.keepalive)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn set_keepalive(socket: &Socket, keepalive: TcpKeepalive) -> io::Result<()> {
    let seconds = |n: u32| Duration::from_secs(n.into());
    match keepalive {
        TcpKeepalive::System => Ok(()),
        TcpKeepalive::Off => socket.set_keepalive(false),
        TcpKeepalive::On { idle_s, interval_s, probes } => {
            let mut settings = socket2::TcpKeepalive::new();
            if let Some(idle) = idle_s {
                settings = settings.with_time(seconds(idle));
            }
            if let Some(interval) = interval_s {
                settings = settings.with_interval(seconds(interval));
            }
            if let Some(probes) = probes {
                settings = settings.with_retries(probes);
            }
            socket.set_keepalive(true)?;
            socket.set_tcp_keepalive(&settings)
        }
    }
}

fn listen(socket: Socket, options: &SocketOptions) -> io::Result<OwnedFd> {
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    if options.deferred {
        tcp::set_defer_accept(&socket, DEFER_ACCEPT)?;
    }
    if let Some(queue) = options.fastopen {
        tcp::set_fastopen(&socket, queue)?;
    }
    Ok(socket.into())
}

fn open_unix(path: &Path, options: &SocketOptions) -> io::Result<OwnedFd> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        Ok(socket)
    };
    let socket = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            bind()?
        }
        bound => bound?,
    };
    // As nginx does: every user who can reach the file may connect.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    listen(socket, options)
}

/// A socket file on which nobody listens any more.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether everybody on this port is an instance of ours: bound to one loopback address other than 127.0.0.1.
fn only_instances_hold(address: SocketAddr) -> bool {
    let Ok(listeners) = listening_on(address.port()) else { return false };
    !listeners.is_empty()
        && listeners.iter().all(|listener| match listener.address.ip() {
            IpAddr::V4(ip) => ip.is_loopback() && ip != std::net::Ipv4Addr::LOCALHOST,
            IpAddr::V6(ip) => {
                ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback() && ip != std::net::Ipv4Addr::LOCALHOST)
            }
        })
}

fn culprit(address: &Address, error: &io::Error) -> Option<String> {
    let (Address::Tcp(address), io::ErrorKind::AddrInUse) = (address, error.kind()) else { return None };
    let listeners = listening_on(address.port()).ok()?;
    let clashes = |other: &&Listening| {
        let (ours, theirs) = (address.ip(), other.address.ip());
        ours == theirs || ours.is_unspecified() || theirs.is_unspecified()
    };
    process_holding(listeners.iter().find(clashes)?.inode)
}

/// Whether this process listens on a port.
pub(crate) fn is_own_port(port: u16) -> bool {
    is_port_of(std::process::id(), port)
}

/// Whether a process listens on a port, as far as this user may know.
pub(crate) fn is_port_of(pid: u32, port: u16) -> bool {
    let listeners = listening_on(port).unwrap_or_default();
    let Some(pid) = i32::try_from(pid).ok() else { return false };
    let Ok(sockets) = proc::sockets_of(pid) else { return false };
    let held: HashSet<u64> = sockets.collect();
    listeners.iter().any(|listener| held.contains(&listener.inode))
}

fn listening_on(port: u16) -> io::Result<Vec<Listening>> {
    SockDiag::open()?.listeners_of_port(port)
}

/// Finds the process that holds a socket: `pid 123 (python3)`. Others' processes show only to root.
fn process_holding(inode: u64) -> Option<String> {
    let holds =
        |pid: &i32| proc::sockets_of(*pid).is_ok_and(|mut sockets| sockets.any(|socket| socket == inode));
    let pid = proc::pids().find(holds)?;
    let command = proc::text(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("pid {pid} ({})", command.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: Address) -> Listener {
        Listener {
            address,
            declared_port: 80,
            proxy_protocol: false,
            http2: false,
            tls: false,
            options: SocketOptions::default(),
            default_server: keel_model::ServerId(0),
            servers: vec![keel_model::ServerId(0)],
            by_local_address: Vec::new(),
        }
    }

    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn keeps_what_is_open_and_closes_what_goes() {
        let address = Address::Tcp(([127, 0, 0, 1], free_port()).into());
        let mut sockets = Sockets::default();
        let listeners = [listener(address.clone())];
        sockets.add(sockets.open_missing(&listeners, Sharing::Exclusive).unwrap());
        assert!(sockets.open_missing(&listeners, Sharing::Exclusive).unwrap().is_empty());
        sockets.retain(&[]);
        assert_eq!(sockets.open_missing(&listeners, Sharing::Exclusive).unwrap().len(), 1);
    }

    #[test]
    fn says_who_holds_the_port() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(held.local_addr().unwrap());
        let errors =
            Sockets::default().open_missing(&[listener(address)], Sharing::Exclusive).expect_err("is in use");
        let culprit = errors[0].culprit.as_deref().expect("it is this process");
        assert!(culprit.starts_with(&format!("pid {}", std::process::id())), "{culprit}");
    }

    #[test]
    fn a_shared_wildcard_port_admits_instances_but_no_stranger() {
        let port = free_port();
        let wildcard = [listener(Address::Tcp(([0, 0, 0, 0], port).into()))];
        let stranger = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        assert!(Sockets::default().open_missing(&wildcard, Sharing::WithInstances).is_err());
        drop(stranger);
        let instance = ([127, 77, 1, 2], port).into();
        let bound = bind_tcp(instance, &SocketOptions::default(), ReusePort::Yes).unwrap();
        bound.listen(1).unwrap();
        assert_eq!(Sockets::default().open_missing(&wildcard, Sharing::WithInstances).unwrap().len(), 1);
    }

    #[test]
    fn replaces_a_stale_unix_socket_and_no_live_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let listeners = [listener(Address::Unix(path.clone()))];
        assert!(Sockets::default().open_missing(&listeners, Sharing::Exclusive).is_err());
        drop(live);
        let mut sockets = Sockets::default();
        sockets.add(sockets.open_missing(&listeners, Sharing::Exclusive).unwrap());
        sockets.close();
        assert!(!path.exists());
    }
}
