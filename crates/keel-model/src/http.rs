//! Virtual servers, locations and what each nginx module configures in them.
//!
//! A [`Scope`] is what holds in one location, inheritance already applied; each module has a group of its own in it. A
//! setting is one line of such a group: its name, type, default and, where it isn't the usual one, its inheritance.

mod access;
mod addition;
mod auth_basic;
mod auth_request;
mod autoindex;
mod charset;
mod core;
mod fastcgi;
mod gateway;
mod geo;
mod grpc;
mod gunzip;
mod gzip;
mod gzip_static;
mod headers;
mod index;
mod limit_conn;
mod limit_req;
mod log;
mod map;
mod mirror;
mod proxy;
mod realip;
mod referer;
mod rewrite;
mod scgi;
mod secure_link;
mod split_clients;
mod ssl;
mod sub;
mod upstream;
mod userid;
mod uwsgi;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Own, Pattern, settings::settings};

pub use self::access::*;
pub use self::addition::*;
pub use self::auth_basic::*;
pub use self::auth_request::*;
pub use self::autoindex::*;
pub use self::charset::*;
pub use self::core::*;
pub use self::fastcgi::*;
pub use self::gateway::*;
pub use self::geo::*;
pub use self::grpc::*;
pub use self::gunzip::*;
pub use self::gzip::*;
pub use self::gzip_static::*;
pub use self::headers::*;
pub use self::index::*;
pub use self::limit_conn::*;
pub use self::limit_req::*;
pub use self::log::*;
pub use self::map::*;
pub use self::mirror::*;
pub use self::proxy::*;
pub use self::realip::*;
pub use self::referer::*;
pub use self::rewrite::*;
pub use self::scgi::*;
pub use self::secure_link::*;
pub use self::split_clients::*;
pub use self::ssl::*;
pub use self::sub::*;
pub use self::upstream::*;
pub use self::userid::*;
pub use self::uwsgi::*;

/// A `server` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// Its names in the file's order; the first is `$server_name`.
    pub names: Vec<ServerName>,
    /// How connections and request heads are read here.
    pub client: ClientSettings,
    /// How TLS is spoken here, where a certificate or a refusal is set.
    pub ssl: Option<Box<SslSettings>>,
    /// What holds outside every location.
    pub scope: Scope,
    /// What the `rewrite` phase of the server itself does.
    pub rewrite: Rewrite,
    /// Its locations in the file's order.
    pub locations: Vec<Location>,
    /// Where the paths of its places lead.
    pub files: crate::FileSource,
}

