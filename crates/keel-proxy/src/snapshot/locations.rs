//! Which location takes a path: nginx's order of exact, longest prefix, regular expressions, and the same inside.

use std::collections::HashMap;

use keel_regex::Regex;
use smallvec::SmallVec;

use super::{PlaceId, Snapshot};

/// The locations of one level.
#[derive(Default)]
pub(crate) struct LocationTree {
    exact: HashMap<Box<[u8]>, Entry>,
    /// Sorted, so that every prefix of a path lies before it.
    prefixes: Vec<Prefix>,
    regexes: Vec<(Regex, PlaceId)>,
    /// Whether any location here wants a slash added.
    redirects: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    place: PlaceId,
    redirects: bool,
}

struct Prefix {
    text: Box<[u8]>,
    entry: Entry,
    /// Whether regular expressions are tried after it (no `^~`).
    regexes_follow: bool,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
}

/// What was found for a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// No location takes it.
    Nowhere,
    /// This one does, by its text.
    Place(PlaceId),
    /// This one does, by its expression.
    Matched(PlaceId, &'a Regex),
    /// The path lacks the slash at the end of this location's name.
    AddSlash(PlaceId),
}

/// How the search in one level ended.
enum Level<'a> {
    Final(Found<'a>),
    Open(Found<'a>),
}

impl LocationTree {
    pub(super) fn add_exact(&mut self, text: &str, place: PlaceId, proxies: bool) {
        let redirects = proxies && adds_slash(text);
        self.redirects |= redirects;
        self.exact.insert(text.as_bytes().into(), Entry { place, redirects });
    }

    pub(super) fn add_prefix(&mut self, text: &str, place: PlaceId, proxies: bool, regexes_follow: bool) {
        let redirects = proxies && adds_slash(text);
        self.redirects |= redirects;
        let entry = Entry { place, redirects };
        self.prefixes.push(Prefix { text: text.as_bytes().into(), entry, regexes_follow, parent: None });
    }

    pub(super) fn add_regex(&mut self, regex: Regex, place: PlaceId) {
        self.regexes.push((regex, place));
    }

    /// Sorts the prefixes and links each to the longest one it begins with.
    pub(super) fn finish(&mut self) {
        self.prefixes.sort_by(|a, b| a.text.cmp(&b.text));
        let mut open: Vec<usize> = Vec::new();
        for at in 0..self.prefixes.len() {
            while let Some(top) = open.last() {
                if self.prefixes[at].text.starts_with(&self.prefixes[*top].text) {
                    break;
                }
                open.pop();
            }
            self.prefixes[at].parent = open.last().copied();
            open.push(at);
        }
    }

    /// Finds the location for a path.
    pub(crate) fn find<'a>(&'a self, snapshot: &'a Snapshot, path: &[u8]) -> Found<'a> {
        match self.search(snapshot, path) {
            Level::Final(found) | Level::Open(found) => found,
        }
    }

    fn search<'a>(&'a self, snapshot: &'a Snapshot, path: &[u8]) -> Level<'a> {
        if !self.exact.is_empty()
            && let Some(entry) = self.exact.get(path)
        {
            return Level::Final(Found::Place(entry.place));
        }
        let prefix = self.longest(path);
        let whole = prefix.is_some_and(|prefix| prefix.text.len() == path.len());
        if self.redirects
            && !whole
            && let Some(place) = self.wants_slash(path)
        {
            return Level::Final(Found::AddSlash(place));
        }
        let mut best = Found::Nowhere;
        let mut regexes_follow = true;
        if let Some(prefix) = prefix {
            best = Found::Place(prefix.entry.place);
            regexes_follow = prefix.regexes_follow;
            match snapshot.place(prefix.entry.place).nested.search(snapshot, path) {
                Level::Final(found) => return Level::Final(found),
                Level::Open(Found::Nowhere) => {}
                Level::Open(found) => best = found,
            }
        }
        if regexes_follow {
            for (regex, place) in &self.regexes {
                let Ok(is_match) = regex.is_match(path) else {
                    // Nobody knows whether it would be this one. Taking its groups fails, too, and ends the request.
                    return Level::Final(Found::Matched(*place, regex));
                };
                if is_match {
                    let inside = snapshot.place(*place).nested.search(snapshot, path);
                    return Level::Final(match inside {
                        Level::Final(found) => found,
                        Level::Open(Found::Nowhere) => Found::Matched(*place, regex),
                        Level::Open(found) => found,
                    });
                }
            }
        }
        Level::Open(best)
    }

    /// Finds the longest prefix of `path`. Whatever lies between a prefix of it and itself begins with that prefix, so
    /// the answer is the nearest entry before it or one of its parents.
    fn longest(&self, path: &[u8]) -> Option<&Prefix> {
        let after = self.prefixes.partition_point(|prefix| *prefix.text <= *path);
        let mut at = after.checked_sub(1)?;
        loop {
            let prefix = self.prefixes.get(at)?;
            if path.starts_with(&prefix.text) {
                return Some(prefix);
            }
            at = prefix.parent?;
        }
    }

    fn wants_slash(&self, path: &[u8]) -> Option<PlaceId> {
        // On the stack as a rule: every request to a location that proxies comes by here.
        let mut with_slash = SmallVec::<[u8; 256]>::from_slice(path);
        with_slash.push(b'/');
        let exact = self.exact.get(with_slash.as_slice()).filter(|entry| entry.redirects);
        if let Some(entry) = exact {
            return Some(entry.place);
        }
        let at = self.prefixes.binary_search_by(|prefix| (*prefix.text).cmp(with_slash.as_slice())).ok()?;
        let entry = self.prefixes.get(at)?.entry;
        entry.redirects.then_some(entry.place)
    }
}

/// Says whether a path may lack the slash at the end of a location's name. No path lacks that of `/`.
fn adds_slash(name: &str) -> bool {
    name.len() > 1 && name.ends_with('/')
}
