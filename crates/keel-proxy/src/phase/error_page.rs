//! `error_page`, and the pages that are sent where it has nothing to say.

use keel_http::Lines;
use keel_model::ErrorPageStatus;

use super::{page, redirect};
use crate::{
    answer::Special,
    exchange::Method,
    job::{Flow, Job},
};

/// Ends a request with a status: with the page configured for it, else with the built-in one.
pub(super) fn answer(job: &mut Job<'_>, special: Special) -> Flow {
    let status = special.status;
    if job.ex.sent.begun {
        // It is too late for another response: all that can be said is that this one isn't whole.
        return Flow::Close;
    }
    // Nobody waits for a response any more (408, 499), or none is to be sent (444).
    if matches!(status, 408 | 444 | 499) {
        job.ex.sent.status = status;
        return Flow::Close;
    }
    if closes(status) {
        job.ex.sent.keep_alive = false;
    }
    if let Some(flow) = configured(job, &special) {
        return flow;
    }
    // What an error page was to be sent with is over: this is the status of the error that it met.
    job.ex.sent.forced_status = None;
    let mut special = special;
    if let Some(value) = job.ex.sent.retry_after.take() {
        special.fields.field("Retry-After", value);
    }
    Flow::Answer(page::answer(job, special))
}

/// Says whether the connection closes behind such a response.
fn closes(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501)
}

/// Goes to the page that `error_page` names for the status, if it does.
fn configured(job: &mut Job<'_>, special: &Special) -> Option<Flow> {
    let view = job.view.clone();
    let core = &job.ex.place(&view).scope.core;
    if job.ex.routed.error_page || core.error_pages.is_empty() {
        return None;
    }
    let page = core.error_pages.iter().find(|page| page.status == special.status)?;
    if !core.recursive_error_pages {
        job.ex.routed.error_page = true;
    }
    let uri = job.text(&page.uri);
    if uri.starts_with(b"/") || uri.starts_with(b"@") {
        job.ex.sent.forced_status = match page.response {
            ErrorPageStatus::Keep => Some(page::shown(special.status)),
            ErrorPageStatus::Fixed(status) => Some(status),
            ErrorPageStatus::FromPage => None,
        };
        job.ex.sent.carried.append(&special.fields);
        job.ex.sent.location.clone_from(&special.location);
        if uri.starts_with(b"/") && !job.ex.is_head() {
            job.ex.routed.method = Method::Get;
            job.ex.routed.as_get = true;
        }
        return Some(redirect::to(job, &uri));
    }
    let status = match page.response {
        ErrorPageStatus::Fixed(status @ (301 | 302 | 303 | 307 | 308)) => status,
        _ => 302,
    };
    job.ex.sent.forced_status = None;
    let special = Special { status, location: Some(uri), fields: Lines::default() };
    Some(Flow::Answer(page::answer(job, special)))
}
