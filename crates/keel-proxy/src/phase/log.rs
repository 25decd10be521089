//! The log phase.

use std::time::Duration;

use keel_metrics::Sample;

use crate::job::Job;

/// Counts the request, and writes the access logs of the place that it ended in.
pub(crate) fn log(job: &Job<'_>) {
    if job.ex.routed.depth == 0 {
        count(job);
    }
    for log in &job.place().access_logs {
        log.write(job.lookup());
    }
}

fn count(job: &Job<'_>) {
    let (ex, now) = (&*job.ex, job.worker.clock.now());
    let sample = Sample {
        status: ex.sent.status,
        received_bytes: ex.received.bytes(),
        sent_bytes: ex.sent.bytes,
        took: ex.received.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started)),
    };
    ex.server(&job.view).traffic.record(job.worker.index, &sample);
    if let Some(traffic) = &job.place().traffic {
        traffic.record(job.worker.index, &sample);
    }
}
