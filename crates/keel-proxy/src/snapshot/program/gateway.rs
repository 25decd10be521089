//! `fastcgi_pass`, `uwsgi_pass` and `scgi_pass`: what their applications are told.

use keel_http::uwsgi::Modifiers;
use keel_model::{EmptyParam, FastCgiScope, GatewayParam, Part, ScgiScope, Template, UwsgiScope, Variable};
use keel_regex::Regex;

use crate::{error::CompileError, snapshot::regex};

/// The program of a location with `fastcgi_pass`.
pub(crate) struct FastCgiProgram {
    pub(crate) params: Params,
    /// Whether applications are asked to keep their connections.
    pub(crate) keeps: bool,
    /// Complaints that make a response invalid.
    pub(crate) catch_stderr: Vec<String>,
}

/// The program of a location with `uwsgi_pass`.
pub(crate) struct UwsgiProgram {
    pub(crate) params: Params,
    pub(crate) modifiers: Modifiers,
    /// What follows the parameters.
    pub(crate) string: String,
}

/// The program of a location with `scgi_pass`.
pub(crate) struct ScgiProgram {
    pub(crate) params: Params,
}

/// What an application is told of a request, besides the client's fields.
pub(crate) struct Params {
    pub(crate) list: Vec<GatewayParam>,
    /// Fields of the client that parameters take the place of, as [`folded`].
    replaced: Vec<Box<[u8]>>,
}

/// What the names of parameters begin with that are fields of the client.
const FIELD_PREFIX: &str = "HTTP_";

impl Params {
    fn compile(params: &[GatewayParam]) -> Self {
        let host = GatewayParam {
            name: "HTTP_HOST".into(),
            value: Template {
                parts: [Variable::Host, Variable::IsRequestPort, Variable::RequestPort]
                    .map(Part::Variable)
                    .into(),
            },
            empty: EmptyParam::LeftOut,
        };
        let has_host = params.iter().any(|param| param.name.eq_ignore_ascii_case(&host.name));
        let mut list: Vec<GatewayParam> = params.to_vec();
        list.extend(Some(host).filter(|_| !has_host));
        let field = |param: &GatewayParam| {
            let field = param.name.strip_prefix(FIELD_PREFIX).filter(|field| !field.is_empty());
            field.map(|field| field.bytes().map(folded).collect())
        };
        let replaced = list.iter().filter_map(field).collect();
        // A field that is to be nothing isn't sent at all.
        list.retain(|param| field(param).is_none() || !param.value.parts.is_empty());
        Self { list, replaced }
    }

    /// Says whether a parameter takes the place of a field of the client.
    pub(crate) fn replace(&self, field: &[u8]) -> bool {
        self.replaced
            .iter()
            .any(|name| name.len() == field.len() && name.iter().zip(field).all(|(a, b)| *a == folded(*b)))
    }
}

/// A byte of a field's name, with letters in lower case and `-` as `_`.
fn folded(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() }
}

impl FastCgiProgram {
    pub(super) fn compile(scope: &FastCgiScope) -> Self {
        Self {
            params: Params::compile(&scope.params),
            keeps: scope.keep_conn,
            catch_stderr: scope.catch_stderr.clone(),
        }
    }
}

impl UwsgiProgram {
    pub(super) fn compile(scope: &UwsgiScope) -> Self {
        Self {
            params: Params::compile(&scope.params),
            modifiers: Modifiers { first: scope.modifier1, second: scope.modifier2 },
            string: scope.string.clone(),
        }
    }
}

impl ScgiProgram {
    pub(super) fn compile(scope: &ScgiScope) -> Self {
        Self { params: Params::compile(&scope.params) }
    }
}

/// How a URI is split into a script and what follows its name, for places where that is asked for.
pub(crate) struct ScriptName {
    /// Of two groups.
    split: Option<Regex>,
    /// What stands behind a name that ends in `/`.
    index: String,
}

impl ScriptName {
    /// Makes one; `None` where every URI is a script's name as it is.
    pub(crate) fn compile(scope: &FastCgiScope) -> Result<Option<Box<Self>>, CompileError> {
        let split = scope.split_path_info.as_ref().map(regex).transpose()?;
        let is_set = split.is_some() || !scope.index.is_empty();
        Ok(is_set.then(|| Box::new(Self { split, index: scope.index.clone() })))
    }

    /// Splits a URI: the script's name, and what follows it. Nothing of a URI that takes too many steps.
    pub(crate) fn split<'a>(&self, uri: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let Some(split) = &self.split else { return Some((uri, b"")) };
        let Some(groups) = split.captures(uri).ok()? else { return Some((uri, b"")) };
        let group = |number: usize| {
            let range = groups.ranges().get(number).copied().flatten();
            range.and_then(|(start, end)| uri.get(start..end)).unwrap_or_default()
        };
        Some((group(1), group(2)))
    }

    /// What stands behind a name.
    pub(crate) fn index_of(&self, name: &[u8]) -> &[u8] {
        if name.ends_with(b"/") { self.index.as_bytes() } else { b"" }
    }
}

#[cfg(test)]
mod tests {
    use keel_model::{Pattern, PatternEngine};

    use super::*;

    fn param(name: &str, value: &str) -> GatewayParam {
        let value = Template {
            parts: (!value.is_empty()).then(|| Part::Literal(value.into())).into_iter().collect(),
        };
        GatewayParam { name: name.into(), value, empty: EmptyParam::Sent }
    }

    #[test]
    fn parameters_take_the_place_of_fields() {
        let check = |params: &[GatewayParam], sent: &[&str], field: &str, replaced: bool| {
            let params = Params::compile(params);
            let names: Vec<_> = params.list.iter().map(|param| param.name.as_str()).collect();
            assert_eq!((names.as_slice(), params.replace(field.as_bytes())), (sent, replaced));
        };
        check(&[], &["HTTP_HOST"], "Host", true);
        check(&[param("A", "")], &["A", "HTTP_HOST"], "A", false);
        check(&[param("http_host", "x")], &["http_host"], "Host", false);
        check(&[param("HTTP_X_Y", "v")], &["HTTP_X_Y", "HTTP_HOST"], "x-y", true);
        check(&[param("HTTP_X_Y", "")], &["HTTP_HOST"], "X_Y", true);
        check(&[param("HTTP_", "")], &["HTTP_", "HTTP_HOST"], "", false);
    }

    #[test]
    fn splits_a_script_s_name_from_what_follows() {
        let script = |expression: Option<&str>, index: &str| {
            let split = expression.map(|source| Pattern {
                source: source.into(),
                ignore_case: false,
                engine: PatternEngine::Linear,
            });
            let scope =
                FastCgiScope { split_path_info: split, index: index.into(), ..FastCgiScope::default() };
            ScriptName::compile(&scope).unwrap()
        };
        assert!(script(None, "").is_none());
        let php = script(Some(r"^(.+?\.php)(/.*)$"), "index.php").unwrap();
        assert_eq!(php.split(b"/a.php/b/c"), Some((b"/a.php".as_slice(), b"/b/c".as_slice())));
        assert_eq!(php.split(b"/a/"), Some((b"/a/".as_slice(), b"".as_slice())));
        assert_eq!((php.index_of(b"/a/"), php.index_of(b"/a")), (b"index.php".as_slice(), b"".as_slice()));
        let empty = script(Some("^()(.*)$"), "").unwrap();
        assert_eq!(empty.split(b"/x"), Some((b"".as_slice(), b"/x".as_slice())));
    }
}
