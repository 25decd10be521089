//! HTTP/1: the header program of the location over the client's fields.

use keel_http::{Field, Lines, Message, RequestBody, RequestVersion, connection, uri};
use keel_model::{ProxyHttpVersion, Template};

use super::{Rest, Target, WITH_HEAD_BYTES_MAX, Written, rest_of};
use crate::{
    body::RequestBodyStore,
    exchange::Method,
    job::Job,
    snapshot::{HttpProgram, PeerProgram, PlaceKind, Route},
};

/// Says whether the client's body can follow the head as it comes.
pub(super) fn may_stream(http: &HttpProgram) -> bool {
    http.set_body.is_none()
}

/// Says whether it can in chunks.
pub(super) fn may_stream_chunks(http: &HttpProgram) -> bool {
    may_stream(http) && http.version != ProxyHttpVersion::Http10
}

/// Writes a request into a buffer that has been used before.
pub(super) fn write(
    job: &Job<'_>,
    program: &PeerProgram,
    http: &HttpProgram,
    target: &Target,
    streams: bool,
    buffer: Vec<u8>,
) -> Result<Written, u16> {
    let mut out = Lines::in_buffer(buffer);
    let ex = &*job.ex;
    let evaluated;
    let method = match &http.method {
        Some(method) => {
            evaluated = job.text(method);
            evaluated.as_slice()
        }
        None if ex.routed.as_get => b"GET",
        None => ex.received.head.method.of(&ex.received.input),
    };
    let version = match http.version {
        ProxyHttpVersion::Http10 => RequestVersion::Http10,
        // What is written for HTTP/2 is taken apart again.
        ProxyHttpVersion::Http11 | ProxyHttpVersion::Http2 => RequestVersion::Http11,
    };
    if !out.request_line(method, version, |out| write_uri(job, program, http, target, out)) {
        job.client.log_error(job.worker, ex, "zero length URI to proxy");
        return Err(500);
    }
    for field in &http.set {
        match &field.ready {
            Some(ready) => out.append(ready),
            None => out.named(&field.name, |out| job.lookup().append_template(&field.value, out)),
        }
    }
    let body = Body::of(job, program, http, streams);
    // What may be passed on as it comes has the length that the client gives it, if any.
    let is_told = http.version != ProxyHttpVersion::Http2
        || program.settings.request_buffering
        || body.is_own()
        || ex.received.head.fields.has(keel_http::Name::ContentLength);
    if is_told {
        body.write_framing(&mut out);
    }
    if program.settings.pass_request_headers {
        copy_fields(job, http, &mut out);
    }
    let mut message = out.end().map_err(|unwritable| {
        let text = format!("the request can't be sent: {unwritable} while sending request to upstream");
        job.client.log_error(job.worker, ex, &text);
        500u16
    })?;
    body.write_small(&mut message);
    let method = Method::of(message.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default());
    let rest = if body.is_own() || streams { Rest::Nothing } else { rest_of(&ex.received.body) };
    Ok(Written { message, method, rest })
}

/// What is sent behind the head.
enum Body<'a> {
    None,
    /// The client's, of this length.
    Length(u64),
    Chunked,
    /// `proxy_set_body`.
    Own(Vec<u8>),
    Memory(&'a [u8]),
}

impl<'a> Body<'a> {
    fn of(job: &'a Job<'_>, program: &PeerProgram, http: &HttpProgram, streams: bool) -> Self {
        if let Some(body) = &http.set_body {
            return Body::Own(text(job, body));
        }
        if !program.settings.pass_request_body {
            return Body::None;
        }
        match (&job.ex.received.head.body, &job.ex.received.body) {
            (RequestBody::Chunked, _) if streams => Body::Chunked,
            (RequestBody::Length(length), _) if streams => Body::Length(*length),
            (_, RequestBodyStore::Memory(bytes)) => Body::Memory(bytes),
            (_, RequestBodyStore::File(spool)) => Body::Length(spool.len()),
            // "Content-Length: 0" is passed on where the client sent it.
            (_, RequestBodyStore::None)
                if job.ex.received.head.fields.has(keel_http::Name::ContentLength) =>
            {
                Body::Memory(b"")
            }
            _ => Body::None,
        }
    }

    /// Whether it isn't the client's.
    fn is_own(&self) -> bool {
        matches!(self, Body::None | Body::Own(_))
    }

    fn write_framing(&self, out: &mut Lines) {
        let length = match self {
            Body::None => return,
            Body::Chunked => {
                out.fixed("Transfer-Encoding: chunked\r\n");
                return;
            }
            Body::Length(length) => *length,
            Body::Own(bytes) => bytes.len() as u64,
            Body::Memory(bytes) => bytes.len() as u64,
        };
        out.number("Content-Length", length);
    }

    fn write_small(&self, out: &mut Message) {
        match self {
            Body::Own(bytes) => out.append(bytes),
            Body::Memory(bytes) if bytes.len() <= WITH_HEAD_BYTES_MAX => out.append(bytes),
            _ => {}
        }
    }
}

fn text(job: &Job<'_>, template: &Template) -> Vec<u8> {
    job.text(template)
}

/// Passes the client's fields on, in their order and case, less what the program and `Connection` take out.
fn copy_fields(job: &Job<'_>, http: &HttpProgram, out: &mut Lines) {
    let ex = &*job.ex;
    let input = &ex.received.input;
    let named_in_connection = ex.received.head.connection.names_fields;
    let stays = |field: &Field| {
        let name = field.name.of(input);
        http.request_drops.contains(field.known, name)
            || named_in_connection && connection::is_named(input, &ex.received.head.fields, name)
    };
    out.copied_all(ex.received.head.fields.iter().filter(|field| !stays(field)), input);
}

/// Writes where the request goes: the client's own URI, or the location's replacement of its prefix.
fn write_uri(job: &Job<'_>, program: &PeerProgram, http: &HttpProgram, target: &Target, out: &mut Vec<u8>) {
    let ex = &*job.ex;
    let start = out.len();
    if let Some(uri) = target.uri() {
        let slash: &[u8] = if uri.starts_with(b"?") { b"/" } else { b"" };
        out.extend_from_slice(slash);
        out.extend_from_slice(uri);
        return;
    }
    let evaluated = matches!(program.route, Route::Evaluated(_));
    // What stands for the location's prefix goes where that isn't in the URI any more.
    let uri = http.pass.uri.as_ref().filter(|_| evaluated || !ex.routed.prefix_is_gone);
    if let Some(template) = uri {
        job.lookup().append_template(template, out);
        if evaluated && out.len() > start {
            return;
        }
    }
    let replaces = out.len() > start;
    if !replaces && ex.routed.raw_uri_valid {
        out.extend_from_slice(ex.received.head.target.raw.of(&ex.received.input));
        return;
    }
    let prefix = match &job.place().kind {
        PlaceKind::Prefix(name) if replaces => name.len().min(ex.routed.uri.len()),
        _ => 0,
    };
    let rest = ex.routed.uri.get(prefix..).unwrap_or_default();
    if ex.received.head.target.complex || ex.routed.internal || !ex.routed.raw_uri_valid {
        uri::escape(rest, out);
    } else {
        out.extend_from_slice(rest);
    }
    if !ex.routed.args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&ex.routed.args);
    }
}
