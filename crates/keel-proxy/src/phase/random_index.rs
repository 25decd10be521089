//! `random_index`: any file of a folder.

use super::files;
use crate::job::{Flow, Job};

/// Goes on with any file of the folder; nothing where there is none.
pub(super) fn run(job: &mut Job<'_>) -> Option<Flow> {
    let folder = files::path_of(job.lookup(), &job.ex.routed.uri);
    let entries = match job.place().files.list(&folder) {
        Ok(entries) => entries,
        Err(error) => return Some(files::no_folder(job, &folder, &error)),
    };
    let names: Vec<_> = entries.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name).collect();
    let count = u64::try_from(names.len()).ok().filter(|count| *count > 0)?;
    let at = usize::try_from(job.worker.random() % count).unwrap_or(0);
    let uri = [job.ex.routed.uri.as_slice(), names.get(at)?].concat();
    Some(Flow::restart(uri, job.ex.routed.args.clone()))
}
