//! Walks the tree and lets each directive's row act on the block that it stands in.
//!
//! The [`Reader`] holds the innermost open block as a [`Frame`]; a block directive swaps in a frame of its own, walks
//! its contents and swaps it out again. The first value wins where nginx calls a second one a duplicate, and reading
//! always goes on.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Sources, Span, suggest};
use keel_model::{ClientLayer, Layer, LocationMatcher, ScopeLayer};

use crate::{
    ast::{Directive, Word},
    directives::{
        core, events, http_core,
        http_gateway::{self, GatewayPass},
        http_limit_except, http_proxy,
        http_proxy_pass::To,
        http_rewrite, http_ssl, http_upstream, resolver,
    },
    files::Files,
    known,
    lowering::HttpSettings,
    registry::{self, Contexts, Row, Setter},
};

/// What is being read, and what is known so far.
pub(crate) struct Reader<'a> {
    /// Where relative paths of logs, roots and temporary files begin.
    pub(crate) prefix: &'a Path,
    /// Where relative paths of files begin that are read beside the configuration: its own folder.
    pub(crate) conf_folder: &'a Path,
    /// The system.
    pub(crate) files: &'a dyn Files,
    /// All texts.
    pub(crate) sources: &'a Sources,
    /// Everything found wrong so far.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What the whole `http` block shares.
    pub(crate) http: HttpSettings,
    /// The innermost open block.
    pub(crate) frame: Frame,
}

/// One open block: what its directives have set, each module in settings of its own. Settings that don't belong to this
/// kind of block stay empty.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Which kind of block.
    pub(crate) context: Contexts,
    /// The directive that opened it; none for the main context.
    pub(crate) opened: Option<Span>,
    /// The first place of each directive in it.
    pub(crate) seen: HashMap<String, Span>,
    /// ngx_core_module.
    pub(crate) core: core::Settings,
    /// ngx_event_core_module.
    pub(crate) events: events::Settings,
    /// What belongs to a server rather than to a location.
    pub(crate) server: http_core::ServerSettings,
    /// How a server's connections and request heads are read.
    pub(crate) client: ClientLayer,
    /// What locations inherit.
    pub(crate) scope: ScopeLayer,
    /// What of `proxy_pass` is worked out when the block is closed.
    pub(crate) proxy: http_proxy::Settings,
    /// `fastcgi_pass` and its like; it answers, whatever `proxy_pass` stood before it.
    pub(crate) gateway: Option<GatewayPass>,
    /// What of the settings of ngx_http_fastcgi_module is worked out when the block is closed.
    pub(crate) fastcgi: http_gateway::Settings,
    /// The same of ngx_http_uwsgi_module.
    pub(crate) uwsgi: http_gateway::Settings,
    /// The same of ngx_http_scgi_module.
    pub(crate) scgi: http_gateway::Settings,
    /// ngx_http_rewrite_module: what is done in a server, location or `if`.
    pub(crate) steps: Vec<http_rewrite::Step>,
    /// `limit_except`, of a location.
    pub(crate) limit_except: Option<http_limit_except::LimitExceptBlock>,
    /// ngx_http_upstream_module.
    pub(crate) upstream: http_upstream::Settings,
    /// ngx_http_ssl_module.
    pub(crate) ssl: http_ssl::Settings,
    /// Who is asked for names.
    pub(crate) resolver: resolver::Settings,
    /// Of a location: which requests it takes.
    pub(crate) matcher: Option<LocationMatcher>,
    /// Locations inside, closed.
    pub(crate) locations: Vec<Frame>,
}

