//! Text with variables in it, parsed once at load.

use serde::{Deserialize, Serialize};

use crate::Variable;

/// Text with variables, as in `proxy_set_header X-Real-IP $remote_addr`. An empty list of parts is the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Template {
    /// The pieces in order. Two literals never follow each other.
    pub parts: Vec<Part>,
}

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// Text that stands for itself.
    Literal(String),
    /// A value looked up per request.
    Variable(Variable),
}

impl Template {
    /// Makes a template without variables.
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::default() } else { Self { parts: vec![Part::Literal(text)] } }
    }

    /// Makes a template of one variable.
    pub fn variable(variable: Variable) -> Self {
        Self { parts: vec![Part::Variable(variable)] }
    }

    /// Gives the text if no variable stands in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// A regular expression, still as text. The configuration reader has compiled it once, so it is known to be valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pattern {
    /// The expression in the syntax of the `regex` crate or, for the other engine, of `fancy-regex`, to be matched on bytes and without Unicode classes, as nginx
    /// matches. Names of groups are in lower case.
    pub source: String,
    /// Whether letters match without regard to case (`~*`).
    pub ignore_case: bool,
    /// What matches it.
    pub engine: PatternEngine,
}

/// The engine that an expression needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PatternEngine {
    /// Time linear in the text.
    #[default]
    Linear,
    /// One that backtracks, so many steps at most: looking around, back references, atomic groups.
    Backtracking,
}
