//! Zones of `limit_req` and `limit_conn`: defined once in `http`, named above the definition or below.

use std::collections::BTreeMap;

use keel_diag::{Diagnostic, Span};
use keel_model::{ByteSize, LimitZone, Scope, Template};

use crate::{
    ast::{Directive, Word},
    reader::Reader,
    value,
};

/// The smallest zone: eight pages.
const ZONE_BYTES_MIN: u64 = 8 * 4096;

/// What a zone counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Requests,
    Connections,
}

/// A zone as defined.
#[derive(Clone, Debug)]
pub(crate) struct Defined {
    pub(crate) kind: Kind,
    pub(crate) zone: LimitZone,
    /// Of requests: thousandths of them in a second.
    pub(crate) rate: u64,
    span: Span,
}

/// All zones, and where they are named.
#[derive(Debug, Default)]
pub(crate) struct LimitZones {
    defined: BTreeMap<String, Defined>,
    named: Vec<(Kind, String, Span)>,
}

impl LimitZones {
    /// Notes that a directive names a zone; it is there once all is read.
    pub(crate) fn name(&mut self, kind: Kind, name: &str, span: Span) -> LimitZone {
        self.named.push((kind, name.to_owned(), span));
        LimitZone { name: name.to_owned(), ..LimitZone::default() }
    }

    /// Puts the zones in place that the limits of a scope name.
    pub(crate) fn fill(&self, scope: &mut Scope) {
        for limit in &mut scope.limit_req.limits {
            if let Some(defined) = self.defined.get(&limit.zone.name) {
                limit.zone.clone_from(&defined.zone);
                limit.rate = defined.rate;
            }
        }
        for limit in &mut scope.limit_conn.limits {
            if let Some(defined) = self.defined.get(&limit.zone.name) {
                limit.zone.clone_from(&defined.zone);
            }
        }
    }
}

/// Reads `name:size` of a directive that defines a zone.
pub(crate) fn size(
    reader: &mut Reader<'_>,
    directive: &Directive,
    word: &Word,
    text: &str,
) -> Option<(String, ByteSize)> {
    let parsed = text.split_once(':').and_then(|(name, size)| Some((name, value::size(size)?)));
    match parsed {
        Some((name, bytes)) if bytes.0 >= ZONE_BYTES_MIN => Some((name.to_owned(), bytes)),
        Some(_) => {
            let nginx = format!("zone \"{}\" is too small", word.text);
            reader.invalid(directive, word, nginx, &format!("at least {}", value::size_text(ZONE_BYTES_MIN)));
            None
        }
        None => {
            let nginx = format!("invalid zone size \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`name:size`");
            None
        }
    }
}

/// Defines a zone. `named` is what its `zone` parameter says.
pub(crate) fn define(
    reader: &mut Reader<'_>,
    directive: &Directive,
    kind: Kind,
    named: Option<(String, ByteSize)>,
    rate: u64,
) {
    let key: Option<Template> = reader.template_arg(directive);
    let Some((name, size)) = named.filter(|(name, _)| !name.is_empty()) else { return };
    let span = directive.span();
    if let Some(known) = reader.http.limit_zones.defined.get(&name) {
        let nginx = if known.kind == kind {
            format!("{} \"{name}\" is already bound to another key", directive.name.text)
        } else {
            format!("the shared memory zone \"{name}\" is already declared for a different use")
        };
        let found = Diagnostic::error("nginx::duplicate-zone", format!("the zone `{name}` is there already"))
            .at(span, "again here")
            .at(known.span, "first here")
            .nginx(nginx);
        return reader.diagnostics.push(found);
    }
    let zone = LimitZone { name: name.clone(), size, key: key.unwrap_or_default() };
    reader.http.limit_zones.defined.insert(name, Defined { kind, zone, rate, span });
}

/// Reports zones that are named and not defined. To be called when everything is read.
pub(crate) fn check(reader: &mut Reader<'_>) {
    let zones = std::mem::take(&mut reader.http.limit_zones);
    for (kind, name, span) in &zones.named {
        let defines = match kind {
            Kind::Requests => "limit_req_zone",
            Kind::Connections => "limit_conn_zone",
        };
        let found = match zones.defined.get(name) {
            Some(defined) if defined.kind == *kind => continue,
            Some(defined) => Diagnostic::error(
                "nginx::zone-of-another-use",
                format!("the zone `{name}` is for something else"),
            )
            .at(*span, format!("this needs one of `{defines}`"))
            .at(defined.span, "defined here")
            .nginx(format!("the shared memory zone \"{name}\" is already declared for a different use")),
            None => Diagnostic::error("nginx::unknown-zone", format!("there is no zone `{name}`"))
                .at(*span, format!("no `{defines}` defines it"))
                .nginx(format!("zero size shared memory zone \"{name}\"")),
        };
        reader.diagnostics.push(found);
    }
}
