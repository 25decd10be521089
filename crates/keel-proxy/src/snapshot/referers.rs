//! `valid_referers`, ready to be looked up: hosts by name, then with a wildcard at the head, at the tail, then expressions.

use std::collections::HashMap;

use keel_model::{RefererScope, ServerName, ValidReferers};
use keel_regex::{Regex, TooManySteps};

use crate::error::CompileError;

/// The shortest URL of which a host is looked for.
const URL_BYTES_MIN: usize = "http://i.ru".len();

/// The longest host name, as in nginx.
const HOST_BYTES_MAX: usize = 256;

/// What the path of a host must begin with.
type Path = Option<Box<[u8]>>;

/// Whose pages may refer to a place.
pub(crate) struct Referers {
    none: bool,
    blocked: bool,
    hosts: HashMap<Box<[u8]>, Path>,
    /// Endings of names, longest first.
    heads: Vec<(Box<[u8]>, Path)>,
    /// Beginnings of names, longest first.
    tails: Vec<(Box<[u8]>, Path)>,
    /// Of the server's names.
    server_regexes: Vec<Regex>,
    regexes: Vec<Regex>,
}

impl Referers {
    /// Makes those of a place in a server of these names; `None` where everything is valid.
    pub(super) fn compile(
        scope: &RefererScope,
        names: &[ServerName],
    ) -> Result<Option<Box<Self>>, CompileError> {
        let Some(valid) = &scope.valid else { return Ok(None) };
        let ValidReferers { none, blocked, server_names, hosts } = valid;
        let mut referers = Self {
            none: *none,
            blocked: *blocked,
            hosts: HashMap::new(),
            heads: Vec::new(),
            tails: Vec::new(),
            server_regexes: Vec::new(),
            regexes: scope.patterns.iter().map(super::regex).collect::<Result<_, _>>()?,
        };
        for host in hosts {
            referers.add(&host.name, host.path.as_deref().map(|path| path.as_bytes().into()));
        }
        for name in names.iter().filter(|_| *server_names) {
            match name {
                ServerName::Regex(pattern) => referers.server_regexes.push(super::regex(pattern)?),
                ServerName::Exact(name)
                | ServerName::Dot(name)
                | ServerName::WildcardHead(name)
                | ServerName::WildcardTail(name) => referers.add(name, None),
            }
        }
        let longest_first =
            |one: &(Box<[u8]>, Path), other: &(Box<[u8]>, Path)| other.0.len().cmp(&one.0.len());
        referers.heads.sort_by(longest_first);
        referers.tails.sort_by(longest_first);
        Ok(Some(Box::new(referers)))
    }

    fn add(&mut self, name: &str, path: Path) {
        if let Some(bare) = name.strip_prefix('.') {
            self.hosts.entry(bare.as_bytes().into()).or_insert_with(|| path.clone());
            self.heads.push((name.as_bytes().into(), path));
        } else if let Some(ending) = name.strip_prefix('*') {
            self.heads.push((ending.as_bytes().into(), path));
        } else if let Some(beginning) = name.strip_suffix('*') {
            self.tails.push((beginning.as_bytes().into(), path));
        } else {
            self.hosts.entry(name.as_bytes().into()).or_insert(path);
        }
    }

