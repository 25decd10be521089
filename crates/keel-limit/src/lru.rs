//! A table by key that knows which entry has gone unused for longest.

use std::{collections::HashMap, sync::Arc};

/// Where an entry is, for as long as it is there.
pub(crate) type Index = usize;

const NONE: Index = Index::MAX;

/// The table. Entries are linked from the newest to the oldest.
#[derive(Debug)]
pub(crate) struct Lru<T> {
    places: HashMap<Arc<[u8]>, Index>,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<Index>,
    newest: Index,
    oldest: Index,
}

#[derive(Debug)]
struct Entry<T> {
    key: Arc<[u8]>,
    value: T,
    newer: Index,
    older: Index,
}

impl<T> Default for Lru<T> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), free: Vec::new(), newest: NONE, oldest: NONE }
    }
}

impl<T> Lru<T> {
    pub(crate) fn find(&self, key: &[u8]) -> Option<Index> {
        self.places.get(key).copied()
    }

    pub(crate) fn get(&mut self, at: Index) -> Option<&mut T> {
        self.entry(at).map(|entry| &mut entry.value)
    }

    /// The entry that has gone unused for longest.
    pub(crate) fn oldest(&self) -> Option<(Index, &T)> {
        let entry = self.entries.get(self.oldest)?.as_ref()?;
        Some((self.oldest, &entry.value))
    }

    /// Makes an entry the newest.
    pub(crate) fn touch(&mut self, at: Index) {
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    /// Adds an entry as the newest. The key must be new.
    pub(crate) fn insert(&mut self, key: &[u8], value: T) -> Index {
        let key: Arc<[u8]> = key.into();
        let entry = Some(Entry { key: key.clone(), value, newer: NONE, older: NONE });
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(key, at);
        self.link(at);
        at
    }

    /// Takes an entry out; gives the length of its key.
    pub(crate) fn remove(&mut self, at: Index) -> usize {
        self.unlink(at);
        let Some(entry) = self.entries.get_mut(at).and_then(Option::take) else { return 0 };
        self.free.push(at);
        self.places.remove(&entry.key);
        entry.key.len()
    }

    fn entry(&mut self, at: Index) -> Option<&mut Entry<T>> {
        self.entries.get_mut(at)?.as_mut()
    }

    fn link(&mut self, at: Index) {
        let newest = self.newest;
        if let Some(entry) = self.entry(at) {
            (entry.newer, entry.older) = (NONE, newest);
        }
        match self.entry(newest) {
            Some(before) => before.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: Index) {
        let Some(entry) = self.entry(at) else { return };
        let (newer, older) = (entry.newer, entry.older);
        match self.entry(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entry(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_one_unused_for_longest() {
        let mut lru = Lru::default();
        let indices: Vec<Index> = (0..4u8).map(|key| lru.insert(&[key], key)).collect();
        let order = |lru: &mut Lru<u8>| {
            let mut order = Vec::new();
            while let Some((at, value)) = lru.oldest() {
                order.push(*value);
                lru.remove(at);
            }
            order
        };
        lru.touch(indices[0]);
        lru.touch(indices[3]);
        lru.remove(indices[1]);
        assert_eq!(lru.find(&[1]), None);
        let again = lru.insert(&[9], 9);
        assert_eq!(again, indices[1], "its place is used again");
        lru.touch(indices[2]);
        assert_eq!(order(&mut lru), [0, 3, 9, 2]);
        assert!(lru.places.is_empty());
        lru.insert(&[5], 5);
        assert_eq!(order(&mut lru), [5]);
    }
}
