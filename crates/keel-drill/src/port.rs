//! Free ports that no other drill takes meanwhile.
//!
//! No socket can hold a port until the listener takes it, so the kernel may give a port out twice. Drills hold theirs with a
//! name in the abstract namespace of unix sockets, which vanishes with the process.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as Name, UnixListener},
    },
};

use crate::Error;

/// How many free ports are looked at, for each that is wanted.
const TRIES_MAX: usize = 100;

/// A free port of one address or of all, kept from other drills until it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _claim: UnixListener,
}

/// Finds ports of 127.0.0.1 that nobody listens on.
pub(crate) fn free_ports(count: usize) -> Result<Vec<Port>, Error> {
    free_ports_of(Ipv4Addr::LOCALHOST, count)
}

/// Finds ports of an address that nobody listens on.
pub(crate) fn free_ports_of(ip: Ipv4Addr, count: usize) -> Result<Vec<Port>, Error> {
    let io = |source| Error::io("no free port", source);
    let mut ports = Vec::new();
    for _ in 0..count.saturating_mul(TRIES_MAX) {
        if ports.len() == count {
            break;
        }
        let address = TcpListener::bind((ip, 0)).and_then(|held| held.local_addr()).map_err(io)?;
        // Taken by another drill, or by this one just before.
        if let Ok(claim) = claim(address.port()) {
            ports.push(Port { address, _claim: claim });
        }
    }
    if ports.len() == count { Ok(ports) } else { Err(io(io::ErrorKind::AddrInUse.into())) }
}

fn claim(port: u16) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&Name::from_abstract_name(format!("evenkeel-drill-port-{port}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_held_until_they_are_let_go() {
        let ports = free_ports(20).unwrap();
        let numbers: std::collections::BTreeSet<u16> = ports.iter().map(|one| one.address.port()).collect();
        assert_eq!(numbers.len(), 20);
        let first = ports[0].address.port();
        assert_eq!(claim(first).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(ports);
        assert!(claim(first).is_ok());
    }
}
