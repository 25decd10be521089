//! Sending files, without copying them through this process where they are large.

use std::{
    fs::File,
    future::poll_fn,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    task::{Poll, ready},
};

use keel_http::{Lines, Message, encode};

use super::{Framing, Sent, filter_trailers, finish, sink};
use crate::{
    answer::{FilePart, FileParts},
    error::ClientGone,
    io::buffer::BUFFER_BYTES,
    job::Job,
};

/// The most that one call copies from a file to a socket: others have their turn after it.
const SEND_BYTES_MAX: usize = 512 << 10;

/// Sends a head and the parts of a file behind it.
pub(super) async fn send(job: &mut Job<'_>, head: Message, framing: Framing, file: &FileParts) -> Sent {
    let mut trailers = Lines::default();
    let before = job.ex.sent.bytes;
    let sent = match framing {
        Framing::None => sink::send_all(job, head.as_bytes(), b"").await,
        Framing::Length(_) | Framing::UntilClose => send_parts(job, &head, b"", file).await,
        Framing::Chunked => {
            let mut chunk_head = Vec::new();
            let length = usize::try_from(file.length()).unwrap_or(usize::MAX);
            if length > 0 {
                encode::chunk_head(length, &mut chunk_head);
            }
            let mut sent = send_parts(job, &head, &chunk_head, file).await;
            if sent.is_ok() {
                trailers = filter_trailers(job);
                let mut after = Vec::new();
                if length > 0 {
                    after.extend_from_slice(b"\r\n");
                }
                trailers.write_last_chunk(&mut after);
                sent = sink::send_all(job, &after, b"").await;
            }
            sent
        }
    };
    finish(job, head, sent, before, trailers)
}

/// Sends the head, the beginning of a chunk and the parts.
async fn send_parts(
    job: &mut Job<'_>,
    head: &Message,
    chunk_head: &[u8],
    file: &FileParts,
) -> Result<(), ClientGone> {
    // What is small goes out with the head, in one packet.
    if let [part] = file.parts.as_slice()
        && chunk_head.is_empty()
        && file.length() <= BUFFER_BYTES as u64
    {
        let mut body = job.worker.buffers.take();
        let sent = match read_part(&file.file, part, &mut body) {
            Ok(()) => sink::send_all(job, head.as_bytes(), &body).await,
            Err(_) => Err(ClientGone),
        };
        job.worker.buffers.give(body);
        return sent;
    }
    sink::send_all(job, head.as_bytes(), chunk_head).await?;
    job.ex.sent.begun = true;
    for part in &file.parts {
        sink::send_all(job, &part.before, b"").await?;
        stream(job, &file.file, part).await?;
    }
    sink::send_all(job, &file.after, b"").await
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
            match client.sink.poll_send_file(cx, file.as_fd(), &mut offset, left) {
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
