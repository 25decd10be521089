//! Response heads, and responses that the proxy makes itself.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};

use keel_http::{Name, Version, date, encode};
use keel_model::{Expires, ServerTokens};

use crate::{
    error::ClientGone,
    job::{Flow, Job},
};

/// The version of nginx whose behaviour this one has, which clients and tests that look for it are told.
pub(crate) const NGINX_VERSION: &str = "1.31.5";

/// What the field `Server` and error pages say.
fn server_text(job: &Job<'_>) -> Option<Vec<u8>> {
    match &job.place().scope.core.server_tokens {
        ServerTokens::Off => Some(b"nginx".to_vec()),
        ServerTokens::On => Some(format!("nginx/{NGINX_VERSION}").into_bytes()),
        ServerTokens::Build => Some(format!("nginx/{NGINX_VERSION} (evenkeel)").into_bytes()),
        ServerTokens::Text(text) => Some(job.text(text)).filter(|text| !text.is_empty()),
    }
}

/// A response without a peer.
pub(crate) struct Own<'a> {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'a [u8]>,
    pub(crate) location: Option<Vec<u8>>,
    /// Further fields, already written as lines.
    pub(crate) fields: &'a [u8],
    pub(crate) body: &'a [u8],
    /// When the file behind it was changed, for `expires modified`.
    pub(crate) modified: Option<i64>,
}

impl Own<'_> {
    pub(crate) fn status(status: u16) -> Self {
        Own { status, content_type: None, location: None, fields: b"", body: b"", modified: None }
    }
}

/// Begins the response's head: status line, `Server` and `Date`.
pub(crate) fn begin_head(job: &Job<'_>, status_line: &[u8], server: bool, date: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status_line);
    out.extend_from_slice(b"\r\n");
    if server {
        match &job.place().scope.core.server_tokens {
            ServerTokens::On => out.extend_from_slice(b"Server: nginx/1.31.5\r\n"),
            _ => {
                if let Some(text) = server_text(job) {
                    encode::field(b"Server", &text, out);
                }
            }
        }
    }
    if date {
        encode::field(b"Date", &job.worker.clock.date(), out);
    }
}

/// Ends the response's head: `Connection`, `expires`, `add_header`, the empty line.
pub(crate) fn finish_head(job: &Job<'_>, status: u16, modified: Option<i64>, out: &mut Vec<u8>) {
    let core = &job.place().scope.core;
    if status == 101 {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    } else if job.ex.keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
        if let Some(time) = core.keepalive_header {
            out.extend_from_slice(b"Keep-Alive: timeout=");
            encode::decimal(time.as_secs(), out);
            out.extend_from_slice(b"\r\n");
        }
    } else {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(&job.ex.carried);
    add_fields(job, status, modified, out);
    out.extend_from_slice(b"\r\n");
}

/// Says whether `add_trailer` wants fields behind the body, and the client can read them.
pub(crate) fn adds_trailers(job: &Job<'_>, status: u16) -> bool {
    let mut trailers = job.place().scope.headers.add_trailers.iter();
    job.ex.is_http11() && trailers.any(|trailer| trailer.always || is_plain_status(status))
}

/// Appends the fields of `add_trailer`.
pub(crate) fn write_trailers(job: &Job<'_>, status: u16, out: &mut Vec<u8>) {
    if !job.ex.is_http11() {
        return;
    }
    for trailer in &job.place().scope.headers.add_trailers {
        let value = job.text(&trailer.value);
        if (trailer.always || is_plain_status(status)) && !value.is_empty() {
            encode::field(trailer.name.as_bytes(), &value, out);
        }
    }
}

/// Takes the lines of a field out of a written head.
fn remove_field(name: &[u8], head: &mut Vec<u8>) {
    let mut start = 0;
    while let Some(length) = memchr::memchr(b'\n', head.get(start..).unwrap_or_default()) {
        let end = start + length + 1;
        let line = head.get(start..end).unwrap_or_default();
        let is_it = line.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name))
            && line.get(name.len()) == Some(&b':');
        if is_it {
            head.drain(start..end);
        } else {
            start = end;
        }
    }
}

