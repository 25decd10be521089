//! Texts of balancers' images that are served: the image's own pages, templates that are rendered, `content` of the file.
//!
//! Each lies below the state folder under a name made of its content. So a reload that fails has changed nothing that is
//! served, and a text that stays keeps its date, for clients that have it.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use keel_model::HostPlace;
use sha2::{Digest, Sha256};

use super::process::hex;

/// The data plane may be another user, under any umask. The state folder above is closed to others.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// Bytes of a text's hash in its name.
const NAME_BYTES: usize = 16;

/// The texts of a project's balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatTexts {
    /// The folder that holds them, and nothing else.
    folder: PathBuf,
    texts: BTreeMap<String, String>,
}

/// A text that could not be put, or taken away.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct TextError {
    /// Which file.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub error: io::Error,
}

impl SeatTexts {
    /// Makes an empty collection below a project's state folder.
    pub(super) fn below(state: &Path) -> Self {
        Self { folder: state.join("texts"), texts: BTreeMap::new() }
    }

    /// Adds a text; gives where it will lie.
    pub(super) fn add(&mut self, text: &str) -> HostPlace {
        let name = hex(&Sha256::digest(text.as_bytes()), NAME_BYTES);
        self.texts.insert(name.clone(), text.to_owned());
        HostPlace { folder: self.folder.clone(), below: name.into() }
    }

    /// Writes each text that isn't there yet.
    ///
    /// # Errors
    /// The first that can't be written.
    pub fn put(&self) -> Result<(), TextError> {
        if self.texts.is_empty() {
            return Ok(());
        }
        make_folder(&self.folder).map_err(|error| TextError { path: self.folder.clone(), error })?;
        for (name, text) in &self.texts {
            let path = self.folder.join(name);
            put_text(&path, text).map_err(|error| TextError { path, error })?;
        }
        Ok(())
    }

    /// Takes away what is neither one of these nor one of `before`: a request may be served by those yet. Gives what is
    /// still there.
    pub fn sweep(&self, before: Option<&Self>) -> Vec<TextError> {
        let is_known = |name: &str| {
            self.texts.contains_key(name) || before.is_some_and(|before| before.texts.contains_key(name))
        };
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let old = entries.filter(|entry| entry.file_name().to_str().is_none_or(|name| !is_known(name)));
        old.filter_map(|entry| {
            let error = std::fs::remove_file(entry.path()).err()?;
            Some(TextError { path: entry.path(), error })
        })
        .collect()
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)))
}

fn put_text(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_served_stays_until_nothing_serves_it() {
        let state = tempfile::tempdir().unwrap();
        let put = |texts: &[&str]| {
            let mut all = SeatTexts::below(state.path());
            let places: Vec<PathBuf> = texts
                .iter()
                .map(|text| {
                    let place = all.add(text);
                    place.folder.join(place.below)
                })
                .collect();
            all.put().unwrap();
            (all, places)
        };
        let (one, first) = put(&["1", "same"]);
        let before = std::fs::metadata(&first[1]).unwrap();
        assert_eq!(before.mode() & 0o777, FILE_MODE);
        // A reload that fails sweeps nothing.
        let (two, second) = put(&["2", "same"]);
        assert_eq!(std::fs::read_to_string(&first[0]).unwrap(), "1");
        assert_eq!(std::fs::metadata(&second[1]).unwrap().ino(), before.ino());
        assert!(two.sweep(Some(&one)).is_empty());
        assert_eq!(std::fs::read_to_string(&first[0]).unwrap(), "1");
        assert!(two.sweep(None).is_empty());
        assert!(!first[0].exists() && second[0].exists() && second[1].exists());
    }

    #[test]
    fn a_text_that_was_changed_is_put_right() {
        let state = tempfile::tempdir().unwrap();
        let mut texts = SeatTexts::below(state.path());
        let place = texts.add("page");
        texts.put().unwrap();
        let path = place.folder.join(place.below);
        std::fs::write(&path, "other").unwrap();
        texts.put().unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "page");
    }
}
