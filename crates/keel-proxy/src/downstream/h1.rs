//! HTTP/1 requests on a client's connection, one after the other.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Poll, ready},
};

use keel_http::{
    Limits, Name, RequestBody, RequestError, Rules, Underscores,
    body::{Decoder, Trailers},
    host,
    uri::{self, Slashes},
};
use keel_model::{ClientSettings, LingeringClose, LogLevel, VerifyClient};
use keel_telemetry::WorkerCounters;

use super::{Rest, Resting, linger};
use crate::{
    client::{Client, HeadFailure},
    exchange::{Exchange, Method},
    job::{Ended, Job},
    phase,
    preface::{Security, TlsFacts},
    transport::Peeked,
    worker::{View, Worker},
};

/// Reads one request and answers it. False when the connection is to close.
pub(super) async fn serve_one(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> bool {
    let mut ex = worker.take_exchange();
    let has_come = !client.stream.behind().is_empty();
    client.pipelined = has_come && client.connection.requests > 0;
    ex.received.input = if has_come { std::mem::take(client.stream.behind()) } else { worker.buffers.take() };
    let goes_on = exchange(worker, client, &mut ex, rest).await;
    ex.reset();
    let input = std::mem::take(&mut ex.received.input);
    if goes_on && !input.is_empty() {
        *client.stream.behind() = input;
    } else {
        worker.buffers.give(input);
    }
    worker.buffers.give(std::mem::take(&mut ex.upstream.input));
    worker.give_exchange(ex);
    goes_on
}

async fn exchange(worker: &Rc<Worker>, client: &mut Client, ex: &mut Exchange, rest: &Rest) -> bool {
    client.connection.follow_configuration(worker);
    let view = client.connection.view.clone();
    let server = client.names().default_server();
    ex.begin(view.clone(), server);
    let head = read_head(worker, client, ex, rest).await;
    rest.end(worker);
    client.is_last |= rest.was_closing(worker);
    let refused = match head {
        Err(NoHead::Gone) => return false,
        Err(NoHead::TimedOut) => {
            client.log(worker, ex, LogLevel::Info, "client timed out");
            ex.sent.status = 408;
            phase::log(&Job { worker, client, ex, view });
            return false;
        }
        Err(NoHead::Refused(error)) => Some(error),
        Ok(()) => None,
    };
    client.connection.requests += 1;
    let ended = answer(worker, client, ex, &view, refused.map_or(Ok(()), Err)).await;
    finish(Job { worker, client, ex, view }, ended, rest).await
}

/// Answers a request whose head has been read.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    client: &mut Client,
    ex: &mut Exchange,
    view: &Rc<View>,
    head: Result<(), RequestError>,
) -> Ended {
    worker.counters.requests.add(1);
    let _answering = Answering(&worker.counters);
    ex.received.request_id = [worker.random(), worker.random()];
    match head.and_then(|()| accept_head(worker, client, ex, view)) {
        Ok(()) => match unfit(worker, client, ex) {
            None => phase::run(&mut Job { worker, client, ex, view: view.clone() }).await,
            Some(status) => Box::pin(turn_away(worker, client, ex, view.clone(), status)).await,
        },
        Err(error) => Box::pin(refuse(worker, client, ex, view.clone(), error)).await,
    }
}

/// A request that is being answered.
struct Answering<'a>(&'a WorkerCounters);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answered.add(1);
    }
}

/// A request that has come in part.
struct Reading<'a>(&'a WorkerCounters);

impl<'a> Reading<'a> {
    fn begin(counters: &'a WorkerCounters) -> Self {
        counters.reading.add(1);
        Self(counters)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reading.sub(1);
    }
}

pub(super) fn rules(settings: &ClientSettings) -> Rules {
    let large = settings.large_header_buffers;
    let line = large.size.as_usize().max(settings.header_buffer.as_usize());
    Rules {
        limits: Limits {
            line_bytes_max: line,
            head_bytes_max: settings
                .header_buffer
                .as_usize()
                .saturating_add(large.size.as_usize().saturating_mul(large.count as usize)),
            fields_max: settings.headers_max as usize,
        },
        drop_odd_fields: settings.ignore_invalid_headers,
        underscores: if settings.underscores_in_headers {
            Underscores::Allowed
        } else {
            Underscores::Invalid
        },
    }
}

/// Why there is no request.
enum NoHead {
    Gone,
    TimedOut,
    Refused(RequestError),
}

