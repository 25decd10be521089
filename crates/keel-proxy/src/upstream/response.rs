//! The response on its way to the client: what of its head passes, and how its body is framed.

use keel_http::{Lines, Name, Version, body::Trailers, connection, uri};
use keel_lb::{Outcome, Pick};

use super::{attempt::Exchanged, cookie, pool::PeerConnection, retry::Retries, route::Target};
use crate::{
    answer::{Answer, PeerAnswer, Ranges, Source, Special},
    client::Framing,
    exchange::{SentResponse, UpstreamSide},
    job::{Flow, Job},
    phase::redirect,
    send,
    snapshot::{PeerProgram, RedirectRule},
    variables::Lookup,
};

/// Makes an answer of a response whose head has come, unless the head says that something else is to be sent.
pub(super) fn answer(
    job: &mut Job<'_>,
    mut exchanged: Box<Exchanged>,
    pick: Pick,
    target: Target,
    retries: Retries,
) -> Flow {
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let Some(program) = &place.proxy else { return Flow::status(500) };
    let status = job.ex.upstream.head.status;
    if status == 101 && !may_upgrade(job, program) {
        job.client.log_error(job.worker, job.ex, "upstream sent 101 that nobody asked for");
        super::end_attempt(job, 502);
        return Flow::status(502);
    }
    pick.report(Outcome::Success, job.worker.clock.now());
    if let Some(connection) = exchanged.stream.connection_mut() {
        note_announced_idle(job, connection);
    }
    note_limit_rate(job, program);
    let mut peer = PeerAnswer { exchanged, pick, target, retries, slice: None };
    if status != 101
        && let Some(flow) = replacement(job, program)
    {
        super::end_attempt(job, status);
        // A connection is worth keeping only if nothing has to be read from it first.
        let _ = peer.exchanged.stream.begin_body(&mut job.ex.upstream, Trailers::Drop, |_| {});
        finish(job, peer);
        return flow;
    }
    let mut answer = Answer::new(status, Source::Peer(peer));
    if program.settings.force_ranges {
        answer.forbid_ranges();
        answer.fields.ranges = Ranges::One;
    }
    Flow::Answer(answer)
}

/// Says whether the client asked for a tunnel, and may have one.
fn may_upgrade(job: &Job<'_>, program: &PeerProgram) -> bool {
    let head = &job.ex.received.head;
    program.may_tunnel()
        && job.ex.routed.depth == 0
        && head.connection.upgrade
        && head.fields.has(Name::Upgrade)
        && head.version == Version::Http11
}

/// Ends an exchange with a peer; its connection is kept where it is clean and both sides want that.
pub(crate) fn finish(job: &mut Job<'_>, peer: PeerAnswer) {
    let PeerAnswer { exchanged, target, pick, .. } = peer;
    // The peer may have answered before it had the whole body; nobody wants the rest.
    job.ex.sent.linger |= !exchanged.stream.is_sent();
    if exchanged.stream.is_reusable(&job.ex.upstream)
        && let Some(connection) = exchanged.stream.into_connection()
    {
        target.pool().give(job.worker, connection);
    }
    drop(pick);
}

/// Notes `X-Accel-Limit-Rate`.
fn note_limit_rate(job: &mut Job<'_>, program: &PeerProgram) {
    let side = &job.ex.upstream;
    let Some(field) = side.head.fields.first(Name::XAccelLimitRate) else { return };
    if job.ex.routed.depth > 0 || program.ignores.contains(Name::XAccelLimitRate) {
        return;
    }
    let rate = match field.value.of(&side.input) {
        b"off" => Some(0),
        value => connection::content_length(value),
    };
    if let Some(rate) = rate {
        job.ex.sent.note_limit_rate(rate);
    }
}

fn note_announced_idle(job: &Job<'_>, connection: &mut PeerConnection) {
    let side = &job.ex.upstream;
    if let Some(field) = side.head.fields.first(Name::KeepAlive) {
        let seconds = connection::keep_alive_timeout_s(field.value.of(&side.input));
        connection.announced_idle = seconds.map(std::time::Duration::from_secs);
    }
}

/// Whether a path has `..` for a segment, escaped or not.
fn climbs(raw: &[u8]) -> bool {
    let mut path = Vec::new();
    uri::unescape(raw, &mut path);
    path.split(|byte| *byte == b'/').any(|segment| segment == b"..")
}

/// Carries what describes the content over to the response that `X-Accel-Redirect` leads to, as nginx does.
fn carry(side: &UpstreamSide, sent: &mut SentResponse) {
    for field in side.head.fields.iter() {
        match field.known {
            Name::ContentType => sent.content_type = Some(field.value.of(&side.input).to_vec()),
            Name::SetCookie | Name::CacheControl | Name::Expires | Name::AcceptRanges => {
                sent.carried.copied(field, &side.input)
            }
            _ if field.name.of(&side.input).eq_ignore_ascii_case(b"content-disposition") => {
                sent.carried.copied(field, &side.input);
            }
            _ => {}
        }
    }
}

