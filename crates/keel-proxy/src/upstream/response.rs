//! The response on its way to the client: what of its head passes, and how its body is framed.

use keel_http::{
    Field, Lines, Message, Name, ResponseFraming, Status, Unwritable, Version,
    body::{Decoder, Trailers},
    connection, uri,
};
use keel_lb::{Outcome, Pick};
use keel_model::ProxyScope;

use super::{attempt::Exchanged, pool::PeerConnection, route::Target};
use crate::{
    error::PeerFailure,
    job::{Flow, Job},
    phase::error_page,
    relay::{self, Ended, Relay},
    respond,
    snapshot::{ProxyProgram, RedirectRule},
};

/// What became of a response.
pub(super) enum Delivered {
    /// The client has it as far as it could be sent, or gets another one.
    Settled(Flow),
    /// It broke off before a byte was sent to the client.
    Broken(Box<BrokenOff>),
}

/// A response that broke off before a byte was sent to the client.
pub(super) struct BrokenOff {
    pub(super) failure: PeerFailure,
    pub(super) pick: Pick,
    pub(super) rest: Vec<u8>,
}

/// Gives the client as much as there is of a response that broke off; where that is nothing, `otherwise` goes on.
pub(super) async fn give_rest(job: &mut Job<'_>, rest: &[u8], otherwise: Flow) -> Flow {
    if rest.is_empty() {
        return otherwise;
    }
    let before = job.ex.bytes_sent;
    let _ = respond::send_rest(job, rest).await;
    job.ex.head_sent = true;
    let head_bytes = job.ex.sent_head.len() as u64;
    job.ex.body_bytes_sent = (job.ex.bytes_sent - before).saturating_sub(head_bytes);
    Flow::Close
}

/// Passes a response on to the client, to its end.
pub(super) async fn deliver(
    job: &mut Job<'_>,
    mut exchanged: Box<Exchanged>,
    pick: Pick,
    target: &Target,
    program: &ProxyProgram,
    scope: &ProxyScope,
) -> Delivered {
    let head = &job.ex.upstream.head;
    let status = head.status;
    if status == 101 {
        return Delivered::Settled(Box::pin(upgrade(job, exchanged, pick, program, scope)).await);
    }
    pick.report(Outcome::Success, job.worker.clock.now());
    note_announced_idle(job, &mut exchanged.connection);
    let bodyless = job.ex.is_head() || matches!(status, 204 | 304);
    let trailers = if scope.pass_trailers { Trailers::Keep } else { Trailers::Drop };
    let decoder = match job.ex.upstream.head.framing {
        _ if bodyless => Decoder::Done,
        ResponseFraming::Length(length) => Decoder::length(length),
        ResponseFraming::Chunked => Decoder::chunked(trailers),
        ResponseFraming::UntilClose => Decoder::UntilClose,
    };
    if let Some(flow) = redirect(job, program, scope) {
        super::end_attempt(job, status);
        // A connection is worth keeping only if nothing has to be read from it first.
        let nothing_left = decoder.is_done() && job.ex.upstream.input.len() == job.ex.upstream.body_start;
        if nothing_left && exchanged.sender.is_done() && job.ex.upstream.head.keeps_alive() {
            target.pool().give(job.worker, exchanged.connection);
        }
        return Delivered::Settled(flow);
    }
    let keep_alive = job.ex.keep_alive;
    job.settle_keep_alive();
    let framing = Framing::choose(job, bodyless, job.ex.forced_status.unwrap_or(status));
    if framing == Framing::UntilClose {
        job.ex.keep_alive = false;
    }
    let head = match write_head(job, program, framing, None) {
        Ok(head) => head,
        Err(unwritable) => {
            super::end_attempt(job, status);
            respond::note_unwritable(job, &unwritable);
            return Delivered::Settled(Flow::Status(500));
        }
    };
    job.ex.status = job.ex.forced_status.unwrap_or(status);
    let relay = Box::new(Relay::new(job, decoder, framing, scope, head));
    let ended = relay::run(job, &mut exchanged, relay, scope).await;
    super::end_attempt(job, 0);
    let flow = match ended {
        Ended::PeerFailedFirst { failure, rest } => {
            log_broken(job, failure);
            if rest.is_empty() {
                job.ex.keep_alive = keep_alive;
            }
            return Delivered::Broken(Box::new(BrokenOff { failure, pick, rest }));
        }
        Ended::Whole { reusable } => {
            let keep = reusable && exchanged.sender.is_done() && job.ex.upstream.head.keeps_alive();
            // The peer may have answered before it had the whole body; nobody wants the rest.
            job.ex.linger |= !exchanged.sender.is_done();
            if keep {
                target.pool().give(job.worker, exchanged.connection);
            }
            job.ex.complete = true;
            Flow::Done
        }
        Ended::PeerFailed(failure) => {
            log_broken(job, failure);
            Flow::Close
        }
        Ended::StoreFailed if job.ex.head_sent => Flow::Close,
        Ended::StoreFailed => Flow::Status(500),
        Ended::ClientGone => Flow::Close,
    };
    Delivered::Settled(flow)
}

