//! A container's files as they are served: layers over folders of this host that are held open.
//!
//! As a mount does, a folder that is held open needs no way to it: folders above may be closed to this process. One that
//! is put in its place is noticed within [`RENEW_AFTER`], if this process may pass the way. A path costs one call of
//! openat2(2) where no link leads out of its layer, else one for each of its parts.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use keel_model::{FileLayer, FileLayerKind};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use crate::{
    beneath::{self, Links},
    walk::{Look, Node, resolve, target},
};

/// How long a folder is taken for the one that its path names.
pub const RENEW_AFTER: Duration = Duration::from_secs(1);

/// Neither waits for a pipe's writer nor becomes a terminal's.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Layers of files; later ones hide earlier ones.
#[derive(Debug)]
pub struct Tree {
    layers: Vec<Layer>,
}

/// What a path of a tree is.
#[derive(Debug)]
pub enum Found {
    /// A file, folder or something else, opened for reading.
    Opened(File, Metadata),
    /// A folder that is there because layers lie in it.
    Folder,
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    kind: FileLayerKind,
    /// Whether all below it is its own, so that a link that stays in it is right without a look at other layers.
    links: Links,
    /// `None` where everything is taken away.
    place: Option<Spot>,
}

#[derive(Debug)]
struct Spot {
    folder: Arc<Folder>,
    below: PathBuf,
}

/// A folder of this host that is held open.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    open: ArcSwapOption<OwnedFd>,
    /// When it was compared with its path, in milliseconds since [`START`].
    renewed_ms: AtomicU64,
}

impl Tree {
    /// Makes a tree. `opened` has folders that somebody else has opened (`O_PATH`); the others are opened when they are
    /// needed.
    pub fn new(layers: &[FileLayer], opened: &HashMap<PathBuf, Arc<OwnedFd>>) -> Self {
        let mut folders: HashMap<&Path, Arc<Folder>> = HashMap::new();
        let made = layers.iter().enumerate().map(|(at, layer)| {
            let later = layers.get(at + 1..).unwrap_or_default();
            let is_alone = layer.kind == FileLayerKind::Mounted
                && !later.iter().any(|other| other.path.starts_with(&layer.path));
            let place = layer.place.as_ref().map(|place| Spot {
                folder: folders
                    .entry(&place.folder)
                    .or_insert_with(|| {
                        Arc::new(Folder::new(&place.folder, opened.get(&place.folder).cloned()))
                    })
                    .clone(),
                below: place.below.clone(),
            });
            let links = if is_alone { Links::Within } else { Links::Refused };
            Layer { path: layer.path.clone(), kind: layer.kind, links, place }
        });
        Self { layers: made.collect() }
    }

    /// Opens what is at an absolute path, for reading.
    ///
    /// # Errors
    /// What open(2) says in such a container: `ENOENT` for a link that leads to where nothing is.
    pub fn open(&self, path: &Path) -> io::Result<Found> {
        let found = match self.open_direct(path) {
            Err(Errno::LOOP | Errno::XDEV) => self.open_direct(&resolve(self, path)?)?,
            outcome => outcome?,
        };
        let Some(file) = found else { return Ok(Found::Folder) };
        let file = File::from(file);
        let meta = file.metadata()?;
        if !meta.is_dir() && path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Errno::NOTDIR.into());
        }
        Ok(Found::Opened(file, meta))
    }

    /// Tells whether an absolute path is a folder, without opening what is there.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn is_folder(&self, path: &Path) -> io::Result<bool> {
        let path_only = OFlags::PATH;
        let found = match self.direct(path, path_only, None) {
            Err(Errno::LOOP | Errno::XDEV) => {
                self.direct(&resolve(self, path)?, path_only | OFlags::NOFOLLOW, Some(Links::Refused))?
            }
            outcome => outcome?,
        };
        let Some(found) = found else { return Ok(true) };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        let is_folder = kind == FileType::Directory;
        match !is_folder && path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            true => Err(Errno::NOTDIR.into()),
            false => Ok(is_folder),
        }
    }

    fn open_direct(&self, path: &Path) -> Result<Option<OwnedFd>, Errno> {
        self.direct(path, READ, None)
    }

    /// Opens what the uppermost layer has that has something there; `None` for a folder that layers lie in.
    fn direct(&self, path: &Path, flags: OFlags, links: Option<Links>) -> Result<Option<OwnedFd>, Errno> {
        // After a link `..` is another folder than before it.
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Errno::LOOP);
        }
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let Ok(rest) = path.strip_prefix(&layer.path) else { continue };
            let Some(place) = &layer.place else { return self.implied(path, at) };
            let opened = place.with(rest, |folder, below| {
                beneath::open(folder.as_fd(), below, flags, Mode::empty(), links.unwrap_or(layer.links))
            });
            match opened {
                Err(Errno::NOENT | Errno::NOTDIR) if layer.kind == FileLayerKind::Copied => {}
                Err(Errno::NOENT | Errno::NOTDIR) => return self.implied(path, at),
                outcome => return outcome.map(Some),
            }
        }
        self.implied(path, 0)
    }

    fn implied(&self, path: &Path, from: usize) -> Result<Option<OwnedFd>, Errno> {
        if self.is_implied(path, from) { Ok(None) } else { Err(Errno::NOENT) }
    }

    /// Whether a path is a folder because a layer lies in it, one of those from a number on.
    fn is_implied(&self, path: &Path, from: usize) -> bool {
        let layers = self.layers.get(from..).unwrap_or_default();
        let mut inside = layers.iter().filter(|layer| layer.path != path && layer.path.starts_with(path));
        inside.any(|layer| layer.place.is_some())
    }
}

