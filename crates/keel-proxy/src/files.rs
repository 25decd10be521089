//! Looks up the files of a place: on this host, with links followed as nginx follows them, or in the tree of a container
//! whose place the server is in, which no link leaves ([`keel_tree`]).

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use keel_model::{FileKind, FileTest};
use keel_tree::{
    Found, Tree,
    walk::{Look as _, Node, resolve},
};

/// The bit of a file's mode by which its owner may execute it.
const OWNER_MAY_EXECUTE: u32 = 0o100;

/// What a folder holds that is listed, at most.
const ENTRIES_MAX: usize = 100_000;

/// What is in a folder.
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) is_folder: bool,
    pub(crate) is_file: bool,
    /// When it was changed last, in Unix seconds.
    pub(crate) modified: i64,
    /// In bytes.
    pub(crate) length: u64,
}

/// Where the paths of a place lead.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    Host,
    Tree(Arc<Tree>),
}

/// What a path leads to.
pub(crate) enum Opened {
    /// Anything that isn't a folder; perhaps no regular file.
    File(File, Metadata),
    Folder,
}

impl Files {
    /// Opens a path for reading, without waiting for a pipe's writer.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Opened> {
        let (file, meta) = match self {
            Self::Host => {
                let flags = rustix::fs::OFlags::NONBLOCK.bits();
                let mut options = std::fs::OpenOptions::new();
                options.custom_flags(i32::try_from(flags).unwrap_or(0));
                let file = options.read(true).open(path)?;
                let meta = file.metadata()?;
                (file, meta)
            }
            Self::Tree(tree) => match tree.open(path)? {
                Found::Opened(file, meta) => (file, meta),
                Found::Folder => return Ok(Opened::Folder),
            },
        };
        Ok(if meta.is_dir() { Opened::Folder } else { Opened::File(file, meta) })
    }

    /// Looks at a path without opening it.
    pub(crate) fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let is_folder = match self {
            Self::Host => std::fs::metadata(path)?.is_dir(),
            Self::Tree(tree) => tree.is_folder(path)?,
        };
        Ok(if is_folder { FileKind::Folder } else { FileKind::File })
    }

    /// Says whether `if` finds at a path what it asks for.
    pub(crate) fn passes(&self, path: &Path, test: FileTest) -> io::Result<bool> {
        let meta = match self {
            Self::Host => std::fs::metadata(path)?,
            Self::Tree(tree) => match tree.open(path)? {
                Found::Opened(_, meta) => meta,
                Found::Folder => return Ok(test != FileTest::Plain),
            },
        };
        Ok(match test {
            FileTest::Plain => meta.is_file(),
            FileTest::Folder => meta.is_dir(),
            FileTest::Exists => meta.is_file() || meta.is_dir(),
            FileTest::Executable => meta.permissions().mode() & OWNER_MAY_EXECUTE != 0,
        })
    }

    /// Lists a folder, without what begins with a dot.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let Self::Host = self else { return Err(io::ErrorKind::PermissionDenied.into()) };
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().into_encoded_bytes();
            if name.starts_with(b".") {
                continue;
            }
            if entries.len() >= ENTRIES_MAX {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let path = entry.path();
            // A link that leads nowhere is itself.
            let meta = match std::fs::metadata(&path).or_else(|_| std::fs::symlink_metadata(&path)) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => return Err(error),
            };
            let (is_folder, is_file) = (meta.is_dir(), meta.is_file());
            entries.push(Entry { name, is_folder, is_file, modified: meta.mtime(), length: meta.len() });
        }
        Ok(entries)
    }

    /// Gives a path without links (`$realpath_root`).
    pub(crate) fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        match self {
            Self::Host => std::fs::canonicalize(path),
            Self::Tree(tree) => {
                let resolved = resolve(&**tree, path)?;
                match tree.look(&resolved)? {
                    Node::Missing => Err(io::ErrorKind::NotFound.into()),
                    Node::Folder | Node::Link(_) | Node::Other => Ok(resolved),
                }
            }
        }
    }
}