impl Frame {
    /// Makes an empty block.
    pub(crate) fn new(context: Contexts, opened: Option<Span>) -> Self {
        Self {
            context,
            opened,
            seen: HashMap::new(),
            core: core::Settings::default(),
            events: events::Settings::default(),
            server: http_core::ServerSettings::default(),
            client: ClientLayer::default(),
            scope: ScopeLayer::default(),
            proxy: http_proxy::Settings::default(),
            gateway: None,
            fastcgi: http_gateway::Settings::default(),
            uwsgi: http_gateway::Settings::default(),
            scgi: http_gateway::Settings::default(),
            steps: Vec::new(),
            limit_except: None,
            upstream: http_upstream::Settings::default(),
            ssl: http_ssl::Settings::default(),
            resolver: resolver::Settings::default(),
            matcher: None,
            locations: Vec::new(),
        }
    }

    /// Takes over from the block around it what this one leaves open.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.client.inherit(&outer.client);
        self.scope.inherit(&outer.scope);
        self.proxy.inherit(&outer.proxy);
        self.ssl.inherit(&outer.ssl);
        self.fastcgi.inherit(&outer.fastcgi);
        self.uwsgi.inherit(&outer.uwsgi);
        self.scgi.inherit(&outer.scgi);
        self.resolver.inherit(&outer.resolver);
    }

    /// Where requests go, if to peers, and where that is written.
    pub(crate) fn passes_to(&self) -> Option<(&To, Span)> {
        let proxy = self.proxy.pass.as_ref().map(|pass| (&pass.to, pass.span));
        self.gateway.as_ref().map(|pass| (&pass.to, pass.span)).or(proxy)
    }

    /// Lets the peers that answer in the block around this one answer here, too, unless it names some itself.
    pub(crate) fn take_answerer(&mut self, outer: &Self) {
        if self.passes_to().is_none() {
            self.proxy.pass.clone_from(&outer.proxy.pass);
            self.gateway.clone_from(&outer.gateway);
        }
    }
}

impl<'a> Reader<'a> {
    /// Makes a reader at the main context.
    pub(crate) fn new(
        prefix: &'a Path,
        conf_folder: &'a Path,
        files: &'a dyn Files,
        sources: &'a Sources,
    ) -> Self {
        Self {
            prefix,
            conf_folder,
            files,
            sources,
            diagnostics: Vec::new(),
            http: HttpSettings::default(),
            frame: Frame::new(Contexts::MAIN, None),
        }
    }

    /// Reads the directives of the open block.
    pub(crate) fn walk(&mut self, directives: &[Directive]) {
        for directive in directives {
            self.read(directive);
            self.frame.seen.entry(directive.name.text.clone()).or_insert_with(|| directive.span());
        }
    }

    /// Opens a block, reads it and gives it back closed.
    pub(crate) fn inside(&mut self, frame: Frame, directives: &[Directive]) -> Frame {
        let outer = std::mem::replace(&mut self.frame, frame);
        self.walk(directives);
        std::mem::replace(&mut self.frame, outer)
    }

    fn read(&mut self, directive: &Directive) {
        let name = directive.name.text.as_str();
        let context = self.frame.context;
        if let Some(row) = registry::rows(name).find(|row| row.contexts.meets(context)) {
            self.apply(row, directive);
        } else if let Some(entry) = known::find(name) {
            known::read(self, entry, directive);
        } else if registry::rows(name).next().is_some() {
            self.misplaced(directive);
        } else {
            self.unknown(directive);
        }
    }

    fn apply(&mut self, row: &'static Row, directive: &Directive) {
        let name = row.name;
        match (row.set, &directive.block) {
            (Setter::Simple(_) | Setter::Checked(_), Some(_)) => self.unexpected_block(directive),
            (Setter::Block(_), None) => self.missing_block(directive),
            _ if !row.arity.admits(directive.args.len()) => {
                self.wrong_count(directive, format!("it is written `{}`", written(name, row.syntax)));
            }
            (Setter::Simple(set), None) => {
                self.warn_swallowed(directive);
                set(self, directive);
            }
            (Setter::Checked(_), None) if self.frame.seen.contains_key(name) => self.duplicate(directive),
            (Setter::Checked(check), None) => check(self, directive),
            (Setter::Block(set), Some(block)) => set(self, directive, block),
        }
    }

