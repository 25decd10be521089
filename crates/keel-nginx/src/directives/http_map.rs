//! ngx_http_map_module: one value from another.

use keel_diag::Diagnostic;
use keel_model::{Map, Template, VariableSource};

use crate::{
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "map",
    syntax: "string $variable { ... }",
    contexts: Contexts::HTTP,
    arity: Arity::TWO,
    default: None,
    doc: "Defines a variable by what a text is: `value result;` lines, `~` and `~*` for regular expressions, \
          `default`, `hostnames`, `volatile`, `include`. Values are compared without regard to case; expressions are \
          tried in the file's order after them.",
    set: Setter::Block(map),
}];

fn map(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let [source, name] = directive.args.as_slice() else {
        return;
    };
    let source = reader.template(source).unwrap_or_default();
    let mut map = Map {
        source,
        hostnames: false,
        volatile: false,
        entries: Vec::new(),
        regexes: Vec::new(),
        default: Template::default(),
    };
    let defined = reader.defined_name(directive, name);
    let mut default_seen = false;
    for line in block {
        entry(reader, &mut map, &mut default_seen, line);
    }
    if let Some(defined) = defined {
        reader.http.names.define_as(&defined, VariableSource::Map(map));
    }
}

fn entry(reader: &mut Reader<'_>, map: &mut Map, default_seen: &mut bool, line: &Directive) {
    let key = line.name.text.as_str();
    let span = line.span();
    if line.block.is_some() {
        return reader.error(
            "nginx::unexpected-block",
            "no block is allowed in `map`",
            span,
            "unexpected \"{\"",
        );
    }
    let result = match line.args.as_slice() {
        [] if key == "hostnames" => return map.hostnames = true,
        [] if key == "volatile" => return map.volatile = true,
        [result] => reader.template(result),
        _ => {
            let message = "a line of `map` has a value and a result";
            let nginx = "invalid number of the map parameters";
            return reader.error("nginx::invalid-number-of-arguments", message, span, nginx);
        }
    };
    let Some(result) = result else {
        return;
    };
    if key == "default" {
        if std::mem::replace(default_seen, true) {
            let nginx = "duplicate default map parameter";
            return reader.error("nginx::duplicate", "a second `default` in one `map`", span, nginx);
        }
        map.default = result;
    } else if let Some(pattern) = key.strip_prefix('~') {
        let (pattern, ignore_case) = match pattern.strip_prefix('*') {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        if let Some(pattern) = reader.pattern(pattern, line.name.span, ignore_case) {
            map.regexes.push((pattern, result));
        }
    } else {
        let key = key.strip_prefix('\\').unwrap_or(key);
        plain_entry(reader, map, key, result, line);
    }
}

fn plain_entry(reader: &mut Reader<'_>, map: &mut Map, key: &str, result: Template, line: &Directive) {
    let wildcard_fits = !key.contains('*') || key.starts_with("*.") || key.ends_with(".*");
    if map.hostnames && (!wildcard_fits || key.matches('*').count() > 1) {
        let nginx = format!("invalid hostname or wildcard \"{key}\"");
        let message = format!("`{key}` is no host name");
        return reader.error("nginx::invalid-hostname", message, line.name.span, nginx);
    }
    if map.entries.iter().any(|(known, _)| known.eq_ignore_ascii_case(key)) {
        reader.diagnostics.push(
            Diagnostic::error("nginx::duplicate", format!("`{key}` stands twice in one `map`"))
                .at(line.name.span, "values are compared without regard to case")
                .nginx(format!("conflicting parameter \"{}\"", key.to_ascii_lowercase())),
        );
        return;
    }
    map.entries.push((key.to_owned(), result));
}
