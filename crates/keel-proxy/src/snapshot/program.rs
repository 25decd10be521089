//! What a location does to the fields that pass through it, worked out at load.

use std::collections::HashMap;

use keel_http::{Name, NameSet};
use keel_model::{ProxyPass, ProxyRedirect, ProxyScope, ProxyTarget, Template, UpstreamName};
use keel_regex::Regex;

use super::FieldProgram;
use crate::error::CompileError;

/// The header program of a location with `proxy_pass`.
pub(crate) struct ProxyProgram {
    pub(crate) route: Route,
    pub(crate) pass: ProxyPass,
    /// Fields set on the request, in order; those that frame it are not among them.
    pub(crate) set: Vec<FieldProgram>,
    /// Fields of the client that don't pass.
    pub(crate) request_drops: Names,
    /// Fields of the peer that don't pass.
    pub(crate) response_drops: Names,
    /// Fields of the peer that have no effect here (`proxy_ignore_headers`).
    pub(crate) ignores: NameSet,
    pub(crate) redirects: Vec<RedirectRule>,
    /// Whether `Upgrade` may pass and a tunnel begin.
    pub(crate) upgrades: bool,
}

/// Where requests go.
pub(crate) enum Route {
    /// An upstream, by its place in the snapshot.
    Upstream(usize),
    /// Known once evaluated.
    Evaluated(Template),
}

/// One rule of `proxy_redirect`.
pub(crate) enum RedirectRule {
    Prefix { from: Template, to: Template },
    Regex { from: Regex, to: Template },
}

/// A set of field names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: NameSet,
    other: Vec<Box<[u8]>>,
    /// What the names of a family begin with.
    families: Vec<Box<[u8]>>,
    /// Which letters the names of both begin with, by the five lowest bits, which a letter's cases share.
    initials: u32,
}

/// Gives the bit of a name's first letter.
fn initial(name: &[u8]) -> u32 {
    name.first().map_or(u32::MAX, |letter| 1 << (letter & 0x1f))
}

impl Names {
    /// Takes in every name that begins with a text.
    fn insert_family(&mut self, prefix: &str) {
        let prefix = prefix.to_ascii_lowercase();
        self.known = self.known.union(NameSet::starting_with(&prefix));
        self.initials |= initial(prefix.as_bytes());
        self.families.push(prefix.into_bytes().into());
    }

    fn insert(&mut self, name: &[u8]) {
        match Name::of(name) {
            Name::Other => {
                self.initials |= initial(name);
                self.other.push(name.to_ascii_lowercase().into());
            }
            known => self.known = self.known.with(known),
        }
    }

    /// Says whether the field is in the set.
    pub(crate) fn contains(&self, known: Name, name: &[u8]) -> bool {
        if known != Name::Other {
            return self.known.contains(known);
        }
        if self.initials & initial(name) == 0 {
            return false;
        }
        let is_of =
            |family: &[u8]| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
        self.other.iter().any(|other| other.len() == name.len() && other.eq_ignore_ascii_case(name))
            || self.families.iter().any(|family| is_of(family))
    }
}

/// Fields that the proxy writes itself, or that are for it alone.
const OWN: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "expect"];

impl ProxyProgram {
    pub(super) fn compile(
        pass: &ProxyPass,
        scope: &ProxyScope,
        upstreams: &HashMap<UpstreamName, usize>,
    ) -> Result<Self, CompileError> {
        let route = match &pass.target {
            ProxyTarget::Upstream(name) => Route::Upstream(
                upstreams
                    .get(name)
                    .copied()
                    .ok_or_else(|| CompileError::Dangling { what: format!("the upstream `{name}`") })?,
            ),
            ProxyTarget::Evaluated(template) => Route::Evaluated(template.clone()),
        };
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
        let mut response_drops = Names { known: NameSet::HOP_BY_HOP, ..Names::default() };
        response_drops.insert(b"content-length");
        scope.upstream.hide_headers.iter().for_each(|name| response_drops.insert(name.as_bytes()));
        let mut ignores = Names::default();
        scope.upstream.ignore_headers.iter().for_each(|name| ignores.insert(name.as_bytes()));
        let redirects = scope.redirects.iter().map(|redirect| {
            Ok(match redirect {
                ProxyRedirect::Prefix { from, to } => {
                    RedirectRule::Prefix { from: from.clone(), to: to.clone() }
                }
                ProxyRedirect::Regex { from, to } => {
                    RedirectRule::Regex { from: super::regex(from)?, to: to.clone() }
                }
            })
        });
        Ok(Self {
            route,
            pass: pass.clone(),
            set,
            request_drops,
            response_drops,
            ignores: ignores.known,
            redirects: redirects.collect::<Result<_, CompileError>>()?,
            upgrades,
        })
    }
}
