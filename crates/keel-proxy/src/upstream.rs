//! The peers' side: picking one, sending it the request, trying another where that is safe.

mod attempt;
mod cookie;
pub(crate) mod pool;
pub(crate) mod queue;
mod request;
mod response;
mod retry;
mod route;
mod shared;
mod stream;

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use keel_lb::{Ask, Attempt, NoPeer, Outcome, PeerState, Pick, Standing};
use keel_metrics::Sample;
use keel_model::{LogLevel, UpstreamScope};

#[cfg(test)]
pub(crate) use self::stream::Line;
pub(crate) use self::{
    attempt::{Exchanged, Waited, wait},
    request::Rest,
    response::{finish, write_fields},
    retry::Retries,
    route::{Target, host_and_port},
    stream::PeerStream,
};

use self::{attempt::attempt, retry::Allowed, route::Found};
use crate::{
    answer::PeerAnswer,
    client,
    error::{Cause, Error, PeerFailure},
    exchange::AttemptRecord,
    job::{Flow, Job},
    send::{BrokenOff, send_rest},
    snapshot::PeerProgram,
};

/// Answers a request with what a peer says.
pub(crate) async fn proxy(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let Some(program) = &place.proxy else { return Flow::status(500) };
    let streams = streams_body(job, program) && !has_come_whole(job, program).await;
    let read = if streams {
        client::expect_continue(job).await
    } else if client::has_body(job) {
        Box::pin(client::read_whole(job)).await
    } else {
        Ok(())
    };
    if let Err(failure) = read {
        return client::body_failed(job, failure);
    }
    let found = match route::find(job, program) {
        Ok(Found::Target(target)) => Ok(target),
        Ok(Found::Unresolved(name)) => Box::pin(route::resolve(job, *name)).await,
        Err(status) => Err(status),
    };
    let target = match found {
        Ok(target) => target,
        Err(status) => return Flow::status(status),
    };
    if let Err(status) = request::write(job, program, &target, streams) {
        return Flow::status(status);
    }
    job.ex.upstream.tried.clear();
    let retries = Retries::new(job, &program.settings, &target, streams);
    try_peers(job, target, retries).await
}

/// Says whether the client's body goes to the peer as it comes (`proxy_request_buffering off`). It can't where the peer is to
/// get another body or none: what follows the head must be what the head announces. One that has come already is kept: it
/// may be sent again.
fn streams_body(job: &Job<'_>, program: &PeerProgram) -> bool {
    !program.settings.request_buffering
        && program.settings.pass_request_body
        && request::may_stream(job, program)
        && !job.ex.received.body_is_lost
        && !job.ex.received.body_left.is_done()
}

/// Bytes of a body that are gathered though it may be passed on as it comes.
const GATHERED_BYTES_MAX: usize = 16 << 10;

/// Says whether a body that may be passed on as it comes has come whole, as that of most calls of gRPC: it can be sent again
/// then.
async fn has_come_whole(job: &mut Job<'_>, program: &PeerProgram) -> bool {
    program.shares_connections()
        && poll_fn(|cx| Poll::Ready(job.client.stream.gather(cx, GATHERED_BYTES_MAX))).await
}

/// Goes on after a peer's response has broken off before a byte of it was sent: at another peer, where that is safe.
pub(crate) async fn resume(job: &mut Job<'_>, broken: Box<BrokenOff>) -> Flow {
    let BrokenOff { failure, peer, has_rest } = *broken;
    let PeerAnswer { exchanged, pick, target, mut retries, .. } = peer;
    drop(exchanged);
    report_failure(job, &pick, failure);
    let view = job.view.clone();
    let Some(program) = &job.ex.place(&view).proxy else { return Flow::status(500) };
    let error = Error { cause: Cause::Peer(failure), retry: retries.after_sending() };
    match go_on(job, &program.settings, &target, pick, error, &mut retries).await {
        Ok(()) => try_peers(job, target, retries).await,
        Err(flow) if !has_rest => flow,
        // The client gets as much as there is.
        Err(_) => {
            send_rest(job).await;
            Flow::Close
        }
    }
}

