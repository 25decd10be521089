//! Requests that a request makes within this server: they go through the same phases, and their answers to another sink.
//!
//! A subrequest has an exchange and a client's side of its own. It shares nothing with the request that made it but the
//! names that both know, so that it may outlive it.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Poll, ready},
};

use keel_model::LogLevel;

use crate::{
    body::RequestBodyStore,
    client::{Capture, Client, ClientWatch, Part, Sink},
    error::Cause,
    exchange::{Exchange, Wanted},
    job::{Ended, Flow, Job},
    phase::{self, redirect::InternalUri},
    worker::{Background, View, Worker},
};

/// How deep subrequests may make others, as in nginx.
const DEPTH_MAX: u32 = 50;

/// Subrequests of one worker that nobody waits for, at most. Beyond it none is begun.
pub(crate) const BACKGROUND_MAX: u32 = 1024;

/// A request that another one waits for.
pub(crate) struct Subrequest {
    /// Its path.
    pub(crate) path: Vec<u8>,
    /// What the waiting request does with the answer; the second is the subrequest.
    pub(crate) done: fn(&mut Job<'_>, &mut Job<'_>),
}

/// A subrequest being made.
struct Inner {
    worker: Rc<Worker>,
    client: Client,
    ex: Box<Exchange>,
    view: Rc<View>,
}

impl Inner {
    /// Makes one beside the request `outer`; `None` where there is no room for it, which is logged.
    fn new(outer: &Job<'_>, path: &[u8], sink: Sink) -> Option<Self> {
        if outer.ex.routed.depth >= DEPTH_MAX {
            let text = format!("subrequests cycle while processing \"{}\"", String::from_utf8_lossy(path));
            outer.client.log_error(outer.worker, outer.ex, &text);
            return None;
        }
        let mut ex = outer.worker.take_exchange();
        ex.begin_within(outer.ex, path, outer.worker.clock.now());
        let client = outer.client.within(sink);
        Some(Self { worker: outer.worker.clone(), client, ex, view: outer.view.clone() })
    }

    fn job(&mut self) -> Job<'_> {
        Job { worker: &self.worker, client: &mut self.client, ex: &mut self.ex, view: self.view.clone() }
    }

    /// Logs it where the place wants that, and gives back what it held.
    fn end(mut self) {
        let job = self.job();
        if job.place().scope.core.log_subrequest {
            phase::log(&job);
        }
        drop(job);
        self.ex.reset();
        self.worker.buffers.give(std::mem::take(&mut self.ex.upstream.input));
        self.worker.give_exchange(self.ex);
    }
}

/// Makes a subrequest and waits for the head of its answer. An error is what the request ends with instead.
pub(crate) async fn run(job: &mut Job<'_>, subrequest: Subrequest) -> Result<(), Flow> {
    let sink = Sink::Capture(Capture::default());
    let Some(mut inner) = Inner::new(job, &subrequest.path, sink) else { return Err(Flow::status(500)) };
    inner.ex.routed.wanted = Wanted::Head;
    let ended = {
        let mut inner = inner.job();
        let running = pin!(phase::run(&mut inner));
        until_gone(job, running).await
    };
    if ended.is_none() {
        inner.end();
        return Err(Flow::status(499));
    }
    (subrequest.done)(job, &mut inner.job());
    inner.end();
    Ok(())
}

/// A response that becomes a part of another one.
pub(crate) struct Inclusion<'a> {
    pub(crate) uri: &'a InternalUri,
    /// The charset of the other one.
    pub(crate) charset: Option<&'a [u8]>,
}

/// Makes a subrequest whose body becomes a part of the answer that is being sent: `pass` takes it, piece by piece. An error is
/// also a subrequest that ends without an answer, or within it.
pub(crate) async fn include(
    job: &mut Job<'_>,
    Inclusion { uri, charset }: Inclusion<'_>,
    mut pass: impl AsyncFnMut(&mut Job<'_>, Vec<u8>) -> Result<(), Cause>,
) -> Result<(), Cause> {
    let part = Rc::new(RefCell::new(Part::default()));
    let Some(mut inner) = Inner::new(job, &uri.path, Sink::Part(part.clone())) else {
        return Err(Cause::Filter);
    };
    inner.ex.routed.args.extend_from_slice(&uri.args);
    inner.ex.sent.note_outer_charset(charset.map(<[u8]>::to_vec));
    let result = {
        let mut inner = inner.job();
        let mut running = Box::pin(phase::run(&mut inner));
        loop {
            let step = pin!(poll_fn(|cx| match running.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if part.borrow().is_empty() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            }));
            let Some(step) = until_gone(job, step).await else { break Err(Cause::ClientGone) };
            let piece = part.borrow_mut().take();
            let passed = if piece.is_empty() { Ok(()) } else { pass(job, piece).await };
            match (passed, step) {
                (Err(cause), _) => break Err(cause),
                (Ok(()), None) => {}
                (Ok(()), Some(Ended::Answered)) => break Ok(()),
                (Ok(()), Some(Ended::Closed)) => break Err(Cause::Filter),
            }
        }
    };
    inner.end();
    result
}

