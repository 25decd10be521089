//! The files of balancers' images that no single folder of this host has: put together below the state folder.
//!
//! What lies there is links to the user's files and texts of Evenkeel's. Nothing here goes through a link: a file that
//! was a link yesterday and is a folder today would otherwise be written into the user's own.

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use keel_compose::Origin;

/// The data plane may be another user, under any umask.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// A file of a balancer's image that is put together on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFile {
    /// Where it is put.
    pub path: PathBuf,
    /// What it is.
    pub origin: Origin,
}

/// All of a project's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedFiles {
    /// The folder that holds them, and nothing else but sockets.
    pub folder: PathBuf,
    /// Each file.
    pub files: Vec<PlacedFile>,
}

/// A file that could not be put, or taken away.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct PlaceError {
    /// Which.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// Gives the folder of a project's state that holds what is put together.
pub(super) fn image_folder(state: &Path) -> PathBuf {
    state.join("image")
}

/// Gives where a path of a balancer's container is that is nowhere else on this host. `..` ends at the container's root.
pub(super) fn image_path(state: &Path, seat: &str, path: &Path) -> PathBuf {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => drop(below.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    image_folder(state).join(seat).join(below)
}

impl PlacedFiles {
    /// Puts each file there; what stands in its way is taken away. Gives those that couldn't be put.
    pub fn put(&self) -> Vec<PlaceError> {
        let put = |file: &PlacedFile| {
            let error = self.put_one(file).err()?;
            Some(PlaceError { path: file.path.clone(), error })
        };
        self.files.iter().filter_map(put).collect()
    }

    fn put_one(&self, file: &PlacedFile) -> io::Result<()> {
        let outside = || io::Error::new(ErrorKind::InvalidInput, "it lies outside the image");
        let below = file.path.strip_prefix(&self.folder).map_err(|_| outside())?;
        let mut folder = self.folder.clone();
        for component in below.parent().into_iter().flat_map(Path::components) {
            make_folder(&folder)?;
            folder.push(component);
        }
        make_folder(&folder)?;
        match &file.origin {
            Origin::Host(host) => put_link(&file.path, host),
            Origin::Text(text) => put_text(&file.path, text),
        }
    }

    /// Takes everything away that is none of them, and the folders that are empty then. Gives what is still there.
    pub fn sweep(&self) -> Vec<PlaceError> {
        let placed = self.files.iter().map(|file| file.path.as_path()).collect();
        let mut left = Vec::new();
        sweep(&self.folder, &placed, &mut left);
        left
    }
}

fn sweep(folder: &Path, placed: &BTreeSet<&Path>, left: &mut Vec<PlaceError>) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return left.push(PlaceError { path: folder.to_owned(), error }),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // A link's kind is that of a link, wherever it leads.
        let Ok(kind) = entry.file_type() else { continue };
        let removed = if kind.is_dir() {
            sweep(&path, placed, left);
            // It isn't empty if something of it stays.
            std::fs::remove_dir(&path).or(Ok(()))
        } else if kind.is_socket() || placed.contains(path.as_path()) {
            // A socket is its listener's.
            Ok(())
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            left.push(PlaceError { path, error });
        }
    }
}

/// Makes a folder that everybody may enter, in place of a file or a link.
fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() && meta.permissions().mode() & 0o777 == FOLDER_MODE => return Ok(()),
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            std::fs::remove_file(path)?;
            DirBuilder::new().mode(FOLDER_MODE).create(path)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().mode(FOLDER_MODE).create(path)?;
        }
        Err(error) => return Err(error),
    }
    std::fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))
}

/// Takes away what is at a path; of a link, the link.
fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn put_link(path: &Path, host: &Path) -> io::Result<()> {
    if std::fs::read_link(path).is_ok_and(|link| link == host) {
        return Ok(());
    }
    clear(path)?;
    std::os::unix::fs::symlink(host, path)
}

