//! The report of a drill: the same results as JSON, Markdown, charts, a page and a document to print.
//!
//! Everything is made from [`Results`] alone, without network, clock or the system's fonts: the
//! same results give the same bytes on every machine. Names and texts in results come from the user's files, so each form
//! escapes them. A drawing is made once, as a [`picture`], and drawn alike into SVG, PNG and PDF; a text is written once,
//! as a [`document`], and set in Markdown, HTML and PDF.

mod architecture;
mod axis;
mod compare;
mod content;
mod document;
#[cfg(test)]
mod fixture;
mod font;
mod html;
mod markdown;
mod pdf;
mod picture;
mod png;
mod shares;
mod svg;
#[cfg(test)]
mod tests;
mod timeline;
mod words;

pub use png::Error as PngError;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use document::{Block, Document};
use picture::Picture;

use crate::results::Results;

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
    /// The results have a value that JSON doesn't.
    #[error("can't write the results as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes the whole report of a drill into a folder, which is made where it isn't there, and says which files it wrote.
///
/// Files of the same names are replaced; others are left alone.
///
/// # Errors
///
/// [`Error`], at the first file that can't be written.
pub fn write(results: &Results, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut out = Folder::open(folder)?;
    out.put("results.json", json(results)?)?;
    let document = content::document(results);
    out.put("results.md", markdown::render(&document))?;
    out.put("report.html", html::render(&document))?;
    out.put("report.pdf", pdf::render(&document))?;
    out.put("architecture.puml", architecture::plantuml(&results.system, &results.proxy))?;
    out.put_pictures(&document)?;
    Ok(out.written)
}

/// Writes several drills of one project side by side, for instance with different proxies in the balancer's seat, as
/// `compare.md`, `.html`, `.pdf` and, where any lost something, a chart; and says which files it wrote.
///
/// # Errors
///
/// [`Error`], at the first file that can't be written.
pub fn compare(results: &[Results], folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut out = Folder::open(folder)?;
    let document = compare::document(results);
    out.put("compare.md", markdown::render(&document))?;
    out.put("compare.html", html::render(&document))?;
    out.put("compare.pdf", pdf::render(&document))?;
    out.put_pictures(&document)?;
    Ok(out.written)
}

fn json(results: &Results) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    Ok(text)
}

/// Where a report goes.
struct Folder<'a> {
    path: &'a Path,
    written: Vec<PathBuf>,
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Folder { path, written: Vec::new() })
    }

    fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
    }

    fn put_pictures(&mut self, document: &Document) -> Result<(), Error> {
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
}
