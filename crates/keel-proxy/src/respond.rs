//! Response heads, and responses that the proxy makes itself.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};

use keel_http::{Lines, Message, Name, Status, Unwritable, date, encode};
use keel_model::{Expires, ServerTokens};

use crate::{
    browser::Browser,
    error::ClientGone,
    job::{Flow, Job},
    snapshot::FieldProgram,
};

/// The version of nginx whose behaviour this one has, which clients and tests that look for it are told.
pub(crate) const NGINX_VERSION: &str = "1.31.5";

/// What makes a page of an error longer, and how often.
const PADDING_LINE: &[u8] = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";
const PADDING_LINES: usize = 6;

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
    /// Further fields.
    pub(crate) fields: Lines,
    pub(crate) body: &'a [u8],
    /// When the file behind it was changed, for `expires modified`.
    pub(crate) modified: Option<i64>,
}

impl Own<'_> {
    pub(crate) fn status(status: u16) -> Self {
        Own {
            status,
            content_type: None,
            location: None,
            fields: Lines::default(),
            body: b"",
            modified: None,
        }
    }
}

/// Begins the response's head: status line, `Server` and `Date`.
pub(crate) fn begin_head(job: &Job<'_>, status: Status<'_>, server: bool, date: bool, out: &mut Lines) {
    out.status_line(status);
    if server {
        match &job.place().scope.core.server_tokens {
            ServerTokens::On => out.fixed("Server: nginx/1.31.5\r\n"),
            ServerTokens::Text(_) if job.ex.plain_fields => out.fixed("Server: nginx\r\n"),
            _ => {
                if let Some(text) = server_text(job) {
                    out.field("Server", &text);
                }
            }
        }
    }
    if date {
        out.field("Date", &job.worker.clock.date());
    }
}

/// Writes the response's last fields: `Connection`, `expires`, `add_header`.
pub(crate) fn finish_head(job: &Job<'_>, status: u16, modified: Option<i64>, out: &mut Lines) {
    let core = &job.place().scope.core;
    if status == 101 {
        out.fixed("Connection: upgrade\r\n");
    } else if job.ex.keep_alive {
        out.fixed("Connection: keep-alive\r\n");
        if let Some(time) = core.keepalive_header {
            out.field("Keep-Alive", format!("timeout={}", time.as_secs()).as_bytes());
        }
    } else {
        out.fixed("Connection: close\r\n");
    }
    out.append(&job.ex.carried);
    if !job.ex.plain_fields {
        add_fields(job, status, modified, out);
    }
}

/// Notes that a response can't be written as the configuration wants it; what is sent instead has none of its fields.
pub(crate) fn note_unwritable(job: &mut Job<'_>, unwritable: &Unwritable) {
    let text = format!("the response can't be sent: {unwritable}");
    job.client.log_error(job.worker, job.ex, &text);
    job.ex.plain_fields = true;
    job.ex.carried.clear();
}

/// Says whether `add_trailer` wants fields behind the body, and the client can read them.
pub(crate) fn adds_trailers(job: &Job<'_>, status: u16) -> bool {
    let mut trailers = job.place().added_trailers.iter();
    job.ex.is_http11()
        && !job.ex.plain_fields
        && trailers.any(|trailer| trailer.always || is_plain_status(status))
}

/// Appends the fields of `add_trailer`.
pub(crate) fn write_trailers(job: &Job<'_>, status: u16, out: &mut Lines) {
    if !job.ex.is_http11() {
        return;
    }
    for trailer in &job.place().added_trailers {
        if trailer.always || is_plain_status(status) {
            write_field(job, &trailer.field, out);
        }
    }
}

/// Writes a field of the configuration.
fn write_field(job: &Job<'_>, field: &FieldProgram, out: &mut Lines) {
    if let Some(ready) = &field.ready {
        out.append(ready);
        return;
    }
    let mut value = Vec::new();
    let lookup = crate::variables::Lookup { head: Some(out.as_bytes()), ..job.lookup() };
    lookup.append_template(&field.value, &mut value);
    out.named(&field.name, |out| out.extend_from_slice(&value));
}

