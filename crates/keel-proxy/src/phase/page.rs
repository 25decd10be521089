//! nginx's built-in pages for statuses.

use keel_http::{Name, encode, uri};
use keel_model::ServerTokens;

use crate::{
    answer::{Answer, Fields, Source, Special},
    browser::Browser,
    job::Job,
    send,
};

/// What makes a page of an error longer, and how often.
const PADDING_LINE: &[u8] = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";
const PADDING_LINES: usize = 6;

/// What stands before and behind the URL in a page that refreshes itself.
const REFRESH: [&[u8]; 2] =
    [b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=", b"\"></head><body></body></html>\r\n"];

/// Makes the answer for a status that no `error_page` replaces.
pub(super) fn answer(job: &Job<'_>, special: Special) -> Box<Answer> {
    if let (301 | 302, Some(url)) = (special.status, &special.location)
        && job.place().scope.core.msie_refresh
        && matches!(browser(job), Some(Browser::OldMsie | Browser::Msie))
    {
        return refresh(url);
    }
    let body = text(job, special.status);
    let fields = Fields {
        content_type: Some(b"text/html".to_vec()).filter(|_| !body.is_empty()),
        location: special.location,
        lines: special.fields,
        ..Fields::default()
    };
    Answer::with(shown(special.status), fields, Source::Bytes(body))
}

/// Makes a page that leads a browser elsewhere (`msie_refresh`).
fn refresh(url: &[u8]) -> Box<Answer> {
    let [before, behind] = REFRESH;
    let mut body = before.to_vec();
    uri::escape_attribute(url, &mut body);
    body.extend_from_slice(behind);
    Answer::text(200, "text/html", body)
}

fn browser(job: &Job<'_>) -> Option<Browser> {
    job.ex.field(Name::UserAgent).map(Browser::of)
}

/// The status that clients see: nginx has some of its own for kinds of 400.
pub(super) fn shown(status: u16) -> u16 {
    if matches!(status, 494..=497) { 400 } else { status }
}

/// Writes the page; statuses without a title have an empty one.
fn text(job: &Job<'_>, status: u16) -> Vec<u8> {
    let mut body = Vec::new();
    let Some(title) = title(status) else { return body };
    let tail = match &job.place().scope.core.server_tokens {
        ServerTokens::Off | ServerTokens::Text(_) => b"nginx".to_vec(),
        _ => send::server_text(job.lookup()).unwrap_or_default(),
    };
    let heading = heading(status).unwrap_or(title);
    body.extend_from_slice(b"<html>\r\n<head><title>");
    body.extend_from_slice(title.as_bytes());
    body.extend_from_slice(b"</title></head>\r\n<body>\r\n<center><h1>");
    body.extend_from_slice(heading.as_bytes());
    body.extend_from_slice(b"</h1></center>\r\n");
    if let Some(reason) = reason(status) {
        body.extend_from_slice(b"<center>");
        body.extend_from_slice(reason.as_bytes());
        body.extend_from_slice(b"</center>\r\n");
    }
    body.extend_from_slice(b"<hr><center>");
    body.extend_from_slice(&tail);
    body.extend_from_slice(b"</center>\r\n</body>\r\n</html>\r\n");
    if status >= 400 && is_padded(job) {
        (0..PADDING_LINES).for_each(|_| body.extend_from_slice(PADDING_LINE));
    }
    body
}

/// Says whether the browser would replace a short page by its own (`msie_padding`).
fn is_padded(job: &Job<'_>) -> bool {
    job.place().scope.core.msie_padding
        && matches!(browser(job), Some(Browser::OldMsie | Browser::Msie | Browser::Chrome))
}

/// The title of the page for a status that has one.
fn title(status: u16) -> Option<&'static str> {
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

fn heading(status: u16) -> Option<&'static str> {
    matches!(status, 494..=497).then_some("400 Bad Request")
}

/// The text below the heading: of nginx's own statuses what their title says after the number.
fn reason(status: u16) -> Option<&'static str> {
    let title = title(status).filter(|_| matches!(status, 494..=497))?;
    title.strip_prefix("400 ")
}