    /// Reports a block behind a directive that has none.
    pub(crate) fn unexpected_block(&mut self, directive: &Directive) {
        let name = &directive.name.text;
        self.diagnostics.push(
            Diagnostic::error("nginx::unexpected-block", format!("`{name}` takes no block"))
                .at(directive.span(), "a `;` is missing after this")
                .nginx(format!("directive \"{name}\" is not terminated by \";\"")),
        );
    }

    /// Reports a directive that lacks its block.
    pub(crate) fn missing_block(&mut self, directive: &Directive) {
        let name = &directive.name.text;
        self.diagnostics.push(
            Diagnostic::error("nginx::missing-block", format!("`{name}` has no block"))
                .at(directive.span(), "`{ ... }` must follow")
                .nginx(format!("directive \"{name}\" has no opening \"{{\"")),
        );
    }

    /// Reports a number of arguments that a directive can't take, and what it takes.
    pub(crate) fn wrong_count(&mut self, directive: &Directive, help: String) {
        let name = directive.name.text.as_str();
        let count = match directive.args.len() {
            0 => "no argument".to_owned(),
            1 => "one argument".to_owned(),
            n => format!("{n} arguments"),
        };
        let mut found =
            Diagnostic::error("nginx::invalid-number-of-arguments", format!("`{name}` can't take {count}"))
                .nginx(format!("invalid number of arguments in \"{name}\" directive"));
        let swallowed = self.swallowed(directive);
        found = match swallowed {
            Some((before, word)) => found
                .at(directive.name.span.to(before.span), "a `;` seems to be missing after this")
                .at(word.span, "this looks like another directive"),
            None => found.at(directive.span(), "").help(help),
        };
        self.diagnostics.push(found);
    }

