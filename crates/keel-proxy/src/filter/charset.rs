//! `charset` and its family: the charset that `Content-Type` names, and that bodies are converted to by a `charset_map`.
//!
//! What becomes a part of another answer is converted to the charset of that.

use std::sync::Arc;

use keel_http::Name;
use keel_model::{MediaTypes, Template};

use super::{Filter, Settings, content_type::ContentType};
use crate::{
    answer::{Answer, Source, Special},
    charset::{Charsets, Recode},
    error::CompileError,
    job::Job,
    snapshot::PeerProgram,
};

struct Charset {
    /// `charset`.
    to: Option<Template>,
    /// `source_charset`.
    from: Option<Template>,
    overrides: bool,
    types: MediaTypes,
    charsets: Arc<Charsets>,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = &settings.scope.charset;
    let may_be_told = !settings.charsets.is_empty() && settings.scope.peer_settings().is_some();
    if scope.charset.is_none() && scope.source.is_none() && !may_be_told {
        return Ok(None);
    }
    Ok(Some(Box::new(Charset {
        to: scope.charset.clone(),
        from: scope.source.clone(),
        overrides: scope.overrides,
        types: scope.types.clone(),
        charsets: settings.charsets.clone(),
    })))
}

impl Filter for Charset {
    fn acts_within(&self) -> bool {
        true
    }

    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        // Old browsers took the charset of a redirect for that of the page behind it.
        if matches!(answer.status, 301 | 302) || hides_content_type(job, answer) {
            return Ok(());
        }
        let Some(content_type) = answer.content_type(job.ex).map(ContentType::parse) else { return Ok(()) };
        let is_within = job.ex.routed.depth > 0;
        let to = match job.ex.sent.outer_charset() {
            Some(charset) if is_within => Some(charset.to_vec()),
            _ if is_within => None,
            _ => self.wanted(job, answer, &content_type),
        };
        let Some(to) = to.filter(|to| !to.is_empty()) else { return Ok(()) };
        let configured = || self.from.as_ref().map(|from| job.lookup_with(answer).text(from));
        let from = content_type.charset.map(<[u8]>::to_vec).or_else(configured);
        let mut recode = None;
        if let Some(from) = from.filter(|from| !from.eq_ignore_ascii_case(&to)) {
            if answer.encoding(job.ex).is_some() {
                return Ok(());
            }
            recode = self.charsets.find(&from, &to);
            if recode.is_none() {
                let (from, to) = (String::from_utf8_lossy(&from), String::from_utf8_lossy(&to));
                let text = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
                job.client.log_error(job.worker, job.ex, &text);
                return Ok(());
            }
        }
        let value = [content_type.media, b"; charset=", &to].concat();
        // Within another answer the fields are that one's.
        if !is_within {
            answer.fields.content_type = Some(value);
        }
        if let Some(table) = recode {
            if table.resizes() {
                answer.resize();
            }
            answer.transforms.push(Recode::new(table));
        }
        Ok(())
    }
}

impl Charset {
    /// The charset that an answer is to be in: what its peer says, or `charset`.
    fn wanted(&self, job: &Job<'_>, answer: &Answer, content_type: &ContentType<'_>) -> Option<Vec<u8>> {
        if let Some(told) = told(job, answer) {
            if self.charsets.is_named(told) {
                return Some(told.to_vec());
            }
            let text = format!("unknown charset \"{}\" to override", String::from_utf8_lossy(told));
            job.client.log_error(job.worker, job.ex, &text);
            return None;
        }
        let to = self.to.as_ref().filter(|_| self.is_meant(content_type))?;
        Some(job.lookup_with(answer).text(to))
    }

    fn is_meant(&self, content_type: &ContentType<'_>) -> bool {
        match content_type.charset {
            Some(_) => self.overrides,
            None => self.types.contains(content_type.media),
        }
    }
}

/// What a peer says the answer is to be in (`X-Accel-Charset`).
fn told<'a>(job: &'a Job<'_>, answer: &Answer) -> Option<&'a [u8]> {
    let program = job.place().proxy.as_deref().filter(|_| matches!(answer.source, Source::Peer(_)))?;
    let side = &job.ex.upstream;
    let field = side.head.fields.first(Name::XAccelCharset)?;
    let value = field.value.of(&side.input);
    Some(value).filter(|value| !value.is_empty() && !program.ignores.contains(Name::XAccelCharset))
}

/// Says whether the field of a peer is one that the client doesn't get.
fn hides_content_type(job: &Job<'_>, answer: &Answer) -> bool {
    let hides = |program: &PeerProgram| program.response_drops.contains(Name::ContentType, b"content-type");
    matches!(answer.source, Source::Peer(_)) && job.place().proxy.as_deref().is_some_and(hides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_meant_by_its_name_or_by_overriding() {
        let check = |types: &MediaTypes, overrides: bool, value: &str, expect: bool| {
            let to = Template::literal("utf-8");
            let (to, types, charsets) = (Some(to), types.clone(), Arc::default());
            let filter = Charset { to, from: None, overrides, types, charsets };
            assert_eq!(filter.is_meant(&ContentType::parse(value.as_bytes())), expect, "{value}");
        };
        let html = MediaTypes::These(vec!["text/html".into()]);
        check(&html, false, "Text/HTML", true);
        check(&html, false, "text/plain", false);
        check(&MediaTypes::All, false, "text/plain", true);
        check(&html, false, "text/html; charset=a", false);
        check(&html, true, "text/plain; charset=a", true);
        check(&html, true, "text/plain", false);
    }
}
