//! Clients' connections: one task per connection that has something to do, which drives the peer's socket too.

mod h1;
mod h2;
mod handshake;
mod linger;
mod opening;
mod order;
pub(crate) mod parking;
mod task;

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use crate::{client::Client, transport::Peeked, worker::Worker};

use opening::Protocol;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use h1::accept_head;
pub(crate) use task::{Rest, Resting, Tasks, spawn};

/// How long an idle connection is kept after its worker was told to quit.
const QUIT_IDLE: Duration = Duration::from_secs(1);

/// Why a task is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It is to close.
    Ended,
    /// It has idled for a while, and may be parked.
    Idle,
}

async fn serve(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> Served {
    loop {
        if client.stream.behind().is_empty()
            && let Some(served) = idle(worker, client, rest).await
        {
            return served;
        }
        if client.connection.awaits_proxy_header() {
            if !Box::pin(opening::read(worker, client, rest)).await {
                return Served::Ended;
            }
            continue;
        }
        if client.connection.awaits_tls() {
            if !Box::pin(handshake::run(worker, client, rest)).await {
                return Served::Ended;
            }
            if client.connection.has_chosen_http2() {
                Box::pin(h2::serve(worker, client, rest)).await;
                return Served::Ended;
            }
            continue;
        }
        if client.may_speak_http2() {
            match Box::pin(opening::find_protocol(worker, client, rest)).await {
                Some(Protocol::Http1) => {}
                Some(Protocol::Http2) => {
                    Box::pin(h2::serve(worker, client, rest)).await;
                    return Served::Ended;
                }
                None => return Served::Ended,
            }
        }
        // Boxed, so that an idle connection doesn't carry the room that a request needs.
        if !Box::pin(h1::serve_one(worker, client, rest)).await {
            return Served::Ended;
        }
    }
}

/// Waits for bytes without holding a buffer. `None` when some have come.
async fn idle(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> Option<Served> {
    let served = poll_fn(|cx| {
        if let Poll::Ready(ready) = client.stream.poll_read_ready(cx) {
            return Poll::Ready(ready.is_err().then_some(Served::Ended));
        }
        if rest.must_close() {
            return Poll::Ready(unless_begun(worker, client));
        }
        if rest.must_park() && worker.quitting().is_none() {
            return Poll::Ready(Some(Served::Idle));
        }
        let is_kept = client.kept_until.is_some_and(|until| worker.clock.now() < until);
        rest.begin(worker, if is_kept { Resting::Kept } else { Resting::Idle });
        if let Some(since) = worker.quitting() {
            let latest = (since + QUIT_IDLE).max(client.kept_until.unwrap_or(since));
            if client.timer.deadline().is_none_or(|deadline| deadline > latest) {
                client.timer.set_at(Some(latest));
            }
        }
        client.timer.poll_expired(&worker.clock, cx).map(|_| unless_begun(worker, client))
    })
    .await;
    rest.end(worker);
    client.is_last |= rest.was_closing(worker);
    served
}

/// Ends the connection unless a request has come that the event loop hasn't told of yet: that one is answered first.
fn unless_begun(worker: &Worker, client: &mut Client) -> Option<Served> {
    if client.stream.peek() != Peeked::Bytes {
        return Some(Served::Ended);
    }
    let timeout = client.default_server().client.header_timeout;
    client.timer.set(&worker.clock, timeout);
    None
}
