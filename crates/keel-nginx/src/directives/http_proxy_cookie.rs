//! ngx_http_proxy_module: what is changed of the cookies that peers set.

use keel_model::{CookieFlags, CookieRule, CookieText, Template};

use crate::{
    ast::{Directive, Word},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "proxy_cookie_domain",
        syntax: "off | domain replacement",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 2),
        default: Some("off"),
        doc: "Replaces the attribute `Domain` of cookies that peers set, where it is this domain, or with `~` what an expression \
              matches, in any case. Of several the first that fits. A block with any inherits none.",
        set: Setter::Simple(|reader, directive| {
            rule(reader, directive, |frame| &mut frame.scope.proxy.cookie_domains, Kind::Domain);
        }),
    },
    Row {
        name: "proxy_cookie_path",
        syntax: "off | path replacement",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 2),
        default: Some("off"),
        doc: "Replaces the beginning of the attribute `Path` of cookies that peers set, or with `~` and `~*` what an expression \
              matches.",
        set: Setter::Simple(|reader, directive| {
            rule(reader, directive, |frame| &mut frame.scope.proxy.cookie_paths, Kind::Path);
        }),
    },
    Row {
        name: "proxy_cookie_flags",
        syntax: "off | cookie [flag ...]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 4),
        default: Some("off"),
        doc: "Sets or takes out flags of a cookie of this name, or with `~` of a name that an expression matches: `secure`, \
              `httponly`, `samesite=strict`, `samesite=lax`, `samesite=none`, and `nosecure`, `nohttponly`, `nosamesite`.",
        set: Setter::Simple(flags),
    },
];

/// Which attribute is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Domain,
    Path,
}

/// Reads `off`, which stands alone. Says whether that was all.
fn reads_off<T>(
    reader: &mut Reader<'_>,
    directive: &Directive,
    slot: fn(&mut Frame) -> &mut Option<Vec<T>>,
) -> bool {
    // An empty list says `off`: nothing may stand beside it.
    let set = slot(&mut reader.frame);
    let is_off = set.as_ref().is_some_and(Vec::is_empty);
    let has_any = set.is_some();
    let [word] = directive.args.as_slice() else {
        if is_off {
            reader.duplicate(directive);
        }
        return is_off;
    };
    match word.text.as_str() {
        "off" if has_any => reader.duplicate(directive),
        "off" => *slot(&mut reader.frame) = Some(Vec::new()),
        _ => {
            let nginx = format!("invalid parameter \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`off`, or two arguments");
        }
    }
    true
}

fn rule(
    reader: &mut Reader<'_>,
    directive: &Directive,
    slot: fn(&mut Frame) -> &mut Option<Vec<CookieRule>>,
    kind: Kind,
) {
    if reads_off(reader, directive, slot) {
        return;
    }
    let [from, to] = directive.args.as_slice() else { return };
    let from = match (from.text.strip_prefix('~'), kind) {
        (Some(pattern), Kind::Domain) => reader.pattern(pattern, from.span, true).map(CookieText::Regex),
        (Some(pattern), Kind::Path) => {
            let (pattern, ignore_case) = match pattern.strip_prefix('*') {
                Some(pattern) => (pattern, true),
                None => (pattern, false),
            };
            reader.pattern(pattern, from.span, ignore_case).map(CookieText::Regex)
        }
        (None, _) => without_dot(reader, from, kind).map(CookieText::Text),
    };
    let to = match &from {
        Some(CookieText::Text(_)) => without_dot(reader, to, kind),
        _ => reader.template(to),
    };
    if let (Some(from), Some(to)) = (from, to) {
        slot(&mut reader.frame).get_or_insert_default().push(CookieRule { from, to });
    }
}

/// Reads a text, a domain without the dot in front.
fn without_dot(reader: &mut Reader<'_>, word: &Word, kind: Kind) -> Option<Template> {
    let text = word.text.strip_prefix('.').filter(|_| kind == Kind::Domain).unwrap_or(&word.text);
    reader.template_text(text, word)
}

fn flags(reader: &mut Reader<'_>, directive: &Directive) {
    if reads_off(reader, directive, |frame| &mut frame.scope.proxy.cookie_flags) {
        return;
    }
    let Some((name, flags)) = directive.args.split_first() else { return };
    let name = match name.text.strip_prefix('~') {
        Some(pattern) => reader.pattern(pattern, name.span, true).map(CookieText::Regex),
        None => reader.template(name).map(CookieText::Text),
    };
    let flags = flags.iter().map(|flag| reader.template(flag)).collect::<Option<Vec<_>>>();
    if let (Some(name), Some(flags)) = (name, flags) {
        let set = reader.frame.scope.proxy.cookie_flags.get_or_insert_default();
        set.push(CookieFlags { name, flags });
    }
}
