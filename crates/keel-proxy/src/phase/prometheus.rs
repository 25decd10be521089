//! `prometheus`: what has been counted, as text.

use std::sync::Arc;

use crate::{
    answer::Answer,
    exchange::Method,
    job::{Flow, Job},
};

/// Answers with the text. It is made beside the worker: there may be thousands of peers.
pub(super) async fn serve(job: &mut Job<'_>) -> Flow {
    if !matches!(job.ex.routed.method, Method::Get | Method::Head) {
        return Flow::status(405);
    }
    let snapshot: Arc<_> = job.view.snapshot.clone();
    let counters = job.worker.all_counters.clone();
    let made = tokio::task::spawn_blocking(move || {
        keel_metrics::text(snapshot.status(&counters), keel_metrics::Instances::new())
    });
    match made.await {
        Ok(text) => Flow::Answer(Answer::text(200, keel_metrics::CONTENT_TYPE, text.into_bytes())),
        Err(_) => Flow::status(500),
    }
}
