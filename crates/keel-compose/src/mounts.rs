//! `volumes`, `configs` and `secrets` of a service.

use indexmap::IndexMap;
use keel_diag::{Diagnostic, Span};

use crate::{
    Config, ConfigMount, Mount, MountSource, NamedVolume,
    decode::Decoder,
    schema::{self, Care},
    yaml::{Node, Value},
};

/// Reads a service's `volumes`.
pub(crate) fn volumes(
    decoder: &mut Decoder<'_>,
    node: &Node,
    declared: &IndexMap<String, NamedVolume>,
) -> Vec<Mount> {
    let mut result = Vec::new();
    for item in decoder.items(node) {
        let mount = match &item.value {
            Value::Mapping(_) => long(decoder, item),
            _ => decoder.text(item).and_then(|text| short(decoder, &text.value, item.span)),
        };
        let Some(mount) = mount else { continue };
        if let MountSource::Named(name) = &mount.source
            && !declared.contains_key(name)
        {
            decoder.report.push(undefined("volume", name, mount.span, declared.keys()));
        }
        result.push(mount);
    }
    result
}

/// Says that a service uses what the top level doesn't declare.
pub(crate) fn undefined<'a>(
    what: &str,
    name: &str,
    span: Span,
    known: impl Iterator<Item = &'a String>,
) -> Diagnostic {
    let diagnostic = Diagnostic::error("compose::undefined", format!("there is no {what} `{name}`"))
        .at(span, "named here");
    match keel_diag::suggest(name, known.map(String::as_str)) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => diagnostic.help(format!("declare it at top level, under `{what}s:`")),
    }
}

fn short(decoder: &mut Decoder<'_>, text: &str, span: Span) -> Option<Mount> {
    let mut parts = text.split(':');
    let (first, second, options, more) = (parts.next()?, parts.next(), parts.next(), parts.next());
    let (source, target) = match second {
        Some(target) => (source(decoder, first), target),
        None => (MountSource::Anonymous, first),
    };
    if more.is_some() || (first.is_empty() && second.is_some()) || !target.starts_with('/') {
        let message = if first.is_empty() {
            format!("`{text}` is not a volume: there is nothing before its `:`")
        } else {
            format!("`{text}` is not a volume: the path in the container begins with `/`")
        };
        decoder.invalid(
            span,
            message,
            "write [SOURCE:]TARGET[:ro], such as ./nginx.conf:/etc/nginx/nginx.conf:ro",
        );
        return None;
    }
    let read_only = options.is_some_and(|options| options.split(',').any(|option| option == "ro"));
    Some(Mount { span, source, target: target.to_owned(), read_only })
}

fn source(decoder: &Decoder<'_>, text: &str) -> MountSource {
    if text.starts_with(['.', '/', '~']) {
        MountSource::Bind(decoder.path(text))
    } else if text.is_empty() {
        MountSource::Anonymous
    } else {
        MountSource::Named(text.to_owned())
    }
}

fn long(decoder: &mut Decoder<'_>, node: &Node) -> Option<Mount> {
    schema::check(node.as_mapping()?, schema::MOUNT, "a volume", Care::Effects, decoder.report);
    let mut text = |name: &str| node.get(name).and_then(|node| decoder.text(node));
    let (kind, source, target) = (text("type"), text("source"), text("target"));
    let read_only = node.get("read_only").and_then(|node| decoder.flag(node)).is_some_and(|flag| flag.value);
    let Some(target) = target.filter(|target| target.value.starts_with('/')) else {
        decoder.invalid(node.span, "a volume needs `target`, an absolute path in the container", "");
        return None;
    };
    let source = match (kind.as_ref().map(|kind| kind.value.as_str()), source) {
        (Some("bind"), Some(source)) => MountSource::Bind(decoder.path(&source.value)),
        (Some("bind"), None) => {
            decoder.invalid(node.span, "a bind mount needs `source`, the path on this host", "");
            return None;
        }
        (Some("volume"), Some(source)) => MountSource::Named(source.value),
        (Some("volume" | "tmpfs" | "image" | "cluster" | "npipe"), _) => MountSource::Anonymous,
        _ => {
            let span = kind.map_or(node.span, |kind| kind.span);
            decoder.invalid(span, "a volume needs `type`: bind, volume or tmpfs", "");
            return None;
        }
    };
    Some(Mount { span: node.span, source, target: target.value, read_only })
}

/// What a service mounts of the top level's texts, and where if it doesn't say.
pub(crate) struct Kind {
    pub(crate) what: &'static str,
    pub(crate) folder: &'static str,
}

/// `configs` lie in the root folder.
pub(crate) const CONFIGS: Kind = Kind { what: "config", folder: "/" };
/// `secrets` have a folder of their own.
pub(crate) const SECRETS: Kind = Kind { what: "secret", folder: "/run/secrets/" };

/// Reads a service's `configs` or `secrets`.
pub(crate) fn configs(
    decoder: &mut Decoder<'_>,
    node: &Node,
    declared: &IndexMap<String, Config>,
    kind: &Kind,
) -> Vec<ConfigMount> {
    let mut result = Vec::new();
    for item in decoder.items(node) {
        let (source, target) = match &item.value {
            Value::Mapping(entries) => {
                schema::check(entries, schema::CONFIG_MOUNT, "a config", Care::Effects, decoder.report);
                let mut text = |name: &str| item.get(name).and_then(|node| decoder.text(node));
                (text("source"), text("target"))
            }
            _ => (decoder.text(item), None),
        };
        let Some(source) = source else {
            decoder.invalid(item.span, format!("a {} needs `source`, its name at top level", kind.what), "");
            continue;
        };
        let Some(config) = declared.get(&source.value) else {
            decoder.report.push(undefined(kind.what, &source.value, source.span, declared.keys()));
            continue;
        };
        let target = match target {
            Some(target) if target.value.starts_with('/') => target.value,
            Some(target) => format!("{}{}", kind.folder, target.value),
            None => format!("{}{}", kind.folder, source.value),
        };
        let origin = config.origin.clone();
        result.push(ConfigMount { span: item.span, source: source.value, target, origin });
    }
    result
}