/// Tries one peer after the other until one answers.
async fn try_peers(job: &mut Job<'_>, target: Target, mut retries: Retries) -> Flow {
    let view = job.view.clone();
    let Some(program) = &job.ex.place(&view).proxy else { return Flow::status(500) };
    let settings = &program.settings;
    let after_redirect = !job.ex.upstream.attempts.is_empty();
    let mut found = None;
    loop {
        let pick = match found.take() {
            Some(pick) => pick,
            None => match pick(job, &target, &retries).await {
                Ok(pick) => pick,
                Err(flow) => return flow,
            },
        };
        let began = job.worker.clock.now();
        let first = job.ex.upstream.tried.is_empty();
        job.ex.upstream.attempts.push(AttemptRecord::new(&pick, began, after_redirect && first));
        job.ex.upstream.tried.push(pick.peer().clone());
        match attempt(job, &pick, &target, program, &retries).await {
            Ok(exchanged) => {
                let status = job.ex.upstream.head.status;
                let failure = PeerFailure::Status(status);
                let error = Error { cause: Cause::Peer(failure), retry: retries.after_sending() };
                let another = settings.next_upstream.statuses.contains(&status)
                    && retries.may(job, settings, &target, error);
                // A response that nobody can better is passed on.
                found = if another { ask(job, &target, Attempt::Retry).ok() } else { None };
                if found.is_none() || retries.allow(job, settings, &target, error) != Allowed::Yes {
                    return response::answer(job, exchanged, pick, target, retries);
                }
                end_attempt(job, status);
                report_failure(job, &pick, failure);
            }
            Err(error) => match error.cause {
                Cause::Body(failure) => {
                    end_attempt(job, 0);
                    return client::body_failed(job, failure);
                }
                Cause::Peer(failure) => {
                    end_attempt(job, failure.status());
                    report_failure(job, &pick, failure);
                    if let Err(flow) = go_on(job, settings, &target, pick, error, &mut retries).await {
                        return flow;
                    }
                }
                cause @ (Cause::ClientGone | Cause::NoRoom | Cause::Store | Cause::Filter) => {
                    end_attempt(job, cause.status());
                    return Flow::status(cause.status());
                }
            },
        }
    }
}

/// Decides whether a request that failed at a peer is tried at another. An error is what to answer otherwise.
async fn go_on(
    job: &mut Job<'_>,
    settings: &UpstreamScope,
    target: &Target,
    pick: Pick,
    error: Error,
    retries: &mut Retries,
) -> Result<(), Flow> {
    match retries.allow(job, settings, target, error) {
        Allowed::Yes => Ok(()),
        Allowed::No => Err(Flow::status(error.cause.status())),
        Allowed::IfItDied => {
            Box::pin(await_death(job, target, pick, error)).await?;
            retries.begin();
            Ok(())
        }
    }
}

/// Notes how the last attempt ended.
pub(crate) fn end_attempt(job: &mut Job<'_>, status: u16) {
    let now = job.worker.clock.now();
    let Some(attempt) = job.ex.upstream.attempts.last_mut() else { return };
    if attempt.status == 0 {
        attempt.status = status;
    }
    if attempt.ended.is_some() {
        return;
    }
    attempt.ended = Some(now);
    if let Ok(peer) = &attempt.peer {
        let sample = Sample {
            status: attempt.status,
            received_bytes: attempt.received_bytes,
            sent_bytes: attempt.sent_bytes,
            took: now.saturating_duration_since(attempt.began),
        };
        peer.record(job.worker.all_counters.workers(), job.worker.index, &sample);
    }
}

fn report_failure(job: &Job<'_>, pick: &Pick, failure: PeerFailure) {
    if !failure.is_blamed() {
        return;
    }
    let now = job.worker.clock.now();
    let standing = if failure == PeerFailure::Error && pick.is_watched() {
        // The supervisor sees whether it listens. If it doesn't, it is out of the pool in a moment, and takes part again
        // as soon as it does.
        job.worker.reports.doubted(pick.key().incarnation);
        match job.ex.upstream.attempts.last() {
            Some(attempt) if attempt.connected.is_some() => pick.report_broken(attempt.began, now),
            _ => {
                pick.count_failure();
                Standing::Unchanged
            }
        }
    } else {
        pick.report(Outcome::Failure, now)
    };
    if standing == Standing::Excluded {
        job.client.log(job.worker, job.ex, LogLevel::Warn, "upstream server temporarily disabled");
        job.worker.reports.excluded(pick.upstream(), pick.key());
    }
}

fn ask(job: &Job<'_>, target: &Target, attempt: Attempt) -> Result<Pick, NoPeer> {
    let key = target.key().map(|key| job.text(key)).unwrap_or_default();
    target.group().pick(&Ask {
        now: job.worker.clock.now(),
        client_key: &job.client.remote_of(job.ex).octets(),
        key: &key,
        tried: &job.ex.upstream.tried,
        attempt,
        random: job.worker.random(),
    })
}

/// Picks a peer. Where there is none, one may be on its way.
async fn pick(job: &mut Job<'_>, target: &Target, retries: &Retries) -> Result<Pick, Flow> {
    let which = if job.ex.upstream.tried.is_empty() { Attempt::First } else { Attempt::Retry };
    match ask(job, target, which) {
        Ok(pick) => Ok(pick),
        Err(_) => Box::pin(pick_waiting(job, target, retries, which)).await,
    }
}

