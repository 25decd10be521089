//! The phase that finds the location for a path.

use keel_http::RequestBody;

use super::{limit_except, redirect};
use crate::{
    answer::Special,
    job::{Flow, Job},
    snapshot::{Found, PlaceKind},
};

/// Finds the location, adds a missing slash, refuses bodies that are too large.
pub(super) fn run(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    let server = job.ex.server(&view);
    let mut slash = None;
    match server.tree.find(&view.snapshot, &job.ex.routed.uri) {
        Found::Nowhere => job.ex.routed.place = Some(server.root),
        Found::Place(place) => job.ex.routed.place = Some(place),
        Found::Matched(place, regex) => {
            job.ex.routed.place = Some(place);
            let uri = std::mem::take(&mut job.ex.routed.uri);
            let taken = job.ex.take_groups(&view.snapshot, regex, &uri);
            job.ex.routed.uri = uri;
            if let Err(error) = taken {
                let text = format!("{error}: \"{}\" of location", regex.source());
                job.client.log_error(job.worker, job.ex, &text);
                return Flow::status(500);
            }
        }
        Found::AddSlash(place) => {
            job.ex.routed.place = Some(place);
            let PlaceKind::Prefix(name) = &view.snapshot.place(place).kind else { return Flow::status(500) };
            slash = Some(name);
        }
    }
    limit_except::run(job);
    job.client.limit_keep_alive(job.worker, job.ex, &view);
    let core = &view.snapshot.place(job.ex.routed.place.unwrap_or(server.root)).scope.core;
    if core.internal && !job.ex.routed.internal {
        return Flow::status(404);
    }
    if let RequestBody::Length(length) = job.ex.received.head.body
        && job.ex.routed.depth == 0
        && !job.ex.received.body_is_lost
        && core.client_max_body_size.0 != 0
        && length > core.client_max_body_size.0
    {
        let text = format!("client intended to send too large body: {length} bytes");
        job.client.log_error(job.worker, job.ex, &text);
        job.ex.sent.linger = true;
        job.ex.received.body_is_lost = true;
        return Flow::status(413);
    }
    match slash {
        Some(name) => add_slash(job, name),
        None => Flow::Next,
    }
}

/// Sends the client to the place whose name is the path with a slash behind it.
fn add_slash(job: &Job<'_>, name: &str) -> Flow {
    let mut path = Vec::new();
    keel_http::uri::escape(name.as_bytes(), &mut path);
    if !job.ex.routed.args.is_empty() {
        path.push(b'?');
        path.extend_from_slice(&job.ex.routed.args);
    }
    Flow::Status(Box::new(Special::moved(301, redirect::absolute_url(job.lookup(), &path))))
}
