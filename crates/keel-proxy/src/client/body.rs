//! Reading a request's body.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use keel_http::{Name, body::Decoder};

use super::flush;
use crate::{
    body::RequestBodyStore,
    error::BodyFailure,
    io::spool::Spool,
    job::{Flow, Job},
};

/// Tells a client that waits for it to send its body (RFC 9110 §10.1.1).
pub(crate) async fn expect_continue(job: &mut Job<'_>) -> Result<(), BodyFailure> {
    if std::mem::replace(&mut job.ex.received.expect_settled, true) || !job.ex.is_http11() {
        return Ok(());
    }
    let expects = job.ex.field(Name::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    // Bytes of the body that are there already say that the client didn't wait.
    if !expects || job.ex.received.input.len() > job.ex.received.consumed {
        return Ok(());
    }
    job.client.stream.put_continue();
    flush(job).await.map_err(|_| BodyFailure::Gone)
}

/// Ends a request whose body can't be read.
pub(crate) fn body_failed(job: &mut Job<'_>, failure: BodyFailure) -> Flow {
    job.ex.sent.keep_alive = false;
    match failure {
        BodyFailure::Gone | BodyFailure::TimedOut => {
            job.ex.sent.status = failure.status();
            Flow::Close
        }
        BodyFailure::TooLarge => {
            job.client.log_error(job.worker, job.ex, "client intended to send too large chunked body");
            job.ex.sent.linger = true;
            job.ex.received.body_is_lost = true;
            Flow::status(413)
        }
        BodyFailure::Broken | BodyFailure::Internal => {
            // Nothing behind this point can be read as a body or a request.
            job.ex.received.body_left = Decoder::Done;
            job.ex.sent.linger = true;
            Flow::status(failure.status())
        }
    }
}

/// Says whether the request announced a body, an empty one included.
pub(crate) fn has_body(job: &Job<'_>) -> bool {
    job.ex.received.head.fields.has(Name::ContentLength) || !job.ex.received.body_left.is_done()
}

/// Reads the body to its end: to memory, or to a file where it is larger than `client_body_buffer_size`.
pub(crate) async fn read_whole(job: &mut Job<'_>) -> Result<(), BodyFailure> {
    if job.ex.received.body_is_lost {
        return Ok(());
    }
    expect_continue(job).await?;
    if job.ex.received.body_left.is_done() {
        return Ok(());
    }
    let view = job.view.clone();
    let core = &job.ex.place(&view).scope.core;
    let memory_max = core.client_body_buffer_size.as_usize();
    let size_max = if core.client_max_body_size.0 == 0 { u64::MAX } else { core.client_max_body_size.0 };
    let mut total = 0u64;
    let mut memory = Vec::new();
    let mut spool: Option<Spool> = None;
    job.client.timer.set(&job.worker.clock, core.client_body_timeout);
    let (worker, client, ex) = (job.worker, &mut *job.client, &mut *job.ex);
    poll_fn(|cx| {
        while !ex.received.body_left.is_done() {
            match client.stream.poll_body(cx, &mut ex.received, &mut memory) {
                Poll::Ready(Ok(more)) => {
                    total += more as u64;
                    client.timer.set(&worker.clock, core.client_body_timeout);
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => {
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    client.timed_out = true;
                    return Poll::Ready(Err(BodyFailure::TimedOut));
                }
            }
            if total > size_max {
                return Poll::Ready(Err(BodyFailure::TooLarge));
            }
            if memory.len() > memory_max
                && let Err(error) = spill(&mut spool, &mut memory, &core.client_body_temp_path)
            {
                client.log_error(worker, ex, &format!("a client request body can't be buffered: {error}"));
                return Poll::Ready(Err(BodyFailure::Internal));
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    if let Some(mut spool) = spool {
        spool.write(&memory).map_err(|_| BodyFailure::Internal)?;
        job.client.log(
            job.worker,
            job.ex,
            keel_model::LogLevel::Warn,
            "a client request body is buffered to a temporary file",
        );
        job.ex.received.body = RequestBodyStore::File(spool);
    } else {
        job.ex.received.body = RequestBodyStore::Memory(memory);
    }
    Ok(())
}

fn spill(spool: &mut Option<Spool>, memory: &mut Vec<u8>, folder: &std::path::Path) -> std::io::Result<()> {
    let file = match spool {
        Some(file) => file,
        None => spool.insert(Spool::create(folder)?),
    };
    file.write(memory)?;
    memory.clear();
    Ok(())
}