    /// Finds the argument that a directive of this block seems to be, as the `;` before it is missing, and what stands
    /// before.
    fn swallowed<'d>(&self, directive: &'d Directive) -> Option<(&'d Word, &'d Word)> {
        let words = || std::iter::once(&directive.name).chain(&directive.args);
        words().zip(words().skip(1)).find(|(before, word)| {
            let context = self.frame.context;
            self.on_two_lines(before, word)
                && registry::rows(&word.text).any(|row| row.contexts.meets(context))
        })
    }

    /// Warns of a missing `;` that a directive with any number of arguments hides.
    fn warn_swallowed(&mut self, directive: &Directive) {
        let Some((before, word)) = self.swallowed(directive) else {
            return;
        };
        let message = format!("`{}` is an argument of `{}` here", word.text, directive.name.text);
        self.diagnostics.push(
            Diagnostic::warning("nginx::missing-semicolon", message)
                .at(directive.name.span.to(before.span), "a `;` seems to be missing after this")
                .at(word.span, "this looks like another directive"),
        );
    }

    fn on_two_lines(&self, before: &Word, after: &Word) -> bool {
        let between = before.span.end as usize..after.span.start as usize;
        let text = self.sources.text(before.span.source);
        text.get(between).is_some_and(|between| between.contains('\n'))
    }

    /// Reports a directive of another block.
    pub(crate) fn misplaced(&mut self, directive: &Directive) {
        let name = directive.name.text.as_str();
        let contexts = registry::rows(name).map(|row| row.contexts).chain(known::contexts(name));
        let allowed = contexts.flat_map(Contexts::names);
        let mut places: Vec<&str> = Vec::new();
        for place in allowed {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let here = self.frame.context.names().next().unwrap_or("this block");
        self.diagnostics.push(
            Diagnostic::error("nginx::misplaced-directive", format!("`{name}` is not allowed here"))
                .at(directive.name.span, format!("not a directive of `{here}`"))
                .help(format!("it may stand in: {}", places.join(", ")))
                .nginx(format!("\"{name}\" directive is not allowed here")),
        );
    }

    fn unknown(&mut self, directive: &Directive) {
        let name = directive.name.text.as_str();
        let mut found = Diagnostic::error("nginx::unknown-directive", format!("unknown directive `{name}`"))
            .at(directive.name.span, "not a directive Evenkeel knows")
            .nginx(format!("unknown directive \"{name}\""));
        if let Some(near) = suggest(name, registry::names().chain(known::names())) {
            found = found.help(format!("did you mean `{near}`?"));
        }
        self.diagnostics.push(found);
    }

    /// Sets a value that may be set once, unless reading it fails, which `read` has reported then. A setting that may
    /// have no value takes the value as it is read.
    pub(crate) fn once<T, V: From<T>>(
        &mut self,
        directive: &Directive,
        slot: fn(&mut Frame) -> &mut Option<V>,
        read: fn(&mut Self, &Directive) -> Option<T>,
    ) {
        if slot(&mut self.frame).is_some() {
            return self.duplicate(directive);
        }
        let value = read(self, directive);
        *slot(&mut self.frame) = value.map(V::from);
    }

    /// Reports a directive that is there already.
    pub(crate) fn duplicate(&mut self, directive: &Directive) {
        let name = directive.name.text.as_str();
        let mut found = Diagnostic::error("nginx::duplicate", format!("`{name}` is set twice in one block"))
            .at(directive.span(), "set again here")
            .nginx(format!("\"{name}\" directive is duplicate"));
        if let Some(first) = self.frame.seen.get(name) {
            found = found.at(*first, "first set here");
        }
        self.diagnostics.push(found);
    }

    /// Reports an error with nginx's own text.
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        nginx: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::error(code, message).at(span, "").nginx(nginx));
    }

    /// Reports a value that can't be read, with what it should be.
    pub(crate) fn invalid(&mut self, directive: &Directive, word: &Word, nginx: String, expected: &str) {
        let (name, text) = (&directive.name.text, &word.text);
        self.diagnostics.push(
            Diagnostic::error("nginx::invalid-value", format!("invalid value `{text}` in `{name}`"))
                .at(word.span, format!("expected {expected}"))
                .nginx(nginx),
        );
    }

    /// Gives a field's name: visible ASCII. nginx takes any, and sends a line that clients and peers refuse.
    pub(crate) fn field_name(&mut self, directive: &Directive, word: &Word) -> Option<String> {
        if !word.text.is_empty() && word.text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(word.text.clone());
        }
        let nginx = format!("invalid field name \"{}\"", word.text.escape_debug());
        self.invalid(directive, word, nginx, "a field's name, without spaces");
        None
    }

    /// Reports that a directive lacks a parameter.
    pub(crate) fn missing_parameter(&mut self, directive: &Directive, parameter: &str) {
        let name = &directive.name.text;
        let nginx = format!("\"{name}\" must have \"{parameter}\" parameter");
        let message = format!("`{name}` lacks `{parameter}=`");
        self.error("nginx::missing-parameter", message, directive.span(), nginx);
    }

    /// Reports a parameter that the directive doesn't have.
    pub(crate) fn invalid_parameter(&mut self, directive: &Directive, word: &Word, known: &[&str]) {
        let (name, text) = (&directive.name.text, &word.text);
        let mut found =
            Diagnostic::error("nginx::invalid-parameter", format!("`{name}` has no parameter `{text}`"))
                .at(word.span, "")
                .nginx(format!("invalid parameter \"{text}\""));
        let key = text.split('=').next().unwrap_or(text);
        if let Some(near) = suggest(key, known.iter().copied()) {
            found = found.help(format!("did you mean `{near}`?"));
        } else if !known.is_empty() {
            found = found.help(format!("it knows: {}", known.join(", ")));
        }
        self.diagnostics.push(found);
    }

    /// Makes a path absolute with the prefix.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        self.prefix.join(path)
    }
}

/// A directive as documentation writes it.
pub(crate) fn written(name: &str, syntax: &str) -> String {
    match (syntax.is_empty(), syntax.ends_with('}')) {
        (true, _) => format!("{name};"),
        (false, true) => format!("{name} {syntax}"),
        (false, false) => format!("{name} {syntax};"),
    }
}