/// Waits for something as long as the client is there.
pub(crate) async fn until_gone<T>(
    job: &mut Job<'_>,
    mut running: std::pin::Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut watch = ClientWatch::default();
    let settings = job.place().scope.peer_settings();
    let watches = !settings.is_some_and(|settings| settings.ignore_client_abort);
    let (worker, client) = (job.worker, &mut *job.client);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = running.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if !watches {
            return Poll::Pending;
        }
        if watch.poll_gone(cx, client, worker.clock.now()).is_ready() {
            return Poll::Ready(None);
        }
        client.timer.set_at(watch.deadline());
        ready!(client.timer.poll_expired(&worker.clock, cx));
        Poll::Ready(None)
    })
    .await
}

/// Begins a subrequest that nobody waits for, with the method and the arguments of the request and a body of its own.
pub(crate) fn spawn(job: &Job<'_>, path: &[u8], body: RequestBodyStore) {
    let Some((mut inner, counted)) = background(job, path) else { return };
    inner.ex.received.body = body;
    tokio::task::spawn_local(async move {
        phase::run(&mut inner.job()).await;
        inner.end();
        drop(counted);
    });
}

/// Begins what `post_action` asks for, once the request has been answered: a subrequest that nobody waits for, whose variables
/// tell of the response that was sent.
pub(crate) fn spawn_behind(job: &Job<'_>) {
    let path = job.ex.routed.uri.clone();
    let Some((mut inner, counted)) = background(job, &path) else { return };
    let Some(action) = job.place().scope.core.post_action.clone() else { return };
    let (ex, answered) = (&mut inner.ex, &job.ex.sent);
    ex.received.started = job.ex.received.started;
    ex.received.body = job.ex.received.body.share().unwrap_or_default();
    ex.sent.status = answered.status;
    ex.sent.head.clone_from(&answered.head);
    (ex.sent.bytes, ex.sent.body_bytes) = (answered.bytes, answered.body_bytes);
    ex.sent.complete = answered.complete;
    ex.upstream.attempts.clone_from(&job.ex.upstream.attempts);
    tokio::task::spawn_local(async move {
        phase::run_at(&mut inner.job(), action.as_bytes()).await;
        inner.end();
        drop(counted);
    });
}

/// Makes a subrequest that nobody waits for, with the method and the arguments of the request; `None` where there is no room
/// for it, which is logged. The second is held while it runs.
fn background(job: &Job<'_>, path: &[u8]) -> Option<(Inner, Background)> {
    let worker = job.worker.clone();
    let Some(counted) = worker.begin_background() else {
        let text = format!("{BACKGROUND_MAX} background subrequests are not enough, one is left out");
        job.client.log(job.worker, job.ex, LogLevel::Warn, &text);
        return None;
    };
    let mut inner = Inner::new(job, path, Sink::Discard)?;
    let routed = &mut inner.ex.routed;
    routed.wanted = Wanted::Nothing;
    routed.method = job.ex.routed.method;
    routed.as_get = job.ex.routed.as_get;
    routed.args.extend_from_slice(&job.ex.routed.args);
    Some((inner, counted))
}

#[cfg(test)]
mod tests {
    use keel_model::{Location, Plan, Return};

    use crate::rig::{Rig, location};

    fn returning(path: &str, status: u16) -> Location {
        let mut location = location(path);
        location.rewrite = Return { status, text: None }.into();
        location
    }

    fn guarded(plan: &mut Plan, path: &str, asked: &str) {
        let mut location = location(path);
        location.scope.auth_request.path = Some(asked.into());
        plan.servers[0].locations.push(location);
    }

    #[test]
    fn the_answer_of_auth_request_decides() {
        let check = |asked: u16, expect: u16| {
            let rig = Rig::new(|plan| {
                guarded(plan, "/in", "/asked");
                plan.servers[0].locations.push(returning("/asked", asked));
            });
            let got = rig.request("GET /in HTTP/1.1\r\nHost: h\r\n\r\n");
            assert!(got.starts_with(&format!("HTTP/1.1 {expect} ")), "{asked}: {got}");
        };
        // What may pass finds no file.
        check(204, 404);
        check(401, 401);
        check(403, 403);
        check(404, 500);
        check(302, 500);
    }

    #[test]
    fn a_subrequest_asks_nobody_and_is_found_among_the_locations() {
        let rig = Rig::new(|plan| guarded(plan, "/", "/nowhere"));
        // `/nowhere` is in the guarded location itself; it isn't asked again, and there is no such file.
        let got = rig.request("GET /in HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 500 "), "{got}");
    }

    #[test]
    fn a_request_goes_on_once_it_has_been_answered() {
        let rig = Rig::new(|plan| {
            let mut location = location("/");
            location.scope.core.post_action = Some("@done".into());
            let mut done = returning("@done", 204);
            done.matcher = keel_model::LocationMatcher::Named("@done".into());
            plan.servers[0].locations.extend([location, done]);
        });
        rig.enter(async || {
            let got = rig.answer("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert!(got.starts_with("HTTP/1.1 404 "), "{got}");
            assert_eq!(rig.worker().background(), 1);
            while rig.worker().background() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn nobody_waits_for_a_mirror_and_each_is_counted_while_it_runs() {
        let rig = Rig::new(|plan| {
            let mut location = location("/");
            location.scope.mirror.paths = vec!["/copy".into(), "/copy".into()];
            plan.servers[0].locations.extend([location, returning("/copy", 204)]);
        });
        rig.enter(async || {
            let got = rig.answer("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert!(got.starts_with("HTTP/1.1 404 "), "{got}");
            assert_eq!(rig.worker().background(), 2);
            while rig.worker().background() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