/// Picks a peer, waiting for one that Evenkeel is starting.
async fn pick_waiting(
    job: &mut Job<'_>,
    target: &Target,
    retries: &Retries,
    which: Attempt,
) -> Result<Pick, Flow> {
    let view = job.view.clone();
    let mut waiting: Option<queue::QueuePlace<'_>> = None;
    loop {
        let worker = job.worker.clone();
        let changed = worker.waiters.peers_changed();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        let reason = match ask(job, target, which) {
            Ok(pick) => return Ok(pick),
            Err(reason) => reason,
        };
        let group_is_managed = target.group().is_managed();
        // `managed` decides the answer when nobody comes, the time for how long somebody may.
        let (wait_max, managed) = match reason {
            NoPeer::Empty { starting: true, managed }
            | NoPeer::AllExcluded { starting: true, managed, .. } => (queue::WAIT_MAX, managed),
            // Every instance failed just now: they may have died together, and the supervisor is about to say so.
            NoPeer::AllTried if group_is_managed => (queue::NEWS_WAIT_MAX, false),
            NoPeer::Empty { managed, .. } if group_is_managed && retries.happened() => {
                (queue::NEWS_WAIT_MAX, managed)
            }
            // The same, seen by a request that comes when others have failed at all of them.
            NoPeer::AllExcluded { managed, .. } if group_is_managed => (queue::NEWS_WAIT_MAX, managed),
            NoPeer::Empty { managed, .. } | NoPeer::AllExcluded { managed, .. } => {
                return Err(no_peer(job, target, managed));
            }
            NoPeer::AllTried | NoPeer::AllBusy => return Err(no_peer(job, target, false)),
        };
        let now = job.worker.clock.now();
        if waiting.is_none() {
            let counters = &job.worker.counters;
            let until = now + queue::WAIT_MAX;
            waiting = target.queue(&view).and_then(|queue| queue.enter(until, counters.clone()));
        }
        let Some(until) = waiting.as_ref().map(queue::QueuePlace::until) else {
            return Err(no_peer(job, target, true));
        };
        match wait(job, changed, until.min(now + wait_max)).await {
            Waited::Changed => {}
            Waited::TimeUp => return Err(no_peer(job, target, managed)),
            Waited::ClientGone => return Err(Flow::status(499)),
        }
    }
}

/// Waits for word of an instance's death, which takes milliseconds. An error is what to answer without it.
async fn await_death(job: &mut Job<'_>, target: &Target, pick: Pick, error: Error) -> Result<(), Flow> {
    let peer = pick.peer().clone();
    drop(pick);
    let failed = Flow::status(error.cause.status());
    let (worker, view) = (job.worker.clone(), job.view.clone());
    let until = worker.clock.now() + queue::NEWS_WAIT_MAX;
    let place = target.queue(&view).and_then(|queue| queue.enter(until, worker.counters.clone()));
    let Some(place) = place else { return Err(failed) };
    loop {
        let mut changed = std::pin::pin!(worker.waiters.peers_changed());
        changed.as_mut().enable();
        if peer.is_closed() {
            return Ok(());
        }
        match wait(job, changed, place.until()).await {
            Waited::Changed => {}
            Waited::TimeUp => return Err(failed),
            Waited::ClientGone => return Err(Flow::status(499)),
        }
    }
}

fn no_peer(job: &mut Job<'_>, target: &Target, managed: bool) -> Flow {
    job.client.log_error(job.worker, job.ex, "no live upstreams while connecting to upstream");
    let now = job.worker.clock.now();
    let mut record = AttemptRecord::nobody(target.name(), now);
    let status = if managed { 503 } else { 502 };
    record.status = status;
    job.ex.upstream.attempts.push(record);
    if managed {
        job.ex.sent.retry_after = Some(queue::RETRY_AFTER_S);
    }
    Flow::status(status)
}

impl AttemptRecord {
    fn new(pick: &Pick, began: Instant, after_redirect: bool) -> Self {
        Self { after_redirect, ..Self::begin(Ok(pick.peer().clone()), began) }
    }

    fn nobody(name: &str, began: Instant) -> Self {
        Self::begin(Err(name.into()), began)
    }

    fn begin(peer: Result<Arc<PeerState>, Box<str>>, began: Instant) -> Self {
        Self {
            peer,
            status: 0,
            began,
            connected: None,
            headed: None,
            ended: None,
            response_bytes: 0,
            received_bytes: 0,
            sent_bytes: 0,
            after_redirect: false,
        }
    }
}
