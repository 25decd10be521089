//! The first crypt(3) of Unix (Morris and Thompson 1979, doi:10.1145/359168.359172): DES (FIPS 46-3) 25 times over a block
//! of zeros, its expansion changed by twelve bits of salt.
//!
//! Bits are bytes here: nobody should have such passwords any more, and it takes a fraction of a millisecond.

use crate::push_base64;

const ROUNDS: usize = 16;
const ITERATIONS: usize = 25;
const PASSWORD_BYTES_MAX: usize = 8;
const SALT_BITS_PER_CHARACTER: usize = 6;

/// Initial permutation; the final one is its inverse. Positions count from one, as in the standard.
#[rustfmt::skip]
const INITIAL: [u8; 64] = [
    58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4, 62, 54, 46, 38, 30, 22, 14, 6, 64, 56, 48, 40, 32, 24, 16, 8,
    57, 49, 41, 33, 25, 17, 9, 1, 59, 51, 43, 35, 27, 19, 11, 3, 61, 53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39, 31, 23, 15, 7,
];

/// Expansion of half a block.
#[rustfmt::skip]
const EXPANSION: [u8; 48] = [
    32, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12, 13, 12, 13, 14, 15, 16, 17,
    16, 17, 18, 19, 20, 21, 20, 21, 22, 23, 24, 25, 24, 25, 26, 27, 28, 29, 28, 29, 30, 31, 32, 1,
];

/// Permutation behind the boxes.
#[rustfmt::skip]
const PERMUTATION: [u8; 32] = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25,
];

/// First choice of the key's bits, without those of parity.
#[rustfmt::skip]
const CHOICE_1: [u8; 56] = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
    63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4,
];

/// Second choice of the key's bits, for each round.
#[rustfmt::skip]
const CHOICE_2: [u8; 48] = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
    41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
];

/// How far both halves of the key turn before each round.
const TURNS: [usize; ROUNDS] = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];

#[rustfmt::skip]
const BOXES: [[u8; 64]; 8] = [
    [14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7, 0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12, 11, 9, 5, 3, 8,
     4, 1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0, 15, 12, 8, 2, 4, 9, 1, 7, 5, 11, 3, 14, 10, 0, 6, 13],
    [15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10, 3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1, 10, 6, 9, 11, 5,
     0, 14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15, 13, 8, 10, 1, 3, 15, 4, 2, 11, 6, 7, 12, 0, 5, 14, 9],
    [10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8, 13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5, 14, 12, 11, 15, 1,
     13, 6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7, 1, 10, 13, 0, 6, 9, 8, 7, 4, 15, 14, 3, 11, 5, 2, 12],
    [7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15, 13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2, 12, 1, 10, 14, 9,
     10, 6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4, 3, 15, 0, 6, 10, 1, 13, 8, 9, 4, 5, 11, 12, 7, 2, 14],
    [2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9, 14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15, 10, 3, 9, 8, 6,
     4, 2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14, 11, 8, 12, 7, 1, 14, 2, 13, 6, 15, 0, 9, 10, 4, 5, 3],
    [12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11, 10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13, 14, 0, 11, 3, 8,
     9, 14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6, 4, 3, 2, 12, 9, 5, 15, 10, 11, 14, 1, 7, 6, 0, 8, 13],
    [4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1, 13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5, 12, 2, 15, 8, 6,
     1, 4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2, 6, 11, 13, 8, 1, 4, 10, 7, 9, 5, 0, 15, 14, 2, 3, 12],
    [13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7, 1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6, 11, 0, 14, 9, 2,
     7, 11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8, 2, 1, 14, 7, 4, 10, 8, 13, 15, 12, 9, 0, 3, 5, 6, 11],
];

/// The entry that a password has with the salt of another entry, its first two characters; `None` where these are none.
pub(crate) fn hash(password: &[u8], entry: &[u8]) -> Option<Vec<u8>> {
    let salt = entry.get(..2)?;
    let keys = keys(password);
    let expansion = expansion(salt)?;
    let mut block = [0; 64];
    for _ in 0..ITERATIONS {
        encrypt(&mut block, &keys, &expansion);
    }
    let mut out = salt.to_vec();
    // Eleven characters, the highest bit first, the last filled with two zeros.
    for six in block.chunks(6) {
        let bits = six.iter().fold(0, |bits, bit| bits << 1 | u32::from(*bit));
        push_base64(&mut out, bits << (6 - six.len()), 1);
    }
    Some(out)
}

/// The expansion that a salt makes: where it has a bit set, two places change theirs.
fn expansion(salt: &[u8]) -> Option<[u8; 48]> {
    let mut expansion = EXPANSION;
    for (character, at) in salt.iter().zip((0..).step_by(SALT_BITS_PER_CHARACTER)) {
        let value = match character {
            b'.' | b'/' => character - b'.',
            b'0'..=b'9' => character - b'0' + 2,
            b'A'..=b'Z' => character - b'A' + 12,
            b'a'..=b'z' => character - b'a' + 38,
            _ => return None,
        };
        for bit in (0..SALT_BITS_PER_CHARACTER).filter(|bit| value >> bit & 1 == 1) {
            expansion.swap(at + bit, at + bit + 24);
        }
    }
    Some(expansion)
}

/// The keys of the rounds: seven bits of each of the password's first eight characters.
fn keys(password: &[u8]) -> [[u8; 48]; ROUNDS] {
    let mut bits = [0; 64];
    for (byte, bits) in password.iter().take(PASSWORD_BYTES_MAX).zip(bits.chunks_mut(8)) {
        (0..7).zip(bits).for_each(|(at, bit)| *bit = byte >> (6 - at) & 1);
    }
    let mut chosen = CHOICE_1.map(|at| bits[usize::from(at) - 1]);
    TURNS.map(|turns| {
        let (left, right) = chosen.split_at_mut(28);
        left.rotate_left(turns);
        right.rotate_left(turns);
        CHOICE_2.map(|at| chosen[usize::from(at) - 1])
    })
}

fn encrypt(block: &mut [u8; 64], keys: &[[u8; 48]; ROUNDS], expansion: &[u8; 48]) {
    let turned = INITIAL.map(|at| block[usize::from(at) - 1]);
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&turned[..32]);
    right.copy_from_slice(&turned[32..]);
    for key in keys {
        let mixed = round(&right, key, expansion);
        let mut next = left;
        next.iter_mut().zip(mixed).for_each(|(bit, other)| *bit ^= other);
        (left, right) = (right, next);
    }
    for (from, to) in right.iter().chain(&left).zip(INITIAL) {
        block[usize::from(to) - 1] = *from;
    }
}

fn round(half: &[u8; 32], key: &[u8; 48], expansion: &[u8; 48]) -> [u8; 32] {
    let mut out = [0; 32];
    for (at, substitution) in BOXES.iter().enumerate() {
        let bit = |place: usize| half[usize::from(expansion[at * 6 + place]) - 1] ^ key[at * 6 + place];
        let row = bit(0) << 1 | bit(5);
        let column = bit(1) << 3 | bit(2) << 2 | bit(3) << 1 | bit(4);
        let value = substitution[usize::from(row << 4 | column)];
        (0..4).for_each(|place| out[at * 4 + place] = value >> (3 - place) & 1);
    }
    PERMUTATION.map(|at| out[usize::from(at) - 1])
}
