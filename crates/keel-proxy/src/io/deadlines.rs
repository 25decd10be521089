//! Moments at which something is due, the earliest first.
//!
//! A deadline that doesn't count any more stays until its time, or until there are more of those than of the others: to
//! find it in the middle would cost more. The caller says which ones count.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Deadlines that don't count any more are thrown away when there are this many more than of the others.
const STALE_MIN: usize = 64;

/// When something is due, by some clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline<Time> {
    pub(crate) at: Time,
    /// Whose it is: a place in a slab.
    pub(crate) key: u32,
    /// Tells it from others of that place.
    pub(crate) stamp: u32,
}

/// The deadlines of one worker, of one kind.
pub(crate) struct Deadlines<Time> {
    heap: BinaryHeap<Reverse<Deadline<Time>>>,
}

impl<Time: Ord> Default for Deadlines<Time> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<Time: Ord + Copy> Deadlines<Time> {
    /// Adds one. `live` of those so far may count, one each; `counts` says which do.
    pub(crate) fn push(
        &mut self,
        deadline: Deadline<Time>,
        live: usize,
        counts: impl Fn(&Deadline<Time>) -> bool,
    ) {
        if self.heap.len() > 2 * live + STALE_MIN {
            self.heap.retain(|Reverse(deadline)| counts(deadline));
        }
        self.heap.push(Reverse(deadline));
    }

    /// Gives the earliest one that counts.
    pub(crate) fn earliest(&mut self, counts: impl Fn(&Deadline<Time>) -> bool) -> Option<Deadline<Time>> {
        loop {
            let Reverse(first) = *self.heap.peek()?;
            if counts(&first) {
                return Some(first);
            }
            self.heap.pop();
        }
    }

    /// Gives back the room of those that don't count.
    pub(crate) fn shrink(&mut self, counts: impl Fn(&Deadline<Time>) -> bool) {
        self.heap.retain(|Reverse(deadline)| counts(deadline));
        self.heap.shrink_to_fit();
    }

    /// Takes the earliest one out.
    pub(crate) fn pop(&mut self) {
        self.heap.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn gives_the_earliest_that_counts_and_forgets_the_others() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        let at = |ms| start + Duration::from_millis(ms);
        for stamp in 0..10_000 {
            let deadline = Deadline { at: at(u64::from(20_000 - stamp)), key: 7, stamp };
            deadlines.push(deadline, 1, |known| known.stamp + 1 == stamp);
            assert!(deadlines.heap.len() <= 2 + STALE_MIN + 1);
        }
        let last = Deadline { at: at(10_001), key: 7, stamp: 9999 };
        assert_eq!(deadlines.earliest(|deadline| deadline.stamp == 9999), Some(last));
        deadlines.pop();
        assert_eq!(deadlines.earliest(|deadline| deadline.stamp == 9999), None);
        assert_eq!(deadlines.heap.len(), 0);
        deadlines.push(last, 1, |_| true);
        deadlines.push(Deadline { stamp: 1, ..last }, 1, |_| true);
        deadlines.shrink(|deadline| deadline.stamp == 1);
        assert_eq!(deadlines.heap.len(), 1);
    }
}
