//! `mirror`: copies of the request go elsewhere, and nobody waits for what is answered.

use crate::{
    body::RequestBodyStore,
    client,
    job::{Flow, Job},
    subrequest,
};

/// Begins the copies; with `mirror_request_body` the body is read whole first.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    let mirror = &job.ex.place(&view).scope.mirror;
    if mirror.request_body
        && client::has_body(job)
        && let Err(failure) = client::read_whole(job).await
    {
        return client::body_failed(job, failure);
    }
    for path in &mirror.paths {
        let body =
            if mirror.request_body { job.ex.received.body.share() } else { Ok(RequestBodyStore::None) };
        match body {
            Ok(body) => subrequest::spawn(job, path.as_bytes(), body),
            Err(error) => {
                let text = format!("a request's body can't be copied for \"{path}\": {error}");
                job.client.log_error(job.worker, job.ex, &text);
            }
        }
    }
    Flow::Next
}
