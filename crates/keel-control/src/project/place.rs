//! What a project is: a name and a folder. Two folders of one name are two projects.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::process::hex;

/// Bytes of a project's name in its place: a socket's path has an end.
const NAME_BYTES_MAX: usize = 32;
/// Bytes of the hash that tells folders apart; 12 digits.
const HASH_BYTES: usize = 6;

/// Which project is meant, as far as it can be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its folder; `None` where there are no files and only a name was given.
    pub folder: Option<PathBuf>,
}

/// What a project's folders and sockets are called: its name, and what tells it from those of other folders. A
/// folder has one place however it is written; one that is gone has that of its path.
pub fn place(name: &str, folder: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(folder.as_os_str().as_bytes());
    let hash = hash.finalize();
    format!("{}-{}", start(name), hex(&hash, HASH_BYTES))
}

fn start(name: &str) -> &str {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_place_and_two_have_two() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one/shop"), folder.path().join("two/shop"));
        std::fs::create_dir_all(&one).unwrap();
        std::fs::create_dir_all(&two).unwrap();
        std::os::unix::fs::symlink(&one, folder.path().join("link")).unwrap();
        assert_eq!(place("shop", &one), place("shop", &folder.path().join("link")));
        assert_eq!(place("shop", &one), place("shop", &folder.path().join("two/../link")));
        assert_ne!(place("shop", &one), place("shop", &two));
        assert_ne!(place("shop", &one), place("blog", &one));
        let long = "x".repeat(200);
        assert_eq!(place(&long, &one).len(), NAME_BYTES_MAX + 1 + 2 * HASH_BYTES);
        assert_ne!(place(&long, &one), place(&format!("{long}y"), &one));
        let before = place("shop", &one.canonicalize().unwrap());
        std::fs::remove_dir(&one).unwrap();
        assert_eq!(place("shop", &folder.path().canonicalize().unwrap().join("one/shop")), before);
    }
}
