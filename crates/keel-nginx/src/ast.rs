//! The shape of a configuration file: directives, their words and their blocks.
//!
//! Nothing here knows what a directive means. Words are already unescaped; their spans cover the raw text, quotes
//! included.

use std::fmt;

use keel_diag::Span;

/// One word: a directive's name or one of its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text after quotes and escapes were taken away.
    pub text: String,
    /// Where it stands, quotes included.
    pub span: Span,
}

/// A directive, with its block if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its first word.
    pub name: Word,
    /// The words after it.
    pub args: Vec<Word>,
    /// What stands between `{` and `}`; `None` if it ends in `;`.
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    /// Gives the span from the name to the last argument.
    pub fn span(&self) -> Span {
        self.args.last().map_or(self.name.span, |last| self.name.span.to(last.span))
    }

    /// Gives the text of an argument, counted from 0; empty if there is none.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", |word| word.text.as_str())
    }
}

impl fmt::Display for Word {
    /// Prints the word so that it is read as the same text again: in double quotes where that is needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !c.is_ascii_whitespace() && !c.is_ascii_control() && !"\"'\\;{}#".contains(c);
        if !self.text.is_empty() && self.text.chars().all(plain) {
            return f.write_str(&self.text);
        }
        f.write_str("\"")?;
        for c in self.text.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_directive(self, 0, f)
    }
}

fn print_directive(directive: &Directive, depth: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:indent$}{}", "", directive.name, indent = depth * 4)?;
    for arg in &directive.args {
        write!(f, " {arg}")?;
    }
    let Some(block) = &directive.block else {
        return writeln!(f, ";");
    };
    writeln!(f, " {{")?;
    for inner in block {
        print_directive(inner, depth + 1, f)?;
    }
    writeln!(f, "{:indent$}}}", "", indent = depth * 4)
}
