//! Upstreams that a `proxy_pass` makes: of the address that it names, and of those that its variables may come to.
//!
//! `set $app app:5000; proxy_pass http://$app;` is how files for nginx have a name looked up while requests are served. What
//! the variables may come to is mostly written in the file: in `set`, `map`, `geo` and `split_clients`. Each such name becomes
//! an upstream of its own, whose name follows services, or is followed by the resolver, as any other. What only a request
//! shows is not among them: the data plane resolves it.

use keel_diag::{Diagnostic, Span};
use keel_model::{GeoPlaces, Part, Resolver, Template, UpstreamName, Variable, VariableId, VariableSource};

use crate::{
    ServerAddress, ServerEntry, UpstreamOrigin, UpstreamSource,
    address::{self, WrittenAddress},
    directives::http_upstream::{server_address, server_entry},
    variables::Names,
};

/// Texts that the variables of one `proxy_pass` may come to, at most; further ones are left out.
const TEXTS_MAX: usize = 256;
/// How deep variables may refer to each other.
const DEPTH_MAX: usize = 8;

/// The upstreams that exist by name, and those that `proxy_pass` makes.
pub(crate) struct Literals {
    named: Vec<(UpstreamName, Option<Span>)>,
    pub(crate) made: Vec<UpstreamSource>,
    resolver: Option<Resolver>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Literals {
    /// Begins with the `upstream` blocks and the resolver of `http`.
    pub(crate) fn new(named: Vec<(UpstreamName, Option<Span>)>, resolver: Option<Resolver>) -> Self {
        Self { named, made: Vec::new(), resolver, diagnostics: Vec::new() }
    }

    /// Whether an `upstream` block has this name.
    pub(crate) fn has(&self, host: &str) -> bool {
        self.named.iter().any(|(name, _)| name.0.eq_ignore_ascii_case(host))
    }

    /// Finds the upstream that a `proxy_pass` means, or makes it.
    pub(crate) fn upstream(&mut self, place: &WrittenAddress, span: Span) -> UpstreamName {
        let text = text_of(place);
        if let WrittenAddress::Tcp { text: host, port, .. } = place {
            let named = self.named.iter().find(|(name, _)| name.0.eq_ignore_ascii_case(host));
            if let Some((name, defined)) = named {
                let name = name.clone();
                if let Some(port) = port {
                    let mut found = Diagnostic::error(
                        "nginx::upstream-port",
                        format!("the upstream `{name}` has no port of its own"),
                    )
                    .at(span, format!("leave `:{port}` out"))
                    .nginx(format!("upstream \"{name}\" may not have port {port}"));
                    if let Some(defined) = defined {
                        found = found.at(*defined, "its peers have theirs");
                    }
                    self.diagnostics.push(found);
                }
                return name;
            }
        }
        let source = UpstreamSource {
            name: UpstreamName(text.clone()),
            span,
            servers: vec![server_entry(server_address(place.clone()), &text, span)],
            origin: UpstreamOrigin::Address,
            resolver: self.resolver.clone(),
        };
        let name = source.name.clone();
        match self.made.iter_mut().find(|made| made.name == name) {
            Some(made) if made.origin == UpstreamOrigin::Variables => *made = source,
            Some(_) => {}
            None => self.made.push(source),
        }
        name
    }

    /// Makes upstreams of the names that an address with variables may come to. What names an upstream, or is an address
    /// already, needs none.
    pub(crate) fn follow(
        &mut self,
        names: &Names,
        address: &Template,
        resolver: Option<Resolver>,
        span: Span,
    ) {
        for text in texts(names, address, DEPTH_MAX) {
            let text = text.strip_prefix("http://").unwrap_or(&text);
            let Ok((place, _)) = address::peer(text) else { continue };
            let name = UpstreamName(text_of(&place));
            let known =
                self.named.iter().map(|(name, _)| name).chain(self.made.iter().map(|made| &made.name));
            let is_known = known.into_iter().any(|known| *known == name);
            let address = server_address(place);
            let is_name = matches!(&address, ServerAddress::Name { host, .. } if host != "localhost");
            if is_known || !is_name {
                continue;
            }
            let entry = ServerEntry { resolve: true, ..server_entry(address, &name.0, span) };
            self.made.push(UpstreamSource {
                name,
                span,
                servers: vec![entry],
                origin: UpstreamOrigin::Variables,
                resolver: resolver.clone(),
            });
        }
    }
}

/// An address as a request for it shows it.
fn text_of(place: &WrittenAddress) -> String {
    match place {
        WrittenAddress::Unix(path) => format!("unix:{}", path.display()),
        WrittenAddress::Tcp { text, port: Some(port), .. } => format!("{text}:{port}"),
        WrittenAddress::Tcp { text, .. } => text.clone(),
    }
}

/// Gives the texts that a template may come to, as far as the file says it.
fn texts(names: &Names, template: &Template, depth: usize) -> Vec<String> {
    template.parts.iter().fold(vec![String::new()], |before, part| {
        let after = match part {
            Part::Literal(text) => vec![text.clone()],
            Part::Variable(Variable::Defined(id)) if depth > 0 => values(names, *id, depth - 1),
            Part::Variable(_) => Vec::new(),
        };
        let all = before.iter().flat_map(|before| after.iter().map(move |after| format!("{before}{after}")));
        all.take(TEXTS_MAX).collect()
    })
}

/// Gives the values that a variable may have, as far as the file says it.
fn values(names: &Names, id: VariableId, depth: usize) -> Vec<String> {
    let set = names.set.iter().filter(|(set, _)| *set == id).map(|(_, value)| value);
    let mut templates: Vec<&Template> = set.collect();
    let mut values: Vec<String> = Vec::new();
    match names.defined.get(id.0 as usize).map(|defined| &defined.source) {
        Some(VariableSource::Map(map)) => {
            let results = map.entries.iter().map(|(_, result)| result);
            templates.extend(results.chain(map.regexes.iter().map(|(_, result)| result)));
            templates.push(&map.default);
        }
        Some(VariableSource::Geo(geo)) => {
            values.push(geo.default.clone());
            match &geo.places {
                GeoPlaces::Networks(networks) => {
                    values.extend(networks.iter().map(|network| network.value.clone()))
                }
                GeoPlaces::Ranges(ranges) => values.extend(ranges.iter().map(|range| range.value.clone())),
            }
        }
        Some(VariableSource::SplitClients(split)) => {
            values.extend(split.parts.iter().map(|part| part.value.clone()));
        }
        Some(VariableSource::Written | VariableSource::Set | VariableSource::Builtin(_)) | None => {}
    }
    values.extend(templates.into_iter().flat_map(|template| texts(names, template, depth)));
    values.sort();
    values.dedup();
    values.truncate(TEXTS_MAX);
    values
}
