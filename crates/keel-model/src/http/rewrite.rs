//! ngx_http_rewrite_module: what changes a request before it is answered.
//!
//! The directives of a block are a small program: steps in the file's order, of which `if` holds others.

use serde::{Deserialize, Serialize};

use super::Scope;
use crate::{Pattern, Template, Variable, settings::settings};

settings! {
    /// How the module tells of what it does.
    pub struct RewriteScope, set by RewriteLayer {
        /// `rewrite_log`: each step is logged as `notice`.
        log: bool = false;
        /// `uninitialized_variable_warn`.
        uninitialized_variable_warn: bool = true;
    }
}

/// What the `rewrite` phase of a server or location does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// Its steps in the file's order.
    pub steps: Vec<RewriteStep>,
}

/// One directive of the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewriteStep {
    /// `set`.
    Set {
        /// `$args`, or one that the configuration defines.
        variable: Variable,
        /// Its new value.
        value: Template,
    },
    /// `break`: nothing more is rewritten here.
    Break,
    /// `return`.
    Return(Return),
    /// `rewrite`.
    Rewrite(RewriteRule),
    /// `if`.
    If(Box<If>),
}

/// `return`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The status, 444 included (close without a response).
    pub status: u16,
    /// A body, or for 301, 302, 303, 307 and 308 the location.
    pub text: Option<Template>,
}

/// `rewrite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewriteRule {
    /// What the URI must match.
    pub pattern: Pattern,
    /// The expression as written, for the log.
    pub written: String,
    /// What replaces the URI, or the URL of a redirect, up to the first `?` that is written in it.
    pub replacement: Template,
    /// What follows that `?`: the new query.
    pub args: Option<Template>,
    /// What becomes of the request's own query.
    pub own_args: OwnArgs,
    /// What follows.
    pub then: AfterRewrite,
}

/// What becomes of a request's own query when its URI is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnArgs {
    /// It is appended to the new one.
    Append,
    /// It is dropped, as the replacement ends in `?`.
    Drop,
}

/// What follows a `rewrite` that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterRewrite {
    /// No flag: the next step.
    Next,
    /// `last`: the location is looked for anew.
    Last,
    /// `break`: the location stays.
    Break,
    /// `redirect`, `permanent`, or a replacement that is a URL: the client is sent there with this status.
    Redirect(u16),
}

/// `if`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct If {
    /// What is tested.
    pub test: Test,
    /// Which outcome of the test leads into the block.
    pub wants: bool,
    /// What is done then.
    pub steps: Vec<RewriteStep>,
    /// What holds from then on, of an `if` in a location: it takes the location's place. In a server nothing changes.
    pub scope: Option<Box<Scope>>,
}

/// The condition of an `if`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// `($name)`: it is neither empty nor `0`.
    Holds(Variable),
    /// `($name = value)`.
    Equals(Variable, Template),
    /// `($name ~ expression)`.
    Matches {
        /// Whose value is matched.
        variable: Variable,
        /// The expression.
        pattern: Pattern,
        /// The expression as written, for the log.
        written: String,
    },
    /// `(-f path)` and its like.
    File(FileTest, Template),
}

/// What `if` asks of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileTest {
    /// `-f`: a regular file.
    Plain,
    /// `-d`: a folder.
    Folder,
    /// `-e`: either.
    Exists,
    /// `-x`: something that its owner may execute.
    Executable,
}

impl From<Return> for Rewrite {
    fn from(answer: Return) -> Self {
        Self { steps: vec![RewriteStep::Return(answer)] }
    }
}

impl Rewrite {
    /// Gives what holds in the `if` blocks, outer before inner.
    pub fn scopes(&self) -> Vec<&Scope> {
        fn walk<'a>(steps: &'a [RewriteStep], scopes: &mut Vec<&'a Scope>) {
            for step in steps {
                if let RewriteStep::If(inside) = step {
                    scopes.extend(inside.scope.as_deref());
                    walk(&inside.steps, scopes);
                }
            }
        }
        let mut scopes = Vec::new();
        walk(&self.steps, &mut scopes);
        scopes
    }

    /// Gives the same to be changed.
    pub fn scopes_mut(&mut self) -> Vec<&mut Scope> {
        fn walk<'a>(steps: &'a mut [RewriteStep], scopes: &mut Vec<&'a mut Scope>) {
            for step in steps {
                if let RewriteStep::If(inside) = step {
                    let If { scope, steps, .. } = &mut **inside;
                    scopes.extend(scope.as_deref_mut());
                    walk(steps, scopes);
                }
            }
        }
        let mut scopes = Vec::new();
        walk(&mut self.steps, &mut scopes);
        scopes
    }
}
