//! `Range` requests (RFC 9110 §14) on files.

use std::{fs::File, io, os::unix::fs::FileExt};

use keel_http::{Name, date};

use crate::job::Job;

/// Which parts of a file are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    One(u64, u64),
    Many(Vec<(u64, u64)>),
    Unsatisfiable,
}

/// What is sent for a selection.
pub(super) struct SendPlan {
    pub(super) content_type: String,
    pub(super) content_range: Option<String>,
    pub(super) length: u64,
    pub(super) parts: Vec<Part>,
    pub(super) after: Vec<u8>,
}

/// A range of the file and what goes before it.
pub(super) struct Part {
    pub(super) before: Vec<u8>,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Reads the request's `Range`, if it applies: GET or HEAD, and `If-Range` names this very file.
pub(super) fn select(job: &Job<'_>, length: u64, modified: i64, etag: Option<&str>) -> Selection {
    let Some(range) = job.ex.field(Name::Range) else { return Selection::All };
    if job.ex.forced_status.is_some() || job.place().scope.core.max_ranges == Some(0) {
        return Selection::All;
    }
    if let Some(condition) = job.ex.field(Name::IfRange) {
        let same = if condition.ends_with(b"\"") {
            etag.is_some_and(|etag| etag.as_bytes() == condition)
        } else {
            date::parse_http(condition) == Some(modified)
        };
        if !same {
            return Selection::All;
        }
    }
    parse(range, length, job.place().scope.core.max_ranges.unwrap_or(u32::MAX))
}

/// Reads `bytes=...`. As in nginx: broken syntax is unsatisfiable, and ranges that add up to more than the file give
/// all of it.
fn parse(value: &[u8], length: u64, ranges_max: u32) -> Selection {
    let Some((unit, list)) = value.split_at_checked(6) else { return Selection::All };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Selection::All;
    }
    let mut ranges = Vec::new();
    let mut total = 0u64;
    for spec in list.split(|byte| *byte == b',') {
        let Some(parsed) = parse_one(spec.trim_ascii(), length) else { return Selection::Unsatisfiable };
        let Some((start, end)) = parsed else { continue };
        total = total.saturating_add(end - start);
        ranges.push((start, end));
        if ranges.len() > ranges_max as usize {
            return Selection::All;
        }
    }
    match ranges.as_slice() {
        [] => Selection::Unsatisfiable,
        _ if total > length => Selection::All,
        [(start, end)] => Selection::One(*start, *end),
        _ => Selection::Many(ranges),
    }
}

/// Reads one range; the inner `None` is one beyond the end.
fn parse_one(spec: &[u8], length: u64) -> Option<Option<(u64, u64)>> {
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (spec.get(..dash)?.trim_ascii(), spec.get(dash + 1..)?.trim_ascii());
    let number = keel_http::connection::content_length;
    if first.is_empty() {
        let suffix = number(last)?.min(length);
        return Some((suffix > 0).then_some((length - suffix, length)));
    }
    let start = number(first)?;
    let end = if last.is_empty() { length } else { number(last)?.saturating_add(1) };
    if end <= start && !last.is_empty() {
        return None;
    }
    let end = end.min(length);
    Some((start < end).then_some((start, end)))
}

impl Selection {
    /// Works out what to send of a file of this length and type.
    pub(super) fn plan(&self, length: u64, content_type: &str) -> SendPlan {
        let plain = |start, end, content_range| SendPlan {
            content_type: content_type.to_owned(),
            content_range,
            length: end - start,
            parts: vec![Part { before: Vec::new(), start, end }],
            after: Vec::new(),
        };
        match self {
            Selection::All | Selection::Unsatisfiable => plain(0, length, None),
            Selection::One(start, end) => {
                plain(*start, *end, Some(format!("bytes {start}-{}/{length}", end - 1)))
            }
            Selection::Many(ranges) => {
                let boundary = format!("{:020}", length.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let part = |(start, end): &(u64, u64)| {
                    Part {
                    before: format!(
                        "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {start}-{}/{length}\r\n\r\n",
                        end - 1
                    )
                    .into_bytes(),
                    start: *start,
                    end: *end,
                }
                };
                let parts: Vec<Part> = ranges.iter().map(part).collect();
                let after = format!("\r\n--{boundary}--\r\n").into_bytes();
                let of = |part: &Part| part.before.len() as u64 + part.end - part.start;
                SendPlan {
                    content_type: format!("multipart/byteranges; boundary={boundary}"),
                    content_range: None,
                    length: parts.iter().map(of).sum::<u64>() + after.len() as u64,
                    parts,
                    after,
                }
            }
        }
    }
}

/// Reads a part whole, with what goes before it.
pub(super) fn read_part(file: &File, part: &Part, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&part.before);
    let at = out.len();
    let length = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
    out.resize(at + length, 0);
    file.read_exact_at(out.get_mut(at..).unwrap_or_default(), part.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges() {
        let check =
            |value: &str, expect: Selection| assert_eq!(parse(value.as_bytes(), 10, 5), expect, "{value}");
        check("bytes=0-4", Selection::One(0, 5));
        check("bytes=5-", Selection::One(5, 10));
        check("bytes=-3", Selection::One(7, 10));
        check("bytes=-30", Selection::One(0, 10));
        check("bytes=0-0,9-20", Selection::Many(vec![(0, 1), (9, 10)]));
        check("bytes=10-", Selection::Unsatisfiable);
        check("bytes=4-2", Selection::Unsatisfiable);
        check("bytes=x", Selection::Unsatisfiable);
        check("bytes=0-9,0-9", Selection::All);
        check("lines=1-2", Selection::All);
    }

    #[test]
    fn the_length_of_several_ranges_is_that_of_what_is_sent() {
        let plan = Selection::Many(vec![(0, 1), (5, 9)]).plan(10, "text/plain");
        let sent: u64 = plan.parts.iter().map(|part| part.before.len() as u64 + part.end - part.start).sum();
        assert_eq!(plan.length, sent + plan.after.len() as u64);
    }
}
