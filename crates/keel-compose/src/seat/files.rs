//! The files of a container, in the layers that hide each other.
//!
//! A link among them leads where it leads in the container, never by this host's own root: what a stranger's project
//! links to outside of its mounts isn't there. What the Compose file itself names, the source of a mount or a build's
//! context, is taken as Docker takes it, links followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use keel_diag::Span;
use keel_model::HostPlace;
use keel_tree::{
    beneath::{self, Links},
    walk::{Look, Node, resolve, target},
};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use crate::{
    Copy, CopySource, Dockerfile, MountSource, Origin, Service, decode::tidy, files::FILE_BYTES_MAX,
};

/// How deep folders are looked through.
const DEPTH_MAX: usize = 8;
/// How many files a search gives at most.
const FILES_MAX: usize = 10_000;

/// Where the files that a service's container would see lie on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatFiles {
    /// Later entries hide earlier ones.
    pub entries: Vec<SeatFile>,
    /// Folders that are made, empty ones too.
    folders: BTreeSet<PathBuf>,
    /// The folders and files of this host that the Compose file names: nothing else is looked at.
    roots: BTreeSet<PathBuf>,
}

/// A file or folder in the container and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatFile {
    /// Its path in the container. Absolute.
    pub container: PathBuf,
    /// What is there.
    pub layer: Layer,
    /// The line that says so.
    pub span: Span,
}

/// How an entry acts on those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Copied: a folder's other files stay.
    Copied(Origin),
    /// Mounted: hides what was there.
    Mounted(Origin),
    /// Taken away.
    Removed,
}

impl Layer {
    /// Where it comes from.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Copied(origin) | Self::Mounted(origin) => Some(origin),
            Self::Removed => None,
        }
    }
}

impl SeatFiles {
    /// Collects what a service's Dockerfile copies and what it mounts, in the order in which they hide each other.
    ///
    /// Looks at the build context to tell files from folders.
    pub fn of(service: &Service) -> Self {
        let mut files = Self::default();
        if let (Some(build), Some(dockerfile)) = (&service.build, &service.dockerfile) {
            for copy in &dockerfile.copies {
                files.add_copy(copy, dockerfile, &build.context.value);
            }
        }
        files.add_mounts(service, &BTreeMap::new());
        files
    }

    /// Adds what is mounted, what lies in a mount after that mount; `volumes` has the named volumes whose folder on this
    /// host is known.
    pub(super) fn add_mounts(&mut self, service: &Service, volumes: &BTreeMap<String, PathBuf>) {
        let mut mounts: Vec<(PathBuf, Origin, Span)> = Vec::new();
        for mount in service.configs.iter().chain(&service.secrets) {
            if let Some(origin) = &mount.origin {
                mounts.push((tidy(Path::new(&mount.target)), origin.clone(), mount.span));
            }
        }
        for mount in &service.volumes {
            let folder = match &mount.source {
                MountSource::Bind(path) => Some(path),
                MountSource::Named(name) => volumes.get(name),
                MountSource::Anonymous => None,
            };
            if let Some(folder) = folder {
                mounts.push((tidy(Path::new(&mount.target)), Origin::Host(folder.clone()), mount.span));
            }
        }
        mounts.sort_by_key(|(target, ..)| target.components().count());
        for (target, origin, span) in mounts {
            if let Origin::Host(path) = &origin {
                self.roots.insert(path.clone());
            }
            self.add(&target, Layer::Mounted(origin), span);
        }
    }

    /// Adds a layer on top.
    pub fn add(&mut self, container: &Path, layer: Layer, span: Span) {
        self.entries.push(SeatFile { container: tidy(container), layer, span });
    }

    /// Puts a text where a shell writes it, in place of what it wrote there just before.
    pub(super) fn write(&mut self, container: &Path, text: String, span: Span) {
        let container = tidy(container);
        if self.entries.last().is_some_and(|entry| {
            entry.container == container && matches!(entry.layer, Layer::Copied(Origin::Text(_)))
        }) {
            self.entries.pop();
        }
        self.add(&container, Layer::Copied(Origin::Text(text)), span);
    }

    pub(super) fn make_folder(&mut self, container: &Path) {
        self.folders.insert(tidy(container));
    }

