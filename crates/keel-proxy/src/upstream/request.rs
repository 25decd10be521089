//! The request as the peer gets it: the header program of the location over the client's fields.

use keel_http::{Field, Lines, Message, RequestBody, RequestVersion, connection, uri};
use keel_model::{ProxyHttpVersion, ProxyScope, Template};

use super::route::Target;
use crate::{
    body::RequestBodyStore,
    exchange::Method,
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
    let mut out = std::mem::take(&mut job.ex.upstream.request).into_bytes();
    if out.capacity() == 0 {
        out = job.worker.buffers.take();
    }
    let message = write(job, program, scope, target, streams, Lines::in_buffer(out))?;
    let method = message.as_bytes().split(|byte| *byte == b' ').next();
    job.ex.upstream.method = Method::of(method.unwrap_or_default());
    job.ex.upstream.request = message;
    Ok(())
}

fn write(
    job: &Job<'_>,
    program: &ProxyProgram,
    scope: &ProxyScope,
    target: &Target,
    streams: bool,
    mut out: Lines,
) -> Result<Message, u16> {
    let ex = &*job.ex;
    let evaluated;
    let method = match &scope.method {
        Some(method) => {
            evaluated = job.text(method);
            evaluated.as_slice()
        }
        None if ex.routed.as_get => b"GET",
        None => ex.received.head.method.of(&ex.received.input),
    };
    let version = match scope.http_version {
        ProxyHttpVersion::Http10 => RequestVersion::Http10,
        ProxyHttpVersion::Http11 => RequestVersion::Http11,
    };
    if !out.request_line(method, version, |out| write_uri(job, program, target, out)) {
        job.client.log_error(job.worker, ex, "zero length URI to proxy");
        return Err(500);
    }
    for field in &program.set {
        match &field.ready {
            Some(ready) => out.append(ready),
            None => out.named(&field.name, |out| job.lookup().append_template(&field.value, out)),
        }
    }
    let body = Body::of(job, scope, streams);
    body.write_framing(&mut out);
    if scope.upstream.pass_request_headers {
        copy_fields(job, program, &mut out);
    }
    let mut message = out.end().map_err(|unwritable| {
        let text = format!("the request can't be sent: {unwritable} while sending request to upstream");
        job.client.log_error(job.worker, ex, &text);
        500u16
    })?;
    body.write_small(&mut message);
    Ok(message)
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
        if !scope.upstream.pass_request_body {
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

/// Says whether [`write_head`] has put the whole body behind the head.
pub(super) fn holds_body(body: &RequestBodyStore, scope: &ProxyScope) -> bool {
    if scope.set_body.is_some() || !scope.upstream.pass_request_body {
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
fn copy_fields(job: &Job<'_>, program: &ProxyProgram, out: &mut Lines) {
    let ex = &*job.ex;
    let input = &ex.received.input;
    let named_in_connection = ex.received.head.connection.names_fields;
    let stays = |field: &Field| {
        let name = field.name.of(input);
        program.request_drops.contains(field.known, name)
            || named_in_connection && connection::is_named(input, &ex.received.head.fields, name)
    };
    out.copied_all(ex.received.head.fields.iter().filter(|field| !stays(field)), input);
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
    // What stands for the location's prefix goes where that isn't in the URI any more.
    let uri = program.pass.uri.as_ref().filter(|_| evaluated || !ex.routed.prefix_is_gone);
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