/// Says whether `add_header` without `always`, and `expires`, act on a status.
pub(crate) fn is_plain_status(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn add_fields(job: &Job<'_>, status: u16, modified: Option<i64>, out: &mut Lines) {
    let headers = &job.place().scope.headers;
    let plain = is_plain_status(status);
    if plain && headers.expires != Expires::Off {
        add_expires(job, &headers.expires, modified, out);
    }
    for add in &job.place().added {
        if !plain && !add.always {
            continue;
        }
        let name = &add.field.name;
        // Of these there is one: the operator's takes the place of any other, and none is none.
        if !matches!(name.known(), Name::Etag | Name::LastModified | Name::Expires) {
            write_field(job, &add.field, out);
            continue;
        }
        let mut value = Vec::new();
        let lookup = crate::variables::Lookup { head: Some(out.as_bytes()), ..job.lookup() };
        lookup.append_template(&add.field.value, &mut value);
        out.remove(name);
        out.named(name, |out| out.extend_from_slice(&value));
    }
}

fn add_expires(job: &Job<'_>, expires: &Expires, modified: Option<i64>, out: &mut Lines) {
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
    out.field("Expires", date::http(at).as_bytes());
    match max_age {
        Some(age) => out.field("Cache-Control", format!("max-age={age}").as_bytes()),
        None => out.fixed("Cache-Control: no-cache\r\n"),
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
    let mut trailers = Lines::default();
    if trailed {
        write_trailers(job, status, &mut trailers);
    }
    let head = write_own_head(job, status, &own, bodyless, trailed);
    let mut message = match trailers.check().and(head.end()) {
        Ok(message) => message,
        Err(unwritable) if !job.ex.plain_fields => {
            note_unwritable(job, &unwritable);
            return Box::pin(send_special(job, 500, None, Lines::default())).await;
        }
        Err(_) => return Flow::Close,
    };
    if !bodyless && !job.ex.is_head() {
        if trailed {
            let mut body = Vec::new();
            encode::chunk(own.body, &mut body);
            trailers.write_last_chunk(&mut body);
            message.append(&body);
            job.ex.sent_trailers = trailers;
        } else {
            message.append(own.body);
        }
    }
    let sent = send_message(job, &message, b"").await;
    job.ex.head_sent = true;
    let body_sent = message.as_bytes().len() - message.head_length();
    job.ex.sent_head = message.into_head();
    match sent {
        Ok(()) => {
            job.ex.body_bytes_sent = body_sent as u64;
            job.ex.complete = true;
            Flow::Done
        }
        Err(ClientGone) => Flow::Close,
    }
}

fn write_own_head(job: &mut Job<'_>, status: u16, own: &Own<'_>, bodyless: bool, trailed: bool) -> Lines {
    let mut head = Lines::in_buffer(std::mem::take(&mut job.ex.sent_head));
    begin_head(job, Status::Own(status), true, true, &mut head);
    // `return 304` describes a body that it doesn't send; a 304 of a file has nothing to describe.
    let described = !bodyless || (status == 304 && own.content_type.is_some());
    if described {
        if let Some(content_type) = own.content_type.filter(|content_type| !content_type.is_empty()) {
            head.field("Content-Type", content_type);
        }
        if trailed {
            head.fixed("Transfer-Encoding: chunked\r\n");
        } else {
            head.number("Content-Length", own.body.len() as u64);
        }
    }
    if let Some(location) = &own.location {
        head.uri(b"Location", b"", location);
    }
    head.append(&own.fields);
    finish_head(job, status, own.modified, &mut head);
    head
}

/// Sends a head, what of the body goes with it, and a piece behind that.
pub(crate) async fn send_message(
    job: &mut Job<'_>,
    message: &Message,
    rest: &[u8],
) -> Result<(), ClientGone> {
    send_all(job, message.as_bytes(), rest).await
}

/// Sends the beginning of a response that a peer didn't end.
pub(crate) async fn send_rest(job: &mut Job<'_>, rest: &[u8]) -> Result<(), ClientGone> {
    send_all(job, rest, b"").await
}

/// Sends a piece of a body whose head has been sent.
pub(crate) async fn send_body(job: &mut Job<'_>, piece: &[u8]) -> Result<(), ClientGone> {
    debug_assert!(job.ex.head_sent);
    send_all(job, piece, b"").await
}

/// Tells a client that waits for it to send its body.
pub(crate) async fn send_continue(job: &mut Job<'_>) -> Result<(), ClientGone> {
    send_all(job, b"HTTP/1.1 100 Continue\r\n\r\n", b"").await
}

/// Writes all of two pieces to the client.
async fn send_all(job: &mut Job<'_>, first: &[u8], second: &[u8]) -> Result<(), ClientGone> {
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
    fields: Lines,
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
        if status >= 400 && is_padded(job) {
            (0..PADDING_LINES).for_each(|_| body.extend_from_slice(PADDING_LINE));
        }
    }
    let content_type: Option<&[u8]> = if body.is_empty() { None } else { Some(b"text/html") };
    let own = Own { status: status_to_send, content_type, location, fields, body: &body, modified: None };
    send_own(job, own).await
}

/// Says whether the browser would replace a short page by its own (`msie_padding`).
fn is_padded(job: &Job<'_>) -> bool {
    let browser = job.ex.field(Name::UserAgent).map(Browser::of);
    job.place().scope.core.msie_padding
        && matches!(browser, Some(Browser::OldMsie | Browser::Msie | Browser::Chrome))
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