/// Acts on `X-Accel-Redirect` and `proxy_intercept_errors`: the response is replaced by another.
fn replacement(job: &mut Job<'_>, program: &PeerProgram) -> Option<Flow> {
    let side = &job.ex.upstream;
    let status = side.head.status;
    let accel = side.head.fields.first(Name::XAccelRedirect);
    let accel = accel.filter(|_| !program.ignores.contains(Name::XAccelRedirect));
    let flow = if let Some(field) = accel {
        let location = field.value.of(&side.input).to_vec();
        carry(&job.ex.upstream, &mut job.ex.sent);
        if !job.ex.is_head() {
            job.ex.routed.method = crate::exchange::Method::Get;
            job.ex.routed.as_get = true;
        }
        if location.starts_with(b"@") {
            redirect::to(job, &location)
        } else {
            // The query is what follows the first `?` as written; `%3F` belongs to the path.
            let (raw, args) = redirect::split(&location);
            let mut path = Vec::new();
            // A name that somebody chose must not lead out of the folder that the application meant.
            if raw.is_empty() || climbs(raw) || uri::normalise(raw, uri::Slashes::Keep, &mut path).is_err() {
                job.client.log_error(job.worker, job.ex, "unsafe URI was detected in \"X-Accel-Redirect\"");
                return Some(Flow::status(404));
            }
            Flow::restart(path, args.to_vec())
        }
    } else {
        let pages = &job.place().scope.core.error_pages;
        let intercepts = program.settings.intercept_errors && status >= 300 && !job.ex.routed.error_page;
        if !intercepts || !pages.iter().any(|page| page.status == status) {
            return None;
        }
        let mut special = Special::from(status);
        if status == 401 {
            for field in side.head.fields.all(Name::WwwAuthenticate) {
                special.fields.copied(field, &side.input);
            }
        }
        Flow::Status(Box::new(special))
    };
    Some(flow)
}

/// Writes the fields of the peer's response that pass, and those that frame its body.
pub(crate) fn write_fields(lookup: Lookup<'_>, answer: &Answer, framing: Framing, out: &mut Lines) {
    let Some(program) = &lookup.ex.place(lookup.view).proxy else { return };
    let side = &lookup.ex.upstream;
    let input = &side.input;
    let hides = |name: Name| program.response_drops.contains(name, name.as_str().as_bytes());
    if hides(Name::Server) || !side.head.fields.has(Name::Server) {
        send::write_server(lookup, out);
    }
    if hides(Name::Date) || !side.head.fields.has(Name::Date) {
        send::write_date(lookup, out);
    }
    let dropped = answer.fields.dropped;
    let redirects = program.http().map_or(&[][..], |http| &http.redirects);
    let cookies = program.http().and_then(|http| http.cookies.as_deref());
    for field in &side.head.fields {
        let name = field.name.of(input);
        if program.response_drops.contains(field.known, name) || dropped.contains(field.known) {
            continue;
        }
        if side.head.connection.names_fields && connection::is_named(input, &side.head.fields, name) {
            continue;
        }
        match field.known {
            Name::ContentType if let Some(content_type) = &answer.fields.content_type => {
                out.field("Content-Type", content_type);
            }
            Name::SetCookie if let Some(cookies) = cookies => {
                match cookie::rewrite(lookup, cookies, field.value.of(input)) {
                    Some(value) => out.field("Set-Cookie", &value),
                    None => out.copied(field, input),
                }
            }
            Name::Location | Name::Refresh if !redirects.is_empty() => {
                match rewrite_redirect(lookup, redirects, field.known, field.value.of(input)) {
                    Some((before, url)) => out.uri(name, before, &url),
                    None => out.copied(field, input),
                }
            }
            _ => out.copied(field, input),
        }
    }
    send::write_framing(lookup, answer, framing, out);
}

/// Rewrites `Location` or `Refresh` by the first rule of `proxy_redirect` that matches: gives what stands before the URL,
/// and the URL.
fn rewrite_redirect<'a>(
    lookup: Lookup<'_>,
    rules: &[RedirectRule],
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
    for rule in rules {
        let replaced = match rule {
            RedirectRule::Prefix { from, to } => {
                let from = lookup.text(from);
                url.strip_prefix(from.as_slice()).map(|rest| [lookup.text(to).as_slice(), rest].concat())
            }
            RedirectRule::Regex { from, to } => match from.captures(url) {
                Ok(found) => found.map(|found| {
                    let mut text = Vec::new();
                    lookup.append_with_groups(to, &found, &mut text);
                    text
                }),
                Err(error) => {
                    let text = format!("{error}: \"{}\" of proxy_redirect", from.source());
                    lookup.client.log_error(lookup.worker, lookup.ex, &text);
                    None
                }
            },
        };
        if let Some(mut replaced) = replaced {
            if name == Name::Location && replaced.starts_with(b"/") {
                replaced = redirect::absolute_url(lookup, &replaced);
            }
            return Some((before, replaced));
        }
    }
    None
}