async fn read_head(
    worker: &Rc<Worker>,
    client: &mut Client,
    ex: &mut Exchange,
    rest: &Rest,
) -> Result<(), NoHead> {
    let view = client.connection.view.clone();
    let settings = &ex.server(&view).client;
    let rules = rules(settings);
    let mut begun = false;
    let mut reading = None;
    poll_fn(|cx| {
        let polled = client.stream.poll_head(cx, &mut ex.received, &rules);
        if !begun && !ex.received.input.is_empty() {
            begun = true;
            ex.received.started = Some(worker.clock.now());
            client.timer.set(&worker.clock, settings.header_timeout);
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(HeadFailure::Gone)) => Poll::Ready(Err(NoHead::Gone)),
            Poll::Ready(Err(HeadFailure::Refused(error))) => Poll::Ready(Err(NoHead::Refused(error))),
            Poll::Pending => {
                if begun && reading.is_none() {
                    reading = Some(Reading::begin(&worker.counters));
                }
                if rest.must_close() && client.stream.peek() != Peeked::Bytes {
                    return Poll::Ready(Err(NoHead::Gone));
                }
                if begun {
                    rest.begin(worker, Resting::ReadingHead);
                }
                ready!(client.timer.poll_expired(&worker.clock, cx));
                Poll::Ready(Err(if begun { NoHead::TimedOut } else { NoHead::Gone }))
            }
        }
    })
    .await
}

/// Finds the server and the path, and decides whether the connection may go on afterwards.
pub(crate) fn accept_head(
    worker: &Rc<Worker>,
    client: &mut Client,
    ex: &mut Exchange,
    view: &Rc<View>,
) -> Result<(), RequestError> {
    if let Some(odd) = ex.received.head.odd_field {
        let line = String::from_utf8_lossy(odd.of(&ex.received.input)).into_owned();
        client.log(worker, ex, LogLevel::Info, &format!("client sent invalid header line: \"{line}\""));
    }
    ex.routed.method = Method::of(ex.received.head.method.of(&ex.received.input));
    // "the request-target's authority component [..] replaces the Host field" (RFC 9112 §3.2.2), which must be valid
    // all the same.
    let mut host = std::mem::take(&mut ex.received.host);
    if let Some(field) = ex.received.head.fields.first(Name::Host) {
        let port = client.normalise_host(field.value.of(&ex.received.input), &mut host);
        ex.received.host_port = port.map_err(|_| RequestError::Field)?;
    }
    if let Some(authority) = ex.received.head.target.authority {
        host.clear();
        let port = host::normalise(authority.of(&ex.received.input), &mut host);
        ex.received.host_port = port.map_err(|_| RequestError::Line)?;
    }
    ex.received.host = host;
    // A request without a host is for the server whose name is "", if there is one.
    let found = client.names().find(&ex.received.host);
    if let Some(regex) = found.regex {
        let host = std::mem::take(&mut ex.received.host);
        let taken = ex.take_groups(&view.snapshot, regex, &host);
        ex.received.host = host;
        if let Err(error) = taken {
            ex.routed.host_unmatched = true;
            let text = format!("{error}: \"{}\" of server_name", regex.source());
            client.log_error(worker, ex, &text);
        }
    }
    ex.begin(view.clone(), found.server);
    let server = ex.server(view);
    let target = ex.received.head.target;
    let path = target.path.of(&ex.received.input);
    if target.complex {
        let slashes = if server.client.merge_slashes { Slashes::Merge } else { Slashes::Keep };
        uri::normalise(path, slashes, &mut ex.routed.uri).map_err(|_| RequestError::Line)?;
    } else {
        ex.routed.uri.extend_from_slice(path);
    }
    ex.routed.raw_uri_valid = !path.is_empty();
    if let Some(query) = target.query {
        ex.routed.args.extend_from_slice(query.of(&ex.received.input));
    }
    ex.received.body_left = match ex.received.head.body {
        RequestBody::None => Decoder::Done,
        RequestBody::Length(length) => Decoder::length(length),
        // The end is the stream's.
        RequestBody::Chunked if ex.is_http2() => Decoder::UntilClose,
        RequestBody::Chunked => Decoder::chunked(Trailers::Drop),
    };
    // The connection of a listener that is gone follows no configuration any more: this response is its last.
    let listener_stays = Rc::ptr_eq(&worker.view(), view)
        || worker.view().snapshot.listener(&client.connection.listener).is_some();
    ex.sent.keep_alive = ex.received.head.wants_keep_alive() && worker.quitting().is_none() && listener_stays;
    if ex.sent.keep_alive && client.connection.requests > 1 && client.wants_no_delay {
        client.no_delay();
    }
    Ok(())
}

