//! The content phase: a peer answers, or a file.

use keel_model::Content;

use crate::{
    job::{Flow, Job},
    phase::{files, prometheus},
    upstream,
};

/// Lets whoever the location names answer.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    if job.place().proxy.is_some() {
        upstream::proxy(job).await
    } else if job.place().scope.content == Content::Prometheus {
        Box::pin(prometheus::serve(job)).await
    } else {
        // Boxed: a request for a peer needs no room for it.
        Box::pin(files::serve(job)).await
    }
}