impl Look for Tree {
    fn look(&self, path: &Path) -> io::Result<Node> {
        let mut hidden = 0;
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let Ok(rest) = path.strip_prefix(&layer.path) else { continue };
            hidden = at;
            let Some(place) = &layer.place else { break };
            let (kind, opened) = match place.with(rest, |folder, below| beneath::kind(folder.as_fd(), below))
            {
                Err(Errno::NOENT | Errno::NOTDIR) if layer.kind == FileLayerKind::Copied => {
                    hidden = 0;
                    continue;
                }
                Err(Errno::NOENT | Errno::NOTDIR) => break,
                outcome => outcome?,
            };
            return Ok(match kind {
                FileType::Symlink => Node::Link(target(&opened)?),
                FileType::Directory => Node::Folder,
                _ => Node::Other,
            });
        }
        Ok(if self.is_implied(path, hidden) { Node::Folder } else { Node::Missing })
    }
}

impl Spot {
    fn with<T>(
        &self,
        rest: &Path,
        open: impl FnOnce(&OwnedFd, &Path) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.folder.renew_if_old();
        let held = self.folder.open.load();
        let folder = held.as_ref().ok_or(Errno::NOENT)?;
        // Joining nothing would add a slash, which only a folder may have.
        match (self.below.as_os_str().is_empty(), rest.as_os_str().is_empty()) {
            (true, _) => open(folder, rest),
            (false, true) => open(folder, &self.below),
            (false, false) => open(folder, &self.below.join(rest)),
        }
    }
}

impl Folder {
    fn new(path: &Path, opened: Option<Arc<OwnedFd>>) -> Self {
        let known = opened.is_some();
        let folder = Self {
            path: path.to_owned(),
            open: ArcSwapOption::new(opened),
            renewed_ms: AtomicU64::new(now_ms()),
        };
        if !known {
            folder.renew();
        }
        folder
    }

    fn renew_if_old(&self) {
        let (now, renewed) = (now_ms(), self.renewed_ms.load(Ordering::Relaxed));
        let is_old = u128::from(now.saturating_sub(renewed)) >= RENEW_AFTER.as_millis();
        // One of several threads does it.
        if is_old
            && self.renewed_ms.compare_exchange(renewed, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.renew();
        }
    }

    /// Takes what is at the path now. Its links were followed when the configuration was read, and are not again.
    fn renew(&self) {
        let Ok(opened) = beneath::open_real_folder(&self.path) else { return };
        let identity = |file: &OwnedFd| rustix::fs::fstat(file).map(|meta| (meta.st_dev, meta.st_ino)).ok();
        let is_same = self.open.load().as_ref().is_some_and(|held| identity(held) == identity(&opened));
        if !is_same {
            self.open.store(Some(Arc::new(opened)));
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::symlink};

    use keel_model::HostPlace;
    use rustix::fs::CWD;

    use super::*;

    /// A folder of the host with some files, and layers over it.
    struct Host {
        folder: tempfile::TempDir,
        layers: Vec<FileLayer>,
    }

    impl Host {
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for file in files {
                let path = folder.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, file).unwrap();
            }
            Self { folder, layers: Vec::new() }
        }

        fn link(&self, path: &str, target: &str) {
            symlink(target, self.folder.path().join(path)).unwrap();
        }

        fn layer(&mut self, kind: FileLayerKind, path: &str, below: Option<(&str, &str)>) {
            let root = self.folder.path().canonicalize().unwrap();
            let place =
                below.map(|(folder, below)| HostPlace { folder: root.join(folder), below: below.into() });
            self.layers.push(FileLayer { path: path.into(), kind, place });
        }

