//! Where the paths of a container are on this host.
//!
//! COPY lines and bind mounts say it. The map is applied to a command's words and to the working directory, never to
//! the content of files: a program that names a container's path in its own code must be told by its environment.

use std::path::{Component, Path, PathBuf};

/// Paths of a container with their places on this host. The longest prefix counts; of equal ones, the one added last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathMap {
    /// Longest first.
    entries: Vec<(PathBuf, PathBuf)>,
}

impl PathMap {
    /// Adds a path, in place of what the container had there.
    pub fn add(&mut self, container: impl AsRef<Path>, host: impl AsRef<Path>) {
        let (container, host) = (clean(container.as_ref()), clean(host.as_ref()));
        self.entries.retain(|(known, _)| *known != container);
        let depth = |path: &Path| path.components().count();
        let at = self.entries.partition_point(|(known, _)| depth(known) > depth(&container));
        self.entries.insert(at, (container, host));
    }

    /// The place of a container's absolute path on this host, if any entry covers it.
    pub fn map(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = clean(path.as_ref());
        let (rest, host) = self
            .entries
            .iter()
            .find_map(|(container, host)| Some((path.strip_prefix(container).ok()?.to_owned(), host)))?;
        Some(if rest.as_os_str().is_empty() { host.clone() } else { host.join(rest) })
    }

    /// Maps every covered path in a command's word: the word itself, what follows `=` or `:`, and in a shell's line
    /// wherever a path begins.
    pub fn map_word(&self, word: &str) -> String {
        let mut out = String::with_capacity(word.len());
        let mut rest = word;
        let mut before: Option<char> = None;
        while let Some(first) = rest.chars().next() {
            let begins = first == '/' && before.is_none_or(|c| !is_path_character(c));
            let length = if begins {
                rest.find(|c| !is_path_character(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let (taken, left) = rest.split_at(length);
            match if begins { self.map(taken) } else { None } {
                Some(mapped) => {
                    out.push_str(&mapped.to_string_lossy());
                    if taken.ends_with('/') && taken.len() > 1 {
                        out.push('/');
                    }
                }
                None => out.push_str(taken),
            }
            before = taken.chars().next_back();
            rest = left;
        }
        out
    }

    /// All entries, longest first.
    pub fn into_entries(self) -> Vec<(PathBuf, PathBuf)> {
        self.entries
    }

    /// The container's paths, longest first.
    pub fn containers(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().map(|(container, _)| container.as_path())
    }
}

fn is_path_character(c: char) -> bool {
    c.is_alphanumeric() || "/._-+@~%".contains(c)
}

/// Resolves `.` and `..` by their text, without asking the file system: the container's doesn't exist here.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if out.parent().is_some() => drop(out.pop()),
            Component::ParentDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entries: &[(&str, &str)], word: &str, expect: &str) {
        let mut map = PathMap::default();
        for (container, host) in entries {
            map.add(container, host);
        }
        assert_eq!(map.map_word(word), expect, "{word}");
    }

    #[test]
    fn maps_paths_wherever_they_begin() {
        let app = &[("/app", "/srv/shop")][..];
        check(app, "/app/main.py", "/srv/shop/main.py");
        check(app, "/app", "/srv/shop");
        check(app, "/app/", "/srv/shop/");
        check(app, "--config=/app/c.toml", "--config=/srv/shop/c.toml");
        check(app, "cd /app && exec ./run '/app/x'", "cd /srv/shop && exec ./run '/srv/shop/x'");
        check(app, "/application/main.py", "/application/main.py");
        check(app, "x/app/main.py", "x/app/main.py");
        check(app, "http://host/app", "http://host/app");
        check(app, "/app/../etc", "/app/../etc");
        check(app, "größe:/app", "größe:/srv/shop");
    }

    #[test]
    fn the_longest_prefix_counts_and_the_last_of_equals() {
        let entries = &[("/app", "/one"), ("/app/data", "/data"), ("/app", "/two"), ("/", "/root-fs")];
        check(entries, "/app/x", "/two/x");
        check(entries, "/app/data/x", "/data/x");
        check(entries, "/etc/x", "/root-fs/etc/x");
    }
}
