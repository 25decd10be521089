//! Reads a Dockerfile and gives its final stage, with what it inherits from earlier ones.
//!
//! Nothing is built. What is wanted is how the program is started (WORKDIR, ENV, ENTRYPOINT, CMD), where its files come
//! from (COPY), which Python packages it needs (RUN pip install), and whether the image is a balancer's (FROM). What the
//! base image itself says isn't known here.

mod context;
mod instruction;
mod lines;
mod run;
mod words;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use keel_diag::{Diagnostic, SourceId, Span};
use keel_model::Port;

use crate::{Healthcheck, Spanned};
pub use context::context_patterns;
use instruction::Interpreter;
pub(crate) use words::Scope;

/// The final stage of a Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    /// Every stage that was read.
    pub stages: Vec<Stage>,
    /// The image that the final stage comes from, through other stages of the file if need be.
    pub base: Option<Spanned<String>>,
    /// WORKDIR, absolute; `None` leaves it to the image.
    pub working_dir: Option<Spanned<String>>,
    /// ENV.
    pub environment: IndexMap<String, Spanned<String>>,
    /// ENTRYPOINT; the shell form has become `/bin/sh -c`.
    pub entrypoint: Option<Spanned<Vec<String>>>,
    /// CMD; the shell form has become `/bin/sh -c`.
    pub command: Option<Spanned<Vec<String>>>,
    /// COPY and ADD, in order.
    pub copies: Vec<Copy>,
    /// RUN, in order.
    pub runs: Vec<Run>,
    /// EXPOSE.
    pub expose: Vec<Spanned<Port>>,
    /// USER.
    pub user: Option<Spanned<String>>,
    /// STOPSIGNAL as a number.
    pub stop_signal: Option<Spanned<i32>>,
    /// HEALTHCHECK.
    pub healthcheck: Option<Healthcheck>,
    /// LABEL.
    pub labels: IndexMap<String, Spanned<String>>,
    /// VOLUME.
    pub volumes: Vec<Spanned<String>>,
    /// SHELL, default `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// What a Dockerfile is read with.
#[derive(Clone, Copy, Debug)]
pub struct BuildInputs<'a> {
    /// `build.args`.
    pub args: &'a BTreeMap<String, String>,
    /// `build.target`: the stage that counts; else the last one.
    pub target: Option<&'a str>,
    /// What `$PATH` of a base image stands for.
    pub path: &'a str,
}

/// A `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// The image or the earlier stage.
    pub from: Spanned<String>,
    /// COPY and ADD in it, those that it inherits included.
    pub copies: Vec<Copy>,
}

/// A COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where it stands.
    pub span: Span,
    /// What is copied.
    pub sources: Vec<CopySource>,
    /// Where to: an absolute path. With a `/` at its end, into that folder.
    pub destination: String,
    /// `--from`: a stage or image in place of the build context.
    pub from: Option<String>,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path in the build context (or the other stage); may hold wildcards; a URL for ADD.
    Path(String),
    /// A heredoc.
    Inline {
        /// Its name, which is the file's.
        name: String,
        /// Its text.
        text: String,
    },
}

/// A RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it stands.
    pub span: Span,
    /// The line as it stands, continuations joined; the text of a heredoc that is the script itself in its place, of
    /// others after it.
    pub text: String,
    /// The folder it runs in, in the container.
    pub working_dir: String,
    /// Its commands, chains split.
    pub commands: Vec<RunCommand>,
}

/// One command of a RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunCommand {
    /// `pip install`: the arguments that follow.
    Pip(Vec<String>),
    /// Anything else.
    Other(String),
}

impl Dockerfile {
    /// Reads a Dockerfile up to the target, without one up to its last stage.
    ///
    /// What could be read and everything there is to say about it.
    pub fn parse(text: &str, source: SourceId, inputs: &BuildInputs<'_>) -> (Dockerfile, Vec<Diagnostic>) {
        let (lines, escape) = lines::lines(source, text);
        let mut interpreter = Interpreter::new(source, escape, inputs);
        for line in &lines {
            interpreter.line(line);
        }
        interpreter.finish(inputs.target)
    }

    /// The arguments of every `pip install`, in order.
    pub fn pip_installs(&self) -> impl Iterator<Item = &[String]> {
        self.runs.iter().flat_map(|run| &run.commands).filter_map(|command| match command {
            RunCommand::Pip(arguments) => Some(arguments.as_slice()),
            RunCommand::Other(_) => None,
        })
    }
}

impl Default for Dockerfile {
    fn default() -> Self {
        Self {
            stages: Vec::new(),
            base: None,
            working_dir: None,
            environment: IndexMap::new(),
            entrypoint: None,
            command: None,
            copies: Vec::new(),
            runs: Vec::new(),
            expose: Vec::new(),
            user: None,
            stop_signal: None,
            healthcheck: None,
            labels: IndexMap::new(),
            volumes: Vec::new(),
            shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }
}
