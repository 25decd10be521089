//! FastCGI, uwsgi and SCGI: a request as parameters, those of the configuration and the client's fields.

use keel_http::{
    Field, Message, Name, RequestBody,
    fastcgi::{self, KeepConnection},
    scgi, uwsgi,
};
use keel_model::{EmptyParam, LogLevel};

use super::{Rest, Written, rest_of};
use crate::{
    body::RequestBodyStore,
    exchange::{Exchange, Method},
    job::Job,
    snapshot::{FastCgiProgram, Params, PeerProgram, ScgiProgram, UwsgiProgram},
};

/// Writes a request in FastCGI.
pub(super) fn write_fastcgi(
    job: &Job<'_>,
    program: &PeerProgram,
    fastcgi: &FastCgiProgram,
    streams: bool,
    mut out: Vec<u8>,
) -> Result<Written, u16> {
    let mut params = job.worker.buffers.take();
    let written =
        write_params(job, program, &fastcgi.params, |name, value| fastcgi::param(name, value, &mut params));
    if !written {
        return Err(too_big(job, "fastcgi request record is too big"));
    }
    out.clear();
    let keep = if fastcgi.keeps { KeepConnection::Yes } else { KeepConnection::No };
    fastcgi::begin_request(keep, &mut out);
    fastcgi::params(&params, &mut out);
    job.worker.buffers.give(params);
    let (body, rest) = body(job, program, streams);
    fastcgi::stdin(body, &mut out);
    if !streams && rest == Rest::Nothing {
        fastcgi::end_stdin(&mut out);
    }
    Ok(written_with(job, out, rest))
}

/// Writes a request in uwsgi.
pub(super) fn write_uwsgi(
    job: &Job<'_>,
    program: &PeerProgram,
    uwsgi: &UwsgiProgram,
    streams: bool,
    mut out: Vec<u8>,
) -> Result<Written, u16> {
    let mut vars = job.worker.buffers.take();
    let written = write_params(job, program, &uwsgi.params, |name, value| uwsgi::var(name, value, &mut vars));
    out.clear();
    let written = written && uwsgi::head(uwsgi.modifiers, &vars, &mut out);
    job.worker.buffers.give(vars);
    if !written {
        return Err(too_big(job, "uwsgi request is too big"));
    }
    out.extend_from_slice(uwsgi.string.as_bytes());
    let (body, rest) = body(job, program, streams);
    out.extend_from_slice(body);
    Ok(written_with(job, out, rest))
}

/// Writes a request in SCGI.
pub(super) fn write_scgi(
    job: &Job<'_>,
    program: &PeerProgram,
    scgi: &ScgiProgram,
    streams: bool,
    mut out: Vec<u8>,
) -> Result<Written, u16> {
    let mut headers = job.worker.buffers.take();
    let written =
        write_params(job, program, &scgi.params, |name, value| scgi::header(name, value, &mut headers));
    if !written {
        job.client.log_error(job.worker, job.ex, "a parameter holds a NUL while sending request to upstream");
        return Err(500);
    }
    let length = match &job.ex.received.head.body {
        _ if !program.settings.pass_request_body => 0,
        RequestBody::Length(length) if streams => *length,
        _ => job.ex.received.body.length().unwrap_or(0),
    };
    out.clear();
    scgi::head(length, &headers, &mut out);
    job.worker.buffers.give(headers);
    let (body, rest) = body(job, program, streams);
    out.extend_from_slice(body);
    Ok(written_with(job, out, rest))
}

fn too_big(job: &Job<'_>, what: &str) -> u16 {
    job.client.log(job.worker, job.ex, LogLevel::Alert, &format!("{what} while sending request to upstream"));
    500
}

fn written_with(job: &Job<'_>, bytes: Vec<u8>, rest: Rest) -> Written {
    let head = &job.ex.received.head;
    let method = match job.ex.routed.as_get {
        true => Method::Get,
        false => Method::of(head.method.of(&job.ex.received.input)),
    };
    Written { message: Message::of_gateway(bytes), method, rest }
}

/// What of the client's body goes with the head, and what behind it.
fn body<'a>(job: &'a Job<'_>, program: &PeerProgram, streams: bool) -> (&'a [u8], Rest) {
    if streams || !program.settings.pass_request_body {
        return (b"", Rest::Nothing);
    }
    match (&job.ex.received.body, rest_of(&job.ex.received.body)) {
        (RequestBodyStore::Memory(bytes), Rest::Nothing) => (bytes, Rest::Nothing),
        (_, rest) => (b"", rest),
    }
}

/// Writes all parameters: those of the configuration, then the client's fields. False where one of them can't be written.
fn write_params(
    job: &Job<'_>,
    program: &PeerProgram,
    params: &Params,
    mut write: impl FnMut(&[u8], &[u8]) -> bool,
) -> bool {
    let mut value = Vec::new();
    for param in &params.list {
        value.clear();
        job.lookup().append_template(&param.value, &mut value);
        let is_sent = !value.is_empty() || param.empty == EmptyParam::Sent;
        if is_sent && !write(param.name.as_bytes(), &value) {
            return false;
        }
    }
    if !program.settings.pass_request_headers {
        return true;
    }
    let mut name = Vec::new();
    let (fields, input) = (&job.ex.received.head.fields, &job.ex.received.input);
    for (at, field) in fields.iter().enumerate() {
        let text = field.name.of(input);
        if params.replace(text) || is_repeated(job.ex, at, field) {
            continue;
        }
        name.clear();
        name.extend_from_slice(b"HTTP_");
        name.extend(text.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
        value.clear();
        join(job.ex, at, field, &mut value);
        if !write(&name, &value) {
            return false;
        }
    }
    true
}

/// Says whether a field of the same name stands before it: both are one parameter.
fn is_repeated(ex: &Exchange, at: usize, field: &Field) -> bool {
    let input = &ex.received.input;
    let is_same = |other: &&Field| is_same_field(other, field, input);
    ex.received.head.fields.iter().take(at).any(|other| is_same(&other))
}

fn is_same_field(a: &Field, b: &Field, input: &[u8]) -> bool {
    a.known == b.known && (a.known != Name::Other || a.name.of(input).eq_ignore_ascii_case(b.name.of(input)))
}

/// Appends the value of a field and those of the same name behind it.
fn join(ex: &Exchange, at: usize, field: &Field, out: &mut Vec<u8>) {
    let input = &ex.received.input;
    out.extend_from_slice(field.value.of(input));
    let separator: &[u8] = if field.known == Name::Cookie { b"; " } else { b", " };
    for other in ex.received.head.fields.iter().skip(at + 1) {
        if is_same_field(other, field, input) {
            out.extend_from_slice(separator);
            out.extend_from_slice(other.value.of(input));
        }
    }
}
