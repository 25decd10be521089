//! `error_page`, and the pages that are sent where it has nothing to say.

use keel_http::Lines;
use keel_model::ErrorPageStatus;

use crate::{
    job::{Flow, Job},
    respond,
};

/// Ends a request with a status: with the page configured for it, else with the built-in one.
pub(crate) async fn finish(job: &mut Job<'_>, status: u16) -> Flow {
    finish_with(job, status, None).await
}

/// Ends a request with a status and, for a redirect, its location.
pub(crate) async fn finish_with(job: &mut Job<'_>, status: u16, location: Option<Vec<u8>>) -> Flow {
    if job.ex.head_sent {
        // It is too late for another response: all that can be said is that this one isn't whole.
        return Flow::Close;
    }
    // Nobody waits for a response any more (408, 499), or none is to be sent (444).
    if matches!(status, 408 | 444 | 499) {
        job.ex.status = status;
        return Flow::Close;
    }
    if let Some(flow) = configured_page(job, status).await {
        return flow;
    }
    if job.ex.error_status != 0 {
        job.ex.forced_status = Some(job.ex.error_status).filter(|_| status == job.ex.error_status);
    }
    let retry_after = job.ex.retry_after.take();
    let mut fields = Lines::default();
    if let Some(value) = retry_after {
        fields.field("Retry-After", value);
    }
    respond::send_special(job, status, location, fields).await
}

/// Goes to the page that `error_page` names for the status, if it does.
async fn configured_page(job: &mut Job<'_>, status: u16) -> Option<Flow> {
    let view = job.view.clone();
    let core = &job.ex.place(&view).scope.core;
    if job.ex.error_page || core.error_pages.is_empty() {
        return None;
    }
    let page = core.error_pages.iter().find(|page| page.status == status)?;
    if !core.recursive_error_pages {
        job.ex.error_page = true;
    }
    if matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501) {
        job.ex.keep_alive = false;
    }
    let shown = if matches!(status, 494..=497) { 400 } else { status };
    let uri = job.text(&page.uri);
    job.ex.forced_status = match page.response {
        ErrorPageStatus::Keep => Some(shown),
        ErrorPageStatus::Fixed(status) => Some(status),
        ErrorPageStatus::FromPage => None,
    };
    if uri.starts_with(b"/") {
        if !job.ex.is_head() {
            job.ex.method = crate::exchange::Method::Get;
            job.ex.as_get = true;
        }
        return Some(go_to(job, &uri));
    }
    if uri.starts_with(b"@") {
        return Some(go_to(job, &uri));
    }
    let redirect = match page.response {
        ErrorPageStatus::Fixed(status @ (301 | 302 | 303 | 307 | 308)) => status,
        _ => 302,
    };
    job.ex.forced_status = None;
    Some(respond::send_special(job, redirect, Some(uri), Lines::default()).await)
}

/// Redirects within the server: to a URI, or to a named location.
pub(crate) fn go_to(job: &mut Job<'_>, uri: &[u8]) -> Flow {
    if !uri.starts_with(b"@") {
        job.ex.redirect(uri);
        return Flow::Redirect;
    }
    let view = job.view.clone();
    let name = String::from_utf8_lossy(uri);
    match job.ex.server(&view).named.get(name.as_ref()) {
        Some(place) => {
            job.ex.place = Some(*place);
            job.ex.internal = true;
            Flow::Named
        }
        None => {
            let text = format!("could not find named location \"{name}\"");
            job.client.log_error(job.worker, job.ex, &text);
            job.ex.error_page = true;
            Flow::Status(500)
        }
    }
}
