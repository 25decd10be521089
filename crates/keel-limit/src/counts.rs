//! How many requests of a key are there at once.

use std::collections::HashMap;

/// What a number takes of a zone's memory besides its key, in bytes, rounded up as nginx's allocator does.
const COUNT_BYTES: usize = 36;

/// What became of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is counted until [`Counts::leave`].
    Entered,
    /// There are as many as may be.
    Refused,
    /// There is no memory for its key.
    Full,
}

/// Numbers by key.
#[derive(Debug)]
pub struct Counts {
    numbers: HashMap<Box<[u8]>, u32>,
    bytes_free: usize,
}

impl Counts {
    /// Makes an empty table that takes so much memory at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { numbers: HashMap::new(), bytes_free: bytes_max }
    }

    /// Counts one more of a key, of which there may be `max`.
    pub fn enter(&mut self, key: &[u8], max: u32) -> Counted {
        if let Some(number) = self.numbers.get_mut(key) {
            if *number >= max {
                return Counted::Refused;
            }
            *number += 1;
            return Counted::Entered;
        }
        let bytes = bytes(key.len());
        if self.bytes_free < bytes {
            return Counted::Full;
        }
        self.bytes_free -= bytes;
        self.numbers.insert(key.into(), 1);
        Counted::Entered
    }

    /// Counts one less of a key. A key of which there is none takes no memory.
    pub fn leave(&mut self, key: &[u8]) {
        let Some(number) = self.numbers.get_mut(key) else { return };
        *number -= 1;
        if *number == 0 {
            self.numbers.remove(key);
            self.bytes_free += bytes(key.len());
        }
    }
}

fn bytes(key_bytes: usize) -> usize {
    (COUNT_BYTES + key_bytes).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_may_be_there_and_no_more() {
        let mut counts = Counts::new(1 << 15);
        assert_eq!(counts.enter(b"a", 2), Counted::Entered);
        assert_eq!(counts.enter(b"a", 2), Counted::Entered);
        assert_eq!(counts.enter(b"a", 2), Counted::Refused);
        assert_eq!(counts.enter(b"b", 1), Counted::Entered);
        assert_eq!(counts.enter(b"a", 3), Counted::Entered, "each limit has its own number");
        counts.leave(b"a");
        counts.leave(b"a");
        assert_eq!(counts.enter(b"a", 2), Counted::Entered);
        counts.leave(b"never");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut counts = Counts::new(64 * 4);
        let entered =
            |counts: &mut Counts| (0..9u8).filter(|key| counts.enter(&[*key], 1) == Counted::Entered).count();
        assert_eq!(entered(&mut counts), 4);
        assert_eq!(counts.enter(&[8], 1), Counted::Full);
        (0..4u8).for_each(|key| counts.leave(&[key]));
        assert_eq!(counts.bytes_free, 64 * 4);
        assert_eq!(entered(&mut counts), 4);
    }
}
