//! Writing a response's head.

use keel_http::{Lines, Message, Name, ResponseFraming, Status, Unwritable, date};
use keel_model::ServerTokens;

use crate::{
    answer::{Answer, PeerAnswer, Source},
    client::Framing,
    job::Job,
    upstream,
    variables::Lookup,
};

/// The version of nginx whose behaviour this one has, which clients and tests that look for it are told.
pub(crate) const NGINX_VERSION: &str = "1.31.5";

/// Chooses how a response's body is framed for the client.
pub(super) fn choose_framing(job: &Job<'_>, answer: &Answer) -> Framing {
    if is_bodyless(job, answer) {
        return Framing::None;
    }
    if answer.status == 101 || job.client.stream.is_part() {
        return Framing::UntilClose;
    }
    if job.ex.is_http2() {
        // The end of a stream is the end of the body, and trailers have room behind any.
        return answer.length(job.ex).map_or(Framing::Chunked, Framing::Length);
    }
    let takes_chunks = job.ex.is_http11() && job.place().scope.core.chunked_transfer_encoding;
    if takes_chunks && answer.fields.trailers {
        return Framing::Chunked;
    }
    match answer.length(job.ex) {
        Some(length) => Framing::Length(length),
        None if takes_chunks => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

/// Says whether an answer is sent without its body.
pub(super) fn is_bodyless(job: &Job<'_>, answer: &Answer) -> bool {
    job.ex.is_head() || has_no_body(answer.status)
}

/// Says whether a response of this status has no body (RFC 9110 §6.4.1). 101 begins a tunnel.
fn has_no_body(status: u16) -> bool {
    matches!(status, 204 | 304) || ((100..200).contains(&status) && status != 101)
}

/// What the field `Server` and error pages say.
pub(crate) fn server_text(lookup: Lookup<'_>) -> Option<Vec<u8>> {
    match &lookup.ex.place(lookup.view).scope.core.server_tokens {
        ServerTokens::Off => Some(b"nginx".to_vec()),
        ServerTokens::On => Some(format!("nginx/{NGINX_VERSION}").into_bytes()),
        ServerTokens::Build => Some(format!("nginx/{NGINX_VERSION} (evenkeel)").into_bytes()),
        ServerTokens::Text(text) => {
            let mut out = Vec::new();
            lookup.append_template(text, &mut out);
            Some(out).filter(|text| !text.is_empty())
        }
    }
}

/// Writes the head that the client gets.
pub(super) fn write(job: &mut Job<'_>, answer: &Answer, framing: Framing) -> Result<Message, Unwritable> {
    let mut out = Lines::in_buffer(std::mem::take(&mut job.ex.sent.head));
    write_lines(job.lookup(), answer, framing, &mut out);
    out.end()
}

/// Writes all lines of a head.
fn write_lines(lookup: Lookup<'_>, answer: &Answer, framing: Framing, out: &mut Lines) {
    let ex = lookup.ex;
    match &answer.source {
        Source::Peer(_) => {
            let head = &ex.upstream.head;
            let is_own = ex.sent.forced_status.is_some() || answer.status != head.status;
            // A gateway may have told no reason.
            out.status_line(if is_own || head.status_line.is_empty() {
                Status::Own(answer.status)
            } else {
                Status::Copied(head, &ex.upstream.input)
            });
            upstream::write_fields(lookup, answer, framing, out);
        }
        _ => {
            out.status_line(Status::Own(answer.status));
            write_server(lookup, out);
            write_date(lookup, out);
            write_own_fields(answer, framing, out);
        }
    }
    if let Some(encoding) = answer.fields.encoding {
        out.field("Content-Encoding", encoding.as_bytes());
    }
    out.append(&answer.fields.lines);
    write_connection(lookup, answer.status, out);
    out.append(&ex.sent.carried);
    out.append(&answer.fields.added);
    // `Upgrade` concerns this hop alone, and this is the hop.
    if answer.status == 101
        && let Some(protocol) = ex.upstream.head.fields.first(Name::Upgrade)
    {
        out.copied(protocol, &ex.upstream.input);
    }
}

/// Writes the fields that are sent as the answer stands, for variables that ask before it is sent.
pub(crate) fn preview(lookup: Lookup<'_>, answer: &Answer) -> Lines {
    let mut out = Lines::default();
    // What the head itself holds of variables can't ask for it.
    let lookup = Lookup { answer: None, ..lookup };
    let framing = match answer.length(lookup.ex) {
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    write_lines(lookup, answer, framing, &mut out);
    out
}

/// Appends `Server`.
pub(crate) fn write_server(lookup: Lookup<'_>, out: &mut Lines) {
    match &lookup.ex.place(lookup.view).scope.core.server_tokens {
        ServerTokens::On => out.fixed("Server: nginx/1.31.5\r\n"),
        ServerTokens::Text(_) if lookup.ex.sent.plain_fields => out.fixed("Server: nginx\r\n"),
        _ => {
            if let Some(text) = server_text(lookup) {
                out.field("Server", &text);
            }
        }
    }
}

/// Appends `Date`.
pub(crate) fn write_date(lookup: Lookup<'_>, out: &mut Lines) {
    out.field("Date", &lookup.worker.clock.date());
}

/// Appends the field that frames a peer's response.
pub(crate) fn write_framing(lookup: Lookup<'_>, answer: &Answer, framing: Framing, out: &mut Lines) {
    match framing {
        Framing::Length(length) => out.number("Content-Length", length),
        Framing::Chunked if !lookup.ex.is_http2() => out.fixed("Transfer-Encoding: chunked\r\n"),
        Framing::Chunked | Framing::UntilClose => {}
        // "A server MUST NOT send a Content-Length header field in any response with a status code of 1xx
        // (Informational) or 204 (No Content)" (RFC 9110 §8.6).
        Framing::None if answer.status == 204 || lookup.ex.upstream.head.status == 204 => {}
        // What a GET would have had.
        Framing::None if answer.fields.resized => {}
        Framing::None => {
            let length = match (&answer.source, lookup.ex.upstream.head.framing) {
                (Source::Peer(PeerAnswer { slice: Some((start, end)), .. }), _) => end - start,
                (_, ResponseFraming::Length(length)) => length,
                _ => return,
            };
            out.number("Content-Length", length);
        }
    }
}

fn write_own_fields(answer: &Answer, framing: Framing, out: &mut Lines) {
    let Answer { status, fields, source, transforms: _, around: _ } = answer;
    // `return 304` describes a body that it doesn't send; a 304 of a file has nothing to describe.
    let is_described = !has_no_body(*status) || (*status == 304 && fields.content_type.is_some());
    if is_described {
        if let Some(content_type) = fields.content_type.as_ref().filter(|value| !value.is_empty()) {
            out.field("Content-Type", content_type);
        }
        if framing == Framing::Chunked {
            out.fixed("Transfer-Encoding: chunked\r\n");
        } else if !fields.resized {
            let length = match source {
                Source::Bytes(bytes) => bytes.len() as u64,
                Source::File(file) => file.length(),
                Source::Empty | Source::Peer(_) => 0,
            };
            out.number("Content-Length", length);
        }
    }
    if let Some(location) = &fields.location {
        out.uri(b"Location", b"", location);
    }
    // Of an error page the date says nothing.
    if let Some(modified) = fields.modified
        && matches!(status, 200 | 206 | 304)
        && !fields.dropped.contains(Name::LastModified)
    {
        out.field("Last-Modified", date::http(modified).as_bytes());
    }
    if let Some(etag) = &fields.etag
        && !fields.dropped.contains(Name::Etag)
    {
        out.field("ETag", etag);
    }
}

fn write_connection(lookup: Lookup<'_>, status: u16, out: &mut Lines) {
    if status == 101 {
        out.fixed("Connection: upgrade\r\n");
    } else if lookup.ex.sent.keep_alive {
        out.fixed("Connection: keep-alive\r\n");
        if let Some(time) = lookup.ex.place(lookup.view).scope.core.keepalive_header {
            out.field("Keep-Alive", format!("timeout={}", time.as_secs()).as_bytes());
        }
    } else {
        out.fixed("Connection: close\r\n");
    }
}
