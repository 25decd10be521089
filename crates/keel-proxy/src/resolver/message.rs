//! DNS messages as far as addresses are asked for (RFC 1035 §4, RFC 3596), without I/O.
//!
//! Own code rather than a library's: what counts as an answer follows nginx's resolver, which takes names beyond the 255
//! octets of the standard, every address in the answer section, and the last CNAME there. Whoever sent a message may have
//! made it to harm: each read is checked, and a compressed name follows a bounded number of pointers.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a name, dots included, beyond which it isn't taken.
const NAME_BYTES_MAX: usize = 1024;

/// Pointers that one compressed name may follow.
const POINTERS_MAX: usize = 128;

/// The bytes of a header.
const HEADER_BYTES: usize = 12;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
        }
    }
}

/// A question of which an answer is awaited.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) id: u16,
    /// In lower case, without a dot at its end.
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What a response says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u8,
    /// There is more, by TCP.
    pub(super) is_truncated: bool,
    pub(super) addresses: Vec<IpAddr>,
    /// What the name is an alias of, in lower case.
    pub(super) alias: Option<String>,
    /// The least time to live of the records, in seconds; `None` where there are none.
    pub(super) ttl: Option<u32>,
}

impl Query {
    /// Writes the question; `None` where the name can't be in one.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.name.len() + 6);
        out.extend_from_slice(&self.id.to_be_bytes());
        // Recursion is desired; one question, and nothing else.
        out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        if self.name.len() > NAME_BYTES_MAX {
            return None;
        }
        for label in self.name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            out.push(length);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out.extend_from_slice(&self.kind.number().to_be_bytes());
        // Class IN.
        out.extend_from_slice(&[0, 1]);
        Some(out)
    }

    /// Reads a message; `None` unless it answers this question and is whole.
    pub(super) fn read_reply(&self, message: &[u8]) -> Option<Reply> {
        let mut at = 0;
        let id = word(message, &mut at)?;
        let flags = word(message, &mut at)?;
        let questions = word(message, &mut at)?;
        let answers = word(message, &mut at)?;
        // A response to a plain query.
        if id != self.id || flags & 0xf870 != 0x8000 {
            return None;
        }
        let mut reply = Reply {
            code: u8::try_from(flags & 0xf).unwrap_or_default(),
            is_truncated: flags & 0x0200 != 0,
            ..Reply::default()
        };
        // Who can't read a question needn't repeat it.
        if reply.code == FORMAT_ERROR {
            return Some(reply);
        }
        at = HEADER_BYTES;
        let is_ours = questions == 1
            && name(message, &mut at)?.eq_ignore_ascii_case(&self.name)
            && word(message, &mut at)? == self.kind.number()
            && word(message, &mut at)? == 1;
        if !is_ours {
            return None;
        }
        if reply.code == 0 && !reply.is_truncated {
            (0..answers).try_for_each(|_| self.read_record(message, &mut at, &mut reply))?;
        }
        Some(reply)
    }

    fn read_record(&self, message: &[u8], at: &mut usize, reply: &mut Reply) -> Option<()> {
        name(message, at)?;
        let kind = word(message, at)?;
        let class = word(message, at)?;
        let ttl = u32::from(word(message, at)?) << 16 | u32::from(word(message, at)?);
        let length = usize::from(word(message, at)?);
        let start = *at;
        let data = message.get(start..start.checked_add(length)?)?;
        *at = start + length;
        if class != 1 {
            return None;
        }
        // The highest bit is never set (RFC 2181 §8).
        let ttl = if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
        reply.ttl = Some(reply.ttl.map_or(ttl, |least| least.min(ttl)));
        match (kind, self.kind) {
            (1, Kind::A) => reply.addresses.push(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))),
            (28, Kind::Aaaa) => {
                reply.addresses.push(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)));
            }
            (1 | 28, _) => return None,
            (CNAME, _) => {
                let mut target = start;
                reply.alias = Some(name(message, &mut target)?.to_ascii_lowercase());
            }
            _ => {}
        }
        Some(())
    }
}

/// The server couldn't read the question.
pub(super) const FORMAT_ERROR: u8 = 1;
/// There is no such name.
pub(super) const NO_SUCH_NAME: u8 = 3;
/// The highest code that nginx takes for an answer.
pub(super) const REFUSED: u8 = 5;

const CNAME: u16 = 5;

fn word(message: &[u8], at: &mut usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    let bytes = <[u8; 2]>::try_from(message.get(*at..end)?).ok()?;
    *at = end;
    Some(u16::from_be_bytes(bytes))
}

