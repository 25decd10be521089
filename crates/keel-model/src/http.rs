//! Virtual servers, locations and what each nginx module configures in them.
//!
//! A [`Scope`] is what holds in one location, inheritance already applied; each module has a slot of its own in it.

mod access;
mod core;
mod headers;
mod index;
mod log;
mod proxy;
mod rewrite;
mod upstream;

use serde::{Deserialize, Serialize};

use crate::{
    AccessScope, ClientSettings, CoreScope, HeadersScope, IndexScope, LogScope, Pattern, ProxyPass,
    ProxyScope, Rewrite,
};

pub use self::access::*;
pub use self::core::*;
pub use self::headers::*;
pub use self::index::*;
pub use self::log::*;
pub use self::proxy::*;
pub use self::rewrite::*;
pub use self::upstream::*;

/// A `server` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// Its names in the file's order; the first is `$server_name`.
    pub names: Vec<ServerName>,
    /// How connections and request heads are read here.
    pub client: ClientSettings,
    /// What holds outside every location.
    pub scope: Scope,
    /// What the `rewrite` phase of the server itself does (`return` at server level).
    pub rewrite: Rewrite,
    /// Its locations in the file's order.
    pub locations: Vec<Location>,
}

impl VirtualServer {
    /// Gives the text of `$server_name`.
    pub fn primary_name(&self) -> &str {
        match self.names.first() {
            Some(
                ServerName::Exact(name) | ServerName::WildcardHead(name) | ServerName::WildcardTail(name),
            ) => name,
            Some(ServerName::Dot(name)) => name,
            Some(ServerName::Regex(pattern)) => &pattern.source,
            None => "",
        }
    }
}

/// A name of `server_name`. Text is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerName {
    /// `example.org`, and `""`.
    Exact(String),
    /// `*.example.org`, as written.
    WildcardHead(String),
    /// `www.example.*`, as written.
    WildcardTail(String),
    /// `.example.org`, as written: the name itself and everything below it.
    Dot(String),
    /// `~^www\d+\.example\.org$`, without the tilde.
    Regex(Pattern),
}

/// A `location` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Which requests it takes.
    pub matcher: LocationMatcher,
    /// What holds in it.
    pub scope: Scope,
    /// What its `rewrite` phase does.
    pub rewrite: Rewrite,
    /// Locations inside it.
    pub locations: Vec<Location>,
}

/// The five kinds of location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocationMatcher {
    /// `location = /path`.
    Exact(String),
    /// `location /path`.
    Prefix(String),
    /// `location ^~ /path`: regular expressions are not tried.
    PrefixFinal(String),
    /// `location ~ expr` and `~*`.
    Regex(Pattern),
    /// `location @name`, with the `@`.
    Named(String),
}

/// What holds in one place of the configuration. One slot for each module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// ngx_http_core_module.
    pub core: CoreScope,
    /// ngx_http_access_module.
    pub access: AccessScope,
    /// ngx_http_headers_module.
    pub headers: HeadersScope,
    /// ngx_http_log_module.
    pub log: LogScope,
    /// ngx_http_index_module: `index`, default `index.html`; looked for in order.
    pub index: IndexScope,
    /// Who answers.
    pub content: Content,
    /// ngx_http_proxy_module, apart from `proxy_pass` itself.
    pub proxy: ProxyScope,
}

/// Who answers a request in this location.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Files below `root` or `alias`.
    #[default]
    Static,
    /// `proxy_pass`.
    Proxy(ProxyPass),
}
