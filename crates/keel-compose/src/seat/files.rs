//! The files of a container, in the layers that hide each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use keel_diag::Span;

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
    /// Gives where it comes from.
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

    /// Adds what is mounted; `volumes` has the named volumes whose folder on this host is known.
    pub(super) fn add_mounts(&mut self, service: &Service, volumes: &BTreeMap<String, PathBuf>) {
        for mount in service.configs.iter().chain(&service.secrets) {
            if let Some(origin) = &mount.origin {
                self.add(Path::new(&mount.target), Layer::Mounted(origin.clone()), mount.span);
            }
        }
        for mount in &service.volumes {
            let folder = match &mount.source {
                MountSource::Bind(path) => Some(path),
                MountSource::Named(name) => volumes.get(name),
                MountSource::Anonymous => None,
            };
            if let Some(folder) = folder {
                self.add(Path::new(&mount.target), Layer::Mounted(Origin::Host(folder.clone())), mount.span);
            }
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
        match self.find(container) {
            Some(Origin::Host(host)) => host.is_dir(),
            Some(Origin::Text(_)) => false,
            None => {
                is_known_folder(container)
                    || self.folders.iter().any(|folder| folder.starts_with(container))
                    || !self.list(container).is_empty()
            }
        }
    }

    pub(super) fn add_copy(&mut self, copy: &Copy, dockerfile: &Dockerfile, context: &Path) {
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
                    for path in sources(copy, pattern, dockerfile, context) {
                        let name = path.file_name().filter(|_| into_folder && !path.is_dir());
                        let target = name.map_or(destination.to_owned(), |name| destination.join(name));
                        self.add(&target, Layer::Copied(Origin::Host(path)), copy.span);
                    }
                }
            }
        }
    }

    /// Gives where a path of the container comes from; `None` where it is the image's own or isn't there.
    pub fn find(&self, container: &Path) -> Option<Origin> {
        let container = tidy(container);
        for entry in self.entries.iter().rev() {
            let Ok(below) = container.strip_prefix(&entry.container) else { continue };
            let is_it = below.as_os_str().is_empty();
            match (&entry.layer, is_it) {
                (Layer::Removed, _) => return None,
                (Layer::Copied(origin) | Layer::Mounted(origin), true) => return Some(origin.clone()),
                (Layer::Copied(Origin::Host(path)) | Layer::Mounted(Origin::Host(path)), false)
                    if path.join(below).exists() =>
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

    /// Gives the place on this host of a path that may be made later, as a socket's: `None` where nothing of this host is
    /// mounted or copied there.
    pub fn place(&self, container: &Path) -> Option<PathBuf> {
        let container = tidy(container);
        let mut entries = self.entries.iter().rev();
        let (below, origin) = entries.find_map(|entry| {
            let below = container.strip_prefix(&entry.container).ok()?.to_owned();
            Some((below, entry.layer.origin().cloned()))
        })?;
        match origin {
            Some(Origin::Host(path)) if below.as_os_str().is_empty() => Some(path),
            Some(Origin::Host(path)) => Some(path.join(below)),
            _ => None,
        }
    }

    /// Gives the path in the container that a file of this host has there.
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

    /// Gives what lies directly in a folder of the container, by name.
    pub fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let folder = tidy(folder);
        let mut found = BTreeSet::new();
        for entry in &self.entries {
            if let (Some(Origin::Host(path)), Ok(below)) =
                (entry.layer.origin(), folder.strip_prefix(&entry.container))
            {
                if matches!(entry.layer, Layer::Mounted(_)) {
                    found.clear();
                }
                let names = std::fs::read_dir(path.join(below)).into_iter().flatten().flatten();
                found.extend(names.map(|file| folder.join(file.file_name())));
            }
            if entry.layer == Layer::Removed {
                if folder.starts_with(&entry.container) {
                    found.clear();
                }
                found.remove(&entry.container);
            } else if let Ok(below) = entry.container.strip_prefix(&folder)
                && let Some(Component::Normal(first)) = below.components().next()
            {
                found.insert(folder.join(first));
            }
        }
        found.into_iter().collect()
    }

    /// Gives the files below a folder of the container, at any depth up to 8; 10,000 of them at most.
    pub fn below(&self, folder: &Path) -> Vec<PathBuf> {
        self.search(folder).0
    }

    /// Tells whether [`SeatFiles::below`] gives fewer files than there are.
    pub fn is_cut_below(&self, folder: &Path) -> bool {
        self.search(folder).1 == Search::Cut
    }

    fn search(&self, folder: &Path) -> (Vec<PathBuf>, Search) {
        let mut found = Vec::new();
        let mut search = Search::Whole;
        let mut folders = vec![(tidy(folder), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for path in self.list(&folder) {
                let is_folder = match self.find(&path) {
                    Some(Origin::Host(host)) => host.is_dir(),
                    Some(Origin::Text(_)) => false,
                    None => true,
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

    /// Gives the paths of the container that a pattern with `*`, `?` and `[` names.
    pub fn matching(&self, pattern: &Path, matches: &dyn Fn(&str, &str) -> bool) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::from("/")];
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
        }
        found.retain(|path| self.find(path).is_some());
        found
    }

    /// Gives the folder of this host that is this folder of the container, if one alone is. Single files of the image's
    /// own below a folder that is copied over them don't count.
    pub fn single_folder(&self, folder: &Path) -> Option<PathBuf> {
        let folder = tidy(folder);
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
        match self.find(container)? {
            Origin::Text(text) => Some(text),
            Origin::Host(path) => read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        }
    }

    /// Reads a file, as nginx would.
    ///
    /// # Errors
    /// The system's, and those of a file that is none or is larger than 4 MiB.
    pub fn read(&self, container: &Path) -> io::Result<Vec<u8>> {
        match self.find(container) {
            Some(Origin::Host(host)) => read(&host),
            Some(Origin::Text(text)) => Ok(text.into_bytes()),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

/// Reads a regular file of bounded size: a device or a pipe might never end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        let kind = if path.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
        return Err(io::Error::new(kind, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
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

/// Gives the files of this host that a source of COPY names. What another stage copied from the context and hands on is
/// here, too; what it made, only if a build has left it in the context.
fn sources(copy: &Copy, pattern: &str, dockerfile: &Dockerfile, context: &Path) -> Vec<PathBuf> {
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
        Some(Origin::Host(path)) => vec![path],
        _ => Vec::new(),
    }
}

/// Tells whether an image of nginx has this folder, so that a file copied there goes into it.
fn is_known_folder(path: &Path) -> bool {
    ["/etc/nginx", "/etc/nginx/conf.d", "/etc/nginx/templates", "/usr/share/nginx/html", "/etc", "/"]
        .iter()
        .any(|known| path == Path::new(known))
}

/// Gives the files of the context that a source of COPY names; `*` and `?` stand in the last part only.
fn matches(context: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = tidy(&context.join(pattern.trim_start_matches('/')));
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![path];
    };
    if !name.contains(['*', '?']) {
        return vec![path];
    }
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = names
        .filter(|file| {
            file.file_name().to_str().is_some_and(|file| matches_wildcard(name.as_bytes(), file.as_bytes()))
        })
        .map(|file| file.path())
        .collect();
    found.sort();
    found
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
}
