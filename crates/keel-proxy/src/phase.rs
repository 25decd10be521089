//! What is done with a request, in nginx's order. One file for each phase; each says what follows.

mod access;
mod content;
pub(crate) mod error_page;
pub(crate) mod files;
mod find_location;
mod log;
mod rewrite;
mod try_files;

use crate::{
    exchange::REDIRECTS_MAX,
    job::{Flow, Job},
};

pub(crate) use log::log;

/// Where the phases begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Server,
    Location,
}

/// Takes a request through all phases until its response has been sent. Says whether the connection may go on.
pub(crate) async fn run(job: &mut Job<'_>) -> Flow {
    let mut start = Start::Server;
    loop {
        let flow = pass(job, start).await;
        let flow = match flow {
            Flow::Status(status) => Box::pin(error_page::finish(job, status)).await,
            flow => flow,
        };
        start = match flow {
            Flow::Redirect => Start::Server,
            Flow::Named => Start::Location,
            Flow::Next | Flow::Done | Flow::Close | Flow::Status(_) => return flow,
        };
        job.ex.redirects += 1;
        if job.ex.redirects > REDIRECTS_MAX {
            job.client.log_error(job.worker, job.ex, "rewrite or internal redirection cycle");
            job.ex.error_page = true;
            job.ex.forced_status = None;
            return Box::pin(crate::respond::send_special(job, 500, None, keel_http::Lines::default())).await;
        }
    }
}

async fn pass(job: &mut Job<'_>, start: Start) -> Flow {
    if start == Start::Server {
        job.ex.place = Some(job.ex.server(&job.view).root);
        if std::mem::take(&mut job.ex.host_unmatched) {
            return Flow::Status(500);
        }
        match rewrite::run(job).await {
            Flow::Next => {}
            flow => return flow,
        }
        match find_location::run(job).await {
            Flow::Next => {}
            flow => return flow,
        }
    }
    if let flow @ (Flow::Status(_) | Flow::Done | Flow::Close | Flow::Redirect | Flow::Named) =
        rewrite::run_location(job).await
    {
        return flow;
    }
    if let Flow::Status(status) = access::run(job) {
        return Flow::Status(status);
    }
    match try_files::run(job) {
        Flow::Next => content::run(job).await,
        flow => flow,
    }
}
