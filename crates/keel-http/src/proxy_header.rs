//! The header of the PROXY protocol, versions 1 and 2, with which a balancer in front says who its client is
//! (haproxy.org/download/3.2/doc/proxy-protocol.txt).
//!
//! A header may come in pieces; it is taken only when it is whole. What says nothing of addresses (`UNKNOWN`, `LOCAL`,
//! datagrams, families other than IPv4 and IPv6) is taken without any, as in nginx. Stricter than nginx: the addresses
//! of version 1 must be addresses of its family, its line ends within 107 bytes (§2.1), commands that aren't assigned are
//! refused (§2.2), and so are TLVs that reach beyond the header. Checksums are not compared.

use std::net::{IpAddr, SocketAddr};

use crate::Progress;

/// The longest header of version 1, its line's end included (§2.1).
pub const V1_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is taken, TLVs included; nginx's `NGX_PROXY_PROTOCOL_MAX_HEADER`.
pub const V2_BYTES_MAX: usize = 4096;

/// What every header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of version 2 before addresses.
const V2_FIXED_BYTES: usize = 16;

/// The command of a connection that the balancer makes for itself.
const LOCAL: u8 = 0;

/// The command of a connection on behalf of a client.
const PROXY: u8 = 1;

/// The type of the TLV about the client's TLS, `PP2_TYPE_SSL`.
const TLV_SSL: u8 = 0x20;

/// The bytes before the inner TLVs of the one about TLS: its flags and the result of verifying a certificate.
const SSL_FIXED_BYTES: usize = 5;

/// A header. Its fields point into the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Whom it tells of; `None` where it says nothing about that.
    pub addresses: Option<Addresses>,
    /// The TLVs of version 2, well-formed.
    pub tlvs: Tlvs<'a>,
}

/// Both ends of the connection that a header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub server: SocketAddr,
}

/// Why a header can't be taken. Shown in nginx's words, where nginx has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is no header, or not as its version writes it.
    #[error("broken header")]
    Syntax,
    /// A header of a version to come.
    #[error("unknown PROXY protocol version: {0}")]
    Version(u8),
    /// Neither `LOCAL` nor `PROXY`.
    #[error("unknown PROXY protocol command: {0}")]
    Command(u8),
    /// It is longer than [`V2_BYTES_MAX`].
    #[error("header is too large")]
    TooLong,
    /// It ends within its addresses.
    #[error("too short PROXY protocol addresses")]
    Addresses,
    /// A TLV reaches beyond its end.
    #[error("broken PROXY protocol TLV")]
    Tlv,
}

/// Reads a header at the beginning of `bytes`. [`Progress::Complete`] says where it ends.
///
/// # Errors
///
/// As soon as the bytes can't become a header whatever follows.
pub fn parse(bytes: &[u8]) -> Result<(Progress, Header<'_>), Broken> {
    let begins_as = |text: &[u8]| bytes.iter().zip(text).all(|(one, other)| one == other);
    let found = if begins_as(&SIGNATURE) {
        v2(bytes)?
    } else if begins_as(b"PROXY ") {
        v1(bytes)?.map(|(end, addresses)| (end, Header { addresses, tlvs: Tlvs(&[]) }))
    } else {
        return Err(Broken::Syntax);
    };
    let nothing = Header { addresses: None, tlvs: Tlvs(&[]) };
    Ok(found.map_or((Progress::Partial, nothing), |(end, header)| (Progress::Complete(end), header)))
}

/// Reads a line of version 1; gives its end and what it says.
fn v1(bytes: &[u8]) -> Result<Option<(usize, Option<Addresses>)>, Broken> {
    let bounded = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', bounded) else {
        return if bytes.len() < V1_BYTES_MAX { Ok(None) } else { Err(Broken::Syntax) };
    };
    let line = bounded.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Broken::Syntax)?;
    let text = std::str::from_utf8(line).map_err(|_| Broken::Syntax)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    let addresses = match family {
        "UNKNOWN" => None,
        "TCP4" | "TCP6" => {
            let [client, server, client_port, server_port] =
                [words.next(), words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
            let is_whole = words.next().is_none();
            let found = address(family, client).zip(address(family, server));
            let ports = port(client_port).zip(port(server_port));
            let ((client, server), (client_port, server_port)) =
                found.zip(ports).filter(|_| is_whole).ok_or(Broken::Syntax)?;
            Some(Addresses {
                client: SocketAddr::new(client, client_port),
                server: SocketAddr::new(server, server_port),
            })
        }
        _ => return Err(Broken::Syntax),
    };
    Ok(Some((end + 1, addresses)))
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        _ => text.parse().ok().map(IpAddr::V6),
    }
}

