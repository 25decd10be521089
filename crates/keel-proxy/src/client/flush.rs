//! Sending all that waits, within `send_timeout` between two writes.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use crate::{error::ClientGone, job::Job};

/// Sends everything that has been put into the client's stream.
pub(crate) async fn flush(job: &mut Job<'_>) -> Result<(), ClientGone> {
    let timeout = job.place().scope.core.send_timeout;
    let (worker, client, sent) = (job.worker, &mut *job.client, &mut job.ex.sent);
    let mut waiting = false;
    poll_fn(|cx| {
        while client.stream.pending() > 0 {
            match client.poll_send(&worker.clock, cx) {
                Poll::Ready(Ok(more)) => {
                    sent.bytes += more as u64;
                    waiting = false;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ClientGone)),
                Poll::Pending if client.is_held_back() => {
                    waiting = false;
                    return Poll::Pending;
                }
                Poll::Pending => {
                    if !std::mem::replace(&mut waiting, true) {
                        client.timer.set(&worker.clock, timeout);
                    }
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    client.timed_out = true;
                    return Poll::Ready(Err(ClientGone));
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
