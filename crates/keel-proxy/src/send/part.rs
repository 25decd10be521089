//! Pieces of a body, and other responses that become parts of it.

use super::log_broken_filter;
use crate::{
    answer::{Answer, Around},
    client::flush,
    error::Cause,
    filter,
    job::Job,
    phase::redirect::InternalUri,
    subrequest::{self, Inclusion},
    transform::{Broken, Transforms},
};

/// Bytes that wait in the client's stream before they are sent.
const WAITING_BYTES: usize = 32 << 10;

/// Puts a piece behind what waits, and sends that once it is worth it.
pub(super) async fn put(job: &mut Job<'_>, piece: &[u8]) -> Result<(), Cause> {
    job.client.stream.put(piece);
    if job.client.stream.pending() >= WAITING_BYTES {
        flush(job).await?;
        job.ex.sent.begun = true;
        job.client.stream.clear_sent(&mut job.ex.sent.head);
    }
    Ok(())
}

/// An error where a filter can't go on, which is logged.
pub(super) fn check(job: &Job<'_>, done: Result<(), Broken>) -> Result<(), Cause> {
    done.map_err(|broken| {
        log_broken_filter(job, &broken);
        Cause::Filter
    })
}

/// What is put before a body and behind it, and what holds for it.
#[derive(Default)]
pub(super) struct Within {
    around: Around,
    /// The charset of the body.
    charset: Option<Vec<u8>>,
}

impl Within {
    /// Takes it from an answer whose head is ready.
    pub(super) fn of(job: &Job<'_>, answer: &mut Answer) -> Self {
        let Some(around) = answer.around.take() else { return Self::default() };
        Self { around: *around, charset: filter::charset_of(job, answer).map(<[u8]>::to_vec) }
    }

    /// Whether anything comes behind the body.
    pub(super) fn goes_on(&self) -> bool {
        self.around.after.is_some()
    }

    /// Puts what comes before the body.
    pub(super) async fn before(&self, job: &mut Job<'_>, transforms: &mut Transforms) -> Result<(), Cause> {
        match &self.around.before {
            Some(uri) => self.include(job, uri, transforms).await,
            None => Ok(()),
        }
    }

    /// Puts what comes behind the body.
    pub(super) async fn behind(&self, job: &mut Job<'_>, transforms: &mut Transforms) -> Result<(), Cause> {
        match &self.around.after {
            Some(uri) => self.include(job, uri, transforms).await,
            None => Ok(()),
        }
    }

    /// Makes the response to another request a part of the body.
    async fn include(&self, job: &mut Job<'_>, uri: &str, transforms: &mut Transforms) -> Result<(), Cause> {
        // A `?` is a part of the path, as in nginx.
        let uri = InternalUri { path: uri.as_bytes().to_vec(), args: Vec::new() };
        let inclusion = Inclusion { uri: &uri, charset: self.charset.as_deref() };
        subrequest::include(job, inclusion, async |job, mut piece| {
            let changed = transforms.included(&mut piece);
            check(job, changed)?;
            put(job, &piece).await
        })
        .await
    }
}
