//! The reference of directives, made from the registry.

use std::fmt::Write;

use crate::{
    directives::{MODULES, http_upstream::policy_rows},
    known::{self, Effect},
    reader::written,
    registry::{self, Row},
};

/// What is said of directives that only tune nginx.
const TUNING: &str = "it tunes what Evenkeel does in another way";

/// Blocks that are not read.
const UNREAD: &str = "mail, stream";

/// Renders `docs/reference/directives.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Directives\n\nMade by `cargo xtask docs` from the registry in `crates/keel-nginx`; don't edit.\n\n\
         Directives that Evenkeel honours come first, by module. At the end are those of nginx that have no effect yet, \
         with what that means. Whatever the effect, their arguments are checked as nginx checks them.\n",
    );
    let mut module_before = "";
    for module in MODULES {
        if module.name != module_before {
            let _ = write!(out, "\n## {}\n", module.name);
            module_before = module.name;
        }
        module.rows.iter().for_each(|row| describe(&mut out, row));
    }
    out.push_str("\n## Balancing algorithms\n");
    policy_rows().iter().for_each(|row| describe(&mut out, row));
    out.push_str("\n## Known, without effect yet\n");
    let title = "Using one is an error, as responses would differ";
    table(&mut out, title, "What would differ", |effect| match effect {
        Effect::Differs(text) => Some(text),
        _ => None,
    });
    let title = "Using one is a warning, as every response stays correct";
    table(&mut out, title, "What holds instead", |effect| match effect {
        Effect::Harmless(text) => Some(text),
        _ => None,
    });
    let title = "Silent, as nothing changes and nothing is lost";
    table(&mut out, title, "Why", |effect| match effect {
        Effect::Tuning => Some(TUNING),
        _ => None,
    });
    table(&mut out, "Silent, as they act only beside others", "Beside", |effect| match effect {
        Effect::Companion(text) => Some(text),
        _ => None,
    });
    let title = "Silent, as the blocks that they are part of are errors";
    table(&mut out, title, "Blocks", |effect| match effect {
        Effect::Inside => Some(UNREAD),
        _ => None,
    });
    out
}

/// Gives what is to be said about a directive, or nothing if there is none of that name.
pub fn explain(name: &str) -> Option<String> {
    let mut out = String::new();
    registry::rows(name).for_each(|row| describe(&mut out, row));
    if let (true, Some(entry)) = (out.is_empty(), known::find(name)) {
        let text = match entry.effect {
            Effect::Differs(text) => format!("Not supported yet; using it is an error, as {text}."),
            Effect::Harmless(text) => format!("Not supported yet; using it is a warning: {text}."),
            Effect::Tuning => format!("Accepted without effect: {TUNING}."),
            Effect::Companion(text) => format!("Not supported yet; acts only beside {text}."),
            Effect::Inside => format!("Not supported yet, as little as the blocks it stands in: {UNREAD}."),
        };
        let _ = write!(out, "\n### {name}\n\n{text}\n");
    }
    Some(out.trim_start().to_owned()).filter(|out| !out.is_empty())
}

fn describe(out: &mut String, row: &Row) {
    let contexts: Vec<&str> = row.contexts.names().collect();
    let _ = write!(out, "\n### {}\n\n    {}\n\n", row.name, written(row.name, row.syntax));
    if let Some(default) = row.default {
        let _ = write!(out, "Default: `{default}` · ");
    }
    let _ = write!(out, "Context: {}\n\n{}\n", contexts.join(", "), row.doc);
}

fn table(out: &mut String, title: &str, column: &str, text: fn(Effect) -> Option<&'static str>) {
    let _ = write!(out, "\n### {title}\n\n| Directives | {column} |\n|---|---|\n");
    let mut texts: Vec<&'static str> = Vec::new();
    for entry in known::entries() {
        if let Some(text) = text(entry.effect).filter(|text| !texts.contains(text)) {
            texts.push(text);
        }
    }
    for wanted in texts {
        let mut names: Vec<String> = known::entries()
            .filter(|entry| text(entry.effect) == Some(wanted))
            .map(|entry| format!("`{}`", entry.name))
            .collect();
        names.dedup();
        let _ = writeln!(out, "| {} | {wanted} |", names.join(" "));
    }
}
