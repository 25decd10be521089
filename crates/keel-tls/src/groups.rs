//! OpenSSL's names of groups for the key exchange (`ssl_ecdh_curve`), as far as they are there.

use rustls::crypto::{SupportedKxGroup, aws_lc_rs::ALL_KX_GROUPS};

/// A group by IANA's number, the name that `$ssl_curve` shows, and others that it has.
type Group = (u16, &'static str, &'static [&'static str]);

const GROUPS: [Group; 15] = [
    (0x0017, "prime256v1", &["P-256", "secp256r1"]),
    (0x0018, "secp384r1", &["P-384"]),
    (0x0019, "secp521r1", &["P-521"]),
    (0x001a, "brainpoolP256r1", &[]),
    (0x001b, "brainpoolP384r1", &[]),
    (0x001c, "brainpoolP512r1", &[]),
    (0x001d, "X25519", &["x25519"]),
    (0x001e, "X448", &["x448"]),
    (0x0100, "ffdhe2048", &[]),
    (0x0101, "ffdhe3072", &[]),
    (0x0102, "ffdhe4096", &[]),
    (0x0103, "ffdhe6144", &[]),
    (0x0104, "ffdhe8192", &[]),
    (0x11eb, "SecP256r1MLKEM768", &[]),
    (0x11ec, "X25519MLKEM768", &[]),
];

/// What a list comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChoice {
    /// The groups by IANA's numbers, the preferred one first.
    pub groups: Vec<u16>,
    /// What OpenSSL knows and isn't there.
    pub missing: Vec<String>,
    /// What OpenSSL doesn't know either.
    pub unknown: Vec<String>,
}

/// Reads a list of groups; `auto` is no list.
pub fn choose_groups(list: &str) -> GroupChoice {
    let mut choice = GroupChoice::default();
    for name in list.split([':', '/']).filter(|name| !matches!(*name, "" | "auto")) {
        // `*` asks for a key share, `?` allows a name that isn't known.
        let bare = name.trim_start_matches(['*', '?', '-']);
        let known = GROUPS.iter().find(|(_, shown, others)| {
            shown.eq_ignore_ascii_case(bare) || others.iter().any(|other| other.eq_ignore_ascii_case(bare))
        });
        match known {
            Some((number, ..)) if find(*number).is_some() => choice.groups.push(*number),
            Some(_) => choice.missing.push(bare.to_owned()),
            None if name.starts_with('?') => {}
            None => choice.unknown.push(bare.to_owned()),
        }
    }
    choice
}

/// The name that nginx shows for a group.
pub fn group_name(number: u16) -> Option<&'static str> {
    GROUPS.iter().find(|(known, ..)| *known == number).map(|(_, name, _)| *name)
}

/// The group of that number, if it is there.
pub(crate) fn find(number: u16) -> Option<&'static dyn SupportedKxGroup> {
    ALL_KX_GROUPS.iter().find(|group| u16::from(group.name()) == number).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_openssl_s() {
        let choice = choose_groups("X25519MLKEM768:X25519:prime256v1:P-384:X448:secp111r1");
        assert_eq!(choice.groups, [0x11ec, 0x1d, 0x17, 0x18]);
        assert_eq!((choice.missing, choice.unknown), (vec!["X448".to_owned()], vec!["secp111r1".to_owned()]));
        assert_eq!(choose_groups("auto"), GroupChoice::default());
        assert_eq!(group_name(0x17), Some("prime256v1"));
    }
}
