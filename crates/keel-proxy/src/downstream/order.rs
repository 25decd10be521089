//! Keys in the order in which they were put in line, so that who has waited longest is found at once.
//!
//! A key is the place of something in a slab: small, and used again. It stands in one line at a time. Putting a key in,
//! taking it out of the middle and finding the first each take the same few steps, however many there are.

/// Lines of keys.
pub(crate) struct Order<const LINES: usize> {
    /// What stands before and behind each key.
    links: Vec<Link>,
    lines: [Ends; LINES],
}

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
    /// Which line it stands in; [`NOBODY`] for none.
    line: u32,
}

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
    count: usize,
}

/// No key: slabs never hold this many.
const NOBODY: u32 = u32::MAX;

const NOWHERE: Link = Link { before: NOBODY, behind: NOBODY, line: NOBODY };

impl<const LINES: usize> Default for Order<LINES> {
    fn default() -> Self {
        Self { links: Vec::new(), lines: [Ends { first: NOBODY, last: NOBODY, count: 0 }; LINES] }
    }
}

impl<const LINES: usize> Order<LINES> {
    /// Puts a key last in a line; it leaves the one that it stood in.
    pub(crate) fn push(&mut self, line: usize, key: usize) {
        self.remove(key);
        let (Ok(name), Ok(line_name)) = (u32::try_from(key), u32::try_from(line)) else { return };
        let Some(ends) = self.lines.get_mut(line) else { return };
        let before = std::mem::replace(&mut ends.last, name);
        ends.count += 1;
        if before == NOBODY {
            ends.first = name;
        } else if let Some(link) = self.links.get_mut(before as usize) {
            link.behind = name;
        }
        if self.links.len() <= key {
            self.links.resize(key + 1, NOWHERE);
        }
        if let Some(link) = self.links.get_mut(key) {
            *link = Link { before, behind: NOBODY, line: line_name };
        }
    }

    /// Takes a key out of its line; false where it stands in none.
    pub(crate) fn remove(&mut self, key: usize) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        let Link { before, behind, line } = std::mem::replace(link, NOWHERE);
        let Some(ends) = self.lines.get_mut(line as usize) else { return false };
        ends.count -= 1;
        if before == NOBODY {
            ends.first = behind;
        }
        if behind == NOBODY {
            ends.last = before;
        }
        if let Some(link) = self.links.get_mut(before as usize) {
            link.behind = behind;
        }
        if let Some(link) = self.links.get_mut(behind as usize) {
            link.before = before;
        }
        true
    }

    /// Gives back the room of keys beyond the last one that stands in a line.
    pub(crate) fn shrink(&mut self) {
        let used = self.links.iter().rposition(|link| link.line != NOBODY).map_or(0, |last| last + 1);
        self.links.truncate(used);
        self.links.shrink_to_fit();
    }

    /// Gives the key that stands first.
    pub(crate) fn first(&self, line: usize) -> Option<usize> {
        let first = self.lines.get(line)?.first;
        (first != NOBODY).then_some(first as usize)
    }

    /// Counts the keys in a line.
    pub(crate) fn count(&self, line: usize) -> usize {
        self.lines.get(line).map_or(0, |ends| ends.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_what_plain_lists_do() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |end: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % end) as usize
        };
        let mut order = Order::<2>::default();
        let mut plain = [Vec::new(), Vec::new()];
        for step in 0..20_000 {
            let (key, line) = (below(9), below(3));
            let stood = plain.iter().any(|line| line.contains(&key));
            plain.iter_mut().for_each(|line| line.retain(|other| *other != key));
            match plain.get_mut(line) {
                Some(keys) => {
                    keys.push(key);
                    order.push(line, key);
                }
                None => assert_eq!(order.remove(key), stood, "in step {step}"),
            }
            if step % 100 == 0 {
                order.shrink();
            }
            for (line, keys) in plain.iter().enumerate() {
                assert_eq!(order.first(line), keys.first().copied(), "in step {step}");
                assert_eq!(order.count(line), keys.len(), "in step {step}");
            }
        }
    }
}
