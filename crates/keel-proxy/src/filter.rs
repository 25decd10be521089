//! What a place does to every answer that leaves it, whatever its source. One file for each filter.
//!
//! A filter is a [`Filter`]: hooks for the head and the trailers, each of which does nothing unless it is written. What it
//! does to a body is a [`Transform`](crate::transform::Transform), which it adds to the answer while it looks at the head.
//! A place's chain is compiled at load and holds only filters that can have an effect there; of most places that pass to
//! peers it is empty.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod add_header;
mod add_trailer;
mod addition;
mod charset;
mod content_type;
mod encoding;
mod expires;
mod gunzip;
mod gzip;
mod not_modified;
mod ranges;
mod sub;
mod userid;

pub(crate) use self::{
    encoding::{accepts_gzip, is_vary_said, say_vary},
    userid::Uid,
};

use std::sync::Arc;

use keel_http::Lines;
use keel_model::Scope;

use crate::{
    answer::{Answer, Special},
    charset::Charsets,
    error::CompileError,
    exchange::Wanted,
    job::Job,
};

/// One filter of one place.
pub(crate) trait Filter: Send + Sync {
    /// Whether it also acts on answers that become a part of another one.
    fn acts_within(&self) -> bool {
        false
    }

    /// Changes the head of an answer, and adds what changes its body.
    ///
    /// # Errors
    /// What the request ends with instead. Nothing of the answer is sent then.
    fn header(&self, _job: &Job<'_>, _answer: &mut Answer) -> Result<(), Special> {
        Ok(())
    }

    /// Appends fields that follow the body.
    fn trailers(&self, _job: &Job<'_>, _out: &mut Lines) {}
}

/// The filters of a place, in the order in which they act.
pub(crate) type Chain = Box<[Box<dyn Filter>]>;

/// What a filter is compiled from.
pub(crate) struct Settings<'a> {
    pub(crate) scope: &'a Scope,
    /// Whether the place has a `return`.
    pub(crate) returns: bool,
    pub(crate) charsets: &'a Arc<Charsets>,
}

impl Settings<'_> {
    /// Says whether answers of this place may come from this process itself, with status 200.
    fn has_own_content(&self) -> bool {
        self.returns || self.scope.peer_settings().is_none()
    }
}

/// Makes a filter, or none where it has nothing to do.
type Compile = fn(&Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError>;

/// All filters, in nginx's order.
const FILTERS: [Compile; 11] = [
    not_modified::compile,
    expires::compile,
    add_header::compile,
    add_trailer::compile,
    userid::compile,
    gunzip::compile,
    addition::compile,
    sub::compile,
    charset::compile,
    gzip::compile,
    ranges::compile,
];

/// Compiles the chain of a place.
pub(crate) fn compile(settings: &Settings<'_>) -> Result<Chain, CompileError> {
    let filters = FILTERS.iter().filter_map(|compile| compile(settings).transpose());
    Ok(filters.collect::<Result<Vec<_>, _>>()?.into())
}

/// Says whether anything filters this answer. Of a subrequest's answer the fields are left as they are, and the body where
/// nobody wants it.
pub(crate) fn is_wanted(job: &Job<'_>) -> bool {
    !job.place().filters.is_empty()
        && !job.ex.sent.plain_fields
        && (job.ex.routed.depth == 0 || job.ex.routed.wanted == Wanted::Whole)
}

/// Lets the place's filters change a head, and say what they do to the body.
pub(crate) fn header(job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
    let is_within = job.ex.routed.depth > 0;
    let mut filters = job.place().filters.iter().filter(|filter| !is_within || filter.acts_within());
    filters.try_for_each(|filter| filter.header(job, answer))
}

/// Gathers the place's trailers.
pub(crate) fn trailers(job: &Job<'_>) -> Lines {
    let mut out = Lines::default();
    if is_wanted(job) && job.ex.routed.depth == 0 {
        job.place().filters.iter().for_each(|filter| filter.trailers(job, &mut out));
    }
    out
}

/// The charset that an answer says it is in.
pub(crate) fn charset_of<'a>(job: &'a Job<'_>, answer: &'a Answer) -> Option<&'a [u8]> {
    content_type::ContentType::parse(answer.content_type(job.ex)?).charset
}

/// Says whether `expires`, and fields without `always`, are added to a response of this status.
fn is_plain_status(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}
