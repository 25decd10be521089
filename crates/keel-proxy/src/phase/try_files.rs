//! The phase `try_files`: the first candidate that exists takes the request.

use keel_model::TryFilesFallback;

use crate::{
    job::{Flow, Job},
    phase::files,
};

/// Looks for the candidates and goes to the one that exists, else to the last argument.
pub(super) fn run(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let Some(try_files) = &place.scope.core.try_files else { return Flow::Next };
    for candidate in &try_files.candidates {
        let mut uri = job.text(candidate);
        let wants_folder = uri.ends_with(b"/");
        if wants_folder {
            uri.pop();
        }
        let path = files::path_below(job.lookup(), &uri);
        let Some(found) = files::kind_of(&path) else { continue };
        if found.is_folder != wants_folder {
            continue;
        }
        job.ex.uri = uri;
        job.ex.uri_below_alias = true;
        job.ex.raw_uri_valid = false;
        return Flow::Next;
    }
    match &try_files.fallback {
        TryFilesFallback::Status(status) => Flow::Status(*status),
        TryFilesFallback::Uri(uri) => {
            let uri = job.text(uri);
            super::error_page::go_to(job, &uri)
        }
    }
}
