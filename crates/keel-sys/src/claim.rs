//! Marks loopback addresses as instances' addresses, visible in all of a network namespace.
//!
//! A claim is an abstract unix socket whose name holds the address (unix(7)). Like loopback addresses such names belong to
//! a network namespace. They need no folder and no rights, and vanish with the process. A listener on the wildcard
//! address resets a connection to a claimed address: it was meant for an instance, of any project and any user.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
};

/// An address that is an instance's for as long as this lives.
#[derive(Debug)]
pub struct Claim {
    _socket: OwnedFd,
}

impl Claim {
    /// Claims an address.
    ///
    /// # Errors
    /// `AddrInUse` when another has claimed it; what socket(2) says.
    pub fn new(address: Ipv4Addr) -> io::Result<Self> {
        let socket = socket()?;
        bind(&socket, &name_of(address)?)?;
        Ok(Self { _socket: socket })
    }
}

/// Says whether an address is claimed. The host's own part, 127.0.x.x, never is, and costs no system call.
pub fn is_claimed(address: IpAddr) -> bool {
    let IpAddr::V4(address) = address.to_canonical() else { return false };
    if !may_be_claimed(address) {
        return false;
    }
    let asked = socket().and_then(|socket| Ok(connect(&socket, &name_of(address)?)?));
    match asked {
        Ok(()) => true,
        // The name is there, and its socket's queue is full: claims are never read.
        Err(error) => error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()),
    }
}

/// Whether an address lies where instances have theirs: in 127.0.0.0/8, but not in the host's own part of it.
pub fn may_be_claimed(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [127, second, _, _] if second != 0)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

fn name_of(address: Ipv4Addr) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(format!("evenkeel/instance/{address}").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_and_is_one() {
        let address = Ipv4Addr::new(127, 201, 7, 3);
        assert!(!is_claimed(address.into()));
        let claim = Claim::new(address).unwrap();
        assert!(is_claimed(address.into()));
        assert!(is_claimed(address.to_ipv6_mapped().into()));
        assert_eq!(Claim::new(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(!is_claimed(Ipv4Addr::new(127, 201, 7, 4).into()));
        drop(claim);
        assert!(!is_claimed(address.into()));
    }

    #[test]
    fn the_hosts_part_is_nobodys() {
        let _claim = Claim::new(Ipv4Addr::new(127, 0, 7, 3));
        for address in ["127.0.7.3", "127.0.0.1", "10.1.2.3", "::1"] {
            assert!(!is_claimed(address.parse().unwrap()), "{address}");
        }
    }
}
