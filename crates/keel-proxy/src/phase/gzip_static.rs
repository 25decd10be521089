//! `gzip_static`: files that lie there compressed.

use std::{
    fs::{File, Metadata},
    io,
};

use keel_model::{GzipStatic, LogLevel};

use super::files::{errno_text, path_of};
use crate::{files::Opened, filter, job::Job};

/// What lies beside a file.
pub(super) enum Found {
    /// The same compressed, for this client.
    Packed(File, Metadata),
    /// The same compressed, but not for this client.
    PackedForOthers,
    /// Nothing that can be sent.
    Nothing,
    /// Something that is no file.
    Odd,
}

/// Looks for the compressed file.
pub(super) fn find(job: &Job<'_>) -> Found {
    let is_accepted = job.place().scope.gzip_static == GzipStatic::Always || filter::accepts_gzip(job, None);
    if !is_accepted && !filter::is_vary_said(job) {
        return Found::Nothing;
    }
    let mut path = path_of(job.lookup(), &job.ex.routed.uri).into_os_string();
    path.push(".gz");
    let path = std::path::PathBuf::from(path);
    match job.place().files.open(&path) {
        Ok(Opened::File(..)) if !is_accepted => Found::PackedForOthers,
        Ok(Opened::File(file, meta)) if meta.is_file() => Found::Packed(file, meta),
        Ok(Opened::File(..)) => {
            let text = format!("\"{}\" is not a regular file", path.display());
            job.client.log(job.worker, job.ex, LogLevel::Crit, &text);
            Found::Odd
        }
        Ok(Opened::Folder) => Found::Nothing,
        Err(error) => {
            let is_missing = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
            );
            if !is_missing {
                let text = format!("open() \"{}\" failed ({})", path.display(), errno_text(&error));
                job.client.log_error(job.worker, job.ex, &text);
            }
            Found::Nothing
        }
    }
}
