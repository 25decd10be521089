//! The drill's folder on disk.

use std::path::{Path, PathBuf};

use crate::Error;

/// The drill's folder below the user's cache: instances must see it, and `/tmp` they have for themselves.
pub(crate) struct Work(pub(crate) PathBuf);

impl Work {
    pub(crate) fn new(cache: &Path) -> Result<Self, Error> {
        let folder = cache.join(format!("drill-{}", std::process::id()));
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|source| Error::io(format!("{} can't be made", folder.display()), source))?;
        Ok(Self(folder))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
