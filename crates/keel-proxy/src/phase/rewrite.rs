//! The phases `server rewrite` and `rewrite`: `return`.

use keel_http::Name;
use keel_model::Return;

use crate::{
    job::{Flow, Job},
    phase::{error_page, files},
    respond::{self, Own},
};

/// Acts on the server's `return`.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    if job.ex.place(&view).answer.is_some() {
        job.client.limit_keep_alive(job.worker, job.ex, &view);
    }
    run_location(job).await
}

/// Acts on the place's `return`.
pub(super) async fn run_location(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    match &job.ex.place(&view).answer {
        Some(answer) => Box::pin(send(job, answer)).await,
        None => Flow::Next,
    }
}

/// Answers as `return` says. An error without a text gets the page for its status; everything else is sent as it is,
/// with the media type of the URI's ending, as a file would have it.
async fn send(job: &mut Job<'_>, answer: &Return) -> Flow {
    let status = answer.status;
    let text = answer.text.as_ref().filter(|text| !text.parts.is_empty());
    if status >= 400 && text.is_none() {
        return Flow::Status(status);
    }
    // The text may tell it: `$status`.
    job.ex.status = job.ex.forced_status.unwrap_or(status);
    let text = text.map(|text| job.text(text)).unwrap_or_default();
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        let url = if text.first() == Some(&b'/') { respond::absolute_url(job, &text) } else { text };
        return error_page::finish_with(job, status, Some(url)).await;
    }
    if job.ex.status == 200 {
        match condition(job) {
            Condition::Holds => {}
            Condition::NotModified => {
                job.ex.forced_status = None;
                return respond::send_own(job, Own::status(304)).await;
            }
            Condition::Failed => return Flow::Status(412),
        }
    }
    let content_type = files::content_type(job).to_owned();
    let own = Own { content_type: Some(content_type.as_bytes()), body: &text, ..Own::status(status) };
    respond::send_own(job, own).await
}

/// What a request's conditions say to a response that has neither a date nor an `ETag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Holds,
    NotModified,
    Failed,
}

fn condition(job: &Job<'_>) -> Condition {
    let any = |name| job.ex.field(name).map(|value| value == b"*");
    if job.ex.field(Name::IfUnmodifiedSince).is_some() || any(Name::IfMatch) == Some(false) {
        return Condition::Failed;
    }
    let dated = job.ex.field(Name::IfModifiedSince).is_some();
    if !dated && any(Name::IfNoneMatch) == Some(true) { Condition::NotModified } else { Condition::Holds }
}
