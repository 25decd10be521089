//! Length and CRC-32 (ISO-HDLC, as gzip has it) of a body, as the demo app announces them in `X-Body`.

use std::fmt;

/// The sum of what was added so far. Printed as `LENGTH-CRC`, the CRC in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum {
    length: u64,
    crc: u32,
}

impl Checksum {
    /// Sums a whole body.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(bytes);
        sum
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut crc = !self.crc;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        self.crc = !crc;
        self.length += bytes.len() as u64;
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.length, self.crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_the_catalogue_says() {
        let mut sum = Checksum::of(b"1234");
        sum.add(b"56789");
        assert_eq!(sum.to_string(), "9-cbf43926");
    }
}
