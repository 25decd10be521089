//! What nginx demands of the directives that have no effect here: where they may stand, how many arguments they take
//! and what those may be.
//!
//! A file that nginx refuses is refused here too, also where nothing would come of the directive. Directives of
//! modules that nginx doesn't come with have no signature and are taken as they are.

use crate::{
    arguments::{buffers, flag, keyword, keywords, msec, number, offset, seconds, size},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts},
};

/// What nginx demands of a directive in some blocks.
pub(super) struct Signature {
    pub(super) contexts: Contexts,
    pub(super) arity: Arity,
    pub(super) repeats: Repeats,
    pub(super) value: Value,
}

/// Whether a directive may stand in a block twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    Once,
    Many,
}

/// What the arguments may be.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// Anything.
    Text,
    Flag,
    Number,
    Size,
    Offset,
    Milliseconds,
    Seconds,
    Buffers,
    Keyword(&'static [&'static str]),
    Keywords(&'static [&'static str]),
    /// What a function of its own says.
    Checked(fn(&mut Reader<'_>, &Directive)),
}

/// Reports what nginx would refuse in a directive that has a signature. Says whether it may be taken as read.
pub(super) fn check(reader: &mut Reader<'_>, directive: &Directive) -> bool {
    let name = directive.name.text.as_str();
    let mut known = signatures(name).peekable();
    if known.peek().is_none() {
        return true;
    }
    let context = reader.frame.context;
    let Some(signature) = known.find(|signature| signature.contexts.meets(context)) else {
        reader.misplaced(directive);
        return false;
    };
    let before = reader.diagnostics.len();
    check_shape(reader, directive, signature);
    if reader.diagnostics.len() == before {
        check_value(reader, directive, signature.value);
    }
    let found = reader.diagnostics.get(before..).unwrap_or_default();
    found.iter().all(|found| found.severity != keel_diag::Severity::Error)
}

/// Gives the blocks that a directive without effect may stand in.
pub(super) fn contexts(name: &str) -> impl Iterator<Item = Contexts> {
    signatures(name).map(|signature| signature.contexts)
}

fn signatures(name: &str) -> impl Iterator<Item = &'static Signature> {
    super::entries().filter(move |entry| entry.name == name).filter_map(|entry| entry.signature)
}

fn check_shape(reader: &mut Reader<'_>, directive: &Directive, signature: &Signature) {
    let name = directive.name.text.as_str();
    match &directive.block {
        Some(_) => reader.unexpected_block(directive),
        _ if !signature.arity.admits(directive.args.len()) => {
            reader.wrong_count(directive, format!("it takes {}", signature.arity.words()));
        }
        _ if signature.repeats == Repeats::Once && reader.frame.seen.contains_key(name) => {
            reader.duplicate(directive);
        }
        _ => {}
    }
}

fn check_value(reader: &mut Reader<'_>, directive: &Directive, value: Value) {
    match value {
        Value::Text => {}
        Value::Flag => drop(flag(reader, directive)),
        Value::Number => drop(number(reader, directive)),
        Value::Size => drop(size(reader, directive)),
        Value::Offset => drop(offset(reader, directive)),
        Value::Milliseconds => drop(msec(reader, directive)),
        Value::Seconds => drop(seconds(reader, directive)),
        Value::Buffers => drop(buffers(reader, directive)),
        Value::Keyword(words) => drop(keyword(reader, directive, &choices(words))),
        Value::Keywords(words) => drop(keywords(reader, directive, &choices(words))),
        Value::Checked(check) => check(reader, directive),
    }
}

/// Pairs each word with its number, which tells it from the others.
fn choices(words: &[&'static str]) -> Vec<(&'static str, usize)> {
    words.iter().copied().zip(0..).collect()
}

#[cfg(test)]
mod tests {
    use crate::known::entries;

    #[test]
    fn a_directive_has_one_row_in_each_block() {
        let all: Vec<_> = entries().collect();
        for (at, one) in all.iter().enumerate() {
            for other in all[at + 1..].iter().filter(|other| other.name == one.name) {
                let (Some(first), Some(second)) = (one.signature, other.signature) else {
                    panic!("{} has two rows", one.name);
                };
                assert!(!first.contexts.meets(second.contexts), "{} has two rows in one block", one.name);
            }
        }
    }
}
