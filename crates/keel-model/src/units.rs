//! Numbers with a unit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number of bytes. nginx writes it `4096`, `8k`, `1m` or `1g`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Makes a size of `kib` times 1,024 bytes.
    pub const fn kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// Makes a size of `mib` times 1,048,576 bytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib * 1024 * 1024)
    }

    /// Gives the size in bytes as the platform's `usize`, saturating.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        match self.0 {
            n if n >= GIB && n % GIB == 0 => write!(f, "{}g", n / GIB),
            n if n >= MIB && n % MIB == 0 => write!(f, "{}m", n / MIB),
            n if n >= KIB && n % KIB == 0 => write!(f, "{}k", n / KIB),
            n => write!(f, "{n}"),
        }
    }
}

/// A number of bytes, or what comes to one for each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SizeValue {
    /// This.
    Fixed(ByteSize),
    /// A text with variables. An empty one is 0.
    Evaluated(crate::Template),
}

impl SizeValue {
    /// 0.
    pub const ZERO: Self = Self::Fixed(ByteSize(0));
}

/// How many buffers of which size, as in `proxy_buffers 8 4k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffers {
    /// How many buffers one request may hold.
    pub count: u32,
    /// The size of each.
    pub size: ByteSize,
}
