//! ngx_http_proxy_module: `proxy_pass`, and `proxy_redirect`, whose default follows from it.

use keel_diag::{Diagnostic, Span};
use keel_model::{Content, LocationMatcher, Part, Pattern, ProxyPass, ProxyRedirect, ProxyTarget, Template};

use crate::{
    address::{self, WrittenAddress},
    ast::{Directive, Word},
    directives::{http_core::location_name, http_proxy_upstreams::Literals, http_upstream::refuse_url},
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    variables::has_variables,
};

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "proxy_pass",
        syntax: "URL",
        contexts: Contexts::LOCATION.or(Contexts::LOCATION_IF).or(Contexts::LIMIT_EXCEPT),
        arity: Arity::ONE,
        default: None,
        doc: "Where requests go: `http://` and an upstream, a Compose service, an address or `unix:path`. With a URI \
              behind it that URI replaces the location's prefix; without one the client's URI goes on unchanged. \
              With variables it is looked up for each request, and a URI in it replaces the whole.",
        set: Setter::Simple(|reader, directive| {
            if reader.frame.proxy.pass.is_some() {
                return reader.duplicate(directive);
            }
            reader.frame.proxy.pass = pass(reader, directive);
            reader.frame.gateway = None;
        }),
    },
    Row {
        name: "proxy_redirect",
        syntax: "default | off | redirect replacement",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 2),
        default: Some("default"),
        doc: "Rewrites the beginning of `Location` and `Refresh`, or with `~` and `~*` what an expression matches. \
              `default` puts the location's prefix in place of the URL of `proxy_pass`.",
        set: Setter::Simple(redirect),
    },
];

/// Which module asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Proxy,
    Grpc,
}

impl Asker {
    /// What URLs begin with, without and with TLS.
    fn schemes(self) -> [&'static str; 2] {
        match self {
            Asker::Proxy => ["http://", "https://"],
            Asker::Grpc => ["grpc://", "grpcs://"],
        }
    }
}

/// A `proxy_pass` or `grpc_pass` as read.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// Whose it is.
    pub(crate) asker: Asker,
    /// Where to.
    pub(crate) to: To,
    /// The URI part.
    uri: Option<Template>,
    /// What `proxy_redirect default` replaces, and by what.
    default_redirect: Option<(String, String)>,
    /// The directive.
    pub(crate) span: Span,
}

/// Where a `proxy_pass` goes to.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// An address or the name of an upstream, which may stand further down in the file.
    Literal(WrittenAddress),
    /// What the variables say.
    Evaluated(Template),
}

impl Pass {
    /// Gives the model's form.
    pub(crate) fn lower(&self, literals: &mut Literals) -> Content {
        let (target, host, port) = match &self.to {
            To::Evaluated(template) => {
                (ProxyTarget::Evaluated(template.clone()), template.clone(), String::new())
            }
            To::Literal(place) => {
                let name = literals.upstream(place, self.span);
                let (host, port) = match place {
                    WrittenAddress::Unix(_) => ("localhost".to_owned(), String::new()),
                    WrittenAddress::Tcp { text, port: Some(port), .. } if *port != 80 => {
                        (format!("{text}:{port}"), port.to_string())
                    }
                    WrittenAddress::Tcp { text, .. } => (text.clone(), "80".to_owned()),
                };
                (ProxyTarget::Upstream(name), Template::literal(host), port)
            }
        };
        let pass = ProxyPass { target, host, port, uri: self.uri.clone() };
        match self.asker {
            Asker::Proxy => Content::Proxy(pass),
            Asker::Grpc => Content::Grpc(pass),
        }
    }
}

fn pass(reader: &mut Reader<'_>, directive: &Directive) -> Option<Pass> {
    let word = directive.args.first()?;
    let url = word.text.as_str();
    if has_variables(url) {
        return evaluated(reader, directive, word, Asker::Proxy);
    }
    let lower = url.to_ascii_lowercase();
    if lower.starts_with("https://") {
        no_tls(reader, word);
        return None;
    }
    if !lower.starts_with("http://") {
        let mut found = Diagnostic::error("nginx::invalid-url", format!("`{url}` has no scheme"))
            .at(word.span, "expected `http://...`")
            .nginx("invalid URL prefix");
        if !url.contains("://") {
            found = found.help(format!("write `proxy_pass http://{url};`"));
        }
        reader.diagnostics.push(found);
        return None;
    }
    let (place, uri) = match address::peer(url.get("http://".len()..).unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(text) => {
            refuse_url(reader, word, text);
            return None;
        }
    };
    if !uri.is_empty() {
        refuse_uri(reader, word, uri)?;
    }
    let location = match &reader.frame.matcher {
        Some(
            matcher @ (LocationMatcher::Exact(_)
            | LocationMatcher::Prefix(_)
            | LocationMatcher::PrefixFinal(_)),
        ) => location_name(matcher),
        _ => "",
    };
    let default_redirect = match uri {
        "" => (format!("{url}/"), "/".to_owned()),
        _ => (url.to_owned(), location.to_owned()),
    };
    let uri = (!uri.is_empty()).then(|| Template::literal(uri));
    let default_redirect = Some(default_redirect);
    Some(Pass { asker: Asker::Proxy, to: To::Literal(place), uri, default_redirect, span: directive.span() })
}

