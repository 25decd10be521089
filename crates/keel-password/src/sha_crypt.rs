//! SHA-crypt (Ulrich Drepper, <https://www.akkadia.org/drepper/SHA-crypt.txt>): the text of an entry around RustCrypto's
//! rounds.

use ::sha_crypt::{Params, sha256_crypt, sha512_crypt};

use crate::push_base64;

/// The mark of SHA-256.
pub(crate) const SHA256: &[u8] = b"$5$";

/// The mark of SHA-512.
pub(crate) const SHA512: &[u8] = b"$6$";

const SALT_BYTES_MAX: usize = 16;
const ROUNDS_DEFAULT: u32 = 5000;

/// The entry that a password has with the salt and the rounds of another entry; `None` where these are none.
pub(crate) fn hash(password: &[u8], entry: &[u8]) -> Option<Vec<u8>> {
    let (mark, mut rest) = entry.split_at_checked(SHA256.len())?;
    let mut out = mark.to_vec();
    let mut rounds = ROUNDS_DEFAULT;
    if let Some(behind) = rest.strip_prefix(b"rounds=") {
        let end = behind.iter().position(|byte| *byte == b'$')?;
        let (number, salt) = behind.split_at(end);
        rounds = std::str::from_utf8(number).ok()?.parse().ok()?;
        rest = salt.get(1..)?;
        out.extend_from_slice(b"rounds=");
        out.extend_from_slice(number);
        out.push(b'$');
    }
    let salt = rest.split(|byte| *byte == b'$').next()?;
    let salt = salt.get(..SALT_BYTES_MAX).unwrap_or(salt);
    out.extend_from_slice(salt);
    out.push(b'$');
    let params = Params::new(rounds).ok()?;
    if mark == SHA256 {
        push_sha256(&mut out, &sha256_crypt(password, salt, params));
    } else {
        push_sha512(&mut out, &sha512_crypt(password, salt, params));
    }
    Some(out)
}

/// Writes the digest in the specification's order: three bytes, a third of the digest apart, make four characters.
fn push_sha256(out: &mut Vec<u8>, digest: &[u8; 32]) {
    let byte = |at: usize| u32::from(digest[at]);
    let (mut a, mut b, mut c) = (0, 10, 20);
    for _ in 0..10 {
        push_base64(out, byte(a) << 16 | byte(b) << 8 | byte(c), 4);
        (a, b, c) = (c + 1, a + 1, b + 1);
    }
    push_base64(out, byte(31) << 8 | byte(30), 3);
}

fn push_sha512(out: &mut Vec<u8>, digest: &[u8; 64]) {
    let byte = |at: usize| u32::from(digest[at]);
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        push_base64(out, byte(a) << 16 | byte(b) << 8 | byte(c), 4);
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    push_base64(out, byte(63), 2);
}
