//! Answers of which nobody wants the body: the peer's connection is kept where that costs little.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use keel_http::body::Trailers;
use keel_model::UpstreamScope;

use crate::{exchange::Wanted, job::Job, upstream::PeerStream};

/// Bytes of a body that are read for the connection's sake, at most.
const DISCARD_BYTES_MAX: usize = 64 << 10;

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// Reads and forgets a peer's response, as long as that isn't more than its connection is worth.
pub(super) async fn run(job: &mut Job<'_>, peer: &mut PeerStream, settings: &UpstreamScope) {
    let side = &mut job.ex.upstream;
    let mut read = side.input.len() - side.body_start;
    if peer.begin_body(side, Trailers::Drop, |_| {}).is_err() {
        return;
    }
    let is_patient = job.ex.routed.wanted != Wanted::Head;
    let mut scratch = job.worker.buffers.take();
    let (worker, client, ex) = (job.worker, &mut *job.client, &mut *job.ex);
    client.timer.set(&worker.clock, settings.read_timeout);
    poll_fn(|cx| {
        while !peer.has_ended() && read <= DISCARD_BYTES_MAX {
            // A peer that has answered early may want the rest of the request before it says more.
            peer.poll_rest_of_request(cx, client, ex);
            match peer.poll_payload(cx, &mut scratch, READ_BYTES, |_| {}) {
                Poll::Ready(Ok(count)) => {
                    read += count;
                    client.timer.set(&worker.clock, settings.read_timeout);
                }
                Poll::Ready(Err(_)) => break,
                Poll::Pending if is_patient => {
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    })
    .await;
    job.worker.buffers.give(scratch);
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.response_bytes = read as u64;
        attempt.sent_bytes = peer.sent_bytes();
    }
}