    /// Says whether a request may come from there.
    ///
    /// # Errors
    /// When an expression takes too many steps.
    pub(crate) fn is_valid(&self, referer: Option<&[u8]>) -> Result<bool, TooManySteps> {
        let Some(referer) = referer else { return Ok(self.none) };
        let Some(rest) = behind_scheme(referer) else { return Ok(self.blocked) };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
        let (host, behind) = rest.split_at(end);
        if host.len() > HOST_BYTES_MAX {
            return Ok(false);
        }
        let host = host.to_ascii_lowercase();
        if let Some(path) = self.find(&host) {
            let start = memchr::memchr(b'/', behind).unwrap_or(behind.len());
            let asked = behind.get(start..).unwrap_or_default();
            return Ok(path.as_ref().is_none_or(|path| asked.starts_with(path)));
        }
        for regex in &self.server_regexes {
            if regex.is_match(&host)? {
                return Ok(true);
            }
        }
        for regex in &self.regexes {
            if regex.is_match(rest)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find(&self, host: &[u8]) -> Option<&Path> {
        let head =
            || self.heads.iter().find(|(ending, _)| host.len() > ending.len() && host.ends_with(ending));
        let tail =
            || self.tails.iter().find(|(start, _)| host.len() > start.len() && host.starts_with(start));
        self.hosts.get(host).or_else(|| head().or_else(tail).map(|(_, path)| path))
    }
}

/// Cuts the scheme off a URL of the web; `None` where it is none.
fn behind_scheme(referer: &[u8]) -> Option<&[u8]> {
    if referer.len() < URL_BYTES_MIN {
        return None;
    }
    [b"http://".as_slice(), b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = referer.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use keel_model::RefererHost;

    use super::*;

    fn referers(valid: ValidReferers) -> Box<Referers> {
        let scope = RefererScope { valid: Some(valid), patterns: Vec::new() };
        let names = [ServerName::Exact("here.org".into()), ServerName::Dot(".dot.org".into())];
        Referers::compile(&scope, &names).unwrap().unwrap()
    }

    fn hosts(hosts: &[&str]) -> ValidReferers {
        let host = |text: &&str| {
            let (name, path) = text.find('/').map_or((*text, ""), |at| text.split_at(at));
            RefererHost { name: name.into(), path: Some(path.to_owned()).filter(|path| !path.is_empty()) }
        };
        ValidReferers { hosts: hosts.iter().map(host).collect(), ..ValidReferers::default() }
    }

    #[test]
    fn hosts_are_found_by_name_and_wildcard() {
        let some = referers(hosts(&["a.org", "*.b.org", "c.*", ".d.org", "e.org/path"]));
        let check = |referer: &str, expect: bool| {
            assert_eq!(some.is_valid(Some(referer.as_bytes())).ok(), Some(expect), "{referer}");
        };
        check("http://a.org", true);
        check("HTTPS://A.ORG:8080/x", true);
        check("http://a.org.evil", false);
        check("http://x.a.org", false);
        check("http://x.b.org/", true);
        check("http://y.x.b.org/", true);
        check("http://b.org/abc", false);
        check("http://c.anything", true);
        check("http://d.org/", true);
        check("http://x.d.org/", true);
        check("http://e.org/path/x", true);
        check("http://e.org:80/path", true);
        check("http://e.org/other", false);
        check("http://e.org", false);
        check("ftp://a.org/abc", false);
        check("a.org", false);
    }

    #[test]
    fn what_is_no_url_is_blocked_and_no_field_is_none() {
        let nothing = referers(hosts(&["a.org"]));
        assert_eq!(
            (nothing.is_valid(None).ok(), nothing.is_valid(Some(b"x")).ok()),
            (Some(false), Some(false))
        );
        let both = referers(ValidReferers { none: true, blocked: true, ..hosts(&["a.org"]) });
        assert_eq!((both.is_valid(None).ok(), both.is_valid(Some(b"x")).ok()), (Some(true), Some(true)));
        assert_eq!(both.is_valid(Some(b"http://b.org/x")).ok(), Some(false));
    }

    #[test]
    fn the_servers_own_names_may_refer() {
        let own = referers(ValidReferers { server_names: true, ..ValidReferers::default() });
        assert_eq!(own.is_valid(Some(b"http://here.org/")).ok(), Some(true));
        assert_eq!(own.is_valid(Some(b"http://x.dot.org/")).ok(), Some(true));
        assert_eq!(own.is_valid(Some(b"http://there.org/")).ok(), Some(false));
    }
}