/// How a response's body is framed for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// By the peer's length.
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    fn choose(job: &Job<'_>, bodyless: bool, status: u16) -> Self {
        match job.ex.upstream.head.framing {
            _ if bodyless => Framing::None,
            _ if respond::adds_trailers(job, status) => Framing::Chunked,
            ResponseFraming::Length(length) => Framing::Length(length),
            _ if super::knows_chunks(job.ex.head.version) => Framing::Chunked,
            _ => Framing::UntilClose,
        }
    }
}

fn note_announced_idle(job: &Job<'_>, connection: &mut PeerConnection) {
    let side = &job.ex.upstream;
    if let Some(field) = side.head.fields.first(Name::KeepAlive) {
        let seconds = connection::keep_alive_timeout_s(field.value.of(&side.input));
        connection.announced_idle = seconds.map(std::time::Duration::from_secs);
    }
}

/// Acts on `X-Accel-Redirect` and `proxy_intercept_errors`: the response is replaced by another.
fn redirect(job: &mut Job<'_>, program: &ProxyProgram, scope: &ProxyScope) -> Option<Flow> {
    let side = &job.ex.upstream;
    let status = side.head.status;
    let accel = side.head.fields.first(Name::XAccelRedirect);
    let accel = accel.filter(|_| !program.ignores.contains(Name::XAccelRedirect));
    let flow = if let Some(field) = accel {
        let location = field.value.of(&side.input).to_vec();
        if !job.ex.is_head() {
            job.ex.method = crate::exchange::Method::Get;
            job.ex.as_get = true;
        }
        let mut path = Vec::new();
        if location.starts_with(b"@") {
            path = location;
        } else {
            let (raw, args) = match memchr::memchr(b'?', &location) {
                Some(at) => location.split_at(at),
                None => (location.as_slice(), b"".as_slice()),
            };
            if uri::normalise(raw, uri::Slashes::Keep, &mut path).is_err() {
                return Some(Flow::Status(404));
            }
            path.extend_from_slice(args);
        }
        error_page::go_to(job, &path)
    } else {
        let pages = &job.place().scope.core.error_pages;
        let intercepts = scope.upstream.intercept_errors && status >= 300 && !job.ex.error_page;
        if !intercepts || !pages.iter().any(|page| page.status == status) {
            return None;
        }
        if status == 401 {
            let mut carried = Lines::default();
            for field in side.head.fields.all(Name::WwwAuthenticate) {
                carried.copied(field, &side.input);
            }
            job.ex.carried = carried;
        }
        Flow::Status(status)
    };
    Some(flow)
}

