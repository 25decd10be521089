//! The one way out: an [`Answer`] goes through the place's header filters, is framed, and its body goes through the body
//! filters to the client's
//! [stream](crate::client::ClientStream).
//!
//! A place without filters has an empty chain: a peer's response is then relayed as it comes, with no call and no buffer in
//! between.

mod changed;
mod discard;
mod file;
mod head;
mod part;
mod relay;
#[cfg(test)]
mod tests;
mod tunnel;

use keel_http::{Lines, Message};
use keel_model::{LogLevel, SizeValue};

pub(crate) use self::head::{NGINX_VERSION, preview, server_text, write_date, write_framing, write_server};

use self::{part::Within, relay::Relay};
use crate::{
    answer::{Answer, PeerAnswer, Source, Special},
    client::{Framing, flush, set_pace},
    error::{Cause, ClientGone, PeerFailure, Side},
    exchange::Wanted,
    filter,
    job::Job,
    transform::Broken,
    upstream,
};

/// What became of an answer.
pub(crate) enum Sent {
    /// The client has it.
    Whole,
    /// The client has a part of it, or is gone.
    Cut,
    /// Nothing has been sent, and the request ends with this status instead.
    Instead(Special),
    /// A peer's response broke off before a byte of it was sent.
    Broken(Box<BrokenOff>),
}

/// A peer's response that broke off before a byte of it was sent.
pub(crate) struct BrokenOff {
    pub(crate) failure: PeerFailure,
    pub(crate) peer: PeerAnswer,
    /// Whether the client's stream holds what came of it, and that can be trusted.
    pub(crate) has_rest: bool,
}

/// Sends an answer as far as it goes.
pub(crate) async fn send(job: &mut Job<'_>, mut answer: Box<Answer>) -> Sent {
    if let Some(status) = job.ex.sent.forced_status {
        answer.status = status;
    }
    job.ex.sent.status = answer.status;
    if answer.fields.location.is_none() && !matches!(answer.source, Source::Peer(_)) {
        answer.fields.location = job.ex.sent.location.take();
    }
    if filter::is_wanted(job) {
        if let Err(special) = filter::header(job, &mut answer) {
            abandon(job, &answer);
            return Sent::Instead(special);
        }
        job.ex.sent.status = answer.status;
    }
    if head::is_bodyless(job, &answer) {
        answer.transforms.clear();
        answer.around = None;
    }
    let keeps_alive = job.ex.sent.keep_alive;
    job.settle_keep_alive();
    let framing = head::choose_framing(job, &answer);
    if framing == Framing::UntilClose {
        job.ex.sent.keep_alive = false;
    }
    let head = match head::write(job, &answer, framing) {
        Ok(head) => head,
        Err(unwritable) => {
            abandon(job, &answer);
            if std::mem::replace(&mut job.ex.sent.plain_fields, true) {
                return Sent::Cut;
            }
            // What is sent instead has none of the configuration's fields.
            job.client.log_error(job.worker, job.ex, &format!("the response can't be sent: {unwritable}"));
            job.ex.sent.carried.clear();
            return Sent::Instead(500.into());
        }
    };
    let core = &job.place().scope.core;
    let is_paced = core.limit_rate != SizeValue::ZERO || job.ex.sent.limit_rate().is_some();
    if job.ex.routed.depth == 0 && (is_paced || job.client.pace.is_some()) {
        set_pace(job);
    }
    if answer.fields.trailers && framing == Framing::Chunked {
        // They may tell what the head says (`$sent_http_…`).
        let length = head.head_length();
        job.ex.sent.head.extend_from_slice(head.as_bytes().get(..length).unwrap_or_default());
    }
    if job.ex.routed.wanted != Wanted::Whole {
        return Box::pin(send_head(job, head, answer.source)).await;
    }
    if matches!(answer.source, Source::Peer(_)) && answer.status != 101 {
        return send_peer(job, head, framing, answer, keeps_alive).await;
    }
    if !answer.transforms.is_empty() || answer.around.is_some() {
        return Box::pin(changed::send(job, head, framing, *answer)).await;
    }
    match answer.source {
        Source::Peer(peer) => Box::pin(tunnel::run(job, head, peer)).await,
        Source::Empty => Box::pin(send_own(job, head, framing, Vec::new())).await,
        Source::Bytes(bytes) => Box::pin(send_own(job, head, framing, bytes)).await,
        Source::File(parts) => Box::pin(file::send(job, head, framing, &parts)).await,
    }
}

/// Sends a head alone, where nobody wants the body.
async fn send_head(job: &mut Job<'_>, head: Message, source: Source) -> Sent {
    let (before, head_length) = (job.ex.sent.bytes, head.head_length());
    job.client.stream.begin(head, Framing::None);
    let sent = flush(job).await;
    if let Source::Peer(mut peer) = source {
        let view = job.view.clone();
        if let Some(program) = &job.ex.place(&view).proxy {
            discard::run(job, &mut peer.exchanged.stream, &program.settings).await;
        }
        upstream::end_attempt(job, 0);
        upstream::finish(job, peer);
    }
    finish(job, head_length, sent, before, Lines::default())
}

