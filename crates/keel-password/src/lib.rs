//! Password files as Apache's `htpasswd` writes them, and whether a password is the one in an entry.
//!
//! The schemes are those of nginx on Linux: `$apr1$`, `{SHA}`, `{SSHA}`, `{PLAIN}` and, as libc's crypt(3) has them, DES,
//! `$1$` (MD5), `$2a$`, `$2b$`, `$2y$` (bcrypt), `$5$` and `$6$` (SHA-256, SHA-512). MD5-crypt and DES-crypt are written out
//! here, as no maintained crate has them; the rest is RustCrypto's and rust-bcrypt's. An entry of another scheme matches no
//! password, which is what crypt(3) makes of it.
//!
//! No I/O and no thread: some schemes take milliseconds on purpose ([`cost`]), and who calls decides where.

#![forbid(unsafe_code)]

mod des_crypt;
mod md5_crypt;
mod sha_crypt;
mod user_file;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

pub use user_file::UserFile;

const PLAIN: &[u8] = b"{PLAIN}";
const SHA: &[u8] = b"{SHA}";
const SSHA: &[u8] = b"{SSHA}";

/// Length of a SHA-1 digest in bytes.
const SHA1_BYTES: usize = 20;

/// How long it takes to verify a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A microsecond or so.
    Small,
    /// Up to seconds, as the entry says.
    Large,
}

/// Says how long it takes to verify a password against an entry.
pub fn cost(entry: &[u8]) -> Cost {
    let is_small = [PLAIN, SHA, SSHA].iter().any(|scheme| entry.starts_with(scheme));
    if is_small { Cost::Small } else { Cost::Large }
}

/// Says whether a password is the one in an entry, in a time that doesn't tell how much of it is right.
pub fn verify(password: &[u8], entry: &[u8]) -> bool {
    // As for the C library, a password ends at its first zero.
    let password = password.split(|byte| *byte == 0).next().unwrap_or_default();
    if entry.starts_with(b"$2") {
        return bcrypt(password, entry);
    }
    let computed = if let Some(plain) = entry.strip_prefix(PLAIN) {
        return is_equal(plain, password);
    } else if let Some(digest) = entry.strip_prefix(SHA) {
        return is_equal(digest, STANDARD.encode(Sha1::digest(password)).as_bytes());
    } else if let Some(salted) = entry.strip_prefix(SSHA) {
        return salted_sha(password, salted);
    } else if entry.starts_with(md5_crypt::APACHE) {
        md5_crypt::hash(password, entry, md5_crypt::APACHE)
    } else if entry.starts_with(md5_crypt::UNIX) {
        md5_crypt::hash(password, entry, md5_crypt::UNIX)
    } else if entry.starts_with(sha_crypt::SHA256) || entry.starts_with(sha_crypt::SHA512) {
        sha_crypt::hash(password, entry)
    } else {
        des_crypt::hash(password, entry)
    };
    computed.is_some_and(|computed| is_equal(&computed, entry))
}

/// `{SSHA}`: the digest of password and salt, and the salt behind it.
fn salted_sha(password: &[u8], salted: &[u8]) -> bool {
    let Ok(decoded) = STANDARD.decode(salted) else { return false };
    let Some((digest, salt)) = decoded.split_at_checked(SHA1_BYTES) else { return false };
    is_equal(digest, &Sha1::new().chain_update(password).chain_update(salt).finalize())
}

fn bcrypt(password: &[u8], entry: &[u8]) -> bool {
    // The scheme takes 72 bytes of a password and no more.
    std::str::from_utf8(entry).is_ok_and(|entry| ::bcrypt::verify(password, entry).unwrap_or(false))
}

