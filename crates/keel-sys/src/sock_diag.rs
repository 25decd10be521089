//! The kernel's table of listening sockets: sock_diag(7).
//!
//! The answer is the kernel's own table, so it tells a socket on `127.1.2.3:80` from one on `0.0.0.0:80`, which no
//! connection attempt can.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its address; IPv6 ones as they are, v4-mapped ones as IPv4.
    pub address: SocketAddr,
    /// Its inode number, as `/proc/PID/fd/N -> socket:[INODE]` shows it.
    pub inode: u64,
    /// The user who made it.
    pub uid: u32,
}

/// A descriptor to ask with. Not shared between threads: one question at a time.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCP_LISTEN_MASK: u32 = 1 << 10;
const HEADER_BYTES: usize = 16;
const INET_DIAG_REQ_BYTES: usize = 56;
/// INET_DIAG_REQ_BYTECODE and the operations of <linux/inet_diag.h>.
const REQ_BYTECODE: u16 = 1;
const BC_S_GE: u8 = 2;
const BC_S_LE: u8 = 3;

impl SockDiag {
    /// Opens a descriptor to ask with.
    ///
    /// # Errors
    /// When the kernel has no sock_diag, or the process is out of descriptors.
    pub fn open() -> io::Result<Self> {
        let family = AddressFamily::NETLINK;
        let protocol = Some(netlink::SOCK_DIAG);
        Ok(Self { socket: socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)? })
    }

    /// All TCP sockets that listen on a port, on any address.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn listeners_of_port(&mut self, port: u16) -> io::Result<Vec<Listening>> {
        self.listeners(Some(port))
    }

    /// All TCP sockets that listen.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn all_listeners(&mut self) -> io::Result<Vec<Listening>> {
        self.listeners(None)
    }

    /// The sockets that listen on exactly this address and port. Wildcard sockets are not among them.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn listeners_at(&mut self, address: SocketAddr) -> io::Result<Vec<Listening>> {
        let mut found = self.listeners(Some(address.port()))?;
        found.retain(|listening| listening.address == address);
        Ok(found)
    }

    /// The socket that would take a connection to this address at this moment: the one that listens exactly
    /// there or, where there is none, one on a wildcard address. `None` when the connection would be refused. A single
    /// look-up, however many sockets there are; never waits.
    ///
    /// # Errors
    /// What the kernel answers. Afterwards open a new descriptor: an answer may be left in this one.
    pub fn taker_of(&mut self, address: SocketAddr) -> io::Result<Option<Listening>> {
        send(&self.socket, &look_up(address), SendFlags::empty())?;
        let mut buffer = [0; 1024];
        // The kernel has answered by the time the question is sent.
        let (_, length) = recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let answer = buffer.get(..length).unwrap_or(&buffer);
        let body = answer.get(HEADER_BYTES..).unwrap_or_default();
        match u16_at(answer, 4) {
            SOCK_DIAG_BY_FAMILY => Ok(listening(body)),
            NLMSG_ERROR => match error_of(body) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
                result => result.map(|_| None),
            },
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn listeners(&mut self, port: Option<u16>) -> io::Result<Vec<Listening>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            send(&self.socket, &request(family, port), SendFlags::empty())?;
            while self.receive(port, &mut found)? == More::Yes {}
        }
        Ok(found)
    }

    fn receive(&mut self, port: Option<u16>, found: &mut Vec<Listening>) -> io::Result<More> {
        let mut buffer = [0; 32 << 10];
        let (_, length) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or(&buffer);
        while rest.len() >= HEADER_BYTES {
            let length = usize::try_from(u32_at(rest, 0)).unwrap_or(usize::MAX).max(HEADER_BYTES);
            let body = rest.get(HEADER_BYTES..length).unwrap_or_default();
            match u16_at(rest, 4) {
                NLMSG_DONE => return Ok(More::No),
                NLMSG_ERROR => return error_of(body),
                SOCK_DIAG_BY_FAMILY => {
                    found
                        .extend(listening(body).filter(|l| port.is_none_or(|port| l.address.port() == port)));
                }
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(More::Yes)
    }
}

/// Whether further parts of an answer follow.
#[derive(PartialEq, Eq)]
enum More {
    Yes,
    No,
}

fn error_of(body: &[u8]) -> io::Result<More> {
    match i32::from_ne_bytes(array_at(body, 0)) {
        0 => Ok(More::No),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Builds `struct nlmsghdr`, `struct inet_diag_req_v2`, and a filter on the port that the kernel runs.
fn request(family: i32, port: Option<u16>) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend(0_u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.push(u8::try_from(family).unwrap_or_default());
    message.push(u8::try_from(libc::IPPROTO_TCP).unwrap_or_default());
    message.extend([0, 0]);
    message.extend(TCP_LISTEN_MASK.to_ne_bytes());
    message.resize(HEADER_BYTES + INET_DIAG_REQ_BYTES, 0);
    if let Some(port) = port {
        message.extend(20_u16.to_ne_bytes());
        message.extend(REQ_BYTECODE.to_ne_bytes());
        // Two comparisons, each of two operations: code, jump if it holds, jump if not; then the port.
        for (code, no) in [(BC_S_GE, 20_u16), (BC_S_LE, 12)] {
            message.extend([code, 8]);
            message.extend(no.to_ne_bytes());
            message.extend([0, 0]);
            message.extend(port.to_ne_bytes());
        }
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    message.splice(..4, length.to_ne_bytes());
    message
}

/// Builds `struct nlmsghdr` and `struct inet_diag_req_v2` for the one socket that a connection to `address` would reach.
fn look_up(address: SocketAddr) -> Vec<u8> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut message = Vec::with_capacity(HEADER_BYTES + INET_DIAG_REQ_BYTES);
    message.extend(0_u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.push(u8::try_from(family).unwrap_or_default());
    message.push(u8::try_from(libc::IPPROTO_TCP).unwrap_or_default());
    message.extend([0, 0]);
    message.extend(TCP_LISTEN_MASK.to_ne_bytes());
    // struct inet_diag_sockid: ports, the socket's address, its peer's, interface, and INET_DIAG_NOCOOKIE.
    message.extend(address.port().to_be_bytes());
    message.extend([0, 0]);
    match address.ip() {
        IpAddr::V4(ip) => {
            message.extend(ip.octets());
            message.extend([0; 12]);
        }
        IpAddr::V6(ip) => message.extend(ip.octets()),
    }
    message.extend([0; 16 + 4]);
    message.extend([0xff; 8]);
    let length = u32::try_from(message.len()).unwrap_or_default();
    message.splice(..4, length.to_ne_bytes());
    message
}

/// Reads `struct inet_diag_msg`.
fn listening(body: &[u8]) -> Option<Listening> {
    if body.len() < 72 {
        return None;
    }
    let port = u16::from_be_bytes(array_at(body, 4));
    let ip = match i32::from(body.first().copied()?) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(array_at::<4>(body, 8))),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(array_at::<16>(body, 8))).to_canonical(),
        _ => return None,
    };
    let uid = u32_at(body, 64);
    let inode = u64::from(u32_at(body, 68));
    Some(Listening { address: SocketAddr::new(ip, port), inode, uid })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::fs::MetadataExt};

    use super::*;

    fn inode(listener: &TcpListener) -> u64 {
        let fd = std::os::fd::AsRawFd::as_raw_fd(listener);
        std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino()
    }

    #[test]
    fn tells_one_address_from_another_on_the_same_port() {
        let first = TcpListener::bind(("127.9.1.1", 0)).unwrap();
        let address = first.local_addr().unwrap();
        let second = TcpListener::bind(("127.9.1.2", address.port())).unwrap();
        let mut diag = SockDiag::open().unwrap();

        let found = diag.listeners_at(address).unwrap();
        assert_eq!(found.iter().map(|l| l.inode).collect::<Vec<_>>(), [inode(&first)]);
        let both: Vec<_> = diag.listeners_of_port(address.port()).unwrap();
        assert!(both.iter().any(|l| l.inode == inode(&second)));
        assert!(both.iter().all(|l| l.address.port() == address.port()));
        assert!(diag.all_listeners().unwrap().len() >= 2);

        drop(first);
        assert_eq!(diag.listeners_at(address).unwrap(), []);
    }

    #[test]
    fn tells_who_would_take_a_connection() {
        let wildcard = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let port = wildcard.local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 9, 1, 4], port));
        let mut diag = SockDiag::open().unwrap();
        let taker = diag.taker_of(address).unwrap().unwrap();
        assert_eq!((taker.address, taker.inode), (wildcard.local_addr().unwrap(), inode(&wildcard)));
        drop(wildcard);
        assert_eq!(diag.taker_of(address).unwrap(), None);
        let exact = TcpListener::bind(address).unwrap();
        let taker = diag.taker_of(address).unwrap().unwrap();
        assert_eq!((taker.address, taker.inode), (address, inode(&exact)));
        drop(exact);
        let Ok(v6) = TcpListener::bind(("::", port)) else {
            keel_testkit::not_run("the second half needs IPv6");
            return;
        };
        assert_eq!(diag.taker_of(address).unwrap().unwrap().inode, inode(&v6), "it takes both families");
        drop(v6);
        let mapped = TcpListener::bind(("::ffff:127.9.1.4", port)).unwrap();
        let taker = diag.taker_of(address).unwrap().unwrap();
        assert_eq!((taker.address, taker.inode), (address, inode(&mapped)));
    }

    #[test]
    fn sees_ipv6_and_mapped_sockets() {
        let Ok(v6) = TcpListener::bind(("::1", 0)) else {
            keel_testkit::not_run("there is no IPv6 on loopback");
            return;
        };
        let mut diag = SockDiag::open().unwrap();
        assert_eq!(diag.listeners_at(v6.local_addr().unwrap()).unwrap().len(), 1);
        let mapped = TcpListener::bind(("::ffff:127.9.1.3", 0)).unwrap();
        let port = mapped.local_addr().unwrap().port();
        let v4 = SocketAddr::from(([127, 9, 1, 3], port));
        assert_eq!(diag.listeners_at(v4).unwrap().len(), 1);
    }
}
