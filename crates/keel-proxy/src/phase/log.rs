//! The log phase.

use crate::job::Job;

/// Writes the access logs of the place that the request ended in.
pub(crate) fn log(job: &Job<'_>) {
    for log in &job.place().access_logs {
        log.write(job.lookup());
    }
}
