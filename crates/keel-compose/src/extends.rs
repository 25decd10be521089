//! `extends`: a service that begins as a copy of another, of the same file or of another one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Span};

use crate::{
    decode::Decoder,
    files::FileReader,
    merge,
    mounts::undefined,
    report::Report,
    schema::{self, Care},
    yaml::{Mapping, Node, Value},
};

/// A service that is being extended: its file and name.
type Step = (PathBuf, String);

/// The file that services are looked up in.
struct ServiceFile<'a> {
    path: &'a Path,
    services: &'a Mapping,
    variables: &'a BTreeMap<String, String>,
}

impl FileReader<'_> {
    /// Resolves every `extends` of a document.
    pub(crate) fn extended(
        &mut self,
        mut document: Node,
        path: &Path,
        folder: &Path,
        variables: &BTreeMap<String, String>,
    ) -> Node {
        let Some(services) = document.get("services").and_then(Node::as_mapping) else { return document };
        if !services.values().any(|entry| entry.value.get("extends").is_some()) {
            return document;
        }
        let services = services.clone();
        let place = ServiceFile { path, services: &services, variables };
        let mut resolved = services.clone();
        for (name, entry) in &mut resolved {
            let value = self.within(name, |reader| reader.resolve(name, &place, folder, &mut Vec::new()));
            entry.value = value.unwrap_or_else(|| entry.value.clone());
        }
        if let Value::Mapping(entries) = &mut document.value
            && let Some(entry) = entries.get_mut("services")
        {
            entry.value.value = Value::Mapping(resolved);
        }
        document
    }

    fn resolve(
        &mut self,
        name: &str,
        place: &ServiceFile<'_>,
        folder: &Path,
        stack: &mut Vec<Step>,
    ) -> Option<Node> {
        let mut own = place.services.get(name)?.value.clone();
        let Value::Mapping(entries) = &mut own.value else { return Some(own) };
        let Some(extends) = entries.shift_remove("extends") else { return Some(own) };
        let here = (place.path.to_owned(), name.to_owned());
        if stack.contains(&here) {
            let message = format!("`{name}` extends itself");
            self.report
                .push(Diagnostic::error("compose::extends", message).at(extends.key, "comes back here"));
            return Some(own);
        }
        stack.push(here);
        let base = self.base(&extends.value, place, folder, stack);
        stack.pop();
        Some(match base {
            Some(base) => merge::merge_service(base, own),
            None => own,
        })
    }

    /// The service that is extended.
    fn base(
        &mut self,
        extends: &Node,
        place: &ServiceFile<'_>,
        folder: &Path,
        stack: &mut Vec<Step>,
    ) -> Option<Node> {
        let own_folder = place.path.parent().unwrap_or(folder);
        let mut decoder = Decoder { report: self.report, folder: own_folder, variables: place.variables };
        let (service, file) = match extends.as_mapping() {
            Some(entries) => {
                schema::check(entries, schema::EXTENDS, "`extends`", Care::Effects, decoder.report);
                let mut text = |name: &str| extends.get(name).and_then(|node| decoder.text(node));
                (text("service"), text("file"))
            }
            None => (decoder.text(extends), None),
        };
        let Some(service) = service else {
            decoder.invalid(extends.span, "`extends` needs `service`", "");
            return None;
        };
        let Some(file) = file else {
            if !place.services.contains_key(&service.value) {
                let known = place.services.keys();
                self.report.push(undefined("service", &service.value, service.span, known));
            }
            return self.resolve(&service.value, place, folder, stack);
        };
        let path = decoder.path(&file.value);
        if !path.is_file() {
            missing_file(self.report, &path, file.span);
            return None;
        }
        let document = self.compose_file(&path, place.variables).into_iter().next()?;
        let none = Mapping::new();
        let services = document.get("services").and_then(Node::as_mapping).unwrap_or(&none);
        if !services.contains_key(&service.value) {
            self.report.push(undefined("service", &service.value, service.span, services.keys()));
            return None;
        }
        let other = ServiceFile { path: &path, services, variables: place.variables };
        let base = self.resolve(&service.value, &other, folder, stack)?;
        Some(rebase_service(base, path.parent().unwrap_or(folder), place.variables))
    }
}

