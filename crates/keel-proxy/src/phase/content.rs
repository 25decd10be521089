//! The content phase: a peer answers, a file, or what the configuration names.

use keel_model::Content;

use crate::{
    job::{Flow, Job},
    phase::{empty_gif, files, prometheus, stub_status},
    upstream,
};

/// Lets whoever the location names answer.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    if job.place().proxy.is_some() {
        return upstream::proxy(job).await;
    }
    // Boxed: a request for a peer needs no room for it.
    match job.place().scope.content {
        Content::StubStatus => Box::pin(stub_status::run(job)).await,
        Content::EmptyGif => Box::pin(empty_gif::run(job)).await,
        Content::Prometheus => Box::pin(prometheus::serve(job)).await,
        Content::Static
        | Content::Proxy(_)
        | Content::Grpc(_)
        | Content::FastCgi(_)
        | Content::Uwsgi(_)
        | Content::Scgi(_) => Box::pin(files::serve(job)).await,
    }
}
