//! Follows the links of a path as a container would: one part after the other, through whatever layer has it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;

/// Links that one path may lead through, as in Linux.
pub const LINKS_MAX: usize = 40;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Nothing.
    Missing,
    /// A folder.
    Folder,
    /// A link, and where it leads.
    Link(PathBuf),
    /// A file, or something else that is no folder.
    Other,
}

/// Files that can be looked at. Paths are absolute, without links in their folders and without `..`.
pub trait Look {
    /// Tells what is at a path; of a link, the link.
    ///
    /// # Errors
    /// What the system says, except that nothing is there.
    fn look(&self, path: &Path) -> io::Result<Node>;
}

/// The path without links that an absolute path stands for. What isn't there yet keeps its name.
///
/// # Errors
/// `ELOOP` beyond [`LINKS_MAX`], `ENOENT` for `..` after what isn't there, and those of [`Look::look`].
pub fn resolve(files: &impl Look, path: &Path) -> io::Result<PathBuf> {
    let mut resolved = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    let mut missing = false;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            if missing {
                return Err(Errno::NOENT.into());
            }
            resolved.pop();
            continue;
        }
        let next = resolved.join(&part);
        let node = if missing { Node::Missing } else { files.look(&next)? };
        match node {
            Node::Link(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                if target.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(part);
                }
                continue;
            }
            Node::Missing => missing = true,
            Node::Folder => {}
            Node::Other if rest.is_empty() => {}
            Node::Other => return Err(Errno::NOTDIR.into()),
        }
        resolved = next;
    }
    Ok(resolved)
}

/// The parts of a path that count: names and `..`.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Reads where an opened link leads.
///
/// # Errors
/// What readlinkat(2) says.
pub fn target(link: &OwnedFd) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()).into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Files(BTreeMap<&'static str, Node>);

    impl Look for Files {
        fn look(&self, path: &Path) -> io::Result<Node> {
            Ok(self.0.get(path.to_str().unwrap()).cloned().unwrap_or(Node::Missing))
        }
    }

    #[test]
    fn links_mean_what_they_mean_in_the_container() {
        let link = |target: &str| Node::Link(target.into());
        let files = Files(BTreeMap::from([
            ("/a", Node::Folder),
            ("/a/b", Node::Folder),
            ("/a/b/f", Node::Other),
            ("/a/up", link("../../../../c")),
            ("/a/abs", link("/a/b")),
            ("/a/b/rel", link("../b/./f")),
            ("/a/b/gone", link("/nowhere/x")),
            ("/c", link("a/b")),
            ("/loop", link("loop")),
        ]));
        let check = |path: &str, expect: &str| {
            assert_eq!(resolve(&files, Path::new(path)).unwrap(), Path::new(expect), "{path}");
        };
        check("/a/b/f", "/a/b/f");
        check("/a/up/f", "/a/b/f");
        check("/a/abs/../b/rel", "/a/b/f");
        check("/c/..", "/a");
        check("/../../a", "/a");
        check("/a/b/gone", "/nowhere/x");
        check("/new/file", "/new/file");
        let fails = |path: &str, expect: Errno| {
            let error = resolve(&files, Path::new(path)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expect.raw_os_error()), "{path}");
        };
        fails("/loop", Errno::LOOP);
        fails("/new/../a", Errno::NOENT);
        fails("/a/b/f/x", Errno::NOTDIR);
    }
}
