//! Answers of which nobody wants the body: the peer's connection is kept where that costs little.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use keel_http::body::{Decoder, Trailers};
use keel_model::ProxyScope;

use super::{PeerBody, relay};
use crate::{exchange::Wanted, job::Job};

/// Bytes of a body that are read for the connection's sake, at most.
const DISCARD_BYTES_MAX: usize = 64 << 10;

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// Reads and forgets a peer's response; says whether its connection is clean then.
pub(super) async fn run(job: &mut Job<'_>, peer: &mut impl PeerBody, scope: &ProxyScope) -> bool {
    let mut body = Body { decoder: relay::decoder(job, Trailers::Drop), left: DISCARD_BYTES_MAX };
    let side = &job.ex.upstream;
    if !body.take(side.input.get(side.body_start..).unwrap_or_default()) {
        return false;
    }
    let is_patient = job.ex.routed.wanted != Wanted::Head;
    let mut scratch = job.worker.buffers.take();
    let (worker, client, ex) = (job.worker, &mut *job.client, &mut *job.ex);
    client.timer.set(&worker.clock, scope.upstream.read_timeout);
    let is_clean = poll_fn(|cx| {
        while !body.decoder.is_done() {
            // A peer that has answered early may want the rest of the request before it says more.
            peer.poll_request(cx, client, ex);
            scratch.clear();
            match peer.poll_read(cx, &mut scratch, READ_BYTES) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    if !body.take(&scratch) {
                        return Poll::Ready(false);
                    }
                    client.timer.set(&worker.clock, scope.upstream.read_timeout);
                }
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending if is_patient => {
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    return Poll::Ready(false);
                }
                Poll::Pending => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    })
    .await;
    job.worker.buffers.give(scratch);
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.response_bytes = (DISCARD_BYTES_MAX - body.left) as u64;
        attempt.sent_bytes = peer.sent_bytes();
    }
    is_clean
}

/// A body that is forgotten.
struct Body {
    decoder: Decoder,
    /// Bytes that may still come.
    left: usize,
}

impl Body {
    /// Takes bytes that came; false when the connection isn't worth more, or is broken.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let Some(left) = self.left.checked_sub(bytes.len()) else { return false };
        self.left = left;
        while !bytes.is_empty() {
            if self.decoder.is_done() {
                // More than was announced.
                return false;
            }
            let Ok(step) = self.decoder.decode(bytes) else { return false };
            bytes = bytes.get(step.consumed..).unwrap_or_default();
        }
        true
    }
}
