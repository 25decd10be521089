//! The folder that a report is written into.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    document::{Block, Document},
    picture::Picture,
    png, svg,
};

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be written.
    #[error("can't write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A chart could not be made into PNG.
    #[error("can't draw {name}.png")]
    Png {
        /// Which.
        name: String,
        /// Why.
        source: png::Error,
    },
}

/// Where a report goes, and which files of it are there.
pub struct Folder<'a> {
    path: &'a Path,
    written: Vec<PathBuf>,
}

impl<'a> Folder<'a> {
    /// Opens a folder, and makes it where it isn't there.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] where it can't be made.
    pub fn open(path: &'a Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Folder { path, written: Vec::new() })
    }

    /// Writes a file; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] where that fails.
    pub fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
    }

    /// Writes each picture of a document as SVG and PNG.
    ///
    /// # Errors
    ///
    /// [`Error`], at the first file that can't be written.
    pub fn put_pictures(&mut self, document: &Document) -> Result<(), Error> {
        for block in &document.blocks {
            if let Block::Picture { file, picture } = block {
                self.put_picture(file, picture)?;
            }
        }
        Ok(())
    }

    fn put_picture(&mut self, name: &str, picture: &Picture) -> Result<(), Error> {
        self.put(&format!("{name}.svg"), svg::file(picture))?;
        let png = png::file(picture).map_err(|source| Error::Png { name: name.to_owned(), source })?;
        self.put(&format!("{name}.png"), png)
    }

    /// The files that were written, in that order.
    pub fn written(self) -> Vec<PathBuf> {
        self.written
    }
}