    /// Whether a path of the container is a folder, as far as is known.
    pub(super) fn is_folder(&self, container: &Path) -> bool {
        self.resolved(container).is_some_and(|path| matches!(self.look(&path), Ok(Node::Folder)))
    }

    /// The path that a path stands for when its links are followed in the container.
    fn resolved(&self, container: &Path) -> Option<PathBuf> {
        resolve(self, container).ok()
    }

    pub(super) fn add_copy(&mut self, copy: &Copy, dockerfile: &Dockerfile, context: &Path) {
        self.roots.insert(context.to_owned());
        let destination = Path::new(&copy.destination);
        let into_folder =
            copy.destination.ends_with('/') || copy.sources.len() > 1 || is_known_folder(destination);
        for source in &copy.sources {
            match source {
                CopySource::Inline { name, text } => {
                    let target = if into_folder { destination.join(name) } else { destination.to_owned() };
                    self.add(&target, Layer::Copied(Origin::Text(text.clone())), copy.span);
                }
                CopySource::Path(pattern) => {
                    for source in sources(copy, pattern, dockerfile, context) {
                        let name = Some(&source.name).filter(|_| into_folder && !source.path.is_dir());
                        let target = name.map_or(destination.to_owned(), |name| destination.join(name));
                        self.add(&target, Layer::Copied(Origin::Host(source.path)), copy.span);
                    }
                }
            }
        }
    }

    /// Where a path of the container comes from; `None` where it is the image's own or isn't there. A file of this
    /// host is given by the path without links that leads to it.
    pub fn find(&self, container: &Path) -> Option<Origin> {
        let container = self.resolved(container)?;
        for entry in self.entries.iter().rev() {
            let Ok(below) = container.strip_prefix(&entry.container) else { continue };
            let is_it = below.as_os_str().is_empty();
            match (&entry.layer, is_it) {
                (Layer::Removed, _) => return None,
                (Layer::Copied(origin) | Layer::Mounted(origin), true) => return Some(origin.clone()),
                (Layer::Copied(Origin::Host(path)) | Layer::Mounted(Origin::Host(path)), false)
                    if look_beneath(path, below).is_ok() =>
                {
                    return Some(Origin::Host(path.join(below)));
                }
                // What is mounted hides what lies below.
                (Layer::Mounted(Origin::Host(_)), false) => return None,
                (Layer::Copied(_) | Layer::Mounted(Origin::Text(_)), false) => {}
            }
        }
        None
    }

    /// The place on this host of a path that may be made later, as a socket's: `None` where nothing of this host is
    /// mounted or copied there.
    pub fn place(&self, container: &Path) -> Option<PathBuf> {
        let container = self.resolved(container)?;
        let mut entries = self.entries.iter().rev();
        let (below, origin) = entries.find_map(|entry| {
            let below = container.strip_prefix(&entry.container).ok()?.to_owned();
            Some((below, entry.layer.origin().cloned()))
        })?;
        match origin {
            Some(Origin::Host(path)) => Some(join(&path, &below)),
            _ => None,
        }
    }

    /// The folder in which something of this host is looked for, and where in it: the mount's or the context's. The
    /// folder is a path without links.
    pub fn host_place(&self, host: &Path) -> HostPlace {
        let root = self.roots.iter().rev().find(|root| host.starts_with(root));
        let root = root.map_or(host, PathBuf::as_path);
        let below = host.strip_prefix(root).unwrap_or(Path::new(""));
        let folder = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        match (folder.is_file(), folder.parent(), folder.file_name()) {
            (true, Some(above), Some(name)) => HostPlace { folder: above.to_owned(), below: name.into() },
            // The way to a folder that is copied may be closed to those who read what is in it.
            _ if matches!(look_beneath(root, below), Ok(Node::Folder)) => {
                HostPlace { folder: join(&folder, below), below: PathBuf::new() }
            }
            _ => HostPlace { folder, below: below.to_owned() },
        }
    }

    /// The path in the container that a file of this host has there.
    pub fn container_path(&self, host: &Path) -> Option<PathBuf> {
        self.entries.iter().rev().find_map(|entry| match entry.layer.origin()? {
            Origin::Host(path) => {
                let below = host.strip_prefix(path).ok()?;
                Some(if below.as_os_str().is_empty() {
                    entry.container.clone()
                } else {
                    entry.container.join(below)
                })
            }
            Origin::Text(_) => None,
        })
    }

