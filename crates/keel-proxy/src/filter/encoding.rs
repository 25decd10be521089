//! Which clients get compressed responses: `gzip_http_version`, `gzip_proxied`, `gzip_disable`, and `gzip_vary`, which says
//! that there are others. Shared by `gzip`, `gunzip` and `gzip_static`.

use keel_http::{Name, date};
use keel_model::GzipProxied;

use crate::{answer::Answer, browser::Browser, job::Job};

/// Says whether the client may get a response in the encoding gzip. Before there is an answer, no proxy's request may but
/// where all may.
pub(crate) fn accepts_gzip(job: &Job<'_>, answer: Option<&Answer>) -> bool {
    let gzip = &job.place().scope.gzip;
    if job.ex.routed.depth > 0 || !job.ex.field(Name::AcceptEncoding).is_some_and(names_gzip) {
        return false;
    }
    let user_agent = job.ex.field(Name::UserAgent);
    if gzip.disable.msie6 && user_agent.map(Browser::of) == Some(Browser::OldMsie) {
        return false;
    }
    if !gzip.http10 && !job.ex.is_http11() {
        return false;
    }
    if job.ex.field(Name::Via).is_some() && !is_meant_for_proxies(job, answer) {
        return false;
    }
    let Some(user_agent) = user_agent else { return true };
    // An expression that takes too many steps counts as one that matches.
    !job.place().gzip_disable.iter().any(|regex| regex.is_match(user_agent).unwrap_or(true))
}

/// Says once that the answer is another one to clients that accept other encodings, where the place wants that said.
pub(crate) fn say_vary(job: &Job<'_>, answer: &mut Answer) {
    if job.place().scope.gzip.vary && !std::mem::replace(&mut answer.fields.varies, true) {
        answer.fields.lines.fixed("Vary: Accept-Encoding\r\n");
    }
}

/// Whether the place wants to be said that answers vary.
pub(crate) fn is_vary_said(job: &Job<'_>) -> bool {
    job.place().scope.gzip.vary
}

/// `gzip_proxied`.
fn is_meant_for_proxies(job: &Job<'_>, answer: Option<&Answer>) -> bool {
    let proxied = &job.place().scope.gzip.proxied;
    let has = |word| proxied.contains(&word);
    if has(GzipProxied::Off) {
        return false;
    }
    if has(GzipProxied::Any) || (has(GzipProxied::Auth) && job.ex.field(Name::Authorization).is_some()) {
        return true;
    }
    let Some(answer) = answer else {
        return !has(GzipProxied::NoLastModified) && !has(GzipProxied::NoEtag);
    };
    let value = |name| answer.values(job.ex, name).next();
    if let Some(expires) = value(Name::Expires) {
        let now = i64::try_from(job.worker.clock.unix().as_secs()).unwrap_or(i64::MAX);
        let date = value(Name::Date).map_or(Some(now), date::parse_http);
        let has_expired = date::parse_http(expires).zip(date).is_some_and(|(expires, date)| expires < date);
        return has(GzipProxied::Expired) && has_expired;
    }
    if value(Name::CacheControl).is_some() {
        let words = [
            (GzipProxied::NoCache, "no-cache"),
            (GzipProxied::NoStore, "no-store"),
            (GzipProxied::Private, "private"),
        ];
        let says = |word: &str| answer.values(job.ex, Name::CacheControl).any(|value| names(value, word));
        return words.iter().any(|(kind, word)| has(*kind) && says(word));
    }
    let is_dated = has(GzipProxied::NoLastModified) && answer.modified(job.ex).is_some();
    let is_tagged = has(GzipProxied::NoEtag) && answer.etag(job.ex).is_some();
    !is_dated && !is_tagged
}

/// Says whether a list names a word, without a value.
fn names(list: &[u8], word: &str) -> bool {
    keel_http::connection::tokens(list).any(|token| token.eq_ignore_ascii_case(word.as_bytes()))
}

/// Reads `Accept-Encoding`, as nginx does: `gzip` begins a word, and its weight isn't 0.
fn names_gzip(value: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = find_gzip(value, from) {
        let before = at.checked_sub(1).and_then(|at| value.get(at));
        if before.is_none_or(|byte| matches!(byte, b',' | b' ')) {
            return is_weighed(value.get(at + 4..).unwrap_or_default());
        }
        from = at + 4;
    }
    false
}

fn find_gzip(value: &[u8], from: usize) -> Option<usize> {
    let rest = value.get(from..)?;
    rest.windows(4).position(|word| word.eq_ignore_ascii_case(b"gzip")).map(|at| from + at)
}

/// Reads what stands behind `gzip`: nothing, or a weight that isn't 0.
fn is_weighed(rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_start();
    let Some((first, rest)) = rest.split_first() else { return true };
    match first {
        b',' => true,
        b';' => {
            let Some((first, rest)) = rest.trim_ascii_start().split_first() else { return true };
            let rest = rest.strip_prefix(b"=").unwrap_or_default();
            first.eq_ignore_ascii_case(&b'q') && weight(rest) > 0
        }
        _ => false,
    }
}

/// Reads a weight in hundredths and more; 0 where it is none (RFC 9110 §12.4.2).
fn weight(text: &[u8]) -> u32 {
    let text = text.split(|byte| matches!(byte, b',' | b' ')).next().unwrap_or_default();
    let (whole, rest) = match text.split_first() {
        Some((b'0', rest)) => (0, rest),
        Some((b'1', rest)) => (100, rest),
        _ => return 0,
    };
    let digits = match rest.split_first() {
        None => return whole,
        Some((b'.', digits)) => digits,
        Some(_) => return 0,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let sum = whole + digits.iter().map(|digit| u32::from(digit - b'0')).sum::<u32>();
    if sum > 100 { 0 } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_which_encodings_are_accepted() {
        for (value, expect) in [
            ("gzip", true),
            ("gzip, deflate", true),
            ("deflate,GZIP", true),
            ("deflate, gzip ;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=0.001", true),
            ("gzip;q=1.000", true),
            ("gzip;q=1.001", false),
            ("gzip;q=0.0001", false),
            ("gzip;q=0, br", false),
            ("gzip; Q=0.8,br", true),
            ("gzip;x=1", false),
            ("gzip;", true),
            ("gzipped", false),
            ("x-gzip", false),
            ("x-gzip, gzip", true),
            ("br", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(names_gzip(value.as_bytes()), expect, "{value}");
        }
    }

    #[test]
    fn finds_words_of_cache_control() {
        assert!(names(b"public, Private", "private"));
        assert!(!names(b"privately, no-cache, private=\"x\"", "private"));
    }
}
