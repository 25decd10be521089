//! The report of a drill: the same results as JSON, Markdown, charts, a page and a document to print.
//!
//! Everything is made from [`Results`] alone, without network, clock or the system's fonts: the same results give the same
//! bytes on every machine. What the report says is here; how it looks in each form is `keel-report`.

mod architecture;
mod compare;
mod content;
#[cfg(test)]
mod fixture;
mod shares;
#[cfg(test)]
mod tests;
mod timeline;

use std::path::{Path, PathBuf};

use keel_report::{Folder, html, markdown, pdf};

use crate::results::Results;

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of it could not be made or written.
    #[error(transparent)]
    Report(#[from] keel_report::Error),
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
    out.put("results.md", markdown(&document))?;
    out.put("report.html", html(&document))?;
    out.put("report.pdf", pdf(&document))?;
    out.put("architecture.puml", architecture::plantuml(&results.system, &results.proxy))?;
    out.put_pictures(&document)?;
    Ok(out.written())
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
    out.put("compare.md", markdown(&document))?;
    out.put("compare.html", html(&document))?;
    out.put("compare.pdf", pdf(&document))?;
    out.put_pictures(&document)?;
    Ok(out.written())
}

fn json(results: &Results) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    Ok(text)
}
