//! What becomes of a trapped `bind` or `connect`: pure, a table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is known of the socket and of the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The address in the call.
    pub(super) address: SocketAddr,
    /// What kind of socket it is.
    pub(super) kind: Kind,
}

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagram,
}

/// What the caller's instance is and holds.
pub(super) trait Instance {
    /// Its own address.
    fn address(&self) -> Ipv4Addr;
    /// Whether a stream socket of it holds this port on its own address.
    fn holds(&self, port: u16) -> bool;
    /// Whether the file lists this port as `/udp`.
    fn lists_udp(&self, port: u16) -> bool;
    /// Gives the port that took the place of `port` at an instance's address.
    fn actual_port(&self, address: Ipv4Addr, port: u16) -> Option<u16>;
}

/// What becomes of a `bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    /// The kernel does it as it is.
    Pass,
    /// It goes to this port of the instance's address.
    Move { port: u16 },
    /// The second family of a server that has the first: it is given a port that nobody asks for.
    Aside,
}

pub(super) fn bind(request: &Request, instance: &impl Instance) -> Bind {
    let (ip, port) = (request.address.ip(), request.address.port());
    if port == 0 || !is_local(ip) {
        return Bind::Pass;
    }
    match request.kind {
        Kind::Datagram if !instance.lists_udp(port) => Bind::Pass,
        Kind::Stream if is_second_family(ip) && instance.holds(port) => Bind::Aside,
        Kind::Stream | Kind::Datagram => Bind::Move { port },
    }
}

/// What becomes of a `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connect {
    /// The kernel does it as it is.
    Pass,
    /// It goes here instead.
    To(SocketAddr),
}

pub(super) fn connect(request: &Request, instance: &impl Instance) -> Connect {
    let (ip, port) = (request.address.ip().to_canonical(), request.address.port());
    let own = instance.address();
    if is_this_host(ip) && request.kind == Kind::Stream && instance.holds(port) {
        let port = instance.actual_port(own, port).unwrap_or(port);
        return Connect::To(SocketAddr::new(own.into(), port));
    }
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => instance
            .actual_port(v4, port)
            .map_or(Connect::Pass, |port| Connect::To(SocketAddr::new(ip, port))),
        _ => Connect::Pass,
    }
}

/// A wildcard or any loopback address, of either family.
fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip.is_loopback()
}

/// `localhost`, as programs write it: not some instance's address.
fn is_this_host(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

fn is_second_family(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none())
}

/// Reads a `struct sockaddr`; `None` for other families and for what is too short.
pub(super) fn parse_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let array = |at: usize, to: usize| bytes.get(at..to);
    let family = u16::from_ne_bytes(array(0, 2)?.try_into().ok()?);
    let port = u16::from_be_bytes(array(2, 4)?.try_into().ok()?);
    let ip = match family {
        2 if bytes.len() >= 16 => IpAddr::V4(<[u8; 4]>::try_from(array(4, 8)?).ok()?.into()),
        10 if bytes.len() >= 24 => IpAddr::V6(<[u8; 16]>::try_from(array(8, 24)?).ok()?.into()),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(127, 3, 4, 5);
    const OTHER: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

    /// Holds 5000, and 80 as 41873; the other one has its 80 at 42000. Lists 53/udp.
    struct Fixed;

    impl Instance for Fixed {
        fn address(&self) -> Ipv4Addr {
            OWN
        }
        fn holds(&self, port: u16) -> bool {
            matches!(port, 80 | 5000)
        }
        fn lists_udp(&self, port: u16) -> bool {
            port == 53
        }
        fn actual_port(&self, address: Ipv4Addr, port: u16) -> Option<u16> {
            match (address, port) {
                (OWN, 80) => Some(41873),
                (OTHER, 80) => Some(42000),
                _ => None,
            }
        }
    }

    #[test]
    fn binds() {
        let check = |kind, address: &str, expect| {
            let request = Request { address: address.parse().unwrap(), kind };
            assert_eq!(bind(&request, &Fixed), expect, "{kind:?} {address}");
        };
        check(Kind::Stream, "0.0.0.0:8000", Bind::Move { port: 8000 });
        check(Kind::Stream, "127.0.0.1:8000", Bind::Move { port: 8000 });
        check(Kind::Stream, "127.3.4.5:8000", Bind::Move { port: 8000 });
        check(Kind::Stream, "[::]:8000", Bind::Move { port: 8000 });
        check(Kind::Stream, "[::1]:8000", Bind::Move { port: 8000 });
        check(Kind::Stream, "[::ffff:0.0.0.0]:8000", Bind::Move { port: 8000 });
        check(Kind::Stream, "[::]:5000", Bind::Aside);
        check(Kind::Stream, "[::1]:5000", Bind::Aside);
        check(Kind::Stream, "0.0.0.0:5000", Bind::Move { port: 5000 });
        check(Kind::Stream, "0.0.0.0:0", Bind::Pass);
        check(Kind::Stream, "192.168.1.1:8000", Bind::Pass);
        check(Kind::Stream, "[fe80::1]:8000", Bind::Pass);
        check(Kind::Datagram, "0.0.0.0:53", Bind::Move { port: 53 });
        check(Kind::Datagram, "0.0.0.0:8000", Bind::Pass);
        check(Kind::Datagram, "0.0.0.0:0", Bind::Pass);
    }

    #[test]
    fn connects() {
        let check = |kind, address: &str, expect: Option<&str>| {
            let request = Request { address: address.parse().unwrap(), kind };
            let expect = expect.map_or(Connect::Pass, |text| Connect::To(text.parse().unwrap()));
            assert_eq!(connect(&request, &Fixed), expect, "{kind:?} {address}");
        };
        check(Kind::Stream, "127.0.0.1:5000", Some("127.3.4.5:5000"));
        check(Kind::Stream, "[::1]:5000", Some("127.3.4.5:5000"));
        check(Kind::Stream, "[::ffff:127.0.0.1]:5000", Some("127.3.4.5:5000"));
        check(Kind::Stream, "0.0.0.0:5000", Some("127.3.4.5:5000"));
        check(Kind::Stream, "127.0.0.1:80", Some("127.3.4.5:41873"));
        check(Kind::Stream, "127.3.4.5:80", Some("127.3.4.5:41873"));
        check(Kind::Stream, "127.9.9.9:80", Some("127.9.9.9:42000"));
        check(Kind::Stream, "127.9.9.9:5000", None);
        check(Kind::Stream, "127.3.4.5:5000", None);
        check(Kind::Stream, "127.0.0.1:5432", None);
        check(Kind::Stream, "10.0.0.1:5000", None);
        check(Kind::Datagram, "127.0.0.1:5000", None);
    }

    #[test]
    fn reads_addresses() {
        let check = |bytes: &[u8], expect: Option<&str>| {
            assert_eq!(parse_sockaddr(bytes), expect.map(|text| text.parse().unwrap()), "{bytes:?}");
        };
        let v4 = [2, 0, 0x13, 0x88, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        check(&v4, Some("127.0.0.1:5000"));
        check(&v4[..15], None);
        let mut v6 = [0; 28];
        (v6[0], v6[2], v6[3], v6[23]) = (10, 0x13, 0x88, 1);
        check(&v6, Some("[::1]:5000"));
        check(&v6[..20], None);
        check(&[1, 0, b'/', b'x'], None);
        check(&[2], None);
        check(&[], None);
    }
}