/// Sends the beginning of a peer's response that can't be had to its end, which waits in the client's stream.
pub(crate) async fn send_rest(job: &mut Job<'_>) {
    let before = job.ex.sent.bytes;
    // The connection closes behind it, whether it came or not.
    let _ = flush(job).await;
    job.client.stream.finish(&mut job.ex.sent.head);
    job.ex.sent.begun = true;
    let head_bytes = job.ex.sent.head.len() as u64;
    job.ex.sent.body_bytes = (job.ex.sent.bytes - before).saturating_sub(head_bytes);
}

/// Gives up an answer that has not been begun.
fn abandon(job: &mut Job<'_>, answer: &Answer) {
    if let Source::Peer(_) = answer.source {
        upstream::end_attempt(job, 0);
    }
}

/// Sends a head and a body that is held in memory, in one write.
async fn send_own(job: &mut Job<'_>, head: Message, framing: Framing, body: Vec<u8>) -> Sent {
    let (before, head_length) = (job.ex.sent.bytes, head.head_length());
    let trailers = filter_trailers(job, framing);
    let stream = &mut job.client.stream;
    stream.begin(head, framing);
    stream.put(&body);
    stream.end(&trailers);
    let sent = flush(job).await;
    finish(job, head_length, sent, before, trailers)
}

/// Notes what was sent of an answer of this process's own, before which so many bytes had been sent.
fn finish(
    job: &mut Job<'_>,
    head_length: usize,
    sent: Result<(), ClientGone>,
    before: u64,
    trailers: Lines,
) -> Sent {
    job.client.stream.finish(&mut job.ex.sent.head);
    job.ex.sent.begun = true;
    job.ex.sent.body_bytes = (job.ex.sent.bytes - before).saturating_sub(head_length as u64);
    job.ex.sent.trailers = trailers;
    match sent {
        Ok(()) => {
            job.ex.sent.complete = true;
            Sent::Whole
        }
        Err(ClientGone) => Sent::Cut,
    }
}

/// Gathers the trailers of the place's filters, where the body's framing has room for them. The head has been sent: what
/// can't be written is left out.
fn filter_trailers(job: &Job<'_>, framing: Framing) -> Lines {
    if framing != Framing::Chunked && !job.ex.is_http2() {
        return Lines::default();
    }
    let trailers = filter::trailers(job);
    match trailers.check() {
        Ok(()) => trailers,
        Err(error) => {
            job.client.log_error(job.worker, job.ex, &format!("trailers are left out: {error}"));
            Lines::default()
        }
    }
}

/// Says in the log that a filter can't go on with a body.
fn log_broken_filter(job: &Job<'_>, broken: &Broken) {
    job.client.log_error(job.worker, job.ex, &broken.0);
}

/// Relays a peer's response.
async fn send_peer(
    job: &mut Job<'_>,
    head: Message,
    framing: Framing,
    mut answer: Box<Answer>,
    keeps_alive: bool,
) -> Sent {
    let view = job.view.clone();
    let Some(program) = &job.ex.place(&view).proxy else { return Sent::Cut };
    let mut relay = Relay::new(job, framing, program, head);
    relay.change(std::mem::take(&mut answer.transforms));
    let within = answer.around.is_some().then(|| Within::of(job, &mut answer));
    let Source::Peer(peer) = &mut answer.source else { return Sent::Cut };
    let ended = match within {
        None => relay::run(job, &mut peer.exchanged, &mut relay, program).await,
        Some(within) => {
            Box::pin(relay::run_within(job, &mut peer.exchanged, &mut relay, program, within)).await
        }
    };
    let Source::Peer(peer) = answer.source else { return Sent::Cut };
    upstream::end_attempt(job, 0);
    match ended {
        Ok(()) => {
            upstream::finish(job, peer);
            job.ex.sent.complete = true;
            Sent::Whole
        }
        Err(Cause::Peer(failure)) => {
            if failure == PeerFailure::Timeout || !peer.exchanged.stream.explains_itself() {
                log_broken(job, failure);
            }
            if job.ex.sent.begun {
                return Sent::Cut;
            }
            let has_rest = relay.has_rest;
            if !has_rest {
                job.ex.sent.keep_alive = keeps_alive;
            }
            Sent::Broken(Box::new(BrokenOff { failure, peer, has_rest }))
        }
        Err(cause) if cause.side() == Side::Internal && !job.ex.sent.begun => {
            Sent::Instead(cause.status().into())
        }
        Err(_) => Sent::Cut,
    }
}

/// Says in the log that a response broke off.
fn log_broken(job: &Job<'_>, failure: PeerFailure) {
    let text = match failure {
        PeerFailure::Timeout => "upstream timed out (110: Connection timed out) while reading upstream",
        PeerFailure::Invalid => "upstream sent invalid chunked response while reading upstream",
        _ => "upstream prematurely closed connection while reading upstream",
    };
    job.client.log(job.worker, job.ex, LogLevel::Error, text);
}
