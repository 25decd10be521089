//! Waiting on purpose: a request that is slowed down waits for a moment, and no longer than its client.

use std::{future::pending, pin::pin, time::Duration};

use crate::{
    job::{Flow, Job},
    upstream::{Waited, wait},
};

/// Waits so long. An error is what the request ends with instead, as its client went away.
pub(super) async fn pause(job: &mut Job<'_>, time: Duration) -> Result<(), Flow> {
    let until = job.worker.clock.now() + time;
    match wait(job, pin!(pending()), until).await {
        Waited::ClientGone => Err(Flow::status(499)),
        Waited::Changed | Waited::TimeUp => Ok(()),
    }
}