/// Writes a text, unless it is there: clients that have it needn't get it again.
fn put_text(path: &Path, text: &str) -> io::Result<()> {
    let is_file = std::fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o777 == FILE_MODE);
    if is_file && std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".evenkeel-new");
    let beside = PathBuf::from(beside);
    clear(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    if !is_file {
        clear(path)?;
    }
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn host(path: &Path) -> Origin {
        Origin::Host(path.to_owned())
    }

    /// A folder of the user's, and one of Evenkeel's with these files.
    struct Image {
        folder: tempfile::TempDir,
        placed: PlacedFiles,
    }

    impl Image {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("user/sub")).unwrap();
            std::fs::write(folder.path().join("user/sub/x"), "x").unwrap();
            let placed = PlacedFiles { folder: image_folder(folder.path()), files: Vec::new() };
            Self { folder, placed }
        }

        fn user(&self, path: &str) -> PathBuf {
            self.folder.path().join("user").join(path)
        }

        fn place(&mut self, files: &[(&str, Origin)]) {
            let placed = |(path, origin): &(&str, Origin)| PlacedFile {
                path: image_path(self.folder.path(), "web", Path::new(path)),
                origin: origin.clone(),
            };
            self.placed.files = files.iter().map(placed).collect();
            let failed = self.placed.put();
            assert!(failed.is_empty(), "{failed:?}");
            let left = self.placed.sweep();
            assert!(left.is_empty(), "{left:?}");
        }

        /// Gives the files and folders of the image; links aren't gone through.
        fn list(&self) -> Vec<String> {
            let mut found = Vec::new();
            let mut folders = vec![self.placed.folder.join("web")];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                    let below = entry.path().strip_prefix(self.placed.folder.join("web")).unwrap().to_owned();
                    found.push(below.display().to_string());
                    if entry.file_type().unwrap().is_dir() {
                        folders.push(entry.path());
                    }
                }
            }
            found.sort();
            found
        }
    }

    #[test]
    fn what_is_not_placed_any_more_goes() {
        let mut image = Image::new();
        let x = host(&image.user("sub/x"));
        image.place(&[("/html/a/x", x.clone()), ("/html/env.js", Origin::Text("1".into()))]);
        assert_eq!(image.list(), ["html", "html/a", "html/a/x", "html/env.js"]);
        let socket = std::os::unix::net::UnixListener::bind(image.placed.folder.join("web/s")).unwrap();
        // A link to a folder of the user's is no folder to sweep.
        std::os::unix::fs::symlink(image.user("sub"), image.placed.folder.join("web/html/sub")).unwrap();
        image.place(&[("/html/env.js", Origin::Text("2".into()))]);
        assert_eq!(image.list(), ["html", "html/env.js", "s"]);
        drop(socket);
        image.place(&[]);
        assert_eq!(image.list(), ["s"]);
        assert_eq!(std::fs::read_to_string(image.user("sub/x")).unwrap(), "x");
    }

    #[test]
    fn a_file_becomes_a_folder_and_back_and_the_users_stay() {
        let mut image = Image::new();
        let (folder, x) = (host(&image.user("sub")), host(&image.user("sub/x")));
        image.place(&[("/html/sub", folder.clone())]);
        image.place(&[("/html/sub/x", x), ("/html/sub/y", Origin::Text("y".into()))]);
        assert_eq!(image.list(), ["html", "html/sub", "html/sub/x", "html/sub/y"]);
        assert!(!image.user("sub/y").exists());
        assert_eq!(std::fs::read_to_string(image.user("sub/x")).unwrap(), "x");
        image.place(&[("/html/sub", folder)]);
        image.place(&[("/html/sub", Origin::Text("text".into()))]);
        assert_eq!(image.list(), ["html", "html/sub"]);
        assert!(image.user("sub/x").exists());
    }

    #[test]
    fn everybody_may_read_it_and_an_unchanged_text_stays_as_it_is() {
        let mut image = Image::new();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        std::fs::create_dir(&image.placed.folder).unwrap();
        std::fs::set_permissions(&image.placed.folder, Permissions::from_mode(0o700)).unwrap();
        image.place(&[("/html/env.js", Origin::Text("1".into()))]);
        let file = image.placed.folder.join("web/html/env.js");
        assert_eq!((mode(&image.placed.folder), mode(&file)), (FOLDER_MODE, FILE_MODE));
        let before = std::fs::metadata(&file).unwrap();
        image.place(&[("/html/env.js", Origin::Text("1".into()))]);

        assert_eq!(std::fs::metadata(&file).unwrap().ino(), before.ino());
    }

    #[test]
    fn a_path_stays_in_the_image() {
        let check = |path: &str, expect: &str| {
            assert_eq!(image_path(Path::new("/s"), "web", Path::new(path)), Path::new(expect), "{path}");
        };
        check("/usr/share", "/s/image/web/usr/share");
        check("/../../etc", "/s/image/web/etc");
        check("/a/../b", "/s/image/web/b");
    }
}
