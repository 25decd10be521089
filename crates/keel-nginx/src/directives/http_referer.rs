//! ngx_http_referer_module: which pages may refer to this one.

use keel_model::{RefererHost, ValidReferers};

use crate::{
    ast::{Directive, Word},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "valid_referers",
    syntax: "none | blocked | server_names | string ...",
    contexts: Contexts::SERVER_LOCATION,
    arity: Arity::AtLeast(1),
    default: None,
    doc: "Says which `Referer` a request may have; `$invalid_referer` is `1` where it has another, and else empty. `none` is \
              no field, `blocked` one that is no URL, `server_names` the names of the server; a host may have `*.` in front or \
              `.*` behind and the begin of a path, and `~` begins an expression for what follows the scheme.",
    set: Setter::Simple(valid),
}];

fn valid(reader: &mut Reader<'_>, directive: &Directive) {
    for word in &directive.args {
        let referers = reader.frame.scope.referer.valid.get_or_insert_default();
        let referers = referers.get_or_insert_default();
        match word.text.as_str() {
            "none" => referers.none = true,
            "blocked" => referers.blocked = true,
            "server_names" => referers.server_names = true,
            "" => {
                let nginx = "invalid referer \"\"".to_owned();
                reader.invalid(directive, word, nginx, "`none`, `blocked`, `server_names` or a host");
            }
            text => match text.strip_prefix('~') {
                Some("") => {
                    let nginx = "empty regex in \"~\"".to_owned();
                    reader.invalid(directive, word, nginx, "an expression behind the `~`");
                }
                Some(pattern) => {
                    if let Some(pattern) = reader.pattern(pattern, word.span, true) {
                        reader.frame.scope.referer.patterns.get_or_insert_default().push(pattern);
                    }
                }
                None => host(reader, directive, word),
            },
        }
    }
}

fn host(reader: &mut Reader<'_>, directive: &Directive, word: &Word) {
    let (name, path) = match word.text.find('/') {
        Some(at) => word.text.split_at(at),
        None => (word.text.as_str(), ""),
    };
    let stars = name.matches('*').count();
    let fits = stars == 0 || stars == 1 && (name.starts_with("*.") || name.ends_with(".*"));
    if !fits || name.contains("..") || name == "*." || name == ".*" {
        let nginx = format!("invalid hostname or wildcard \"{name}\"");
        return reader.invalid(directive, word, nginx, "a host, with `*.` in front or `.*` behind at most");
    }
    let name = name.to_ascii_lowercase();
    let referers = reader.frame.scope.referer.valid.get_or_insert_default().get_or_insert_default();
    if referers.hosts.iter().any(|known| known.name == name) {
        let nginx = format!("conflicting parameter \"{name}\"");
        return reader.invalid(directive, word, nginx, "each host once");
    }
    referers.hosts.push(RefererHost { name, path: Some(path.to_owned()).filter(|path| !path.is_empty()) });
}

/// Reports `none` and `blocked` of a block that names no host beside them. To be called when the block is closed.
pub(crate) fn check(reader: &mut Reader<'_>, frame: &Frame) {
    let Some(Some(ValidReferers { none, blocked, server_names, hosts })) = &frame.scope.referer.valid else {
        return;
    };
    let Some(span) = frame.seen.get("valid_referers") else { return };
    if (*none || *blocked) && !server_names && hosts.is_empty() {
        let message = "`none` and `blocked` need a host beside them";
        let nginx = "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without any valid \
                     referer";
        reader.error("nginx::no-valid-referer", message, *span, nginx);
    }
}
