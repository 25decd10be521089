//! Variables that the configuration defines, ready to be looked up.

use std::collections::HashMap;

use keel_model::{DefinedVariable, Map, SplitClients, Template, Variable, VariableId, VariableSource};
use keel_regex::{Regex, TooManySteps};

use super::CompiledGeo;
use crate::error::CompileError;

/// All of them, in the order of their slots.
#[derive(Default)]
pub(crate) struct Variables {
    list: Vec<CompiledVariable>,
    /// The slots of each name that is written. Several have one name where several sites share the data plane.
    by_name: HashMap<Box<str>, Vec<VariableId>>,
}

/// One of them.
pub(crate) struct CompiledVariable {
    pub(crate) name: Box<str>,
    pub(crate) source: Source,
}

/// What gives a variable its value while its slot is empty.
pub(crate) enum Source {
    /// Nothing: it is only written.
    Written,
    /// `set`: the empty value.
    Set,
    /// One of nginx's own.
    Builtin(Variable),
    Map(Box<CompiledMap>),
    Geo(Box<CompiledGeo>),
    SplitClients(SplitClients),
}

impl Source {
    /// Says whether its value is written rather than worked out.
    pub(crate) fn is_written(&self) -> bool {
        matches!(self, Self::Written | Self::Set | Self::Builtin(_))
    }

    /// Says whether its value is worked out anew at every use.
    pub(crate) fn is_volatile(&self) -> bool {
        match self {
            Self::Map(map) => map.volatile,
            Self::Geo(geo) => geo.volatile,
            Self::Written | Self::Set | Self::Builtin(_) | Self::SplitClients(_) => false,
        }
    }
}

impl Variables {
    pub(super) fn compile(definitions: &[DefinedVariable]) -> Result<Self, CompileError> {
        let mut variables = Self::default();
        for (id, definition) in (0..).map(VariableId).zip(definitions) {
            let name: Box<str> = definition.name.as_str().into();
            let source = match &definition.source {
                VariableSource::Map(map) => Source::Map(Box::new(CompiledMap::compile(map)?)),
                VariableSource::Geo(geo) => Source::Geo(Box::new(CompiledGeo::compile(geo))),
                VariableSource::SplitClients(split) => Source::SplitClients(split.clone()),
                VariableSource::Set => Source::Set,
                VariableSource::Builtin(variable) => Source::Builtin(variable.clone()),
                VariableSource::Written => Source::Written,
            };
            variables.by_name.entry(name.clone()).or_default().push(id);
            variables.list.push(CompiledVariable { name, source });
        }
        Ok(variables)
    }

    /// Gives a variable. Ids come from this snapshot only.
    pub(crate) fn get(&self, id: VariableId) -> Option<&CompiledVariable> {
        self.list.get(id.0 as usize)
    }

    /// Gives the slots that a named group is written to.
    pub(crate) fn slots(&self, name: &str) -> &[VariableId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }
}

/// One `map` block.
pub(crate) struct CompiledMap {
    pub(crate) source: Template,
    pub(crate) volatile: bool,
    hostnames: bool,
    exact: HashMap<Box<[u8]>, Template>,
    heads: Vec<(Box<[u8]>, Template)>,
    tails: Vec<(Box<[u8]>, Template)>,
    regexes: Vec<(Regex, Template)>,
    default: Template,
}

/// What a map has for a value.
pub(crate) enum LookedUp<'a> {
    /// A result by its text, or the default.
    Found(&'a Template),
    /// A result by an expression.
    Matched(&'a Template, &'a Regex),
    /// The default, since an expression took too many steps.
    GivenUp(&'a Template, &'a Regex),
}

impl CompiledMap {
    pub(super) fn compile(map: &Map) -> Result<Self, CompileError> {
        let mut compiled = Self {
            source: map.source.clone(),
            volatile: map.volatile,
            hostnames: map.hostnames,
            exact: HashMap::new(),
            heads: Vec::new(),
            tails: Vec::new(),
            regexes: Vec::new(),
            default: map.default.clone(),
        };
        for (pattern, result) in &map.entries {
            let lower = pattern.to_ascii_lowercase();
            let result = result.clone();
            if map.hostnames && lower.starts_with('.') {
                let bare = lower.trim_start_matches('.').as_bytes();
                compiled.exact.entry(bare.into()).or_insert_with(|| result.clone());
                compiled.heads.push((lower.as_bytes().into(), result));
            } else if let Some(tail) = lower.strip_prefix('*').filter(|_| map.hostnames) {
                compiled.heads.push((tail.as_bytes().into(), result));
            } else if let Some(head) = lower.strip_suffix('*').filter(|_| map.hostnames) {
                compiled.tails.push((head.as_bytes().into(), result));
            } else {
                compiled.exact.entry(lower.into_bytes().into()).or_insert(result);
            }
        }
        compiled.heads.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        compiled.tails.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        for (pattern, result) in &map.regexes {
            compiled.regexes.push((super::regex(pattern)?, result.clone()));
        }
        Ok(compiled)
    }

    /// The result where nothing matches.
    pub(crate) fn default(&self) -> &Template {
        &self.default
    }

    /// Finds the result for a value, and the expression that matched, whose groups the result may use. An expression
    /// that takes too many steps leaves the default, as in nginx.
    pub(crate) fn look_up(&self, value: &[u8]) -> LookedUp<'_> {
        let value = if self.hostnames { value.strip_suffix(b".").unwrap_or(value) } else { value };
        let lower = value.to_ascii_lowercase();
        if let Some(result) = self.exact.get(lower.as_slice()) {
            return LookedUp::Found(result);
        }
        let head = self.heads.iter().find(|(text, _)| lower.len() >= text.len() && lower.ends_with(text));
        let tail = || self.tails.iter().find(|(text, _)| lower.len() > text.len() && lower.starts_with(text));
        if let Some((_, result)) = head.or_else(tail) {
            return LookedUp::Found(result);
        }
        // An empty value matches no expression, as in nginx.
        for (regex, result) in self.regexes.iter().filter(|_| !value.is_empty()) {
            match regex.is_match(value) {
                Ok(true) => return LookedUp::Matched(result, regex),
                Ok(false) => {}
                Err(TooManySteps) => return LookedUp::GivenUp(&self.default, regex),
            }
        }
        LookedUp::Found(&self.default)
    }
}
