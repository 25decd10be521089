//! The request as the peer gets it: the header program of the location over the client's fields.

use keel_http::{RequestBody, connection, encode, uri};
use keel_model::{ProxyHttpVersion, ProxyScope, Template};

use super::route::Target;
use crate::{
    body::RequestBodyStore,
    job::Job,
    snapshot::{PlaceKind, ProxyProgram},
};

/// Bodies up to this size are sent with the head, in one write.
const WITH_HEAD_BYTES_MAX: usize = 16 << 10;

/// Writes the request head to `ex.upstream.request`, with the body behind it where that is small.
pub(super) fn write_head(
    job: &mut Job<'_>,
    program: &ProxyProgram,
    scope: &ProxyScope,
    target: &Target,
    streams: bool,
) -> Result<(), u16> {
    let mut out = std::mem::take(&mut job.ex.upstream.request);
    if out.capacity() == 0 {
        out = job.worker.buffers.take();
    }
    out.clear();
    let result = write(job, program, scope, target, streams, &mut out);
    job.ex.upstream.request = out;
    result
}

fn write(
    job: &Job<'_>,
    program: &ProxyProgram,
    scope: &ProxyScope,
    target: &Target,
    streams: bool,
    out: &mut Vec<u8>,
) -> Result<(), u16> {
    let ex = &*job.ex;
    match &scope.method {
        Some(method) => job.lookup().append_template(method, out),
        None if ex.as_get => out.extend_from_slice(b"GET"),
        None => out.extend_from_slice(ex.head.method.of(&ex.input)),
    }
    out.push(b' ');
    let uri_start = out.len();
    write_uri(job, program, target, out);
    if out.len() == uri_start {
        job.client.log_error(job.worker, ex, "zero length URI to proxy");
        return Err(500);
    }
    out.extend_from_slice(match scope.http_version {
        ProxyHttpVersion::Http10 => b" HTTP/1.0\r\n",
        ProxyHttpVersion::Http11 => b" HTTP/1.1\r\n",
    });
    for (name, value) in &program.set {
        let start = out.len();
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        let value_start = out.len();
        job.lookup().append_template(value, out);
        if out.len() == value_start {
            out.truncate(start);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }
    let body = Body::of(job, scope, streams);
    body.write_framing(out);
    if scope.pass_request_headers {
        copy_fields(job, program, out);
    }
    out.extend_from_slice(b"\r\n");
    body.write_small(job, out);
    Ok(())
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
    fn of(job: &'a Job<'_>, scope: &ProxyScope, streams: bool) -> Self {
        if let Some(body) = &scope.set_body {
            return Body::Own(text(job, body));
        }
        if !scope.pass_request_body {
            return Body::None;
        }
        match (&job.ex.head.body, &job.ex.body) {
            (RequestBody::Chunked, _) if streams => Body::Chunked,
            (RequestBody::Length(length), _) if streams => Body::Length(*length),
            (_, RequestBodyStore::Memory(bytes)) => Body::Memory(bytes),
            (_, RequestBodyStore::File(spool)) => Body::Length(spool.len()),
            // "Content-Length: 0" is passed on where the client sent it.
            (_, RequestBodyStore::None) if job.ex.head.fields.has(keel_http::Name::ContentLength) => {
                Body::Memory(b"")
            }
            _ => Body::None,
        }
    }

    fn write_framing(&self, out: &mut Vec<u8>) {
        let length = match self {
            Body::None => return,
            Body::Chunked => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                return;
            }
            Body::Length(length) => *length,
            Body::Own(bytes) => bytes.len() as u64,
            Body::Memory(bytes) => bytes.len() as u64,
        };
        out.extend_from_slice(b"Content-Length: ");
        encode::decimal(length, out);
        out.extend_from_slice(b"\r\n");
    }

    fn write_small(&self, _job: &Job<'_>, out: &mut Vec<u8>) {
        match self {
            Body::Own(bytes) => out.extend_from_slice(bytes),
            Body::Memory(bytes) if bytes.len() <= WITH_HEAD_BYTES_MAX => out.extend_from_slice(bytes),
            _ => {}
        }
    }
}

/// Says whether [`write_head`] has put the whole body behind the head.
pub(super) fn holds_body(body: &RequestBodyStore, scope: &ProxyScope) -> bool {
    if scope.set_body.is_some() || !scope.pass_request_body {
        return true;
    }
    match body {
        RequestBodyStore::None => true,
        RequestBodyStore::Memory(bytes) => bytes.len() <= WITH_HEAD_BYTES_MAX,
        RequestBodyStore::File(_) => false,
    }
}

fn text(job: &Job<'_>, template: &Template) -> Vec<u8> {
    job.text(template)
}

/// Passes the client's fields on, in their order and case, less what the program and `Connection` take out.
fn copy_fields(job: &Job<'_>, program: &ProxyProgram, out: &mut Vec<u8>) {
    let ex = &*job.ex;
    let input = &ex.input;
    for field in &ex.head.fields {
        let name = field.name.of(input);
        if program.request_drops.contains(field.known, name) {
            continue;
        }
        if ex.head.connection.names_fields && connection::is_named(input, &ex.head.fields, name) {
            continue;
        }
        encode::field(name, field.value.of(input), out);
    }
}

/// Writes where the request goes: the client's own URI, or the location's replacement of its prefix.
fn write_uri(job: &Job<'_>, program: &ProxyProgram, target: &Target, out: &mut Vec<u8>) {
    let ex = &*job.ex;
    let start = out.len();
    if let Some(uri) = target.uri() {
        let slash: &[u8] = if uri.starts_with(b"?") { b"/" } else { b"" };
        out.extend_from_slice(slash);
        out.extend_from_slice(uri);
        return;
    }
    let evaluated = matches!(program.route, crate::snapshot::Route::Evaluated(_));
    if let Some(template) = &program.pass.uri {
        job.lookup().append_template(template, out);
        if evaluated && out.len() > start {
            return;
        }
    }
    let replaces = out.len() > start;
    if !replaces && ex.raw_uri_valid {
        out.extend_from_slice(ex.head.target.raw.of(&ex.input));
        return;
    }
    let prefix = match &job.place().kind {
        PlaceKind::Prefix(name) if replaces => name.len().min(ex.uri.len()),
        _ => 0,
    };
    let rest = ex.uri.get(prefix..).unwrap_or_default();
    if ex.head.target.complex || ex.internal || !ex.raw_uri_valid {
        uri::escape(rest, out);
    } else {
        out.extend_from_slice(rest);
    }
    if !ex.args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&ex.args);
    }
}
