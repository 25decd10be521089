//! What becomes of a trapped `bind` or `connect`: pure, a table.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

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
    /// Whether this is a TCP port that its service has in a container, by the file, the image or its healthcheck.
    fn has_container_port(&self, port: u16) -> bool;
    /// What a loopback address is to it. To its healthcheck every instance of its service is itself: what it asks by the
    /// service's name is meant for the one that it checks.
    fn meaning_of(&self, address: Ipv4Addr) -> Meaning;
    /// Whether an address that is no loopback address is this machine's.
    fn is_this_machines(&self, address: IpAddr) -> bool;
}

/// What a loopback address is to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Itself.
    Own,
    /// Another instance of this project.
    Instance,
    /// A service of this project none of whose instances is ready.
    Vacancy,
    /// The balancer, or somebody else to whom a name leads.
    Named,
    /// An instance of another project, or one of this project that has ended.
    Stranger,
    /// This machine, as `localhost` is.
    Machine,
}

/// What becomes of a `bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    /// The kernel does it as it is.
    Pass,
    /// It goes to this port of the instance's address.
    Move { port: u16 },
    /// The kernel does it as it is or, where another instance has the port, at the instance's address.
    Share { port: u16 },
    /// The second family of a server that has the first: it is given a port that nobody asks for.
    Aside,
}

pub(super) fn bind(request: &Request, instance: &impl Instance) -> Bind {
    let (ip, port) = (request.address.ip(), request.address.port());
    if port == 0 || !is_local(ip) {
        return Bind::Pass;
    }
    match request.kind {
        // At the instance's address it could send to no other machine.
        Kind::Datagram if !instance.lists_udp(port) => Bind::Share { port },
        Kind::Stream if is_second_family(ip) && instance.holds(port) => Bind::Aside,
        Kind::Stream | Kind::Datagram => Bind::Move { port },
    }
}

/// What becomes of a `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connect {
    /// The kernel does it as it is.
    Pass,
    /// It reaches what an instance has at this port of its address, or nobody.
    Instance { address: Ipv4Addr, port: u16 },
    /// The kernel does it as it is where a socket listens exactly there; else it is refused.
    Exact,
    /// It is refused.
    Refuse,
}

pub(super) fn connect(request: &Request, instance: &impl Instance) -> Connect {
    let (ip, port) = (request.address.ip().to_canonical(), request.address.port());
    let own = Connect::Instance { address: instance.address(), port };
    let is_own_port = || match request.kind {
        Kind::Stream => instance.has_container_port(port) || instance.holds(port),
        Kind::Datagram => instance.lists_udp(port),
    };
    let is_this_machine = match ip {
        IpAddr::V4(address) if address.is_loopback() => match instance.meaning_of(address) {
            Meaning::Vacancy => return Connect::Refuse,
            Meaning::Own if request.kind == Kind::Stream => return own,
            Meaning::Instance if request.kind == Kind::Stream => return Connect::Instance { address, port },
            Meaning::Stranger if request.kind == Kind::Stream => return Connect::Exact,
            Meaning::Own | Meaning::Instance | Meaning::Stranger | Meaning::Named => return Connect::Pass,
            Meaning::Machine => true,
        },
        ip if ip.is_unspecified() || ip.is_loopback() => true,
        ip => is_own_port() && instance.is_this_machines(ip),
    };
    if is_this_machine && is_own_port() { own } else { Connect::Pass }
}

/// A wildcard or any loopback address, of either family.
fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip.is_loopback()
}

fn is_second_family(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none())
}

/// The ports at which a healthcheck asks its own instance: `http://localhost:8000/`, `nc -z 127.0.0.1 8000`,
/// `/dev/tcp/localhost/8000`, `$(hostname):8000`; a URL without a port has its scheme's.
pub(super) fn ports_asked(argv: &[String]) -> BTreeSet<u16> {
    const HOSTS: [&str; 8] =
        ["localhost", "127.0.0.1", "0.0.0.0", "[::1]", "[::]", "$(hostname)", "${HOSTNAME}", "$HOSTNAME"];
    /// What may stand between host and port: `", "` of a call in Python is the longest that is common.
    const BETWEEN: [char; 6] = [':', '/', ' ', ',', '"', '\''];
    const BETWEEN_MAX: usize = 4;
    let line = argv.join(" ");
    let mut found = BTreeSet::new();
    for host in HOSTS {
        for (at, _) in line.match_indices(host) {
            let (before, from) = line.split_at(at);
            let rest = from.get(host.len()..).unwrap_or_default();
            let port = match before.rsplit_once("://") {
                Some((scheme, "")) => match (rest.strip_prefix(':'), scheme) {
                    (Some(rest), _) => leading_number(rest),
                    (None, scheme) if scheme.ends_with("https") => Some(443),
                    (None, scheme) if scheme.ends_with("http") => Some(80),
                    (None, _) => None,
                },
                _ => {
                    let digits = rest.trim_start_matches(BETWEEN);
                    let between = rest.len() - digits.len();
                    leading_number(digits).filter(|_| (1..=BETWEEN_MAX).contains(&between))
                }
            };
            found.extend(port.filter(|port| *port != 0));
        }
    }
    found
}