/// Says whether `add_header` without `always`, and `expires`, act on a status.
pub(crate) fn is_plain_status(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn add_fields(job: &Job<'_>, status: u16, modified: Option<i64>, out: &mut Vec<u8>) {
    let headers = &job.place().scope.headers;
    let plain = is_plain_status(status);
    if plain && headers.expires != Expires::Off {
        add_expires(job, &headers.expires, modified, out);
    }
    for add in &headers.add {
        if !plain && !add.always {
            continue;
        }
        let value = match add.value.as_literal() {
            Some(text) => std::borrow::Cow::Borrowed(text.as_bytes()),
            None => {
                let mut value = Vec::new();
                let lookup = crate::variables::Lookup { head: Some(out.as_slice()), ..job.lookup() };
                lookup.append_template(&add.value, &mut value);
                std::borrow::Cow::Owned(value)
            }
        };
        // Of these there is one: the operator's takes the place of any other, and none is none.
        if matches!(Name::of(add.name.as_bytes()), Name::Etag | Name::LastModified | Name::Expires) {
            remove_field(add.name.as_bytes(), out);
        }
        if !value.is_empty() {
            encode::field(add.name.as_bytes(), &value, out);
        }
    }
}

fn add_expires(job: &Job<'_>, expires: &Expires, modified: Option<i64>, out: &mut Vec<u8>) {
    let now = i64::try_from(job.worker.clock.unix().as_secs()).unwrap_or(0);
    let (at, max_age) = match expires {
        Expires::Off => return,
        Expires::Epoch => (0, None),
        Expires::Max => (2_145_916_555, Some(315_360_000)),
        Expires::Access(seconds) => (now + seconds, Some(*seconds).filter(|seconds| *seconds >= 0)),
        Expires::Modified(seconds) => match modified {
            Some(modified) => {
                let at = modified + seconds;
                (at, Some(at - now).filter(|age| *age >= 0))
            }
            None => return,
        },
        Expires::Daily(seconds) => {
            let midnight = now - now.rem_euclid(86_400);
            let today = midnight + i64::from(*seconds);
            let at = if today > now { today } else { today + 86_400 };
            (at, Some(at - now))
        }
        Expires::Variable(template) => {
            let text = job.text(template);
            if let Some(parsed) = parse_expires(&text) {
                add_expires(job, &parsed, modified, out);
            }
            return;
        }
    };
    let at = if matches!(expires, Expires::Epoch) { 1 } else { at };
    encode::field(b"Expires", date::http(at).as_bytes(), out);
    match max_age {
        Some(age) => encode::field(b"Cache-Control", format!("max-age={age}").as_bytes(), out),
        None => encode::field(b"Cache-Control", b"no-cache", out),
    }
}

/// Reads what a variable of `expires` gives: `epoch`, `max`, `off`, `[modified] TIME` or `@TIME`.
fn parse_expires(text: &[u8]) -> Option<Expires> {
    let text = std::str::from_utf8(text).ok()?.trim();
    match text {
        "epoch" => return Some(Expires::Epoch),
        "max" => return Some(Expires::Max),
        "off" | "" => return None,
        _ => {}
    }
    if let Some(daily) = text.strip_prefix('@') {
        return Some(Expires::Daily(u32::try_from(parse_time(daily)?).ok().filter(|time| *time < 86_400)?));
    }
    let (modified, time) = match text.strip_prefix("modified") {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (sign, time) = match time.strip_prefix(['-', '+']) {
        Some(rest) => (if time.starts_with('-') { -1 } else { 1 }, rest),
        None => (1, time),
    };
    let seconds = sign * parse_time(time)?;
    Some(if modified { Expires::Modified(seconds) } else { Expires::Access(seconds) })
}

/// Reads nginx's times with units: `1h30m`, `24h`, `90`.
fn parse_time(text: &str) -> Option<i64> {
    let (mut total, mut number, mut any) = (0i64, None::<i64>, false);
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            'M' => 2_592_000,
            'y' => 31_536_000,
            ' ' if number.is_none() => continue,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
        any = true;
    }
    match number {
        Some(number) => total.checked_add(number),
        None => any.then_some(total),
    }
}

/// Sends a response that is held in memory.
pub(crate) async fn send_own(job: &mut Job<'_>, own: Own<'_>) -> Flow {
    job.settle_keep_alive();
    let status = job.ex.forced_status.take().unwrap_or(own.status);
    job.ex.status = status;
    let bodyless = matches!(status, 204 | 304) || (100..200).contains(&status);
    let trailed = !bodyless && !job.ex.is_head() && adds_trailers(job, status);
    let mut head = std::mem::take(&mut job.ex.sent_head);
    head.clear();
    let number;
    let line = match encode::status_line(status) {
        Some(line) => line,
        None => {
            number = format!("{status:03} ");
            number.as_str()
        }
    };
    begin_head(job, line.as_bytes(), true, true, &mut head);
    // `return 304` describes a body that it doesn't send; a 304 of a file has nothing to describe.
    let described = !bodyless || (status == 304 && own.content_type.is_some());
    if described {
        if let Some(content_type) = own.content_type.filter(|content_type| !content_type.is_empty()) {
            encode::field(b"Content-Type", content_type, &mut head);
        }
        if trailed {
            head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else {
            head.extend_from_slice(b"Content-Length: ");
            encode::decimal(own.body.len() as u64, &mut head);
            head.extend_from_slice(b"\r\n");
        }
    }
    if let Some(location) = &own.location {
        encode::field(b"Location", location, &mut head);
    }
    head.extend_from_slice(own.fields);
    finish_head(job, status, own.modified, &mut head);
    let head_length = head.len();
    if job.ex.head.version == Version::Http09 && !job.ex.head.line.is_empty() {
        head.clear();
    }
    if !bodyless && !job.ex.is_head() {
        if trailed {
            let mut trailers = Vec::new();
            write_trailers(job, status, &mut trailers);
            encode::chunk(own.body, &mut head);
            head.extend_from_slice(b"0\r\n");
            head.extend_from_slice(&trailers);
            head.extend_from_slice(b"\r\n");
            job.ex.sent_trailers = trailers;
        } else {
            head.extend_from_slice(own.body);
        }
    }
    let sent = send_all(job, &head, &[]).await;
    job.ex.head_sent = true;
    let body_sent = head.len().saturating_sub(head_length);
    head.truncate(head_length);
    job.ex.sent_head = head;
    match sent {
        Ok(()) => {
            job.ex.body_bytes_sent = body_sent as u64;
            job.ex.complete = true;
            Flow::Done
        }
        Err(ClientGone) => Flow::Close,
    }
}

/// Writes all of two pieces to the client.
pub(crate) async fn send_all(job: &mut Job<'_>, first: &[u8], second: &[u8]) -> Result<(), ClientGone> {
    let total = first.len() + second.len();
    let mut sent = 0;
    let timeout = job.place().scope.core.send_timeout;
    let (worker, client) = (job.worker, &mut *job.client);
    let mut waiting = false;
    let result = poll_fn(|cx| {
        while sent < total {
            let polled = if sent >= first.len() {
                client.socket.poll_send(cx, second.get(sent - first.len()..).unwrap_or_default())
            } else if second.is_empty() {
                client.socket.poll_send(cx, first.get(sent..).unwrap_or_default())
            } else {
                client.socket.poll_send_two(cx, first.get(sent..).unwrap_or_default(), second)
            };
            match polled {
                Poll::Ready(Ok(more)) => {
                    sent += more;
                    waiting = false;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ClientGone)),
                Poll::Pending => {
                    if !std::mem::replace(&mut waiting, true) {
                        client.timer.set(&worker.clock, timeout);
                    }
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    client.timed_out = true;
                    return Poll::Ready(Err(ClientGone));
                }
            }
        }
        Poll::Ready(Ok(()))
    });
    let result = result.await;
    job.ex.bytes_sent += sent as u64;
    result
}

/// Sends nginx's built-in page for a status. Fields are those of a redirect or of `Retry-After`.
pub(crate) async fn send_special(
    job: &mut Job<'_>,
    status: u16,
    location: Option<Vec<u8>>,
    fields: &[u8],
) -> Flow {
    if matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501) {
        job.ex.keep_alive = false;
    }
    let shown = if matches!(status, 494..=497) { 400 } else { status };
    let status_to_send = job.ex.forced_status.unwrap_or(shown);
    let mut body = Vec::new();
    if let Some(title) = page_title(status) {
        let tail = match &job.place().scope.core.server_tokens {
            ServerTokens::Off | ServerTokens::Text(_) => b"nginx".to_vec(),
            _ => server_text(job).unwrap_or_default(),
        };
        let heading = page_heading(status).unwrap_or(title);
        body.extend_from_slice(b"<html>\r\n<head><title>");
        body.extend_from_slice(title.as_bytes());
        body.extend_from_slice(b"</title></head>\r\n<body>\r\n<center><h1>");
        body.extend_from_slice(heading.as_bytes());
        body.extend_from_slice(b"</h1></center>\r\n");
        if let Some(text) = page_text(status) {
            body.extend_from_slice(b"<center>");
            body.extend_from_slice(text.as_bytes());
            body.extend_from_slice(b"</center>\r\n");
        }
        body.extend_from_slice(b"<hr><center>");
        body.extend_from_slice(&tail);
        body.extend_from_slice(b"</center>\r\n</body>\r\n</html>\r\n");
    }
    let content_type: Option<&[u8]> = if body.is_empty() { None } else { Some(b"text/html") };
    let own = Own { status: status_to_send, content_type, location, fields, body: &body, modified: None };
    send_own(job, own).await
}

