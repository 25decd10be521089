//! Bodies of this process's own that filters change on their way.

use std::{fs::File, os::unix::fs::FileExt};

use keel_http::{Lines, Message};

use super::{
    Sent, filter_trailers, finish,
    part::{self, Within},
};
use crate::{
    answer::{Answer, FileParts, Source},
    client::{Framing, flush},
    error::{Cause, ClientGone},
    job::Job,
    transform::Transforms,
};

/// Bytes that are changed at a time.
const PIECE_BYTES: usize = 32 << 10;

/// Pieces after which others have their turn.
const PIECES_MAX: u32 = 4;

/// Sends a head and a body as its transforms make it.
pub(super) async fn send(job: &mut Job<'_>, head: Message, framing: Framing, mut answer: Answer) -> Sent {
    let within = Within::of(job, &mut answer);
    let (before, head_length) = (job.ex.sent.bytes, head.head_length());
    job.client.stream.begin(head, framing);
    let Answer { source, transforms, .. } = answer;
    let mut body = Body { transforms, within, pieces: 0 };
    let mut trailers = Lines::default();
    let sent = match body.send(job, framing, source, &mut trailers).await {
        Ok(()) => Ok(()),
        Err(Cause::Filter) if !job.ex.sent.begun => return Sent::Instead(500.into()),
        Err(_) => Err(ClientGone),
    };
    finish(job, head_length, sent, before, trailers)
}

/// A body on its way.
struct Body {
    transforms: Transforms,
    within: Within,
    /// How many pieces have been changed since others had their turn.
    pieces: u32,
}

impl Body {
    async fn send(
        &mut self,
        job: &mut Job<'_>,
        framing: Framing,
        source: Source,
        trailers: &mut Lines,
    ) -> Result<(), Cause> {
        self.within.before(job, &mut self.transforms).await?;
        match source {
            Source::Bytes(bytes) => {
                let size = PIECE_BYTES.min(self.transforms.input_bytes_max());
                for piece in bytes.chunks(size) {
                    self.pass(job, piece.to_vec()).await?;
                }
            }
            Source::File(parts) => self.file(job, parts).await?,
            Source::Empty | Source::Peer(_) => {}
        }
        let mut tail = Vec::new();
        let ended = self.transforms.end_inner(&mut tail);
        part::check(job, ended)?;
        part::put(job, &std::mem::take(&mut tail)).await?;
        self.within.behind(job, &mut self.transforms).await?;
        let ended = self.transforms.end_outer(&mut tail);
        part::check(job, ended)?;
        job.client.stream.put(&tail);
        job.ex.sent.note_gzip(self.transforms.gzip_ratio());
        *trailers = filter_trailers(job, framing);
        job.client.stream.end(trailers);
        Ok(flush(job).await?)
    }

    async fn file(&mut self, job: &mut Job<'_>, parts: FileParts) -> Result<(), Cause> {
        let size = PIECE_BYTES.min(self.transforms.input_bytes_max());
        for part in &parts.parts {
            job.client.stream.put(&part.before);
            let mut at = part.start;
            while at < part.end {
                let left = usize::try_from(part.end - at).unwrap_or(usize::MAX);
                let piece = read(&parts.file, at, left.min(size)).map_err(|_| Cause::ClientGone)?;
                at += piece.len() as u64;
                self.pass(job, piece).await?;
            }
        }
        job.client.stream.put(&parts.after);
        Ok(())
    }

    /// Passes a piece on, as the transforms make it.
    async fn pass(&mut self, job: &mut Job<'_>, mut piece: Vec<u8>) -> Result<(), Cause> {
        let changed = self.transforms.piece(&mut piece);
        part::check(job, changed)?;
        part::put(job, &piece).await?;
        self.pieces += 1;
        if self.pieces >= PIECES_MAX {
            self.pieces = 0;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Reads a piece of a file. An error is also one that has become shorter: what was promised can't be kept.
fn read(file: &File, at: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut piece = vec![0; length];
    let read = file.read_at(&mut piece, at)?;
    piece.truncate(read);
    if read == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece) }
}