fn port(text: &str) -> Option<u16> {
    // The standard library takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads a header of version 2; gives its end and what it says.
fn v2(bytes: &[u8]) -> Result<Option<(usize, Header<'_>)>, Broken> {
    let Some(&[version_command, family_transport, high, low]) =
        bytes.get(SIGNATURE.len()..V2_FIXED_BYTES).and_then(|fixed| fixed.first_chunk())
    else {
        return match bytes.get(SIGNATURE.len()) {
            Some(byte) if byte >> 4 != 2 => Err(Broken::Version(byte >> 4)),
            _ => Ok(None),
        };
    };
    let (version, command) = (version_command >> 4, version_command & 0xf);
    if version != 2 {
        return Err(Broken::Version(version));
    }
    if !matches!(command, LOCAL | PROXY) {
        return Err(Broken::Command(command));
    }
    let end = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if end > V2_BYTES_MAX {
        return Err(Broken::TooLong);
    }
    let Some(rest) = bytes.get(V2_FIXED_BYTES..end) else { return Ok(None) };
    let nothing = Header { addresses: None, tlvs: Tlvs(&[]) };
    // The address family, and 1 for a stream.
    let header = match (family_transport >> 4, family_transport & 0xf) {
        _ if command == LOCAL => nothing,
        (1, 1) => inet(rest, |octets: [u8; 4]| octets.into())?,
        (2, 1) => inet(rest, |octets: [u8; 16]| octets.into())?,
        _ => nothing,
    };
    Ok(Some((end, header)))
}

/// Reads addresses of so many bytes each, both ports, and TLVs.
fn inet<const BYTES: usize>(rest: &[u8], ip: fn([u8; BYTES]) -> IpAddr) -> Result<Header<'_>, Broken> {
    let short = Broken::Addresses;
    let (client, rest) = rest.split_first_chunk::<BYTES>().ok_or(short)?;
    let (server, rest) = rest.split_first_chunk::<BYTES>().ok_or(short)?;
    let (client_port, rest) = rest.split_first_chunk::<2>().ok_or(short)?;
    let (server_port, rest) = rest.split_first_chunk::<2>().ok_or(short)?;
    let tlvs = Tlvs(rest);
    if !tlvs.are_whole() {
        return Err(Broken::Tlv);
    }
    let addresses = Addresses {
        client: SocketAddr::new(ip(*client), u16::from_be_bytes(*client_port)),
        server: SocketAddr::new(ip(*server), u16::from_be_bytes(*server_port)),
    };
    Ok(Header { addresses: Some(addresses), tlvs })
}

