//! `charset`, `override_charset` and `charset_types`: the charset that `Content-Type` names.
//!
//! Bodies are not converted. Where `source_charset` or the response itself names another charset than `charset`, the field
//! stays as it is and the log says so, as in nginx where no `charset_map` is there.

use keel_http::Name;
use keel_model::{MediaTypes, Template};

use super::{Filter, Settings, content_type::ContentType};
use crate::{
    answer::{Answer, Source, Special},
    error::CompileError,
    job::Job,
    snapshot::PeerProgram,
};

struct Charset {
    to: Template,
    /// `source_charset`.
    from: Option<Template>,
    overrides: bool,
    types: MediaTypes,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = &settings.scope.charset;
    let Some(to) = scope.charset.clone() else { return Ok(None) };
    let (from, types) = (scope.source.clone(), scope.types.clone());
    Ok(Some(Box::new(Charset { to, from, overrides: scope.overrides, types })))
}

impl Filter for Charset {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        // Old browsers took the charset of a redirect for that of the page behind it.
        if matches!(answer.status, 301 | 302) || hides_content_type(job, answer) {
            return Ok(());
        }
        let Some(content_type) = answer.content_type(job.ex).map(ContentType::parse) else { return Ok(()) };
        if !self.is_meant(&content_type) {
            return Ok(());
        }
        let lookup = job.lookup_with(answer);
        let to = lookup.text(&self.to);
        if to.is_empty() {
            return Ok(());
        }
        let configured = || self.from.as_ref().map(|from| lookup.text(from));
        let from = content_type.charset.map(<[u8]>::to_vec).or_else(configured);
        if let Some(from) = from.filter(|from| !from.eq_ignore_ascii_case(&to)) {
            let (from, to) = (String::from_utf8_lossy(&from), String::from_utf8_lossy(&to));
            let text = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
            job.client.log_error(job.worker, job.ex, &text);
            return Ok(());
        }
        let value = [content_type.media, b"; charset=", &to].concat();
        if let Source::Peer(_) = answer.source {
            answer.fields.dropped = answer.fields.dropped.with(Name::ContentType);
            answer.fields.lines.field("Content-Type", &value);
        } else {
            answer.fields.content_type = Some(value);
        }
        Ok(())
    }
}

impl Charset {
    fn is_meant(&self, content_type: &ContentType<'_>) -> bool {
        match content_type.charset {
            Some(_) => self.overrides,
            None => self.types.contains(content_type.media),
        }
    }
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
            let filter = Charset { to, from: None, overrides, types: types.clone() };
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