/// Gives the title of the page for a status that has one.
fn page_title(status: u16) -> Option<&'static str> {
    match status {
        304 => None,
        302 => Some("302 Found"),
        401 => Some("401 Authorization Required"),
        494 => Some("400 Request Header Or Cookie Too Large"),
        495 => Some("400 The SSL certificate error"),
        496 => Some("400 No required SSL certificate was sent"),
        497 => Some("400 The plain HTTP request was sent to HTTPS port"),
        498 => Some("404 Not Found"),
        503 => Some("503 Service Temporarily Unavailable"),
        300..=599 => encode::status_line(status),
        _ => None,
    }
}

fn page_heading(status: u16) -> Option<&'static str> {
    matches!(status, 494..=497).then_some("400 Bad Request")
}

/// Gives the text below the heading: of nginx's own statuses what their title says after the number.
fn page_text(status: u16) -> Option<&'static str> {
    let title = page_title(status).filter(|_| matches!(status, 494..=497))?;
    title.strip_prefix("400 ")
}

/// Makes the URL of a redirect to a path: absolute unless `absolute_redirect` is off.
pub(crate) fn absolute_url(job: &Job<'_>, path: &[u8]) -> Vec<u8> {
    let core = &job.place().scope.core;
    let mut url = Vec::new();
    if core.absolute_redirect {
        url.extend_from_slice(b"http://");
        let name = &job.ex.server(&job.view).name;
        if core.server_name_in_redirect && !name.is_empty() {
            url.extend_from_slice(name.as_bytes());
        } else if !job.ex.host.is_empty() {
            url.extend_from_slice(&job.ex.host);
        } else if let Some(address) = job.client.local_address() {
            url.extend_from_slice(address.ip().to_string().as_bytes());
        }
        let listener = job.view.snapshot.listener(&job.client.listener);
        let listener = listener.and_then(|listener| job.view.snapshot.listeners.get(listener));
        let port = listener.map_or(80, |listener| listener.declared_port);
        if core.port_in_redirect && port != 80 && port != 0 {
            url.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    url.extend_from_slice(path);
    url
}

/// How long the client may take between two reads of its own, for callers that write by themselves.
pub(crate) fn send_timeout(job: &Job<'_>) -> Duration {
    job.place().scope.core.send_timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_of_expires() {
        assert_eq!(parse_time("1h30m"), Some(5400));
        assert_eq!(parse_time("90"), Some(90));
        assert_eq!(parse_time("x"), None);
        assert_eq!(parse_expires(b"-1"), Some(Expires::Access(-1)));
        assert_eq!(parse_expires(b"modified +24h"), Some(Expires::Modified(86_400)));
        assert_eq!(parse_expires(b"@15h30m"), Some(Expires::Daily(55_800)));
        assert_eq!(parse_expires(b"off"), None);
    }
}
