//! The phases `server rewrite` and `rewrite`: `return`.

use crate::{
    job::{Flow, Job},
    respond,
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
        Some(answer) => Box::pin(respond::send_return(job, answer.status, answer.text.as_ref())).await,
        None => Flow::Next,
    }
}
