//! ngx_http_proxy_module: `proxy_pass` and its settings.

use serde::{Deserialize, Serialize};

use crate::{
    Layer, Own, Pattern, Template, UpstreamLayer, UpstreamName, UpstreamScope, Variable, settings::settings,
};

/// `proxy_pass`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyPass {
    /// Where requests go.
    pub target: ProxyTarget,
    /// `$proxy_host`: host and, unless it is the scheme's own, port as written. With [`ProxyTarget::Evaluated`] the same
    /// template, of which only that counts.
    pub host: Template,
    /// `$proxy_port`.
    pub port: String,
    /// The URI part, which replaces the location's prefix, or with [`ProxyTarget::Evaluated`] the whole URI; `None`
    /// passes the client's URI on unchanged.
    pub uri: Option<Template>,
}

/// Where `proxy_pass` and its like go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyTarget {
    /// A known upstream.
    Upstream(UpstreamName),
    /// `proxy_pass http://$name...`: after evaluation the name of an upstream, or an address (`host:port`,
    /// `unix:/path`). A scheme and a URI that are written in the directive are not in it; those that variables bring
    /// are, as in `http://host:port/uri`, and such a URI replaces the whole.
    Evaluated(Template),
}

settings! {
    /// Settings of ngx_http_proxy_module.
    pub struct ProxyScope, set by ProxyLayer {
        /// Settings towards peers, the same for every protocol.
        upstream: UpstreamScope = UpstreamScope::default(), as UpstreamLayer;
        /// `proxy_http_version`.
        http_version: ProxyHttpVersion = ProxyHttpVersion::Http11;
        /// `proxy_method`.
        method: Option<Template> = None;
        /// `proxy_set_header`, the defaults for Host and Connection included where they are not overridden. A value that
        /// is the empty text removes the field.
        set_headers: Vec<(String, Template)> = request_fields(), as SetHeaders;
        /// `proxy_set_body`.
        set_body: Option<Template> = None;
        /// `proxy_redirect`. What `default` means follows from the place's own `proxy_pass`.
        redirects: Vec<ProxyRedirect> = Vec::new(), as Own<Vec<ProxyRedirect>>;
        /// `proxy_cookie_domain`.
        cookie_domains: Vec<CookieRule> = Vec::new();
        /// `proxy_cookie_path`.
        cookie_paths: Vec<CookieRule> = Vec::new();
        /// `proxy_cookie_flags`.
        cookie_flags: Vec<CookieFlags> = Vec::new();
        /// `proxy_pass_trailers`.
        pass_trailers: bool = false;
    }
}

/// Fields of a request that don't go on as they came. Those that belong to one connection only, as `TE` and `Upgrade`,
/// are the data plane's to drop.
fn request_fields() -> Vec<(String, Template)> {
    let host = Template::variable(Variable::ProxyHost);
    vec![("Host".to_owned(), host), ("Connection".to_owned(), Template::default())]
}

/// `proxy_set_header` in one block: inherited whole where it has none, and a default field stays unless it is set here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetHeaders(pub Vec<(String, Template)>);

impl Layer<Vec<(String, Template)>> for SetHeaders {
    fn inherit(&mut self, outer: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&outer.0);
        }
    }

    fn settle(&self, default: Vec<(String, Template)>) -> Vec<(String, Template)> {
        let is_set = |name: &str| self.0.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
        let stays = default.into_iter().filter(|(name, _)| !is_set(name));
        self.0.iter().cloned().chain(stays).collect()
    }
}

/// `proxy_http_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyHttpVersion {
    /// HTTP/1.0, which closes after each response unless the operator sets `Connection`.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2: a connection carries many requests at once.
    Http2,
}

/// One rule of `proxy_redirect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyRedirect {
    /// A prefix and what replaces it.
    Prefix {
        /// What `Location` or `Refresh` begins with.
        from: Template,
        /// What replaces it.
        to: Template,
    },
    /// A regular expression and what replaces the whole.
    Regex {
        /// What `Location` or `Refresh` matches.
        from: Pattern,
        /// What replaces it; may use captures.
        to: Template,
    },
}

/// What an attribute of a cookie, or its name, is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CookieText {
    /// A text; of a domain without the dot in front.
    Text(Template),
    /// A regular expression.
    Regex(Pattern),
}

/// One rule of `proxy_cookie_domain` or `proxy_cookie_path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieRule {
    /// What the attribute is, or begins with.
    pub from: CookieText,
    /// What takes its place; may use captures.
    pub to: Template,
}

/// One `proxy_cookie_flags`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieFlags {
    /// The cookie's name.
    pub name: CookieText,
    /// Its flags: `secure`, `httponly`, `samesite=strict`, `lax` or `none`, or these with `no` in front.
    pub flags: Vec<Template>,
}