impl VirtualServer {
    /// Gives the text of `$server_name`: the first name as it is written, `.example.org` without its dot.
    pub fn primary_name(&self) -> Cow<'_, str> {
        match self.names.first() {
            Some(
                ServerName::Exact(name) | ServerName::WildcardHead(name) | ServerName::WildcardTail(name),
            ) => name.into(),
            Some(ServerName::Dot(name)) => name.strip_prefix('.').unwrap_or(name).into(),
            Some(ServerName::Regex(pattern)) => format!("~{}", pattern.source).into(),
            None => "".into(),
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

settings! {
    /// What holds in one place of the configuration. One group of settings for each module.
    pub struct Scope, set by ScopeLayer {
        /// ngx_http_core_module.
        core: CoreScope = CoreScope::default(), as CoreLayer;
        /// ngx_http_access_module.
        access: AccessScope = AccessScope::default(), as AccessLayer;
        /// ngx_http_auth_basic_module.
        auth_basic: AuthBasicScope = AuthBasicScope::default(), as AuthBasicLayer;
        /// ngx_http_auth_request_module.
        auth_request: AuthRequestScope = AuthRequestScope::default(), as AuthRequestLayer;
        /// ngx_http_mirror_module.
        mirror: MirrorScope = MirrorScope::default(), as MirrorLayer;
        /// ngx_http_realip_module.
        real_ip: RealIpScope = RealIpScope::default(), as RealIpLayer;
        /// ngx_http_headers_module.
        headers: HeadersScope = HeadersScope::default(), as HeadersLayer;
        /// ngx_http_charset_module.
        charset: CharsetScope = CharsetScope::default(), as CharsetLayer;
        /// ngx_http_autoindex_module.
        autoindex: AutoindexScope = AutoindexScope::default(), as AutoindexLayer;
        /// ngx_http_random_index_module.
        random_index: bool = false;
        /// ngx_http_userid_module.
        userid: UseridScope = UseridScope::default(), as UseridLayer;
        /// ngx_http_addition_module.
        addition: AdditionScope = AdditionScope::default(), as AdditionLayer;
        /// ngx_http_sub_module.
        sub: SubScope = SubScope::default(), as SubLayer;
        /// ngx_http_gzip_module.
        gzip: GzipScope = GzipScope::default(), as GzipLayer;
        /// ngx_http_gunzip_module.
        gunzip: GunzipScope = GunzipScope::default(), as GunzipLayer;
        /// ngx_http_gzip_static_module.
        gzip_static: GzipStatic = GzipStatic::Off;
        /// ngx_http_rewrite_module, apart from what it does.
        rewrite: RewriteScope = RewriteScope::default(), as RewriteLayer;
        /// ngx_http_limit_conn_module.
        limit_conn: LimitConnScope = LimitConnScope::default(), as LimitConnLayer;
        /// ngx_http_limit_req_module.
        limit_req: LimitReqScope = LimitReqScope::default(), as LimitReqLayer;
        /// ngx_http_referer_module.
        referer: RefererScope = RefererScope::default(), as RefererLayer;
        /// ngx_http_secure_link_module.
        secure_link: SecureLinkScope = SecureLinkScope::default(), as SecureLinkLayer;
        /// ngx_http_log_module.
        log: LogScope = LogScope::default(), as LogLayer;
        /// ngx_http_index_module.
        index: IndexScope = IndexScope::default(), as IndexLayer;
        /// Who answers.
        content: Content = Content::Static, as Own<Content>;
        /// ngx_http_proxy_module, apart from `proxy_pass` itself.
        proxy: ProxyScope = ProxyScope::default(), as ProxyLayer;
        /// ngx_http_fastcgi_module, apart from `fastcgi_pass` itself.
        fastcgi: FastCgiScope = FastCgiScope::default(), as FastCgiLayer;
        /// ngx_http_uwsgi_module, apart from `uwsgi_pass` itself.
        uwsgi: UwsgiScope = UwsgiScope::default(), as UwsgiLayer;
        /// ngx_http_scgi_module, apart from `scgi_pass` itself.
        scgi: ScgiScope = ScgiScope::default(), as ScgiLayer;
        /// ngx_http_grpc_module, apart from `grpc_pass` itself.
        grpc: GrpcScope = GrpcScope::default(), as GrpcLayer;
    }
}

impl Scope {
    /// The settings towards peers that hold here: those of the module that asks them; `None` where nobody does.
    pub fn peer_settings(&self) -> Option<&UpstreamScope> {
        match &self.content {
            Content::Static | Content::EmptyGif | Content::StubStatus | Content::Prometheus => None,
            Content::Proxy(_) => Some(&self.proxy.upstream),
            Content::FastCgi(_) => Some(&self.fastcgi.upstream),
            Content::Uwsgi(_) => Some(&self.uwsgi.upstream),
            Content::Scgi(_) => Some(&self.scgi.upstream),
            Content::Grpc(_) => Some(&self.grpc.upstream),
        }
    }

    /// The settings towards peers of every module that may ask them, with what their names begin with.
    pub fn all_peer_settings(&mut self) -> [(&'static str, &mut UpstreamScope); 5] {
        [
            ("proxy", &mut self.proxy.upstream),
            ("grpc", &mut self.grpc.upstream),
            ("fastcgi", &mut self.fastcgi.upstream),
            ("uwsgi", &mut self.uwsgi.upstream),
            ("scgi", &mut self.scgi.upstream),
        ]
    }
}

/// Who answers a request in this location.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Files below `root` or `alias`.
    #[default]
    Static,
    /// `empty_gif`: a transparent picture of one pixel.
    EmptyGif,
    /// `stub_status`: how many connections and requests there are.
    StubStatus,
    /// `proxy_pass`.
    Proxy(ProxyPass),
    /// `grpc_pass`.
    Grpc(ProxyPass),
    /// The text for Prometheus (`prometheus`).
    Prometheus,
    /// `fastcgi_pass`.
    FastCgi(ProxyTarget),
    /// `uwsgi_pass`.
    Uwsgi(ProxyTarget),
    /// `scgi_pass`.
    Scgi(ProxyTarget),
}

impl Content {
    /// Where requests go, if to peers.
    pub fn target(&self) -> Option<&ProxyTarget> {
        match self {
            Content::Static | Content::EmptyGif | Content::StubStatus | Content::Prometheus => None,
            Content::Proxy(pass) | Content::Grpc(pass) => Some(&pass.target),
            Content::FastCgi(target) | Content::Uwsgi(target) | Content::Scgi(target) => Some(target),
        }
    }
}
