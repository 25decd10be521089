//! `Range` (RFC 9110 §14): parts of files, and of a peer's response with `proxy_force_ranges`.
//!
//! As in nginx the ranges of a peer's response are the peer's own business unless the operator says otherwise; then there is
//! one range at most, as the body passes only once.

use keel_http::{Lines, Name, date};

use super::{Filter, Settings};
use crate::{
    answer::{Answer, FilePart, Ranges, Source, Special},
    error::CompileError,
    job::Job,
    transform::{Broken, Transform},
};

/// Room that a range takes besides its bytes, and that all of them may: where `max_ranges` is not set, ranges that make more
/// of a file than there is give all of it.
const PART_OVERHEAD_BYTES: u64 = 256;
const OVERHEAD_BYTES_MAX: u64 = 4096;

struct RangeFilter {
    /// `max_ranges`.
    ranges_max: Option<u32>,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = settings.scope;
    let forces = scope.peer_settings().is_some_and(|settings| settings.force_ranges);
    let filter = RangeFilter { ranges_max: scope.core.max_ranges };
    let applies = settings.has_own_content() || forces;
    Ok((applies && filter.ranges_max != Some(0)).then(|| Box::new(filter) as Box<dyn Filter>))
}

impl Filter for RangeFilter {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        let ranges_max = match answer.fields.ranges {
            Ranges::No => return Ok(()),
            Ranges::One => Some(1),
            Ranges::Many => self.ranges_max,
        };
        let Some(length) = answer.length(job.ex).filter(|_| answer.status == 200) else { return Ok(()) };
        let selection = match job.ex.field(Name::Range) {
            Some(range) if is_meant(job, answer) => parse(range, length, ranges_max),
            _ => Selection::All,
        };
        match selection {
            Selection::All => answer.fields.lines.fixed("Accept-Ranges: bytes\r\n"),
            Selection::Unsatisfiable => {
                let mut fields = Lines::default();
                fields.field("Content-Range", format!("bytes */{length}").as_bytes());
                return Err(Special { status: 416, location: None, fields });
            }
            Selection::One(start, end) => {
                let text = format!("bytes {start}-{}/{length}", end - 1);
                answer.status = 206;
                answer.fields.dropped = answer.fields.dropped.with(Name::ContentRange);
                answer.fields.lines.field("Content-Range", text.as_bytes());
                match &mut answer.source {
                    Source::File(file) => file.parts = vec![FilePart { before: Vec::new(), start, end }],
                    Source::Peer(peer) => {
                        peer.slice = Some((start, end));
                        // Filters before this one keep the length: what they change is the part alone.
                        answer.transforms.push_first(Slice { skip: start, left: end - start });
                    }
                    Source::Empty | Source::Bytes(_) => {}
                }
            }
            Selection::Many(ranges) => multipart(answer, &ranges, length),
        }
        Ok(())
    }
}

/// Says whether the request's `Range` is meant for this very answer (`If-Range`).
fn is_meant(job: &Job<'_>, answer: &Answer) -> bool {
    match job.ex.field(Name::IfRange) {
        None => true,
        Some(condition) if condition.len() >= 2 && condition.ends_with(b"\"") => {
            answer.etag(job.ex) == Some(condition)
        }
        Some(condition) => {
            let modified = answer.modified(job.ex);
            modified.is_some() && date::parse_http(condition) == modified
        }
    }
}

/// Makes several ranges of a file the parts of a message.
fn multipart(answer: &mut Answer, ranges: &[(u64, u64)], length: u64) {
    let Source::File(file) = &mut answer.source else { return };
    let boundary = format!("{:020}", length.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let content_type = answer.fields.content_type.take().unwrap_or_default();
    let part = |(start, end): &(u64, u64)| {
        let mut before = format!("\r\n--{boundary}\r\n").into_bytes();
        if !content_type.is_empty() {
            before.extend_from_slice(b"Content-Type: ");
            before.extend_from_slice(&content_type);
            before.extend_from_slice(b"\r\n");
        }
        let range = format!("Content-Range: bytes {start}-{}/{length}\r\n\r\n", end - 1);
        before.extend_from_slice(range.as_bytes());
        FilePart { before, start: *start, end: *end }
    };
    file.parts = ranges.iter().map(part).collect();
    file.after = format!("\r\n--{boundary}--\r\n").into_bytes();
    answer.status = 206;
    answer.fields.content_type = Some(format!("multipart/byteranges; boundary={boundary}").into_bytes());
}

/// Lets a part of a body pass.
struct Slice {
    /// Bytes before it.
    skip: u64,
    /// Bytes of it that are still to come.
    left: u64,
}

impl Transform for Slice {
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
        piece.drain(..skipped);
        let kept = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
        piece.truncate(kept);
        self.skip -= skipped as u64;
        self.left -= kept as u64;
        Ok(())
    }
}