/// Reads `grpc_pass`.
pub(crate) fn grpc(reader: &mut Reader<'_>, directive: &Directive) {
    if reader.frame.proxy.pass.as_ref().is_some_and(|pass| pass.asker == Asker::Grpc) {
        return reader.duplicate(directive);
    }
    reader.frame.proxy.pass = grpc_pass(reader, directive);
}

fn grpc_pass(reader: &mut Reader<'_>, directive: &Directive) -> Option<Pass> {
    let word = directive.args.first()?;
    if has_variables(&word.text) {
        return evaluated(reader, directive, word, Asker::Grpc);
    }
    let [plain, secure] = Asker::Grpc.schemes();
    let lower = word.text.to_ascii_lowercase();
    if lower.starts_with(secure) {
        no_tls(reader, word);
        return None;
    }
    let scheme = if lower.starts_with(plain) { plain.len() } else { 0 };
    match address::peer(word.text.get(scheme..).unwrap_or_default()) {
        Ok((place, "")) => {
            let (asker, to) = (Asker::Grpc, To::Literal(place));
            Some(Pass { asker, to, uri: None, default_redirect: None, span: directive.span() })
        }
        Ok((_, _)) => {
            refuse_url(reader, word, "invalid host");
            None
        }
        Err(text) => {
            refuse_url(reader, word, text);
            None
        }
    }
}

fn no_tls(reader: &mut Reader<'_>, word: &Word) {
    reader.diagnostics.push(
        Diagnostic::error("nginx::unsupported-tls", "TLS to peers is not there yet")
            .at(word.span, "can't be reached")
            .help("use `http://` if the peer speaks it too"),
    );
}

fn refuse_uri(reader: &mut Reader<'_>, word: &Word, uri: &str) -> Option<()> {
    let label = match &reader.frame.matcher {
        _ if reader.frame.context.meets(Contexts::LOCATION_IF) => {
            "the prefix of a location isn't replaced in `if`"
        }
        _ if reader.frame.context.meets(Contexts::LIMIT_EXCEPT) => {
            "the prefix of a location isn't replaced in `limit_except`"
        }
        Some(LocationMatcher::Regex(_) | LocationMatcher::Named(_)) => {
            "the location is a regular expression or a name"
        }
        _ => return Some(()),
    };
    let without = word.text.strip_suffix(uri).unwrap_or(&word.text);
    reader.diagnostics.push(
        Diagnostic::error(
            "nginx::uri-part",
            "a URI in `proxy_pass` needs a location with a prefix that it replaces",
        )
        .at(word.span, label)
        .help(format!("leave the URI out: `proxy_pass {without};`"))
        .nginx(
            "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named \
                 location, or inside \"if\" statement, or inside \"limit_except\" block",
        ),
    );
    None
}

fn evaluated(reader: &mut Reader<'_>, directive: &Directive, word: &Word, asker: Asker) -> Option<Pass> {
    let [plain, secure] = asker.schemes();
    let mut template = reader.template(word)?;
    if let Some(Part::Literal(first)) = template.parts.first()
        && first.to_ascii_lowercase().starts_with(secure)
    {
        no_tls(reader, word);
        return None;
    }
    if asker == Asker::Grpc {
        // gRPC is HTTP, and its scheme may be left out.
        if let Some(Part::Literal(first)) = template.parts.first_mut()
            && first.to_ascii_lowercase().starts_with(plain)
        {
            *first = first.split_off(plain.len());
        }
        template.parts.insert(0, Part::Literal("http://".to_owned()));
    }
    let (authority, uri) = split_uri(template);
    Some(Pass { asker, to: To::Evaluated(authority), uri, default_redirect: None, span: directive.span() })
}

