//! The phase `try_files`: the first candidate that exists takes the request.

use std::{io, path::Path};

use keel_model::{FileKind, LogLevel, Template, TryFilesFallback};

use crate::{
    job::{Flow, Job},
    phase::{
        files::{self, Mapping},
        redirect,
    },
};

/// Looks for the candidates and goes to the one that exists, else to the last argument.
pub(super) fn run(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let Some(try_files) = &place.scope.core.try_files else { return Flow::Next };
    if let Some(failed) = files::refuse_alias(job) {
        return failed;
    }
    for candidate in &try_files.candidates {
        let name = name_of(job, &candidate.path);
        let path = files::join(files::root_of(job.lookup()), &name);
        match place.files.kind(&path) {
            Ok(kind) if kind == candidate.kind => {
                take(job, &name, kind);
                return Flow::Next;
            }
            Ok(_) => {}
            Err(error) => log_failure(job, &path, &error),
        }
    }
    match &try_files.fallback {
        TryFilesFallback::Status(status) => Flow::status(*status),
        TryFilesFallback::Uri(uri) => {
            let uri = name_of(job, uri);
            redirect::to(job, &uri)
        }
    }
}

/// Evaluates an argument. Where an `alias` stands for the location's name, an argument with variables that begins with
/// that part of the URI loses it; one without variables is a path below the alias as it is written.
fn name_of(job: &Job<'_>, argument: &Template) -> Vec<u8> {
    let name = job.text(argument);
    let Mapping::After(prefix) = files::mapping(job.lookup()) else { return name };
    if argument.as_literal().is_some() {
        return name;
    }
    let part = job.ex.routed.uri.get(..prefix);
    match part.and_then(|part| name.strip_prefix(part)) {
        Some(rest) => rest.to_vec(),
        None => name,
    }
}

/// Lets the request go on with what was found.
fn take(job: &mut Job<'_>, name: &[u8], kind: FileKind) {
    match (files::mapping(job.lookup()), kind) {
        (Mapping::Whole, _) => {
            job.ex.routed.uri.clear();
            job.ex.routed.uri.extend_from_slice(name);
        }
        (Mapping::After(prefix), _) => {
            job.ex.routed.uri.truncate(prefix);
            job.ex.routed.uri.extend_from_slice(name);
        }
        (Mapping::Complete, FileKind::File) => {
            job.ex.routed.uri.clear();
            job.ex.routed.uri.extend_from_slice(name);
            job.ex.routed.uri_below_alias = true;
        }
        (Mapping::Complete, FileKind::Folder) => return,
    }
    // The name comes from the file system and is no longer what the client encoded.
    job.ex.received.head.target.complex = true;
}

/// Logs why a path couldn't be looked at, unless there is simply nothing.
pub(super) fn log_failure(job: &Job<'_>, path: &Path, error: &io::Error) {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    if !matches!(error.kind(), NotFound | NotADirectory | InvalidFilename) {
        let text = format!("stat() \"{}\" failed ({})", path.display(), files::errno_text(error));
        job.client.log(job.worker, job.ex, LogLevel::Crit, &text);
    }
}