    /// What lies directly in a folder of the container, by name.
    pub fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let asked = tidy(folder);
        let Some(folder) = self.resolved(folder) else { return Vec::new() };
        let mut found: BTreeSet<OsString> = BTreeSet::new();
        for entry in &self.entries {
            if let (Some(Origin::Host(path)), Ok(below)) =
                (entry.layer.origin(), folder.strip_prefix(&entry.container))
            {
                if matches!(entry.layer, Layer::Mounted(_)) {
                    found.clear();
                }
                found.extend(names_beneath(path, below));
            }
            if entry.layer == Layer::Removed {
                if folder.starts_with(&entry.container) {
                    found.clear();
                }
                if let (true, Some(name)) =
                    (entry.container.parent() == Some(&folder), entry.container.file_name())
                {
                    found.remove(name);
                }
            } else if let Ok(below) = entry.container.strip_prefix(&folder)
                && let Some(Component::Normal(first)) = below.components().next()
            {
                found.insert(first.to_owned());
            }
        }
        found.into_iter().map(|name| asked.join(name)).collect()
    }

    /// The files below a folder of the container, at any depth up to 8; 10,000 of them at most.
    pub fn below(&self, folder: &Path) -> Vec<PathBuf> {
        self.search(folder).0
    }

    /// Whether [`SeatFiles::below`] gives fewer files than there are.
    pub fn is_cut_below(&self, folder: &Path) -> bool {
        self.search(folder).1 == Search::Cut
    }

    fn search(&self, folder: &Path) -> (Vec<PathBuf>, Search) {
        let mut found = Vec::new();
        let mut search = Search::Whole;
        let mut folders = vec![(tidy(folder), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for path in self.list(&folder) {
                let Ok(node) = resolve(self, &path).and_then(|path| self.look(&path)) else { continue };
                let is_folder = match node {
                    // A link that leads nowhere.
                    Node::Missing => continue,
                    Node::Folder => true,
                    Node::Link(_) | Node::Other => false,
                };
                if is_folder && depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                } else if !is_folder && found.len() < FILES_MAX {
                    found.push(path);
                } else {
                    search = Search::Cut;
                }
            }
            if found.len() >= FILES_MAX && search == Search::Cut {
                break;
            }
        }
        found.sort();
        (found, search)
    }

    /// The paths of the container that a pattern with `*`, `?` and `[` names.
    pub fn matching(&self, pattern: &Path, matches: &dyn Fn(&str, &str) -> bool) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::from("/")];
        let mut is_listed = false;
        for component in tidy(pattern).components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_string_lossy();
            if !name.contains(['*', '?', '[']) {
                found.iter_mut().for_each(|path| path.push(&*name));
                continue;
            }
            let fits = |path: &PathBuf| {
                let file = path.file_name().map(|file| file.to_string_lossy());
                file.is_some_and(|file| {
                    (!file.starts_with('.') || name.starts_with('.')) && matches(&name, &file)
                })
            };
            found = found.iter().flat_map(|folder| self.list(folder)).filter(fits).collect();
            is_listed = true;
        }
        // A link that leads nowhere is found by its name, too; reading it fails.
        let is_dangling =
            |path: &Path| resolve(self, path).is_ok_and(|path| matches!(self.look(&path), Ok(Node::Missing)));
        found.retain(|path| self.find(path).is_some() || (is_listed && is_dangling(path)));
        found
    }

    /// The folder of this host that is this folder of the container, if one alone is. Single files of the image's
    /// own below a folder that is copied over them don't count.
    pub fn single_folder(&self, folder: &Path) -> Option<PathBuf> {
        let folder = self.resolved(folder)?;
        let mut copied: Option<PathBuf> = None;
        for entry in self.entries.iter().rev() {
            let is_inside = entry.container.starts_with(&folder) && entry.container != folder;
            let covering = folder.strip_prefix(&entry.container).ok();
            match (&entry.layer, covering) {
                (Layer::Copied(Origin::Text(_)) | Layer::Removed, _) if is_inside && copied.is_some() => {}
                _ if is_inside => return None,
                (Layer::Mounted(Origin::Host(path)), Some(below)) => {
                    return copied.is_none().then(|| join(path, below));
                }
                (Layer::Copied(Origin::Host(path)), Some(below)) => {
                    let path = join(path, below);
                    if path.is_dir() && copied.replace(path).is_some() {
                        return None;
                    }
                }
                (
                    Layer::Removed | Layer::Mounted(Origin::Text(_)) | Layer::Copied(Origin::Text(_)),
                    Some(_),
                ) => break,
                _ => {}
            }
        }
        copied
    }

    /// Reads a file as text; `None` where there is none, or no text.
    pub fn text(&self, container: &Path) -> Option<String> {
        self.read(container).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    }

    /// Reads a file, as nginx would.
    ///
    /// # Errors
    /// The system's, and those of a file that is none or is larger than 4 MiB.
    pub fn read(&self, container: &Path) -> io::Result<Vec<u8>> {
        resolve(self, container)?;
        match self.find(container) {
            Some(Origin::Host(host)) => {
                let place = self.host_place(&host);
                read(&place.folder, &place.below)
            }
            Some(Origin::Text(text)) => Ok(text.into_bytes()),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

impl Look for SeatFiles {
    fn look(&self, path: &Path) -> io::Result<Node> {
        let mut hidden = 0;
        for (at, entry) in self.entries.iter().enumerate().rev() {
            let Ok(below) = path.strip_prefix(&entry.container) else { continue };
            let (host, is_mounted) = match &entry.layer {
                Layer::Removed => {
                    hidden = at;
                    break;
                }
                Layer::Copied(Origin::Text(_)) | Layer::Mounted(Origin::Text(_)) => {
                    if below.as_os_str().is_empty() {
                        return Ok(Node::Other);
                    }
                    continue;
                }
                Layer::Copied(Origin::Host(host)) => (host, false),
                Layer::Mounted(Origin::Host(host)) => (host, true),
            };
            match look_beneath(host, below) {
                Err(Errno::NOENT | Errno::NOTDIR) if is_mounted => {
                    hidden = at;
                    break;
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                outcome => return Ok(outcome?),
            }
        }
        let above = self.entries.get(hidden..).unwrap_or_default();
        let mut there = above.iter().filter(|entry| entry.layer != Layer::Removed);
        let is_folder = is_known_folder(path)
            || self.folders.iter().any(|folder| folder.starts_with(path))
            || there.any(|entry| entry.container != path && entry.container.starts_with(path));
        Ok(if is_folder { Node::Folder } else { Node::Missing })
    }
}

/// Tells what is at a path of a file or folder that is mounted or copied. That one itself may be a link: the file names it.
fn look_beneath(host: &Path, below: &Path) -> Result<Node, Errno> {
    if below.as_os_str().is_empty() {
        let meta = rustix::fs::stat(host)?;
        let is_folder = FileType::from_raw_mode(meta.st_mode) == FileType::Directory;
        return Ok(if is_folder { Node::Folder } else { Node::Other });
    }
    let folder = beneath::open_folder(host)?;
    let (kind, opened) = beneath::kind(folder.as_fd(), below)?;
    Ok(match kind {
        FileType::Directory => Node::Folder,
        FileType::Symlink => Node::Link(target(&opened).map_err(|_| Errno::IO)?),
        _ => Node::Other,
    })
}

/// The names in a folder of one that is mounted or copied.
fn names_beneath(host: &Path, below: &Path) -> Vec<OsString> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let opened = beneath::open_folder(host)
        .and_then(|folder| beneath::open(folder.as_fd(), below, flags, Mode::empty(), Links::Refused));
    let Ok(entries) = opened.and_then(rustix::fs::Dir::new) else { return Vec::new() };
    let names = entries.flatten().map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    names.filter(|name| name != "." && name != "..").collect()
}

/// The files of a folder of this host alone, as a build sees its context: `/` is the folder.
struct Context<'a>(&'a Path);

impl Look for Context<'_> {
    fn look(&self, path: &Path) -> io::Result<Node> {
        let below = path.strip_prefix("/").unwrap_or(path);
        match look_beneath(self.0, below) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Node::Missing),
            outcome => Ok(outcome?),
        }
    }
}