/// Splits a template at the first `/` or `?` that is written in it, behind the scheme.
fn split_uri(template: Template) -> (Template, Option<Template>) {
    let mut authority = Vec::new();
    let mut parts = template.parts.into_iter();
    while let Some(part) = parts.next() {
        let Part::Literal(text) = &part else {
            authority.push(part);
            continue;
        };
        let is_first = authority.is_empty() && text.to_ascii_lowercase().starts_with("http://");
        let scheme = match text.starts_with("://") {
            _ if is_first => "http://".len(),
            true => "://".len(),
            false => 0,
        };
        let Some(at) = text.get(scheme..).and_then(|rest| rest.find(['/', '?'])).map(|at| at + scheme) else {
            authority.push(part);
            continue;
        };
        let (before, uri) = text.split_at(at);
        if !before.is_empty() {
            authority.push(Part::Literal(before.to_owned()));
        }
        let uri = std::iter::once(Part::Literal(uri.to_owned())).chain(parts).collect();
        return (Template { parts: authority }, Some(Template { parts: uri }));
    }
    (Template { parts: authority }, None)
}

/// What one block's `proxy_redirect`s say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redirects {
    off: Option<bool>,
    rules: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
enum Rule {
    Default(Pair),
    Prefix { from: Template, to: Template },
    Regex { from: Pattern, to: Template },
}

type Pair = (String, String);

impl Redirects {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.off = self.off.or(outer.off);
        if self.off != Some(true) && self.rules.is_none() {
            self.rules.clone_from(&outer.rules);
        }
    }

    /// Gives the model's form; what `default` means follows from the location's own `proxy_pass`.
    pub(crate) fn lower(&self, pass: Option<&Pass>) -> Vec<ProxyRedirect> {
        let default = |(from, to): &Pair| ProxyRedirect::Prefix {
            from: Template::literal(from),
            to: Template::literal(to),
        };
        if self.off == Some(true) {
            return Vec::new();
        }
        let Some(rules) = &self.rules else {
            return pass.and_then(|pass| pass.default_redirect.as_ref()).map(default).into_iter().collect();
        };
        let rules = rules.iter().map(|rule| match rule {
            Rule::Default(pair) => default(pair),
            Rule::Prefix { from, to } => ProxyRedirect::Prefix { from: from.clone(), to: to.clone() },
            Rule::Regex { from, to } => ProxyRedirect::Regex { from: from.clone(), to: to.clone() },
        });
        rules.collect()
    }
}

fn redirect(reader: &mut Reader<'_>, directive: &Directive) {
    let redirects = &reader.frame.proxy.redirects;
    let only_off = directive.args.len() == 1 && directive.arg(0) == "off";
    if redirects.off == Some(true) || only_off && redirects.rules.is_some() {
        return reader.duplicate(directive);
    }
    reader.frame.proxy.redirects.off = Some(only_off);
    let rule = match directive.args.as_slice() {
        [word] if word.text == "off" => return,
        [word] if word.text == "default" => default_rule(reader, word),
        [from, to] => rule(reader, from, to),
        [word, ..] => {
            reader.invalid_parameter(directive, word, &["default", "off"]);
            None
        }
        [] => None,
    };
    reader.frame.proxy.redirects.rules.get_or_insert_default().extend(rule);
}

fn default_rule(reader: &mut Reader<'_>, word: &Word) -> Option<Rule> {
    match &reader.frame.proxy.pass {
        Some(Pass { default_redirect: Some(pair), .. }) => return Some(Rule::Default(pair.clone())),
        Some(_) => {
            let nginx =
                "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables";
            let message = "`proxy_redirect default` needs a `proxy_pass` without variables";
            reader.error("nginx::proxy-redirect", message, word.span, nginx);
        }
        None => {
            let nginx = "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive";
            let message = "`proxy_redirect default` must stand after `proxy_pass`";
            reader.error("nginx::proxy-redirect", message, word.span, nginx);
        }
    }
    None
}

fn rule(reader: &mut Reader<'_>, from: &Word, to: &Word) -> Option<Rule> {
    let Some(pattern) = from.text.strip_prefix('~') else {
        let (from, to) = (reader.template(from), reader.template(to));
        return Some(Rule::Prefix { from: from?, to: to? });
    };
    let (pattern, ignore_case) = match pattern.strip_prefix('*') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let (from, to) = (reader.pattern(pattern, from.span, ignore_case), reader.template(to));
    Some(Rule::Regex { from: from?, to: to? })
}