        fn tree(&self) -> Tree {
            Tree::new(&self.layers, &HashMap::new())
        }
    }

    #[track_caller]
    fn check(tree: &Tree, path: &str, expect: &str) {
        let found = match tree.open(Path::new(path)) {
            Ok(Found::Opened(_, meta)) if meta.is_dir() => "folder".to_owned(),
            Ok(Found::Opened(mut file, _)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            }
            Ok(Found::Folder) => "folder".to_owned(),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => "NOENT".to_owned(),
                Some(Errno::NOTDIR) => "NOTDIR".to_owned(),
                Some(Errno::LOOP) => "LOOP".to_owned(),
                _ => error.to_string(),
            },
        };
        assert_eq!(found, expect, "{path}");
        let is_folder = tree.is_folder(Path::new(path)).ok();
        let expected = match expect {
            "folder" => Some(true),
            "NOENT" | "NOTDIR" | "LOOP" => None,
            _ => Some(false),
        };
        assert_eq!(is_folder, expected, "{path}");
    }

    use FileLayerKind::{Copied, Mounted};

    #[test]
    fn links_are_followed_in_the_container_alone() {
        let mut host = Host::new(&["site/x", "site/sub/y", "other/z", "secret"]);
        for (link, target) in [
            ("site/in", "sub/y"),
            ("site/out", "../secret"),
            ("site/sub/deep", "../../../../../../../../etc/passwd"),
            ("site/passwd", "/etc/passwd"),
            ("site/mapped", "/srv/other/z"),
            ("site/dir", "/srv"),
            ("site/proc", "/proc/self/fd/0"),
            ("site/loop", "loop"),
        ] {
            host.link(link, target);
        }
        host.layer(Mounted, "/www", Some(("site", "")));
        host.layer(Mounted, "/srv/other", Some(("other", "")));
        let tree = host.tree();
        check(&tree, "/www/x", "site/x");
        check(&tree, "/www/in", "site/sub/y");
        check(&tree, "/www/mapped", "other/z");
        check(&tree, "/www/dir/other/z", "other/z");
        check(&tree, "/www/dir/../www/x", "site/x");
        check(&tree, "/www/../../www/x", "site/x");
        check(&tree, "/www/x/", "NOTDIR");
        check(&tree, "/www/sub/", "folder");
        check(&tree, "/srv", "folder");
        for path in ["/www/out", "/www/sub/deep", "/www/passwd", "/www/proc", "/etc/passwd", "/www/../secret"]
        {
            check(&tree, path, "NOENT");
        }
        check(&tree, "/www/loop", "LOOP");
    }

    #[test]
    fn layers_hide_each_other_as_in_an_image() {
        let mut host = Host::new(&["base/a", "base/b", "base/img/c", "copied/b", "mounted/d", "single"]);
        host.link("base/link", "img/d");
        host.layer(Copied, "/html/img/own", Some(("base", "a")));
        host.layer(Copied, "/html", Some(("base", "")));
        host.layer(Copied, "/html", Some(("copied", "")));
        host.layer(Copied, "/html/gone", Some(("base", "a")));
        host.layer(Mounted, "/html/img", Some(("mounted", "")));
        host.layer(Mounted, "/html/env.js", Some(("", "single")));
        host.layer(Copied, "/html/gone", None);
        host.layer(Mounted, "/empty/void", Some(("nothing", "")));
        let tree = host.tree();
        check(&tree, "/html/a", "base/a");
        check(&tree, "/html/b", "copied/b");
        check(&tree, "/html/img/c", "NOENT");
        check(&tree, "/html/img/d", "mounted/d");
        // What a mount hides is no folder either.
        check(&tree, "/html/img/own", "NOENT");
        // In the container the link leads into the mount, on this host beside it.
        check(&tree, "/html/link", "mounted/d");
        check(&tree, "/html/env.js", "single");
        check(&tree, "/html/gone", "NOENT");
        check(&tree, "/empty", "folder");
        check(&tree, "/empty/void/x", "NOENT");
    }

    #[test]
    fn a_folder_that_takes_anothers_place_is_noticed_and_a_link_in_its_place_is_not_followed() {
        let mut host = Host::new(&["site/x", "new/x", "secret/x"]);
        host.layer(Mounted, "/www", Some(("site", "")));
        let tree = host.tree();
        check(&tree, "/www/x", "site/x");
        let at = |name: &str| host.folder.path().join(name);
        let age = || {
            let Some(place) = &tree.layers[0].place else { return };
            place.folder.renewed_ms.store(0, Ordering::Relaxed);
            std::thread::sleep(RENEW_AFTER);
        };
        std::fs::rename(at("site"), at("old")).unwrap();
        std::fs::rename(at("new"), at("site")).unwrap();
        age();
        check(&tree, "/www/x", "new/x");
        std::fs::rename(at("site"), at("new")).unwrap();
        symlink("secret", at("site")).unwrap();
        age();
        check(&tree, "/www/x", "new/x");
    }

    #[test]
    fn pipes_are_not_waited_for() {
        let mut host = Host::new(&["site/x"]);
        let pipe = host.folder.path().join("site/pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o644), 0).unwrap();
        host.layer(Mounted, "/www", Some(("site", "")));
        let found = host.tree().open(Path::new("/www/pipe")).unwrap();
        assert!(matches!(found, Found::Opened(_, meta) if !meta.is_file()));
    }
}
