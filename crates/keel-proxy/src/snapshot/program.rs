//! What a location does that asks peers, worked out at load: where its requests go, how they are written, and which fields
//! of responses pass.

mod gateway;
mod http;

use std::collections::HashMap;

use keel_http::{Name, NameSet, body::Trailers};
use keel_model::{
    Content, GrpcScope, ProxyHttpVersion, ProxyScope, ProxyTarget, Scope, Template, UpstreamName,
    UpstreamScope,
};

pub(crate) use self::{
    gateway::{FastCgiProgram, Params, ScgiProgram, ScriptName, UwsgiProgram},
    http::{CookieMatch, CookieProgram, HttpProgram, RedirectRule},
};
use crate::error::CompileError;

/// What a location does that asks peers.
pub(crate) struct PeerProgram {
    pub(crate) route: Route,
    /// The settings towards peers of the module that asks them.
    pub(crate) settings: UpstreamScope,
    /// Fields of the peer that don't pass.
    pub(crate) response_drops: Names,
    /// Fields of the peer that have no effect here (`proxy_ignore_headers`).
    pub(crate) ignores: NameSet,
    /// How requests are written.
    pub(crate) protocol: Protocol,
}

/// In which protocol peers are asked.
pub(crate) enum Protocol {
    /// `proxy_pass` and `grpc_pass`.
    Http(HttpProgram),
    /// `fastcgi_pass`.
    FastCgi(FastCgiProgram),
    /// `uwsgi_pass`.
    Uwsgi(UwsgiProgram),
    /// `scgi_pass`.
    Scgi(ScgiProgram),
}

/// Tells protocols from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolKind {
    Http,
    FastCgi,
    Uwsgi,
    Scgi,
}

impl ProtocolKind {
    /// What a peer's address begins with in the log.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            ProtocolKind::Http => "http://",
            ProtocolKind::FastCgi => "fastcgi://",
            ProtocolKind::Uwsgi => "uwsgi://",
            ProtocolKind::Scgi => "scgi://",
        }
    }
}

/// Where requests go.
pub(crate) enum Route {
    /// An upstream, by its place in the snapshot.
    Upstream(usize),
    /// Known once evaluated.
    Evaluated(Template),
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

impl PeerProgram {
    /// Makes the program of a place; `None` where it asks no peers.
    pub(crate) fn compile(
        scope: &Scope,
        upstreams: &HashMap<UpstreamName, usize>,
    ) -> Result<Option<Box<Self>>, CompileError> {
        let protocol = match &scope.content {
            Content::Static | Content::EmptyGif | Content::StubStatus | Content::Prometheus => {
                return Ok(None);
            }
            Content::Proxy(pass) => Protocol::Http(HttpProgram::compile(pass, &scope.proxy)?),
            Content::Grpc(pass) => Protocol::Http(HttpProgram::compile(pass, &as_proxy(&scope.grpc))?),
            Content::FastCgi(_) => Protocol::FastCgi(FastCgiProgram::compile(&scope.fastcgi)),
            Content::Uwsgi(_) => Protocol::Uwsgi(UwsgiProgram::compile(&scope.uwsgi)),
            Content::Scgi(_) => Protocol::Scgi(ScgiProgram::compile(&scope.scgi)),
        };
        let (Some(target), Some(settings)) = (scope.content.target(), scope.peer_settings()) else {
            return Ok(None);
        };
        let mut response_drops = Names { known: NameSet::HOP_BY_HOP, ..Names::default() };
        response_drops.insert(b"content-length");
        settings.hide_headers.iter().for_each(|name| response_drops.insert(name.as_bytes()));
        let mut ignores = Names::default();
        settings.ignore_headers.iter().for_each(|name| ignores.insert(name.as_bytes()));
        Ok(Some(Box::new(Self {
            route: Route::compile(target, upstreams)?,
            settings: settings.clone(),
            response_drops,
            ignores: ignores.known,
            protocol,
        })))
    }

    /// The `proxy_pass`, if it is one.
    pub(crate) fn http(&self) -> Option<&HttpProgram> {
        match &self.protocol {
            Protocol::Http(http) => Some(http),
            Protocol::FastCgi(_) | Protocol::Uwsgi(_) | Protocol::Scgi(_) => None,
        }
    }

    /// In which protocol peers are asked.
    pub(crate) fn kind(&self) -> ProtocolKind {
        match &self.protocol {
            Protocol::Http(_) => ProtocolKind::Http,
            Protocol::FastCgi(_) => ProtocolKind::FastCgi,
            Protocol::Uwsgi(_) => ProtocolKind::Uwsgi,
            Protocol::Scgi(_) => ProtocolKind::Scgi,
        }
    }

    /// What becomes of the trailers of responses.
    pub(crate) fn trailers(&self) -> Trailers {
        match &self.protocol {
            Protocol::Http(http) if http.pass_trailers => Trailers::Keep,
            _ => Trailers::Drop,
        }
    }

    /// Whether a connection to a peer carries many requests at once.
    pub(crate) fn shares_connections(&self) -> bool {
        match &self.protocol {
            Protocol::Http(http) => http.version == ProxyHttpVersion::Http2,
            Protocol::FastCgi(_) | Protocol::Uwsgi(_) | Protocol::Scgi(_) => false,
        }
    }

    /// Whether a tunnel may begin where the client asks for one.
    pub(crate) fn may_tunnel(&self) -> bool {
        match &self.protocol {
            Protocol::Http(http) => http.upgrades,
            Protocol::FastCgi(_) => false,
            Protocol::Uwsgi(_) | Protocol::Scgi(_) => true,
        }
    }
}

/// Gives what `grpc_pass` means in the words of `proxy_pass`: it asks in HTTP/2, and trailers pass.
fn as_proxy(grpc: &GrpcScope) -> ProxyScope {
    ProxyScope {
        http_version: ProxyHttpVersion::Http2,
        set_headers: grpc.set_headers.clone(),
        pass_trailers: true,
        ..ProxyScope::default()
    }
}

impl Route {
    fn compile(target: &ProxyTarget, upstreams: &HashMap<UpstreamName, usize>) -> Result<Self, CompileError> {
        Ok(match target {
            ProxyTarget::Evaluated(template) => Route::Evaluated(template.clone()),
            ProxyTarget::Upstream(name) => match upstreams.get(name) {
                Some(upstream) => Route::Upstream(*upstream),
                None => return Err(CompileError::Dangling { what: format!("the upstream `{name}`") }),
            },
        })
    }
}
