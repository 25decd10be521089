//! The content phase: a peer answers, or a file.

use crate::{
    job::{Flow, Job},
    phase::files,
    upstream,
};

/// Lets whoever the location names answer.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    // Boxed: small pieces come cheaper from the allocator than one that has room for everything.
    if job.place().proxy.is_some() {
        Box::pin(upstream::proxy(job)).await
    } else {
        Box::pin(files::serve(job)).await
    }
}