/// Additional values of a header, each with a type and a length (§2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// Takes bytes that a header had.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The first value of a type.
    pub fn get(mut self, kind: u8) -> Option<&'a [u8]> {
        while let Some((found, value)) = self.next() {
            if found == kind {
                return Some(value);
            }
        }
        None
    }

    /// The first value of a type among those about the client's TLS (`PP2_TYPE_SSL`).
    pub fn ssl(self, kind: u8) -> Option<&'a [u8]> {
        Tlvs(self.get(TLV_SSL)?.get(SSL_FIXED_BYTES..)?).get(kind)
    }

    /// Gives what came of verifying the client's certificate; 0 if it is valid.
    pub fn ssl_verify(self) -> Option<u32> {
        let fixed = self.get(TLV_SSL)?.first_chunk::<SSL_FIXED_BYTES>()?;
        fixed.last_chunk().map(|verify| u32::from_be_bytes(*verify))
    }

    fn are_whole(mut self) -> bool {
        while self.next().is_some() {}
        self.0.is_empty()
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[kind, high, low], rest) = self.0.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        self.0 = rest;
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header whole, in front of other bytes, and cut at every byte; gives what it says of addresses.
    fn read(header: &[u8]) -> Result<Option<(String, String)>, Broken> {
        let shown = |(progress, header): (Progress, Header<'_>), end| {
            assert_eq!(progress, Progress::Complete(end));
            header.addresses.map(|both| (both.client.to_string(), both.server.to_string()))
        };
        let result = parse(header).map(|found| shown(found, header.len()));
        for end in 0..header.len() {
            match parse(&header[..end]) {
                Ok((progress, _)) => assert_eq!(progress, Progress::Partial, "cut at {end}"),
                Err(error) => assert_eq!(Err(error), result, "cut at {end}"),
            }
        }
        let followed = [header, b"GET / HTTP/1.1"].concat();
        assert_eq!(parse(&followed).map(|found| shown(found, header.len())), result);
        result
    }

    fn check(header: impl AsRef<[u8]>, expect: Result<Option<(&str, &str)>, Broken>) {
        let owned = |(one, other): (&str, &str)| (one.to_owned(), other.to_owned());
        let header = header.as_ref();
        assert_eq!(read(header), expect.map(|both| both.map(owned)), "{:?}", String::from_utf8_lossy(header));
    }

    fn v2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0, 123, 0x16, 0x2e];

    #[test]
    fn lines_of_version_1() {
        check("PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\n", Ok(Some(("192.0.2.1:123", "192.0.2.2:5678"))));
        check("PROXY TCP6 2001:Db8::1 ::1 0 65535\r\n", Ok(Some(("[2001:db8::1]:0", "[::1]:65535"))));
        check("PROXY UNKNOWN\r\n", Ok(None));
        check("PROXY UNKNOWN 1 2 3 4 5 6\r\n", Ok(None));
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
        assert_eq!(longest.len(), V1_BYTES_MAX);
        check(longest, Ok(None));
    }

    #[test]
    fn broken_lines_of_version_1() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 123 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 5678\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 123\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 123 5678 9\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 123 5678\r\n",
            "PROXY TCP4 ::1 ::1 123 5678\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 123 5678\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 123 5678\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
            "proxy UNKNOWN\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nPROXY",
        ] {
            check(line, Err(Broken::Syntax));
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        check(&endless, Err(Broken::Syntax));
        check(format!("{endless}\r\n"), Err(Broken::Syntax));
        assert_eq!(
            parse(&endless.as_bytes()[..V1_BYTES_MAX - 1]).map(|found| found.0),
            Ok(Progress::Partial)
        );
        assert_eq!(parse(&endless.as_bytes()[..V1_BYTES_MAX]).map(|found| found.0), Err(Broken::Syntax));
    }

    #[test]
    fn headers_of_version_2() {
        check(v2(0x21, 0x11, &INET), Ok(Some(("192.0.2.1:123", "192.0.2.2:5678"))));
        let mut inet6 = [0; 36];
        (inet6[15], inet6[31], inet6[33]) = (1, 2, 80);
        check(v2(0x21, 0x21, &inet6), Ok(Some(("[::1]:80", "[::2]:0"))));
        // The sender's own connection, no address, a datagram, unix sockets, a family that isn't assigned.
        for (version_command, family) in [(0x20, 0x11), (0x21, 0), (0x21, 0x12), (0x21, 0x31), (0x21, 0x41)] {
            check(v2(version_command, family, &[7; 216]), Ok(None));
            check(v2(version_command, family, &[]), Ok(None));
        }
        check(v2(0x31, 0x11, &INET), Err(Broken::Version(3)));
        check(v2(0x22, 0x11, &INET), Err(Broken::Command(2)));
        check(v2(0x21, 0x11, &INET[..11]), Err(Broken::Addresses));
        check(v2(0x21, 0x21, &inet6[..35]), Err(Broken::Addresses));
        let filled =
            |length: usize| [&INET[..], &[4], &(length as u16).to_be_bytes(), &vec![0; length]].concat();
        let most = V2_BYTES_MAX - V2_FIXED_BYTES - INET.len() - 3;
        check(v2(0x21, 0x11, &filled(most)), Ok(Some(("192.0.2.1:123", "192.0.2.2:5678"))));
        check(v2(0x21, 0x11, &filled(most + 1)), Err(Broken::TooLong));
        check(v2(0x20, 0, &[0; 0xffff]), Err(Broken::TooLong));
    }

    #[test]
    fn tlvs() {
        let tlv = |kind: u8, value: &[u8]| [&[kind, 0, value.len() as u8], value].concat();
        let inner = [&[1, 0, 0, 1, 2][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"name")].concat();
        let all = [tlv(1, b"h2"), tlv(1, b"h3"), tlv(4, b""), tlv(TLV_SSL, &inner)].concat();
        let header = v2(0x21, 0x11, &[&INET[..], &all].concat());
        let (_, read) = parse(&header).expect("whole");
        assert_eq!(
            (read.tlvs.get(1), read.tlvs.get(4), read.tlvs.get(2)),
            (Some(&b"h2"[..]), Some(&b""[..]), None)
        );
        assert_eq!((read.tlvs.ssl(0x22), read.tlvs.ssl(0x23)), (Some(&b"name"[..]), None));
        assert_eq!(read.tlvs.ssl_verify(), Some(0x102));
        let short = tlv(TLV_SSL, &[1, 0, 0, 0]);
        assert_eq!((Tlvs::new(&short).ssl_verify(), Tlvs::new(&short).ssl(0x21)), (None, None));
        for broken in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 0, 2, 0xff, 0xff, 0]] {
            check(v2(0x21, 0x11, &[&INET[..], broken].concat()), Err(Broken::Tlv));
        }
    }
}