/// Reads a name, compressed or not, and leaves `at` behind it.
fn name(message: &[u8], at: &mut usize) -> Option<String> {
    let mut text = Vec::new();
    let mut behind = None;
    let mut pointers = 0;
    loop {
        let length = usize::from(*message.get(*at)?);
        *at += 1;
        match length {
            0 => break,
            1..=63 => {
                if !text.is_empty() {
                    text.push(b'.');
                }
                let end = *at + length;
                text.extend_from_slice(message.get(*at..end)?);
                *at = end;
            }
            0xc0.. => {
                let low = usize::from(*message.get(*at)?);
                behind.get_or_insert(*at + 1);
                *at = (length & 0x3f) << 8 | low;
                pointers += 1;
            }
            _ => return None,
        }
        if text.len() > NAME_BYTES_MAX || pointers > POINTERS_MAX {
            return None;
        }
    }
    *at = behind.unwrap_or(*at);
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: Kind) -> Query {
        Query { id: 7, name: name.into(), kind }
    }

    /// A response with these records, each a name's pointer to the question, a type, a ttl and data.
    fn response(query: &Query, flags: u16, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut message = query.write().unwrap();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (kind, ttl, data) in records {
            message.extend_from_slice(&[0xc0, 12]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1]);
            message.extend_from_slice(&ttl.to_be_bytes());
            message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    #[test]
    fn names_that_no_question_can_hold_are_not_asked_for() {
        let check = |name: &str, expect: bool| {
            assert_eq!(query(name, Kind::A).write().is_some(), expect, "{name}");
        };
        check("a.example", true);
        check("_http._tcp.example", true);
        check(&"a".repeat(63), true);
        check(&"a".repeat(64), false);
        check("", false);
        check("a..b", false);
        check(&"a.".repeat(600), false);
    }

    #[test]
    fn takes_addresses_and_the_alias_with_the_least_time_to_live() {
        let asked = query("app.example", Kind::A);
        // The alias is `x` in front of what stands in the question.
        let message = response(&asked, 0x8180, &[(5, 60, b"\x01X\xc0\x10"), (1, 30, &[10, 0, 0, 1])]);
        let reply = asked.read_reply(&message).unwrap();
        assert_eq!(reply.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!((reply.alias.as_deref(), reply.ttl), (Some("x.example"), Some(30)));
        let six = query("app.example", Kind::Aaaa);
        let message = response(&six, 0x8180, &[(28, 5, &[0; 16])]);
        assert_eq!(six.read_reply(&message).unwrap().addresses, [IpAddr::from([0; 16])]);
    }

    #[test]
    fn takes_only_a_whole_response_to_its_question() {
        let asked = query("app.example", Kind::A);
        let message = response(&asked, 0x8180, &[(1, 30, &[10, 0, 0, 1])]);
        assert!(asked.read_reply(&message).is_some());
        for cut in 0..message.len() {
            assert!(asked.read_reply(&message[..cut]).is_none(), "{cut}");
        }
        assert!(query("other.example", Kind::A).read_reply(&message).is_none());
        assert!(query("app.example", Kind::Aaaa).read_reply(&message).is_none());
        assert!(Query { id: 8, ..asked.clone() }.read_reply(&message).is_none());
        // A query is no response, and an address has its length.
        assert!(asked.read_reply(&asked.write().unwrap()).is_none());
        assert!(asked.read_reply(&response(&asked, 0x8180, &[(1, 30, &[])])).is_none());
    }

    #[test]
    fn says_what_a_server_refuses() {
        let asked = query("app.example", Kind::A);
        let code = |flags| asked.read_reply(&response(&asked, flags, &[])).map(|reply| reply.code);
        assert_eq!(code(0x8183), Some(NO_SUCH_NAME));
        assert_eq!(code(0x8182), Some(2));
        assert!(asked.read_reply(&response(&asked, 0x8380, &[])).unwrap().is_truncated);
        // Its head alone says that a question can't be read.
        let head = [0, 7, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(asked.read_reply(&head).map(|reply| reply.code), Some(FORMAT_ERROR));
    }

    #[test]
    fn a_name_that_points_to_itself_ends() {
        let asked = query("app.example", Kind::A);
        let behind_question = u8::try_from(asked.write().unwrap().len()).unwrap();
        let message = response(&asked, 0x8180, &[(5, 60, &[0xc0, behind_question + 12])]);
        assert!(asked.read_reply(&message).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let asked = query("app.example", Kind::A);
        let message = response(&asked, 0x8180, &[(5, 60, b"\x01X\xc0\x10"), (1, 30, &[10, 0, 0, 1])]);
        for at in 0..message.len() {
            for byte in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut changed = message.clone();
                changed[at] = byte;
                let _ = asked.read_reply(&changed);
            }
        }
    }
}
