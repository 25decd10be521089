//! `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since`: 304 and 412, as nginx decides them.
//!
//! What a peer sends is not looked at: the request's conditions went to it, and it has answered them.

use keel_http::{Name, date};
use keel_model::IfModifiedSince;

use super::{Filter, Settings};
use crate::{
    answer::{Answer, Ranges, Source, Special},
    error::CompileError,
    job::Job,
};

struct NotModified {
    since: IfModifiedSince,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let filter = NotModified { since: settings.scope.core.if_modified_since };
    Ok(settings.has_own_content().then(|| Box::new(filter) as Box<dyn Filter>))
}

impl Filter for NotModified {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        if answer.status != 200 || matches!(answer.source, Source::Peer(_)) {
            return Ok(());
        }
        let field = |name| job.ex.field(name);
        let (modified, etag) = (answer.modified(job.ex), answer.etag(job.ex));
        if let Some(since) = field(Name::IfUnmodifiedSince)
            && date::parse_http(since).zip(modified).is_none_or(|(since, modified)| since < modified)
        {
            return Err(412.into());
        }
        if let Some(wanted) = field(Name::IfMatch)
            && !matches_etag(wanted, etag, Comparison::Strong)
        {
            return Err(412.into());
        }
        let (since, none_match) = (field(Name::IfModifiedSince), field(Name::IfNoneMatch));
        let is_changed = since.is_some_and(|since| self.is_modified(since, modified));
        let is_other = none_match.is_some_and(|known| !matches_etag(known, etag, Comparison::Weak));
        if (since.is_none() && none_match.is_none()) || is_changed || is_other {
            return Ok(());
        }
        answer.status = 304;
        answer.fields.content_type = None;
        answer.fields.ranges = Ranges::No;
        answer.source = Source::Empty;
        Ok(())
    }
}

impl NotModified {
    fn is_modified(&self, since: &[u8], modified: Option<i64>) -> bool {
        let Some((since, modified)) = date::parse_http(since).zip(modified) else { return true };
        match self.since {
            IfModifiedSince::Off => true,
            IfModifiedSince::Exact => since != modified,
            IfModifiedSince::Before => since < modified,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn matches_etag(list: &[u8], etag: Option<&[u8]>, comparison: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let comparable = |etag| match comparison {
        Comparison::Weak => strip_weak(etag),
        Comparison::Strong => etag,
    };
    keel_http::connection::tokens(list).any(|known| comparable(known) == comparable(etag))
}

fn strip_weak(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_validators() {
        let check = |list: &str, etag: Option<&str>, weak: bool, strong: bool| {
            let etag = etag.map(str::as_bytes);
            assert_eq!(matches_etag(list.as_bytes(), etag, Comparison::Weak), weak, "{list}");
            assert_eq!(matches_etag(list.as_bytes(), etag, Comparison::Strong), strong, "{list}");
        };
        check("*", None, true, true);
        check("\"a\"", None, false, false);
        check("\"a\"", Some("\"a\""), true, true);
        check("\"b\", \"a\"", Some("\"a\""), true, true);
        check("W/\"a\"", Some("\"a\""), true, false);
        check("\"a\"", Some("W/\"a\""), true, false);
        check("\"ab\"", Some("\"a\""), false, false);
    }

    #[test]
    fn compares_dates() {
        let date = b"Thu, 01 Jan 1970 00:00:10 GMT";
        let check = |since, modified: Option<i64>, expect: bool| {
            assert_eq!(NotModified { since }.is_modified(date, modified), expect, "{since:?} {modified:?}");
        };
        check(IfModifiedSince::Exact, Some(10), false);
        check(IfModifiedSince::Exact, Some(9), true);
        check(IfModifiedSince::Before, Some(9), false);
        check(IfModifiedSince::Before, Some(11), true);
        check(IfModifiedSince::Off, Some(10), true);
        check(IfModifiedSince::Exact, None, true);
    }
}
