//! Leaving in good order: reading what a client still sends, so that its kernel doesn't throw our answer away.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Instant,
};

use keel_model::LingeringClose;

use super::{Rest, Resting};
use crate::job::Job;

/// Bytes read and thrown away in one go.
const ROOM: usize = 4 << 10;

/// Reads and forgets the rest of a request's body. False when it didn't come in time, or was broken.
pub(super) async fn drain_body(job: &mut Job<'_>, rest: &Rest) -> bool {
    let core = &job.place().scope.core;
    let patient = core.lingering_close != LingeringClose::Off;
    let (each, total) = (core.lingering_timeout, core.lingering_time);
    if !job.ex.sent.keep_alive {
        // The connection closes anyway: say so now, and read for a while.
        if patient {
            linger(job, rest).await;
        }
        return false;
    }
    let worker = job.worker.clone();
    let end = worker.clock.now() + total;
    let mut scratch = worker.buffers.take();
    job.client.timer.set(&worker.clock, each);
    let result = poll_fn(|cx| {
        loop {
            scratch.clear();
            match job.client.stream.poll_body(cx, &mut job.ex.received, &mut scratch) {
                Poll::Ready(Ok(_)) if job.ex.received.body_left.is_done() => return Poll::Ready(true),
                Poll::Ready(Ok(_)) => {
                    bump(job, end, each);
                    if worker.clock.now() >= end {
                        return Poll::Ready(false);
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return job.client.timer.poll_expired(&worker.clock, cx).map(|_| false),
            }
        }
    })
    .await;
    worker.buffers.give(scratch);
    result
}

fn bump(job: &mut Job<'_>, end: Instant, each: std::time::Duration) {
    let next = job.worker.clock.now() + each;
    job.client.timer.set_at(Some(next.min(end)));
}

/// Says that nothing more will be sent, and reads until the client closes too, time is up, or room is needed.
pub(super) async fn linger(job: &mut Job<'_>, rest: &Rest) {
    let core = &job.place().scope.core;
    let (each, total) = (core.lingering_timeout, core.lingering_time);
    job.client.stream.shutdown_write();
    let worker = job.worker.clone();
    let end = worker.clock.now() + total;
    bump(job, end, each);
    let mut scratch = worker.buffers.take();
    poll_fn(|cx| {
        loop {
            scratch.clear();
            match job.client.stream.poll_fill(cx, &mut scratch, ROOM) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {
                    if worker.clock.now() >= end {
                        return Poll::Ready(());
                    }
                    bump(job, end, each);
                }
                Poll::Pending => {
                    if rest.must_close() {
                        return Poll::Ready(());
                    }
                    rest.begin(&worker, Resting::Lingering);
                    ready!(job.client.timer.poll_expired(&worker.clock, cx));
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
    worker.buffers.give(scratch);
}
