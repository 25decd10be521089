//! Joins two Compose trees as the specification's merge rules say
//! (<https://github.com/compose-spec/compose-spec/blob/main/13-merge.md>).
//!
//! Mappings merge key by key, lists are appended, the later scalar wins. Fields that may be written in two shapes are
//! brought into one before; some lists are sets under a key (`volumes` by target); commands replace each other whole.

use crate::yaml::{Entry, Mapping, Node, Tag, Value};

/// Where a node is, from the top level: names of services and the like are replaced by `*`.
type Path<'a> = &'a [&'a str];

/// Merges `over` into `base`; both are whole files.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    merge_at(base, over, &[])
}

/// Merges one service into another, as `extends` does.
pub(crate) fn merge_service(base: Node, over: Node) -> Node {
    merge_at(base, over, &["services", "*"])
}

/// Merges a resource of a section (`services`, `networks`) into another of its name, as `include` does.
pub(crate) fn merge_resource(section: &str, base: Node, over: Node) -> Node {
    merge_at(base, over, &[section, "*"])
}

fn merge_at(base: Node, over: Node, path: Path<'_>) -> Node {
    if over.tag == Tag::Override {
        return Node { tag: Tag::Plain, ..over };
    }
    if over.is_null() {
        // A variable without a value is the shell's, whatever earlier files say.
        return if matches!(path, ["services", "*", "environment", _]) { over } else { base };
    }
    let (base, over) = (one_shape(base, path), one_shape(over, path));
    if replaces(path) {
        return over;
    }
    let span = over.span;
    match (base.value, over.value) {
        (Value::Mapping(base), Value::Mapping(over)) => Node::mapping(span, mappings(base, over, path)),
        (Value::Sequence(base), Value::Sequence(over)) => {
            Node { span, tag: Tag::Plain, value: Value::Sequence(sequences(base, over, path)) }
        }
        (_, value) => Node { span, tag: over.tag, value },
    }
}

fn mappings(mut base: Mapping, over: Mapping, path: Path<'_>) -> Mapping {
    for (key, entry) in over {
        if entry.value.tag == Tag::Reset {
            base.shift_remove(&key);
            continue;
        }
        let below = step(path, &key);
        match base.get_mut(&key) {
            Some(old) => {
                let before = std::mem::replace(&mut old.value, Node::null(entry.key));
                *old = Entry { key: entry.key, value: merge_at(before, entry.value, &below) };
            }
            None => {
                base.insert(key, entry);
            }
        }
    }
    base
}

/// Appends; where entries have an identity, the later one takes the earlier one's place.
fn sequences(mut base: Vec<Node>, over: Vec<Node>, path: Path<'_>) -> Vec<Node> {
    for item in over {
        let identity = identity(&item, path);
        let same = |old: &&mut Node| identity.is_some() && self::identity(old, path) == identity;
        match base.iter_mut().find(same) {
            Some(old) => *old = item,
            None => base.push(item),
        }
    }
    base
}

/// Removes what `!reset` marks where there is nothing left to reset.
pub(crate) fn without_resets(mut node: Node) -> Node {
    match &mut node.value {
        Value::Mapping(entries) => {
            entries.retain(|_, entry| entry.value.tag != Tag::Reset);
            for entry in entries.values_mut() {
                let value = std::mem::replace(&mut entry.value, Node::null(entry.key));
                entry.value = without_resets(value);
            }
        }
        Value::Sequence(items) => {
            let kept = std::mem::take(items).into_iter().filter(|item| item.tag != Tag::Reset);
            *items = kept.map(without_resets).collect();
        }
        Value::Scalar(_) => {}
    }
    node
}

fn step<'a>(path: Path<'a>, key: &'a str) -> Vec<&'a str> {
    let named = matches!(
        path,
        ["services" | "networks" | "volumes" | "configs" | "secrets"]
            | ["services", "*", "networks" | "depends_on"]
    );
    let mut below = path.to_vec();
    below.push(if named { "*" } else { key });
    below
}