/// Compares without stopping at the first difference.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Writes `bits` in the alphabet of crypt(3), six bits a character from the lowest on.
fn push_base64(out: &mut Vec<u8>, mut bits: u32, characters: usize) {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..characters {
        out.push(ALPHABET[(bits & 0x3f) as usize]);
        bits >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries for `password`, made with libxcrypt and OpenSSL.
    const ENTRIES: [&str; 12] = [
        "abJnggxhB/yWI",
        "./xZjzHv5vzVE",
        "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        "$1$longersa$BfqifoSPKEu8zFcCU0/VJ/",
        "$5$saltstring$OH4IDuTlsuTYPdED1gsuiRMyTAwNlRWyA6Xr3I4/dQ5",
        "$6$saltstring$adDbXsJjcDlq2662QPgd.tkSOVmnG9Tt3oXl4HR60SusC3AGjirnDenVZp3DGwLwqy6iYKCzannhaX9DR72nN1",
        "$6$rounds=1234$0123456789abcdef$ECxmOQWrlOn5HYr6Sn6r1P4ISbJCv5WmvgZdBf9SWR7yzapXjCF7zGJU0HXyjFSOHiUBBX6/eEAABnOSZLzrm0",
        "$2y$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
        "$apr1$abcdefgh$FBwExRW4dCc8aL.OvjpIE1",
        "{PLAIN}password",
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0",
    ];

    #[test]
    fn every_scheme_takes_the_right_password_and_no_other() {
        for entry in ENTRIES {
            assert!(verify(b"password", entry.as_bytes()), "{entry}");
            for wrong in ["passwore", "", "passw"] {
                assert!(!verify(wrong.as_bytes(), entry.as_bytes()), "{wrong} for {entry}");
            }
            let cut = &entry[..entry.len() - 1];
            assert!(!verify(b"password", cut.as_bytes()), "for {cut}");
        }
    }

    #[test]
    fn long_passwords_and_salts_are_used_as_far_as_the_scheme_does() {
        let long = "a password of more than sixty-four bytes, so that no digest is as long as it is";
        for entry in [
            "$1$salt$apNyKu8NsoPO5VkWKIHRL1",
            "$5$rounds=1000$0123456789abcdef$ZqErtkVXLmzIEWAI7iNxTV2FXSndXFnC63lzZrcomdD",
            "$6$rounds=1000$s$BpPmG8ncx9EWP8sXWRd9FCBvObbKnE/Mf49g5QBh5c/9YkoToU60yaQcYjIwjPBgKG0P7aCKZaTATTvnb/o241",
            "$5$rounds=1000$$qd/9YQF1s6AL63Mhiycw9HyiNFOk1Xn3WaSne741jC9",
            "$2b$04$abcdefghijklmnopqrstuuK6sguEbqXivsneqB/A.80S3Q9gnBidy",
            "$apr1$x$SVBDf85UhqtPY7fLRz41M1",
        ] {
            assert!(verify(long.as_bytes(), entry.as_bytes()), "{entry}");
        }
        // DES has eight characters of a password.
        assert!(verify(b"passwordXYZ", b"abJnggxhB/yWI"));
    }

    #[test]
    fn entries_that_are_none_match_nothing() {
        let entries = [
            "",
            "*",
            "!",
            "x",
            "$",
            "$1$",
            "$apr1$",
            "$5$",
            "$6$",
            "$6$rounds=10$salt$x",
            "$2y$",
            "$2y$05$short",
            "{SHA}",
            "{SHA}_____Mm5Pz8GgiULbPgzG37mj9g=",
            "{SSHA}",
            "{SSHA}Zm9vCg==",
            "{SSHA}_____wQadOA1e+/f+T+H3eCQQhRzYWx0",
            "{sha}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$9$x$y",
            "ö!abcdefghijk",
        ];
        for entry in entries {
            assert!(!verify(b"password", entry.as_bytes()), "{entry}");
            assert!(!verify(b"", entry.as_bytes()), "{entry}");
        }
        assert!(verify(b"", b"{PLAIN}"));
    }

    #[test]
    fn only_schemes_that_are_quick_are_called_so() {
        let small = |entry: &&&str| cost(entry.as_bytes()) == Cost::Small;
        assert!(ENTRIES.iter().filter(small).all(|entry| entry.starts_with('{')));
        assert_eq!(ENTRIES.iter().filter(small).count(), 3);
    }

    #[test]
    fn a_password_ends_at_its_first_zero() {
        assert!(verify(b"password\0more", b"{PLAIN}password"));
    }
}
