//! `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: what is changed of the cookies that peers set.

use keel_model::Template;
use keel_regex::Regex;

use crate::{
    snapshot::{CookieMatch, CookieProgram},
    variables::Lookup,
};

/// An attribute of a cookie; the first is its name and value.
struct Attribute<'a> {
    name: &'a [u8],
    value: Option<Vec<u8>>,
}

/// Rewrites the value of `Set-Cookie`; `None` leaves it as it is.
pub(super) fn rewrite(lookup: Lookup<'_>, program: &CookieProgram, value: &[u8]) -> Option<Vec<u8>> {
    let mut attributes: Vec<Attribute<'_>> = value.split(|byte| *byte == b';').map(attribute).collect();
    let (first, rest) = attributes.split_first_mut()?;
    first.value.as_ref()?;
    let name = first.name;
    let mut is_changed = false;
    for Attribute { name, value } in rest {
        let Some(value) = value else { continue };
        let replaced = if name.eq_ignore_ascii_case(b"domain") {
            program.domains.iter().find_map(|(from, to)| domain(lookup, from, to, value))
        } else if name.eq_ignore_ascii_case(b"path") {
            program.paths.iter().find_map(|(from, to)| path(lookup, from, to, value))
        } else {
            None
        };
        if let Some(replaced) = replaced {
            *value = replaced;
            is_changed = true;
        }
    }
    let flags = program.flags.iter().find(|(from, _)| match from {
        CookieMatch::Text(text) => lookup.text(text).eq_ignore_ascii_case(name),
        CookieMatch::Regex(regex) => regex.is_match(name).unwrap_or(false),
    });
    if let Some((_, flags)) = flags {
        for flag in flags {
            is_changed |= set_flag(&mut attributes, &lookup.text(flag).to_ascii_lowercase());
        }
    }
    if !is_changed {
        return None;
    }
    let mut out = Vec::new();
    for (at, Attribute { name, value }) in attributes.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b"; " } else { b"" });
        out.extend_from_slice(name);
        if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    Some(out)
}

fn attribute(text: &[u8]) -> Attribute<'_> {
    match memchr::memchr(b'=', text).and_then(|at| text.split_at_checked(at)) {
        Some((name, value)) => {
            let value = value.get(1..).unwrap_or_default();
            Attribute { name: name.trim_ascii(), value: Some(value.trim_ascii().to_vec()) }
        }
        None => Attribute { name: text.trim_ascii(), value: None },
    }
}

/// Replaces a domain; the dot in front of one stays.
fn domain(lookup: Lookup<'_>, from: &CookieMatch, to: &Template, value: &[u8]) -> Option<Vec<u8>> {
    match from {
        CookieMatch::Regex(regex) => by_expression(lookup, regex, to, value),
        CookieMatch::Text(text) => {
            let (dot, bare) = match value.strip_prefix(b".") {
                Some(bare) => (b".".as_slice(), bare),
                None => (b"".as_slice(), value),
            };
            let is_it = lookup.text(text).eq_ignore_ascii_case(bare);
            is_it.then(|| [dot, &lookup.text(to)].concat())
        }
    }
}

/// Replaces the beginning of a path.
fn path(lookup: Lookup<'_>, from: &CookieMatch, to: &Template, value: &[u8]) -> Option<Vec<u8>> {
    match from {
        CookieMatch::Regex(regex) => by_expression(lookup, regex, to, value),
        CookieMatch::Text(text) => {
            let rest = value.strip_prefix(lookup.text(text).as_slice())?;
            Some([&lookup.text(to), rest].concat())
        }
    }
}

/// Replaces the whole of what an expression matches. One that takes too many steps matches nothing.
fn by_expression(lookup: Lookup<'_>, regex: &Regex, to: &Template, value: &[u8]) -> Option<Vec<u8>> {
    let found = regex.captures(value).ok().flatten()?;
    let mut text = Vec::new();
    lookup.append_with_groups(to, &found, &mut text);
    Some(text)
}

/// Sets a flag or takes one out, which has `no` in front. Says whether it is one.
fn set_flag(attributes: &mut Vec<Attribute<'_>>, flag: &[u8]) -> bool {
    let (name, value): (&'static [u8], Option<&[u8]>) = match flag {
        b"secure" => (b"Secure", None),
        b"httponly" => (b"HttpOnly", None),
        b"samesite=strict" => (b"SameSite", Some(b"Strict")),
        b"samesite=lax" => (b"SameSite", Some(b"Lax")),
        b"samesite=none" => (b"SameSite", Some(b"None")),
        b"nosecure" | b"nohttponly" | b"nosamesite" => {
            let name = flag.get(2..).unwrap_or_default();
            let mut at = 0;
            attributes.retain(|attribute| {
                at += 1;
                at == 1 || !attribute.name.eq_ignore_ascii_case(name)
            });
            return true;
        }
        _ => return false,
    };
    let is_same = |attribute: &&mut Attribute<'_>| attribute.name.eq_ignore_ascii_case(name);
    match attributes.iter_mut().skip(1).find(is_same) {
        None => attributes.push(Attribute { name, value: value.map(<[u8]>::to_vec) }),
        Some(known) => {
            let (Some(value), Some(set)) = (value, &known.value) else { return true };
            if !set.eq_ignore_ascii_case(value) {
                *known = Attribute { name, value: Some(value.to_vec()) };
            }
        }
    }
    true
}
