//! What the rewrite phase of a place does, with its expressions compiled.

use keel_model::{
    AfterRewrite, FileTest, OwnArgs, Part, Return, Rewrite, RewriteRule, RewriteStep, Scope, Template,
    Variable,
};
use keel_regex::Regex;

use super::PlaceId;
use crate::error::CompileError;

/// The steps of a place, in order. Most places have none.
pub(crate) type Program = Box<[Step]>;

/// One step.
pub(crate) enum Step {
    Set { variable: Variable, value: Template },
    Break,
    Return(Return),
    Rewrite(Box<Rule>),
    If(Box<Branch>),
}

/// One `rewrite`.
pub(crate) struct Rule {
    pub(crate) regex: Regex,
    /// The expression as written.
    pub(crate) written: Box<str>,
    pub(crate) replacement: Template,
    pub(crate) args: Option<Template>,
    pub(crate) own_args: OwnArgs,
    pub(crate) then: AfterRewrite,
    /// Whether a `?` is written in the replacement.
    pub(crate) has_query: bool,
}

/// One `if`.
pub(crate) struct Branch {
    pub(crate) test: Test,
    pub(crate) wants: bool,
    pub(crate) steps: Program,
    /// The place that holds from then on.
    pub(crate) place: Option<PlaceId>,
}

/// The condition of an `if`.
pub(crate) enum Test {
    Holds(Variable),
    Equals(Variable, Template),
    Matches { variable: Variable, regex: Regex, written: Box<str> },
    File(FileTest, Template),
}

/// Says whether a request may be answered by a `return`.
pub(super) fn returns(rewrite: &Rewrite) -> bool {
    fn any(steps: &[RewriteStep]) -> bool {
        steps.iter().any(|step| match step {
            RewriteStep::Return(_) => true,
            RewriteStep::If(inside) => any(&inside.steps),
            RewriteStep::Set { .. } | RewriteStep::Break | RewriteStep::Rewrite(_) => false,
        })
    }
    any(&rewrite.steps)
}

/// Compiles steps; `place` makes the place of an `if` of its settings.
pub(super) fn compile(
    steps: &[RewriteStep],
    place: &mut dyn FnMut(&Scope) -> Result<PlaceId, CompileError>,
) -> Result<Program, CompileError> {
    let steps = steps.iter().map(|step| {
        Ok(match step {
            RewriteStep::Set { variable, value } => {
                Step::Set { variable: variable.clone(), value: value.clone() }
            }
            RewriteStep::Break => Step::Break,
            RewriteStep::Return(answer) => Step::Return(answer.clone()),
            RewriteStep::Rewrite(rule) => Step::Rewrite(Box::new(Rule::compile(rule)?)),
            RewriteStep::If(inside) => Step::If(Box::new(Branch {
                test: Test::compile(&inside.test)?,
                wants: inside.wants,
                place: inside.scope.as_deref().map(&mut *place).transpose()?,
                steps: compile(&inside.steps, place)?,
            })),
        })
    });
    steps.collect()
}

impl Rule {
    fn compile(rule: &RewriteRule) -> Result<Self, CompileError> {
        let has_query = |part: &Part| matches!(part, Part::Literal(text) if text.contains('?'));
        Ok(Self {
            regex: super::regex(&rule.pattern)?,
            written: rule.written.as_str().into(),
            replacement: rule.replacement.clone(),
            args: rule.args.clone(),
            own_args: rule.own_args,
            then: rule.then,
            has_query: rule.replacement.parts.iter().any(has_query),
        })
    }
}

impl Test {
    fn compile(test: &keel_model::Test) -> Result<Self, CompileError> {
        Ok(match test {
            keel_model::Test::Holds(variable) => Test::Holds(variable.clone()),
            keel_model::Test::Equals(variable, text) => Test::Equals(variable.clone(), text.clone()),
            keel_model::Test::Matches { variable, pattern, written } => Test::Matches {
                variable: variable.clone(),
                regex: super::regex(pattern)?,
                written: written.as_str().into(),
            },
            keel_model::Test::File(test, path) => Test::File(*test, path.clone()),
        })
    }
}