/// Answers a request that can't be taken. Nothing more is read from its connection.
async fn refuse(
    worker: &Rc<Worker>,
    client: &mut Client,
    ex: &mut Exchange,
    view: Rc<View>,
    error: RequestError,
) -> Ended {
    client.log(worker, ex, LogLevel::Info, &error.to_string());
    turn_away(worker, client, ex, view, error.status()).await
}

/// Says why a request isn't fit for its connection, as a status.
fn unfit(worker: &Worker, client: &Client, ex: &Exchange) -> Option<u16> {
    match &client.connection.preface.as_deref()?.tls {
        Security::Missing => {
            client.log(worker, ex, LogLevel::Info, "client sent plain HTTP request to HTTPS port");
            Some(497)
        }
        Security::Tls(facts) => untrusted(worker, client, ex, facts),
        Security::None | Security::Awaited => None,
    }
}

/// Says why the client's certificate doesn't do for the server that a request is for, as a status.
fn untrusted(worker: &Worker, client: &Client, ex: &Exchange, facts: &TlsFacts) -> Option<u16> {
    let view = ex.view().unwrap_or(&client.connection.view);
    let wanted = ex.server(view).tls.as_ref()?.trust.as_ref()?.wanted;
    let say = |text: &str| client.log(worker, ex, LogLevel::Info, text);
    if facts.offer.server_name.as_ref().is_some_and(|name| name.as_bytes() != ex.received.host) {
        say("client attempted to request the server name different from the one that was negotiated");
        return Some(421);
    }
    match facts.untrusted {
        Some(why) if wanted != VerifyClient::OptionalNoCa || !why.is_of_root() => {
            let (number, text) = why.words();
            say(&format!("client SSL certificate verify error: ({number}:{text})"));
            Some(495)
        }
        _ if wanted == VerifyClient::On && facts.agreed.certificates.is_empty() => {
            say("client sent no required SSL certificate");
            Some(496)
        }
        _ => None,
    }
}

/// Answers with a status and reads nothing more.
async fn turn_away(
    worker: &Rc<Worker>,
    client: &mut Client,
    ex: &mut Exchange,
    view: Rc<View>,
    status: u16,
) -> Ended {
    ex.sent.keep_alive = false;
    ex.received.body_left = Decoder::Done;
    ex.received.consumed = ex.received.input.len();
    // What follows can't be read as a request, but must be read before the connection closes, or the client's
    // kernel throws the answer away.
    ex.sent.linger = true;
    phase::refuse(&mut Job { worker, client, ex, view }, status).await
}

/// Logs the request and leaves the connection ready for the next. False when it is to close.
async fn finish(mut job: Job<'_>, ended: Ended, rest: &Rest) -> bool {
    if ended == Ended::Closed {
        job.ex.sent.keep_alive = false;
        if job.ex.sent.status == 0 {
            job.ex.sent.status = if job.client.timed_out { 408 } else { 499 };
        }
    }
    phase::log(&job);
    let core = &job.place().scope.core;
    let (timeout, lingering, nodelay) = (core.keepalive_timeout, core.lingering_close, core.tcp_nodelay);
    let kept_at_least = Some(core.keepalive_min_timeout).filter(|time| !time.is_zero());
    if job.client.timed_out && core.reset_timedout_connection {
        job.client.reset_on_close();
        return false;
    }
    if ended == Ended::Closed {
        return false;
    }
    if !job.ex.received.body_left.is_done() {
        let promised = job.ex.received.head.fields.has(Name::Expect) && !job.ex.received.expect_settled;
        if promised {
            job.ex.sent.keep_alive = false;
        }
        if !Box::pin(linger::drain_body(&mut job, rest)).await {
            return false;
        }
    }
    if !job.ex.sent.keep_alive {
        let must = lingering == LingeringClose::Always
            || (lingering == LingeringClose::On
                && (job.ex.sent.linger || job.ex.received.input.len() > job.ex.received.consumed));
        if must {
            Box::pin(linger::linger(&mut job, rest)).await;
        }
        return false;
    }
    job.client.wants_no_delay = nodelay;
    job.client.kept_until = kept_at_least.map(|time| job.worker.clock.now() + time);
    job.client.timer.set(&job.worker.clock, timeout);
    true
}