/// Writes the head of the response; `upgrade` is the protocol that the connection changes to.
fn write_head(
    job: &mut Job<'_>,
    program: &ProxyProgram,
    framing: Framing,
    upgrade: Option<&Field>,
) -> Result<Message, Unwritable> {
    let mut lines = Lines::in_buffer(std::mem::take(&mut job.ex.sent_head));
    let out = &mut lines;
    let ex = &*job.ex;
    let side = &ex.upstream;
    let input = &side.input;
    let hides = |name: Name| program.response_drops.contains(name, name.as_str().as_bytes());
    let server = hides(Name::Server) || !side.head.fields.has(Name::Server);
    let date = hides(Name::Date) || !side.head.fields.has(Name::Date);
    let line = ex.forced_status.map_or(Status::Copied(&side.head, input), Status::Own);
    respond::begin_head(job, line, server, date, out);
    let status = ex.forced_status.unwrap_or(side.head.status);
    let headers = &job.place().scope.headers;
    let expires = headers.expires != keel_model::Expires::Off && respond::is_plain_status(status);
    for field in &side.head.fields {
        let name = field.name.of(input);
        if program.response_drops.contains(field.known, name) {
            continue;
        }
        if side.head.connection.names_fields && connection::is_named(input, &side.head.fields, name) {
            continue;
        }
        match field.known {
            Name::Expires | Name::CacheControl if expires => {}
            Name::Location | Name::Refresh if !program.redirects.is_empty() => {
                match rewrite_redirect(job, program, field.known, field.value.of(input)) {
                    Some((before, url)) => out.uri(name, before, &url),
                    None => out.copied(field, input),
                }
            }
            _ => out.copied(field, input),
        }
    }
    match framing {
        Framing::Length(length) => out.number("Content-Length", length),
        Framing::Chunked => out.fixed("Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => {}
        // What a GET would have had.
        Framing::None => {
            if let ResponseFraming::Length(length) = side.head.framing
                && side.head.status != 204
            {
                out.number("Content-Length", length);
            }
        }
    }
    let modified = side.head.fields.first(Name::LastModified);
    let modified = modified.and_then(|field| keel_http::date::parse_http(field.value.of(input)));
    respond::finish_head(job, status, modified, out);
    if let Some(protocol) = upgrade {
        out.copied(protocol, input);
    }
    lines.end()
}

/// Rewrites `Location` or `Refresh` by the first rule of `proxy_redirect` that matches: gives what stands before the URL,
/// and the URL.
fn rewrite_redirect<'a>(
    job: &Job<'_>,
    program: &ProxyProgram,
    name: Name,
    value: &'a [u8],
) -> Option<(&'a [u8], Vec<u8>)> {
    // Refresh: 5; url=http://...
    let at = match name {
        Name::Refresh => {
            let lower = value.to_ascii_lowercase();
            lower.windows(4).position(|window| window == b"url=").map_or(value.len(), |at| at + 4)
        }
        _ => 0,
    };
    let (before, url) = value.split_at_checked(at).unwrap_or((b"", value));
    for rule in &program.redirects {
        let replaced = match rule {
            RedirectRule::Prefix { from, to } => {
                let from = job.text(from);
                url.strip_prefix(from.as_slice()).map(|rest| [job.text(to).as_slice(), rest].concat())
            }
            RedirectRule::Regex { from, to } => match from.captures(url) {
                Ok(found) => found.map(|found| {
                    let mut text = Vec::new();
                    job.lookup().append_with_groups(to, &found, &mut text);
                    text
                }),
                Err(error) => {
                    let text = format!("{error}: \"{}\" of proxy_redirect", from.source());
                    job.client.log_error(job.worker, job.ex, &text);
                    None
                }
            },
        };
        if let Some(mut replaced) = replaced {
            if name == Name::Location && replaced.starts_with(b"/") {
                replaced = respond::absolute_url(job, &replaced);
            }
            return Some((before, replaced));
        }
    }
    None
}

/// Says in the log that a response broke off.
fn log_broken(job: &Job<'_>, failure: PeerFailure) {
    let text = match failure {
        PeerFailure::Timeout => "upstream timed out (110: Connection timed out) while reading upstream",
        PeerFailure::Invalid => "upstream sent invalid chunked response while reading upstream",
        _ => "upstream prematurely closed connection while reading upstream",
    };
    job.client.log_error(job.worker, job.ex, text);
}

/// Begins a tunnel, if that is what the client asked for.
async fn upgrade(
    job: &mut Job<'_>,
    exchanged: Box<Exchanged>,
    pick: Pick,
    program: &ProxyProgram,
    scope: &ProxyScope,
) -> Flow {
    let asked = job.ex.head.connection.upgrade
        && job.ex.head.fields.has(Name::Upgrade)
        && job.ex.head.version == Version::Http11;
    if !asked || !program.upgrades {
        job.client.log_error(job.worker, job.ex, "upstream sent 101 that nobody asked for");
        super::end_attempt(job, 502);
        return Flow::Status(502);
    }
    pick.report(Outcome::Success, job.worker.clock.now());
    job.ex.keep_alive = false;
    // `Upgrade` concerns this hop alone, and this is the hop.
    let protocol = job.ex.upstream.head.fields.first(Name::Upgrade).copied();
    let head = match write_head(job, program, Framing::UntilClose, protocol.as_ref()) {
        Ok(head) => head,
        Err(unwritable) => {
            super::end_attempt(job, 502);
            respond::note_unwritable(job, &unwritable);
            return Flow::Status(500);
        }
    };
    job.ex.status = 101;
    let sent = respond::send_message(job, &head, b"").await;
    job.ex.sent_head = head.into_head();
    job.ex.head_sent = true;
    if sent.is_ok() {
        relay::tunnel(job, *exchanged, scope).await;
    }
    super::end_attempt(job, 0);
    drop(pick);
    job.ex.complete = true;
    Flow::Done
}
