//! The phases `server rewrite` and `rewrite`: `return`.

use keel_model::Return;

use super::{files, redirect};
use crate::{
    answer::{Answer, Special},
    downstream,
    job::{Flow, Job},
};

/// Says whether the place has something to say here. Most have not, and are spared the rest.
pub(super) fn is_set(job: &Job<'_>) -> bool {
    job.place().answer.is_some()
}

/// Acts on the server's `return`.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    job.client.limit_keep_alive(job.worker, job.ex, &view);
    run_location(job).await
}

/// Acts on the place's `return`.
pub(super) async fn run_location(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    match &job.ex.place(&view).answer {
        Some(return_) => answer(job, return_).await,
        None => Flow::Next,
    }
}

/// Answers as `return` says. An error without a text gets the page for its status; everything else is sent as it is,
/// with the media type of the URI's ending, as a file would have it.
async fn answer(job: &mut Job<'_>, answer: &Return) -> Flow {
    let status = answer.status;
    let text = answer.text.as_ref().filter(|text| !text.parts.is_empty());
    if status >= 400 && text.is_none() {
        return Flow::status(status);
    }
    // The text may tell it: `$status`.
    job.ex.sent.status = job.ex.sent.forced_status.unwrap_or(status);
    let text = text.map(|text| job.text(text)).unwrap_or_default();
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        let url =
            if text.first() == Some(&b'/') { redirect::absolute_url(job.lookup(), &text) } else { text };
        return Flow::Status(Special::moved(status, url));
    }
    if downstream::expect_continue(job).await.is_err() {
        return Flow::Close;
    }
    Flow::Answer(Answer::text(status, files::content_type(job), text))
}
