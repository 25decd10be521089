//! What is done with a request, in nginx's order. One file for each phase; each says what follows.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod access;
mod auth_basic;
mod auth_request;
mod autoindex;
mod content;
mod empty_gif;
mod error_page;
pub(crate) mod files;
mod find_location;
mod gzip_static;
pub(crate) mod limit_conn;
mod limit_except;
pub(crate) mod limit_req;
mod log;
mod mirror;
mod page;
mod pause;
mod prometheus;
mod random_index;
pub(crate) mod realip;
pub(crate) mod redirect;
mod rewrite;
pub(crate) mod stub_status;
mod try_files;

use crate::{
    job::{Ended, Flow, Job},
    send::{self, Sent},
    subrequest, upstream,
};

pub(crate) use log::log;
use redirect::Restart;
use rewrite::Rewritten;

/// Where the phases begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Server,
    Location,
}

/// Takes a request through all phases until its response has been sent.
pub(crate) async fn run(job: &mut Job<'_>) -> Ended {
    let ended = go(job, Next::Phases(Start::Server)).await;
    if job.ex.routed.depth == 0 && job.place().scope.core.post_action.is_some() {
        subrequest::spawn_behind(job);
    }
    ended
}

/// Takes a request through the phases from a path or named location on.
pub(crate) async fn run_at(job: &mut Job<'_>, uri: &[u8]) -> Ended {
    let flow = redirect::to(job, uri);
    go(job, Next::Decided(flow)).await
}

/// Answers a request that can't be taken with a status.
pub(crate) async fn refuse(job: &mut Job<'_>, status: u16) -> Ended {
    go(job, Next::Decided(Flow::status(status))).await
}

/// What is to be done next.
enum Next {
    Phases(Start),
    Decided(Flow),
}

async fn go(job: &mut Job<'_>, mut next: Next) -> Ended {
    loop {
        let flow = match next {
            Next::Phases(start) => pass(job, start).await,
            Next::Decided(flow) => flow,
        };
        next = match flow {
            Flow::Answer(answer) => match send::send(job, answer).await {
                Sent::Whole => return Ended::Answered,
                Sent::Cut => return Ended::Closed,
                Sent::Instead(special) => Next::Decided(Flow::Status(Box::new(special))),
                Sent::Broken(broken) => Next::Decided(Box::pin(upstream::resume(job, broken)).await),
            },
            Flow::Status(special) => Next::Decided(error_page::answer(job, *special)),
            Flow::Redirect { uri, restart } => match redirect::follow(job, uri, restart) {
                Ok(()) if restart == Restart::Server => Next::Phases(Start::Server),
                Ok(()) => Next::Phases(Start::Location),
                Err(flow) => Next::Decided(flow),
            },
            Flow::Close => return Ended::Closed,
            // The last phase always decides.
            Flow::Next => Next::Decided(Flow::status(404)),
        };
    }
}

async fn pass(job: &mut Job<'_>, start: Start) -> Flow {
    if start == Start::Server {
        job.ex.routed.place = Some(job.ex.server(&job.view).root);
        if std::mem::take(&mut job.ex.routed.host_unmatched) {
            return Flow::status(500);
        }
        realip::run(job);
        if !job.place().rewrite.is_empty() {
            let view = job.view.clone();
            job.client.limit_keep_alive(job.worker, job.ex, &view);
            match rewrite::run(job, &view) {
                // The location is looked for in any case.
                Rewritten::Next | Rewritten::Moved => {}
                Rewritten::Return(answer) => return Box::pin(rewrite::answer(job, answer)).await,
                Rewritten::Decided(flow) => return flow,
            }
        }
        match find_location::run(job) {
            Flow::Next => {}
            flow => return flow,
        }
    }
    if start == Start::Location {
        limit_except::run(job);
    }
    while rewrite::is_set(job) {
        let view = job.view.clone();
        match rewrite::run(job, &view) {
            Rewritten::Next => break,
            Rewritten::Moved => {}
            Rewritten::Return(answer) => return Box::pin(rewrite::answer(job, answer)).await,
            Rewritten::Decided(flow) => return flow,
        }
        if let Err(flow) = redirect::count(job, "processing") {
            return flow;
        }
        job.ex.routed.place = Some(job.ex.server(&job.view).root);
        match find_location::run(job) {
            Flow::Next => {}
            flow => return flow,
        }
    }
    realip::run(job);
    if job.place().limits.is_some() {
        match Box::pin(limit_req::run(job)).await {
            Flow::Next => {}
            flow => return flow,
        }
        match limit_conn::run(job) {
            Flow::Next => {}
            flow => return flow,
        }
    }
    if access::is_set(job) {
        match Box::pin(access::run(job)).await {
            Flow::Next => {}
            flow => return flow,
        }
    }
    match try_files::run(job) {
        Flow::Next => {}
        flow => return flow,
    }
    if job.ex.routed.depth == 0 && !job.place().scope.mirror.paths.is_empty() {
        match Box::pin(mirror::run(job)).await {
            Flow::Next => {}
            flow => return flow,
        }
    }
    content::run(job).await
}
