//! Length and CRC-32 (ISO-HDLC, as gzip has it) of a body: whoever gets less than was meant can tell.

use std::fmt;

/// The sum of what was added so far. Printed as `LENGTH-CRC`, the CRC in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) length: u64,
    crc: u32,
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut crc = !self.crc;
        for byte in bytes {
            crc = (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)];
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
        let mut sum = Checksum::default();
        sum.add(b"1234");
        sum.add(b"56789");
        assert_eq!(sum.to_string(), "9-cbf43926");
        assert_eq!(Checksum::default().to_string(), "0-00000000");
    }
}