fn leading_number(text: &str) -> Option<u16> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// Reads the name of an abstract unix socket out of a `struct sockaddr`.
pub(super) fn abstract_name(bytes: &[u8]) -> Option<&[u8]> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    bytes.get(2..)?.strip_prefix(b"\0").filter(|name| family == 1 && !name.is_empty())
}

/// Writes such a name as a person reads it.
pub(super) fn shown_name(name: &[u8]) -> String {
    const NAME_BYTES_MAX: usize = 40;
    format!("@{}", name.get(..NAME_BYTES_MAX).unwrap_or(name).escape_ascii())
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

    const VACANCY: Ipv4Addr = Ipv4Addr::new(127, 8, 8, 8);
    const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 7, 7, 7);
    const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);

    /// Holds 80 and 5000, and has 8000 in a container. Lists 53/udp.
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
        fn has_container_port(&self, port: u16) -> bool {
            port == 8000
        }
        fn meaning_of(&self, address: Ipv4Addr) -> Meaning {
            match address {
                OWN => Meaning::Own,
                OTHER => Meaning::Instance,
                VACANCY => Meaning::Vacancy,
                BALANCER => Meaning::Named,
                STRANGER => Meaning::Stranger,
                _ => Meaning::Machine,
            }
        }
        fn is_this_machines(&self, address: IpAddr) -> bool {
            ["192.168.1.5", "2001:db8::5"].iter().any(|own| address == own.parse::<IpAddr>().unwrap())
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
        check(Kind::Datagram, "0.0.0.0:8000", Bind::Share { port: 8000 });
        check(Kind::Datagram, "[::1]:8000", Bind::Share { port: 8000 });
        check(Kind::Datagram, "192.168.1.1:8000", Bind::Pass);
        check(Kind::Datagram, "0.0.0.0:0", Bind::Pass);
    }

    #[test]
    fn connects() {
        let check = |kind, address: &str, expect| {
            let request = Request { address: address.parse().unwrap(), kind };
            assert_eq!(connect(&request, &Fixed), expect, "{kind:?} {address}");
        };
        let own = |port| Connect::Instance { address: OWN, port };
        for host in [
            "127.0.0.1",
            "127.0.0.2",
            "127.5.5.5",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "192.168.1.5",
            "[2001:db8::5]",
        ] {
            // What it holds, and what it will.
            for port in [80, 5000, 8000] {
                check(Kind::Stream, &format!("{host}:{port}"), own(port));
            }
            check(Kind::Stream, &format!("{host}:5432"), Connect::Pass);
            check(Kind::Datagram, &format!("{host}:53"), own(53));
            check(Kind::Datagram, &format!("{host}:5000"), Connect::Pass);
        }
        for host in ["127.0.0.1", "127.5.5.5", "0.0.0.0", "192.168.1.5"] {
            check(Kind::Stream, &format!("[::ffff:{host}]:8000"), own(8000));
        }
        // An instance is at its address on every port.
        check(Kind::Stream, "127.3.4.5:80", own(80));
        check(Kind::Stream, "127.3.4.5:5432", own(5432));
        check(Kind::Stream, "127.9.9.9:5432", Connect::Instance { address: OTHER, port: 5432 });
        check(Kind::Stream, "[::ffff:127.9.9.9]:80", Connect::Instance { address: OTHER, port: 80 });
        check(Kind::Datagram, "127.9.9.9:53", Connect::Pass);
        check(Kind::Stream, "127.8.8.8:5432", Connect::Refuse);
        check(Kind::Stream, "127.7.7.7:80", Connect::Pass);
        check(Kind::Stream, "127.6.6.6:80", Connect::Exact);
        check(Kind::Stream, "10.0.0.1:8000", Connect::Pass);
        check(Kind::Stream, "[2001:db8::6]:8000", Connect::Pass);
    }

    #[test]
    fn finds_the_ports_that_a_healthcheck_asks() {
        let check = |line: &str, expect: &[u16]| {
            let argv = ["sh".to_owned(), "-c".to_owned(), line.to_owned()];
            assert_eq!(ports_asked(&argv), BTreeSet::from_iter(expect.iter().copied()), "{line}");
        };
        check("curl -fsS http://localhost:8000/health", &[8000]);
        check("curl http://[::1]:9000 || wget -qO- 127.0.0.1:9001/x", &[9000, 9001]);
        check("curl http://$(hostname):8000/; curl https://localhost/", &[443, 8000]);
        check("curl -f http://localhost || exit 1", &[80]);
        check("nc -z localhost 6379", &[6379]);
        check("exec 3<>/dev/tcp/127.0.0.1/8000", &[8000]);
        check("socket.create_connection((\"localhost\", 8000), 1)", &[8000]);
        check("pg_isready -h localhost -p 5432", &[]);
        check("curl http://localhost/1234", &[80]);
        check("curl http://localhost:99999/", &[]);
        check("redis-cli ping", &[]);
    }

    #[test]
    fn reads_abstract_names() {
        let check = |bytes: &[u8], expect: Option<&str>| {
            assert_eq!(abstract_name(bytes).map(shown_name).as_deref(), expect, "{bytes:?}");
        };
        check(b"\x01\0\0myapp", Some("@myapp"));
        check(b"\x01\0\0a\x1b\0b", Some("@a\\x1b\\x00b"));
        check(b"\x01\0/run/app", None);
        check(b"\x01\0\0", None);
        check(b"\x01\0", None);
        check(b"\x02\0\0abc", None);
        check(b"", None);
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
