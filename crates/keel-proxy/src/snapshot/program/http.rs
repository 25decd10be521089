//! `proxy_pass`: the header program of a location that asks its peers in HTTP.

use keel_http::{Name, NameSet};
use keel_model::{
    CookieFlags, CookieRule, CookieText, ProxyHttpVersion, ProxyPass, ProxyRedirect, ProxyScope, Template,
};
use keel_regex::Regex;

use super::Names;
use crate::{
    error::CompileError,
    snapshot::{FieldProgram, regex},
};

/// The header program of a location with `proxy_pass`.
pub(crate) struct HttpProgram {
    pub(crate) pass: ProxyPass,
    pub(crate) version: ProxyHttpVersion,
    /// The method of requests, if it isn't the client's.
    pub(crate) method: Option<Template>,
    /// Fields set on the request, in order; those that frame it are not among them.
    pub(crate) set: Vec<FieldProgram>,
    /// The body of requests, if it isn't the client's.
    pub(crate) set_body: Option<Template>,
    /// Fields of the client that don't pass.
    pub(crate) request_drops: Names,
    pub(crate) redirects: Vec<RedirectRule>,
    /// What is changed of cookies.
    pub(crate) cookies: Option<Box<CookieProgram>>,
    /// Whether `Upgrade` may pass and a tunnel begin.
    pub(crate) upgrades: bool,
    /// Whether trailers of responses pass.
    pub(crate) pass_trailers: bool,
}

/// One rule of `proxy_redirect`.
pub(crate) enum RedirectRule {
    Prefix { from: Template, to: Template },
    Regex { from: Regex, to: Template },
}

/// What is changed of the cookies that peers set.
pub(crate) struct CookieProgram {
    pub(crate) domains: Vec<(CookieMatch, Template)>,
    pub(crate) paths: Vec<(CookieMatch, Template)>,
    pub(crate) flags: Vec<(CookieMatch, Vec<Template>)>,
}

/// What an attribute of a cookie, or its name, is compared with.
pub(crate) enum CookieMatch {
    Text(Template),
    Regex(Regex),
}

impl CookieMatch {
    fn compile(text: &CookieText) -> Result<Self, CompileError> {
        Ok(match text {
            CookieText::Text(text) => CookieMatch::Text(text.clone()),
            CookieText::Regex(pattern) => CookieMatch::Regex(regex(pattern)?),
        })
    }
}

impl CookieProgram {
    /// Makes it, or none where cookies stay as they are.
    fn compile(scope: &ProxyScope) -> Result<Option<Box<Self>>, CompileError> {
        let ProxyScope { cookie_domains, cookie_paths, cookie_flags, .. } = scope;
        if cookie_domains.is_empty() && cookie_paths.is_empty() && cookie_flags.is_empty() {
            return Ok(None);
        }
        let rule = |rule: &CookieRule| Ok((CookieMatch::compile(&rule.from)?, rule.to.clone()));
        let flags = |set: &CookieFlags| Ok((CookieMatch::compile(&set.name)?, set.flags.clone()));
        Ok(Some(Box::new(Self {
            domains: cookie_domains.iter().map(rule).collect::<Result<_, CompileError>>()?,
            paths: cookie_paths.iter().map(rule).collect::<Result<_, CompileError>>()?,
            flags: cookie_flags.iter().map(flags).collect::<Result<_, CompileError>>()?,
        })))
    }
}

/// Fields that the proxy writes itself, or that are for it alone.
const OWN: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "expect"];

impl HttpProgram {
    pub(super) fn compile(pass: &ProxyPass, scope: &ProxyScope) -> Result<Self, CompileError> {
        let mut request_drops = Names { known: NameSet::HOP_BY_HOP, ..Names::default() };
        OWN.iter().for_each(|name| request_drops.insert(name.as_bytes()));
        let mut set: Vec<FieldProgram> = Vec::new();
        let mut upgrades = false;
        for (name, value) in &scope.set_headers {
            // `X-Forwarded-*` with an empty value leaves out the whole family.
            if let Some(family) = name.strip_suffix('*').filter(|_| value.parts.is_empty()) {
                request_drops.insert_family(family);
                continue;
            }
            request_drops.insert(name.as_bytes());
            let known = Name::of(name.as_bytes());
            upgrades |= known == Name::Upgrade;
            let frames = matches!(known, Name::ContentLength | Name::TransferEncoding);
            // Of several the last counts, as in nginx; of other fields each does.
            if known == Name::Host {
                set.retain(|field| field.name.known() != Name::Host);
            }
            if !frames && !value.parts.is_empty() {
                set.push(FieldProgram::compile(name, value)?);
            }
        }
        let redirects = scope.redirects.iter().map(|redirect| {
            Ok(match redirect {
                ProxyRedirect::Prefix { from, to } => {
                    RedirectRule::Prefix { from: from.clone(), to: to.clone() }
                }
                ProxyRedirect::Regex { from, to } => {
                    RedirectRule::Regex { from: regex(from)?, to: to.clone() }
                }
            })
        });
        Ok(Self {
            pass: pass.clone(),
            version: scope.http_version,
            method: scope.method.clone(),
            set,
            set_body: scope.set_body.clone(),
            request_drops,
            redirects: redirects.collect::<Result<_, CompileError>>()?,
            cookies: CookieProgram::compile(scope)?,
            upgrades,
            pass_trailers: scope.pass_trailers,
        })
    }
}
