//! Tunnels: what follows a 101.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use keel_http::Message;
use keel_model::UpstreamScope;

use super::Sent;
use crate::{
    answer::PeerAnswer,
    client::{Framing, flush},
    job::Job,
    transport::Transport,
    upstream,
};

/// Bytes read at a time, each way.
const READ_BYTES: usize = 16 << 10;

/// Sends the head that begins a tunnel, and passes bytes on both ways to the end of both.
pub(super) async fn run(job: &mut Job<'_>, head: Message, peer: PeerAnswer) -> Sent {
    job.ex.sent.keep_alive = false;
    job.client.stream.begin(head, Framing::UntilClose);
    let sent = flush(job).await;
    job.client.stream.finish(&mut job.ex.sent.head);
    job.ex.sent.begun = true;
    let PeerAnswer { exchanged, pick, .. } = peer;
    if sent.is_ok() {
        let view = job.view.clone();
        if let Some(program) = &job.ex.place(&view).proxy
            && let Some(mut connection) = exchanged.stream.into_upgraded()
        {
            copy(job, &mut connection.transport, &program.settings).await;
        }
    }
    upstream::end_attempt(job, 0);
    drop(pick);
    job.ex.sent.complete = true;
    Sent::Whole
}

/// One direction of a tunnel.
#[derive(Default)]
struct Half {
    bytes: Vec<u8>,
    sent: usize,
    ended: bool,
    shut: bool,
}

impl Half {
    fn is_over(&self) -> bool {
        self.shut
    }
}

/// Copies bytes both ways until both sides have ended, or nothing has come for too long.
async fn copy(job: &mut Job<'_>, peer: &mut Transport, settings: &UpstreamScope) {
    let mut up = Half::default();
    let mut down = Half::default();
    let (body_start, consumed) = (job.ex.upstream.body_start, job.ex.received.consumed);
    down.bytes.extend_from_slice(job.ex.upstream.input.get(body_start..).unwrap_or_default());
    up.bytes.extend_from_slice(job.ex.received.input.get(consumed..).unwrap_or_default());
    job.ex.received.consumed = job.ex.received.input.len();
    if job.place().scope.core.tcp_nodelay {
        job.client.no_delay();
    }
    job.client.timer.set(&job.worker.clock, settings.read_timeout);
    let (worker, client, ex) = (job.worker, &mut *job.client, &mut *job.ex);
    let mut received = 0u64;
    poll_fn(|cx| {
        loop {
            // Only a connection can become a tunnel.
            let Some(transport) = client.stream.upgraded() else { return Poll::Ready(()) };
            let first = pump(transport, peer, &mut up, cx);
            let second = pump(peer, transport, &mut down, cx);
            let (Ok(a), Ok(b)) = (first, second) else { return Poll::Ready(()) };
            ex.sent.bytes += b.1;
            received += b.1;
            if up.is_over() && down.is_over() {
                return Poll::Ready(());
            }
            if a.0 || b.0 {
                client.timer.set(&worker.clock, settings.read_timeout);
                continue;
            }
            return client.timer.poll_expired(&worker.clock, cx).map(drop);
        }
    })
    .await;
    job.ex.sent.body_bytes = received;
    if let Some(attempt) = job.ex.upstream.attempts.last_mut() {
        attempt.response_bytes += received;
    }
}

/// Moves what it can one way; says whether anything moved and how many bytes were sent.
fn pump(
    from: &mut Transport,
    to: &mut Transport,
    half: &mut Half,
    cx: &mut Context<'_>,
) -> Result<(bool, u64), ()> {
    let (mut moved, mut sent_now) = (false, 0);
    if half.sent == half.bytes.len() && !half.ended {
        half.bytes.clear();
        half.sent = 0;
        match from.poll_fill(cx, &mut half.bytes, READ_BYTES) {
            Poll::Ready(Ok(0)) => {
                half.ended = true;
                moved = true;
            }
            Poll::Ready(Ok(_)) => moved = true,
            Poll::Ready(Err(_)) => return Err(()),
            Poll::Pending => {
                // A tunnel that idles holds no buffer.
                half.bytes = Vec::new();
            }
        }
    }
    while half.sent < half.bytes.len() {
        match to.poll_send(cx, half.bytes.get(half.sent..).unwrap_or_default()) {
            Poll::Ready(Ok(sent)) => {
                half.sent += sent;
                sent_now += sent as u64;
                moved = true;
            }
            Poll::Ready(Err(_)) => return Err(()),
            Poll::Pending => break,
        }
    }
    if half.ended && !half.shut && half.sent == half.bytes.len() {
        to.shutdown_write();
        half.shut = true;
        moved = true;
    }
    Ok((moved, sent_now))
}