/// Says that a file isn't there.
pub(crate) fn missing_file(report: &mut Report, path: &Path, span: Span) {
    let message = format!("{} is not there", path.display());
    report.push(Diagnostic::error("compose::missing-file", message).at(span, "named here"));
}

/// Makes the relative paths of a whole file absolute.
pub(crate) fn rebase(mut tree: Node, folder: &Path, variables: &BTreeMap<String, String>) -> Node {
    if let Value::Mapping(sections) = &mut tree.value {
        for (section, entry) in sections {
            let Value::Mapping(entries) = &mut entry.value.value else { continue };
            for resource in entries.values_mut() {
                let value = std::mem::replace(&mut resource.value, Node::null(resource.key));
                resource.value = match section.as_str() {
                    "services" => rebase_service(value, folder, variables),
                    "configs" | "secrets" => Rebase { folder, variables }.field(value, "file"),
                    _ => value,
                };
            }
        }
    }
    tree
}

fn rebase_service(service: Node, folder: &Path, variables: &BTreeMap<String, String>) -> Node {
    let rebase = Rebase { folder, variables };
    let service = rebase.within(service, "build", |build| match &build.value {
        Value::Scalar(_) => rebase.path(build),
        _ => rebase.field(build, "context"),
    });
    let service = rebase.within(service, "env_file", |list| {
        rebase.each(list, |item| match &item.value {
            Value::Scalar(_) => rebase.path(item),
            _ => rebase.field(item, "path"),
        })
    });
    rebase.within(service, "volumes", |list| {
        rebase.each(list, |item| match &item.value {
            Value::Scalar(_) => rebase.short_volume(item),
            _ => rebase.field(item, "source"),
        })
    })
}

struct Rebase<'a> {
    folder: &'a Path,
    variables: &'a BTreeMap<String, String>,
}

impl Rebase<'_> {
    fn within(&self, mut node: Node, field: &str, change: impl FnOnce(Node) -> Node) -> Node {
        if let Value::Mapping(entries) = &mut node.value
            && let Some(entry) = entries.get_mut(field)
        {
            let value = std::mem::replace(&mut entry.value, Node::null(entry.key));
            entry.value = change(value);
        }
        node
    }

    fn field(&self, node: Node, field: &str) -> Node {
        let named_volume = field == "source"
            && !matches!(node.get("type").map(|kind| &kind.value), Some(Value::Scalar(kind)) if kind.text == "bind");
        if named_volume { node } else { self.within(node, field, |node| self.path(node)) }
    }

    fn each(&self, mut node: Node, change: impl Fn(Node) -> Node) -> Node {
        match &mut node.value {
            Value::Sequence(items) => {
                *items = std::mem::take(items).into_iter().map(change).collect();
                node
            }
            _ => change(node),
        }
    }

    fn path(&self, mut node: Node) -> Node {
        if let Value::Scalar(scalar) = &mut node.value
            && !scalar.is_null()
            && !scalar.text.contains("://")
        {
            scalar.text = self.absolute(&scalar.text);
        }
        node
    }

    fn short_volume(&self, mut node: Node) -> Node {
        if let Value::Scalar(scalar) = &mut node.value
            && let Some((source, rest)) = scalar.text.split_once(':')
            && source.starts_with(['.', '~'])
        {
            scalar.text = format!("{}:{rest}", self.absolute(source));
        }
        node
    }

    fn absolute(&self, text: &str) -> String {
        let mut report = Report::default();
        let decoder = Decoder { report: &mut report, folder: self.folder, variables: self.variables };
        decoder.path(text).to_string_lossy().into_owned()
    }
}
