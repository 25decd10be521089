//! Spans, diagnostics, suggestions and their rendering.
//!
//! A reader of a user's file returns a value *and* a list of [`Diagnostic`]s; nothing here stops at the first. The
//! texts of all files live in [`Sources`], so that one diagnostic can point into two of them.

#![forbid(unsafe_code)]

mod fold;
mod render;
mod source;
mod suggest;

pub use fold::fold;
pub use render::{Color, Format, escape, render};
pub use source::{COMMAND_LINE, Position, SourceId, Sources, Span};
pub use suggest::suggest;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration can't be used as it is.
    Error,
    /// It can; something isn't honoured, and every response stays correct.
    Warning,
}

/// A message about a user's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// `area::what-it-is`, stable: `nginx::unknown-directive`.
    pub code: &'static str,
    /// What is wrong, without a place and without a trailing period.
    pub message: String,
    /// Where: the first is the primary place.
    pub labels: Vec<Label>,
    /// What to do, each a `help:` line.
    pub help: Vec<String>,
    /// What nginx itself would say, without its `nginx: [emerg]` and without `in FILE:LINE`. For `--format short`.
    pub nginx_text: Option<String>,
    /// How often it is said.
    pub frequency: Frequency,
}

/// How often a diagnostic is said in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frequency {
    /// At each of its places.
    EachPlace,
    /// At the first place, with the number of the others.
    OncePerRun,
}

/// A place and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What to say; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// Makes an error.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// Makes a warning.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            severity,
            code,
            message,
            labels: Vec::new(),
            help: Vec::new(),
            nginx_text: None,
            frequency: Frequency::EachPlace,
        }
    }

    /// Adds a place; the first added is the primary one.
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a remedy.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Lets it be said once in a run, however many places it concerns. [`fold()`] sees to it.
    pub fn once_per_run(mut self) -> Self {
        self.frequency = Frequency::OncePerRun;
        self
    }

    /// Sets what nginx would say.
    pub fn nginx(mut self, text: impl Into<String>) -> Self {
        self.nginx_text = Some(text.into());
        self
    }

    /// The primary place.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}
