//! MD5-crypt by Poul-Henning Kamp (FreeBSD 2, 1994), and Apache's variant, which differs by its mark alone.

use md5::{Digest as _, Md5};

use crate::push_base64;

/// The mark of crypt(3).
pub(crate) const UNIX: &[u8] = b"$1$";

/// The mark of Apache.
pub(crate) const APACHE: &[u8] = b"$apr1$";

const SALT_BYTES_MAX: usize = 8;
const DIGEST_BYTES: usize = 16;
const ROUNDS: usize = 1000;

/// Which bytes of the digest make four characters each.
const ORDER: [(usize, usize, usize); 5] = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)];

/// The entry that a password has with the salt of another entry.
pub(crate) fn hash(password: &[u8], entry: &[u8], mark: &[u8]) -> Option<Vec<u8>> {
    let salt = entry.strip_prefix(mark)?.split(|byte| *byte == b'$').next()?;
    let salt = salt.get(..SALT_BYTES_MAX).unwrap_or(salt);
    let digest = digest(password, salt, mark);
    let byte = |at: usize| u32::from(digest[at]);
    let mut out = [mark, salt, b"$"].concat();
    for (high, middle, low) in ORDER {
        push_base64(&mut out, byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    push_base64(&mut out, byte(11), 2);
    Some(out)
}

fn digest(password: &[u8], salt: &[u8], mark: &[u8]) -> [u8; DIGEST_BYTES] {
    let inner: [u8; DIGEST_BYTES] =
        Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut first = Md5::new().chain_update(password).chain_update(mark).chain_update(salt);
    // As many bytes of the inner digest as the password has, over and over.
    for piece in password.chunks(DIGEST_BYTES) {
        first.update(&inner[..piece.len()]);
    }
    // For each bit of the password's length a zero or the password's first character.
    let mut bits = password.len();
    while bits != 0 {
        match password.first() {
            Some(byte) if bits & 1 == 0 => first.update([*byte]),
            _ => first.update([0]),
        }
        bits >>= 1;
    }
    let mut digest: [u8; DIGEST_BYTES] = first.finalize().into();
    for round in 0..ROUNDS {
        let is_odd = round % 2 == 1;
        let mut next = Md5::new();
        next.update(if is_odd { password } else { &digest });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if is_odd { &digest } else { password });
        digest = next.finalize().into();
    }
    digest
}
