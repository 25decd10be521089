//! Sending files, without copying them through this process where they are large.

use std::{
    fs::File,
    future::poll_fn,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    task::{Poll, ready},
};

use keel_http::{Lines, Message};

use super::{Sent, filter_trailers, finish};
use crate::{
    answer::{FilePart, FileParts},
    client::{Framing, flush},
    error::ClientGone,
    io::buffer::BUFFER_BYTES,
    job::Job,
};

/// The most that one call copies from a file to a socket: others have their turn after it.
const SEND_BYTES_MAX: usize = 512 << 10;

/// Sends a head and the parts of a file behind it.
pub(super) async fn send(job: &mut Job<'_>, head: Message, framing: Framing, file: &FileParts) -> Sent {
    let before = job.ex.sent.bytes;
    let head_length = head.head_length();
    job.client.stream.begin(head, framing);
    let mut trailers = Lines::default();
    let sent = match framing {
        Framing::None => flush(job).await,
        _ => send_parts(job, framing, file, &mut trailers).await,
    };
    finish(job, head_length, sent, before, trailers)
}

/// Sends the parts and what ends them.
async fn send_parts(
    job: &mut Job<'_>,
    framing: Framing,
    file: &FileParts,
    trailers: &mut Lines,
) -> Result<(), ClientGone> {
    if let [part] = file.parts.as_slice()
        && file.length() <= BUFFER_BYTES as u64
    {
        // What is small goes out with the head, in one packet.
        let mut body = job.worker.buffers.take();
        let read = read_part(&file.file, part, &mut body);
        job.client.stream.put(&body);
        job.worker.buffers.give(body);
        read.map_err(|_| ClientGone)?;
    } else {
        for part in &file.parts {
            job.client.stream.put(&part.before);
            job.client.stream.begin_piece(part.end - part.start);
            flush(job).await?;
            job.ex.sent.begun = true;
            stream(job, &file.file, part).await?;
            job.client.stream.clear_sent(&mut job.ex.sent.head);
            job.client.stream.end_piece();
        }
    }
    job.client.stream.put(&file.after);
    *trailers = filter_trailers(job, framing);
    job.client.stream.end(trailers);
    flush(job).await
}

/// Reads a part whole, with what goes before it.
fn read_part(file: &File, part: &FilePart, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&part.before);
    let at = out.len();
    let length = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
    out.resize(at + length, 0);
    file.read_exact_at(out.get_mut(at..).unwrap_or_default(), part.start)
}

/// Sends a range of a file.
async fn stream(job: &mut Job<'_>, file: &File, part: &FilePart) -> Result<(), ClientGone> {
    let timeout = job.place().scope.core.send_timeout;
    let (worker, client) = (job.worker, &mut *job.client);
    let mut offset = part.start;
    let mut waiting = false;
    let result = poll_fn(|cx| {
        let mut sent_now = 0;
        while offset < part.end {
            let left = usize::try_from(part.end - offset).unwrap_or(usize::MAX).min(SEND_BYTES_MAX);
            match client.poll_send_file(&worker.clock, cx, file.as_fd(), &mut offset, left) {
                // The file has become shorter: the length that was promised can't be kept.
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(ClientGone)),
                Poll::Ready(Ok(sent)) => {
                    waiting = false;
                    sent_now += sent;
                    if sent_now >= SEND_BYTES_MAX {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Pending if client.is_held_back() => {
                    waiting = false;
                    return Poll::Pending;
                }
                Poll::Pending => {
                    if !std::mem::replace(&mut waiting, true) {
                        client.timer.set(&worker.clock, timeout);
                    }
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    client.timed_out = true;
                    return Poll::Ready(Err(ClientGone));
                }
            }
        }
        Poll::Ready(Ok(()))
    });
    let result = result.await;
    job.ex.sent.bytes += offset - part.start;
    result
}
