//! The directives of nginx that have no effect here yet, each with what that means.
//!
//! They are known so that they are never called misspelt, and so that nobody finds out in production: what would give
//! somebody another response is an error, what loses something else is a warning, said once in a run. What only tunes
//! nginx is silent, and so is a directive that acts only beside another, as that other one is reported. The arguments
//! are checked as nginx checks them, whatever the effect.

pub(crate) mod checks;
mod signatures;
mod table;

pub(crate) use checks::{CacheZones, check_cache_zones};
use keel_diag::Diagnostic;

use signatures::Signature;

use crate::{
    ast::Directive,
    reader::{Frame, Reader},
    registry::Contexts,
};

/// What it means that a directive has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Somebody would get something else: this.
    Differs(&'static str),
    /// Every response stays correct; this changes.
    Harmless(&'static str),
    /// Nothing changes and nothing is lost: it tunes what Evenkeel does in another way.
    Tuning,
    /// It acts only beside this, which is reported where it stands.
    Companion(&'static str),
    /// It belongs into blocks that are reported and not read.
    Inside,
}

/// Directives whose having no effect means the same.
struct Group {
    effect: Effect,
    rows: &'static [Known],
}

/// One row: a directive without effect, in some blocks.
struct Known {
    name: &'static str,
    /// What nginx demands of it; `None` for directives of modules that nginx doesn't come with.
    signature: Option<Signature>,
}

/// A directive without effect.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its having no effect means.
    pub(crate) effect: Effect,
    signature: Option<&'static Signature>,
}

/// Finds a directive by its name.
pub(crate) fn find(name: &str) -> Option<Entry> {
    entries().find(|entry| entry.name == name)
}

/// Gives all directives without effect, one that differs between blocks several times.
pub(crate) fn entries() -> impl Iterator<Item = Entry> {
    table::TABLES.into_iter().flatten().flat_map(|group| {
        group.rows.iter().map(|row| Entry {
            name: row.name,
            effect: group.effect,
            signature: row.signature.as_ref(),
        })
    })
}

/// Gives their names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    entries().map(|entry| entry.name)
}

/// Gives the blocks that nginx allows a directive of these in, where that is known.
pub(crate) fn contexts(name: &str) -> impl Iterator<Item = Contexts> {
    signatures::contexts(name)
}

/// Reads a directive without effect: refuses what nginx would refuse, else says what its having none means.
pub(crate) fn read(reader: &mut Reader<'_>, entry: Entry, directive: &Directive) {
    if signatures::check(reader, directive) {
        reader.diagnostics.extend(entry.diagnose(directive));
    }
    match (&directive.block, inside(entry.name, reader.frame.context)) {
        (Some(block), Some(context)) => {
            let mut frame = Frame::new(context, Some(directive.name.span));
            frame.matcher.clone_from(&reader.frame.matcher);
            reader.inside(frame, block);
        }
        _ => excuse_variables(reader, directive),
    }
}

/// Gives what the inside of a block without effect is, where it is read to find mistakes in it.
fn inside(name: &str, context: Contexts) -> Option<Contexts> {
    match (name, context) {
        ("limit_except", Contexts::LOCATION) => Some(Contexts::LIMIT_EXCEPT),
        _ => None,
    }
}

impl Entry {
    /// Tells whether `off` would be a name to this directive, as any other word.
    fn takes_a_name(self, directive: &Directive) -> bool {
        let names = ["least_time"];
        directive.block.is_some() || self.name.ends_with("_pass") || names.contains(&self.name)
    }

    /// Says what using it means; nothing if it asks for what holds anyway.
    fn diagnose(self, directive: &Directive) -> Option<Diagnostic> {
        let name = self.name;
        let sole = (directive.args.len() == 1).then(|| directive.arg(0));
        let nothing = match sole {
            Some("off") => !self.takes_a_name(directive),
            _ => false,
        };
        let code = "nginx::unsupported-directive";
        match self.effect {
            _ if nothing => None,
            Effect::Tuning | Effect::Companion(_) | Effect::Inside => None,
            Effect::Differs(effect) => Some(
                Diagnostic::error(code, format!("`{name}` is not supported yet"))
                    .at(directive.span(), effect),
            ),
            Effect::Harmless(effect) => {
                let (code, message) = match name {
                    "http3" | "http3_hq" => {
                        ("nginx::unsupported-http3", "HTTP/3 is not there yet".to_owned())
                    }
                    _ => (code, format!("`{name}` has no effect")),
                };
                Some(Diagnostic::warning(code, message).at(directive.span(), effect).once_per_run())
            }
        }
    }
}

/// Notes the variables that a directive without effect would define, so that their use isn't reported on top.
fn excuse_variables(reader: &mut Reader<'_>, directive: &Directive) {
    let defines = ["js_set", "js_var", "perl_set", "keyval", "num_map"];
    let inside = directive.block.iter().flatten();
    for inner in inside {
        excuse_variables(reader, inner);
    }
    if !defines.contains(&directive.name.text.as_str()) {
        return;
    }
    let names = directive.args.iter().filter_map(|word| word.text.strip_prefix('$'));
    let names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    reader.http.names.excused.extend(names);
}