/// Whether a field's later value replaces the earlier one whole.
fn replaces(path: Path<'_>) -> bool {
    matches!(
        path,
        ["services", "*", "command" | "entrypoint"]
            | ["services", "*", "healthcheck", "test"]
            | ["services", "*", "x-process", "command"]
    )
}

/// Brings a field that has a short form into its long one.
fn one_shape(node: Node, path: Path<'_>) -> Node {
    match path {
        ["services", "*", "build"] => scalar_as_mapping(node, "context"),
        ["services", "*", "extends"] => scalar_as_mapping(node, "service"),
        ["services", "*", "depends_on" | "networks"] => names_as_mapping(node),
        ["services", "*", "environment" | "labels" | "annotations" | "sysctls" | "extra_hosts"]
        | ["services", "*", "build", "args" | "labels"]
        | ["services", "*", "deploy", "labels"]
        | ["services", "*", "x-process", "environment"]
        | ["networks" | "volumes" | "configs" | "secrets", "*", "labels"] => settings_as_mapping(node),
        ["services", "*", "env_file" | "dns" | "dns_search" | "dns_opt" | "tmpfs" | "label_file"] => {
            scalar_as_sequence(node)
        }
        _ => node,
    }
}

fn scalar_as_mapping(node: Node, key: &str) -> Node {
    let span = node.span;
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => {
            Node::mapping(span, Mapping::from([(key.to_owned(), Entry { key: span, value: node })]))
        }
        _ => node,
    }
}

fn scalar_as_sequence(node: Node) -> Node {
    let span = node.span;
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => {
            Node { span, tag: Tag::Plain, value: Value::Sequence(vec![node]) }
        }
        _ => node,
    }
}

fn names_as_mapping(node: Node) -> Node {
    sequence_as_mapping(node, |item, name| (name.to_owned(), Node::null(item.span)))
}

fn settings_as_mapping(node: Node) -> Node {
    sequence_as_mapping(node, |item, text| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Node::scalar(item.span, value)),
        None => (text.to_owned(), Node::null(item.span)),
    })
}

/// Turns a list of texts into a mapping; one that holds anything else is left for the reader to refuse.
fn sequence_as_mapping(node: Node, entry: impl Fn(&Node, &str) -> (String, Node)) -> Node {
    let Value::Sequence(items) = &node.value else { return node };
    let mut entries = Mapping::new();
    for item in items {
        let Value::Scalar(scalar) = &item.value else { return node };
        let (key, value) = entry(item, &scalar.text);
        entries.insert(key, Entry { key: item.span, value });
    }
    Node::mapping(node.span, entries)
}

/// What makes an entry of a list the same as another one.
fn identity(node: &Node, path: Path<'_>) -> Option<String> {
    let text = |node: &Node| match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    };
    let field = |name: &str| node.get(name).and_then(text);
    match path {
        ["services", "*", "volumes"] => match text(node) {
            Some(short) => {
                let mut parts = short.split(':');
                let first = parts.next().unwrap_or_default().to_owned();
                Some(parts.next().map_or(first, str::to_owned))
            }
            None => field("target"),
        },
        ["services", "*", "configs" | "secrets"] => match text(node) {
            Some(source) => Some(source),
            None => field("target").or_else(|| field("source")),
        },
        ["services", "*", "env_file"] => text(node).or_else(|| field("path")),
        ["services", "*", "ports"] => text(node).or_else(|| {
            let part = |name: &str| field(name).unwrap_or_default();
            Some(format!("{}:{}:{}/{}", part("host_ip"), part("published"), part("target"), part("protocol")))
        }),
        ["services", "*", "expose" | "profiles" | "dns" | "dns_search" | "cap_add" | "cap_drop"]
        | ["services", "*", "networks", "*", "aliases"] => text(node),
        _ => None,
    }
}