/// Reads a regular file of bounded size: a device or a pipe might never end, and opening one may do something.
fn read(folder: &Path, below: &Path) -> io::Result<Vec<u8>> {
    let folder: OwnedFd = beneath::open_real_folder(folder)?;
    let (kind, _) = beneath::kind(folder.as_fd(), below)?;
    if kind != FileType::RegularFile {
        let is_folder = kind == FileType::Directory;
        let kind = if is_folder { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
        return Err(io::Error::new(kind, "it is no regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = beneath::open(folder.as_fd(), below, flags, Mode::empty(), Links::Refused)?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// Whether a search came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Whole,
    Cut,
}

fn join(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// A file or folder of this host that COPY takes, and the name that it is copied under.
struct Source {
    name: OsString,
    path: PathBuf,
}

impl Source {
    /// Follows the links of a path of the context as a build does: none leads out of it.
    fn of(context: &Path, path: &Path) -> Self {
        let resolved = resolve(&Context(context), path).unwrap_or_else(|_| tidy(path));
        let below = resolved.strip_prefix("/").unwrap_or(&resolved);
        let name = path.file_name().unwrap_or_default().to_owned();
        Self { name, path: join(context, below) }
    }
}

/// The files of this host that a source of COPY names. What another stage copied from the context and hands on is
/// here, too; what it made, only if a build has left it in the context.
fn sources(copy: &Copy, pattern: &str, dockerfile: &Dockerfile, context: &Path) -> Vec<Source> {
    let Some(from) = &copy.from else { return matches(context, pattern) };
    let number = from.parse::<usize>().ok();
    let name = from.to_ascii_lowercase();
    let stage = dockerfile
        .stages
        .iter()
        .rposition(|stage| stage.name.as_ref() == Some(&name))
        .or(number)
        .and_then(|at| dockerfile.stages.get(at));
    let Some(stage) = stage else { return Vec::new() };
    let mut files = SeatFiles::default();
    for copy in stage.copies.iter().filter(|copy| copy.from.is_none()) {
        files.add_copy(copy, dockerfile, context);
    }
    let path = tidy(&Path::new("/").join(pattern));
    match files.find(&path) {
        Some(Origin::Host(host)) => {
            vec![Source { name: path.file_name().unwrap_or_default().to_owned(), path: host }]
        }
        _ => Vec::new(),
    }
}

/// Whether an image of nginx has this folder, so that a file copied there goes into it.
fn is_known_folder(path: &Path) -> bool {
    ["/etc/nginx", "/etc/nginx/conf.d", "/etc/nginx/templates", "/usr/share/nginx/html", "/etc", "/"]
        .iter()
        .any(|known| path == Path::new(known))
}

/// The files of the context that a source of COPY names; `*` and `?` stand in the last part only.
fn matches(context: &Path, pattern: &str) -> Vec<Source> {
    let path = tidy(&Path::new("/").join(pattern));
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![Source::of(context, &path)];
    };
    if !name.contains(['*', '?']) {
        return vec![Source::of(context, &path)];
    }
    let inside = Source::of(context, folder).path;
    let below = inside.strip_prefix(context).unwrap_or(Path::new(""));
    let is_meant = |file: &OsString| {
        file.to_str().is_some_and(|file| matches_wildcard(name.as_bytes(), file.as_bytes()))
    };
    let mut names: Vec<OsString> = names_beneath(context, below).into_iter().filter(is_meant).collect();
    names.sort();
    names.iter().map(|name| Source::of(context, &folder.join(name))).collect()
}

pub(super) fn matches_wildcard(pattern: &[u8], name: &[u8]) -> bool {
    // Greedy with one step back: linear in practice, never exponential.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == name.get(n) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let check = |pattern: &str, name: &str, expect| {
            assert_eq!(matches_wildcard(pattern.as_bytes(), name.as_bytes()), expect, "{pattern} {name}");
        };
        check("*.conf", "a.conf", true);
        check("*.conf", "a.conf.bak", false);
        check("a?c*", "abc", true);
        check("*a*b", "xaab", true);
        check("*a*b", "xaac", false);
    }
    #[test]
    fn reads_regular_files_alone() {
        let span = Span::new(keel_diag::Sources::default().add("x", String::new()), 0..0);
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let mut files = SeatFiles::default();
        files.add(Path::new("/zero"), Layer::Mounted(Origin::Host("/dev/zero".into())), span);
        files.add(Path::new("/large"), Layer::Mounted(Origin::Host(large)), span);
        files.add(Path::new("/d"), Layer::Mounted(Origin::Host(folder.path().to_owned())), span);
        for path in ["/zero", "/large", "/d"] {
            assert_eq!(files.text(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn says_that_a_search_is_cut() {
        let span = Span::new(keel_diag::Sources::default().add("x", String::new()), 0..0);
        let mut files = SeatFiles::default();
        files.add(Path::new("/a/1/2/3/4/5/6/7/8/f"), Layer::Copied(Origin::Text(String::new())), span);
        assert!(!files.is_cut_below(Path::new("/a")));
        files.add(Path::new("/a/1/2/3/4/5/6/7/8/9/f"), Layer::Copied(Origin::Text(String::new())), span);
        assert!(files.is_cut_below(Path::new("/a")));
    }

    /// A project's folder with a mount, a file beside it, and links of all kinds in the mount.
    fn linked() -> (tempfile::TempDir, SeatFiles) {
        let span = Span::new(keel_diag::Sources::default().add("x", String::new()), 0..0);
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("conf/sub")).unwrap();
        std::fs::write(at("secret"), "secret").unwrap();
        std::fs::write(at("conf/sub/a"), "a").unwrap();
        for (link, target) in [
            ("conf/in", "sub/a"),
            ("conf/up", "../secret"),
            ("conf/abs", at("secret").to_str().unwrap()),
            ("conf/own", "/etc/own"),
            ("conf/folder", "/"),
            ("conf/outside", ".."),
            ("conf/proc", "/proc/self/root/etc/passwd"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        let mut files = SeatFiles::default();
        files.roots.insert(at("conf"));
        files.add(Path::new("/etc/own"), Layer::Copied(Origin::Text("own".into())), span);
        files.add(Path::new("/c/conf"), Layer::Mounted(Origin::Host(at("conf"))), span);
        (folder, files)
    }

    #[test]
    fn links_lead_where_they_lead_in_the_container() {
        let (folder, files) = linked();
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(files.text(Path::new(path)).as_deref(), expect, "{path}");
        };
        check("/c/conf/in", Some("a"));
        check("/c/conf/own", Some("own"));
        check("/c/conf/folder/etc/own", Some("own"));
        check("/c/conf/folder/../c/conf/sub/a", Some("a"));
        for path in ["/c/conf/up", "/c/conf/abs", "/c/conf/outside/secret", "/c/conf/proc"] {
            check(path, None);
            assert_eq!(files.find(Path::new(path)), None, "{path}");
        }
        // What is made later is made in the container, too.
        assert_eq!(files.place(Path::new("/c/conf/up")), None);
        assert_eq!(files.place(Path::new("/c/conf/new.log")), Some(folder.path().join("conf/new.log")));
        let found = files.matching(Path::new("/c/conf/*"), &|_, _| true);
        let names: Vec<&str> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["abs", "in", "own", "proc", "sub", "up"]);
        assert!(files.below(Path::new("/c")).iter().all(|path| files.text(path).is_some()));
    }

    #[test]
    fn a_context_is_not_left() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("context/sub")).unwrap();
        std::fs::write(at("secret.conf"), "secret").unwrap();
        std::fs::write(at("context/sub/a.conf"), "a").unwrap();
        for (link, target) in [("in.conf", "/sub/a.conf"), ("up.conf", "../secret.conf"), ("dir", "..")] {
            std::os::unix::fs::symlink(target, at("context").join(link)).unwrap();
        }
        let context = at("context");
        let found = |pattern: &str| -> Vec<String> {
            let sources = matches(&context, pattern);
            let shown = sources.iter().filter(|source| source.path.exists()).map(|source| {
                let below = source.path.strip_prefix(&context).unwrap();
                format!("{}={}", source.name.display(), below.display())
            });
            shown.collect()
        };
        assert_eq!(found("*.conf"), ["in.conf=sub/a.conf"]);
        assert_eq!(found("sub/*"), ["a.conf=sub/a.conf"]);
        for pattern in ["up.conf", "dir/secret.conf", "../secret.conf", "dir/*.conf"] {
            let found = found(pattern);
            assert!(found.iter().all(|one| !one.contains("secret")), "{pattern}: {found:?}");
        }
    }
}