/// Which parts are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selection {
    All,
    One(u64, u64),
    Many(Vec<(u64, u64)>),
    Unsatisfiable,
}

/// Reads `bytes=...`. As in nginx: broken syntax is unsatisfiable, and ranges that add up to more than the whole give all
/// of it.
fn parse(value: &[u8], length: u64, ranges_max: Option<u32>) -> Selection {
    let Some((unit, list)) = value.split_at_checked(6) else { return Selection::All };
    if !unit.eq_ignore_ascii_case(b"bytes=") || list.is_empty() {
        return Selection::All;
    }
    let count_max = ranges_max.map_or(usize::MAX, |ranges_max| ranges_max as usize);
    let mut ranges = Vec::new();
    let mut total = 0u64;
    for spec in list.split(|byte| *byte == b',') {
        let Some((start, end)) = parse_one(spec.trim_ascii(), length) else {
            return Selection::Unsatisfiable;
        };
        if start < end {
            total = total.saturating_add(end - start);
            ranges.push((start, end));
            if ranges.len() > count_max {
                return Selection::All;
            }
        } else if start == 0 {
            return Selection::All;
        }
    }
    let overhead = ranges.len() as u64 * PART_OVERHEAD_BYTES;
    match ranges.as_slice() {
        [] => Selection::Unsatisfiable,
        [(start, end)] => Selection::One(*start, *end),
        _ if total > length => Selection::All,
        _ if ranges_max.is_none()
            && total.saturating_add(overhead) > length.saturating_add(OVERHEAD_BYTES_MAX) =>
        {
            Selection::All
        }
        _ => Selection::Many(ranges),
    }
}

/// Reads one range: its first byte and the one behind its last. It is empty where it lies beyond the end.
fn parse_one(spec: &[u8], length: u64) -> Option<(u64, u64)> {
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (spec.get(..dash)?.trim_ascii(), spec.get(dash + 1..)?.trim_ascii());
    let number = keel_http::connection::content_length;
    if first.is_empty() {
        return Some((length.saturating_sub(number(last)?), length));
    }
    let start = number(first)?;
    let end = if last.is_empty() { length } else { number(last)?.saturating_add(1).min(length) };
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges() {
        let check = |value: &str, expect: Selection| {
            assert_eq!(parse(value.as_bytes(), 10, Some(5)), expect, "{value}");
        };
        check("bytes=0-4", Selection::One(0, 5));
        check("bytes=5-", Selection::One(5, 10));
        check("bytes=-3", Selection::One(7, 10));
        check("bytes=-30", Selection::One(0, 10));
        check("bytes=0-0,9-20", Selection::Many(vec![(0, 1), (9, 10)]));
        check("bytes=10-", Selection::Unsatisfiable);
        check("bytes=-0", Selection::Unsatisfiable);
        check("bytes=4-2", Selection::Unsatisfiable);
        check("bytes=4-2,1-1", Selection::One(1, 2));
        check("bytes=x", Selection::Unsatisfiable);
        check("bytes=0-9,0-9", Selection::All);
        check("bytes=0-0,1-1,2-2,3-3,4-4,5-5", Selection::All);
        check("lines=1-2", Selection::All);
        check("bytes=", Selection::All);
        assert_eq!(parse(b"bytes=0-", 0, None), Selection::All);
    }

    #[test]
    fn many_small_ranges_give_the_whole_unless_they_are_allowed() {
        let list = (0..20).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",");
        let value = format!("bytes={list}");
        assert_eq!(parse(value.as_bytes(), 100, None), Selection::All);
        assert!(
            matches!(parse(value.as_bytes(), 100, Some(20)), Selection::Many(ranges) if ranges.len() == 20)
        );
        assert!(matches!(parse(value.as_bytes(), 4096, None), Selection::Many(_)));
    }

    #[test]
    fn a_slice_is_the_same_however_the_body_is_cut() {
        let body: Vec<u8> = (0..100).collect();
        for size in [1, 7, 33, 100] {
            let mut slice = Slice { skip: 10, left: 25 };
            let mut out = Vec::new();
            for piece in body.chunks(size) {
                let mut piece = piece.to_vec();
                slice.piece(&mut piece).unwrap();
                out.extend(piece);
            }
            assert_eq!(out, body[10..35], "in pieces of {size}");
        }
    }
}
