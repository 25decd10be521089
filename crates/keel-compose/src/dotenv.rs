//! `.env` files and those of `env_file`.
//!
//! One `NAME=value` a line; `export` before it, `#` comments, `:` in place of `=`; single quotes keep everything,
//! double quotes know `\n` and the like and, as bare values, `$VAR`. A quoted value may span lines. A name alone takes
//! its value from the shell.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use keel_diag::{Diagnostic, SourceId, Span};

use crate::{
    Spanned,
    interpolate::{Lookup, interpolate},
};

/// Reads a text. Variables in values are looked up in `shell` first, then among the names before.
pub(crate) fn parse(
    source: SourceId,
    text: &str,
    shell: &BTreeMap<String, String>,
) -> (IndexMap<String, Spanned<String>>, Vec<Diagnostic>) {
    let mut reader = Reader { source, text, at: 0, shell, values: IndexMap::new(), diagnostics: Vec::new() };
    while reader.at < text.len() {
        reader.line();
    }
    (reader.values, reader.diagnostics)
}

struct Reader<'a> {
    source: SourceId,
    text: &'a str,
    at: usize,
    shell: &'a BTreeMap<String, String>,
    values: IndexMap<String, Spanned<String>>,
    diagnostics: Vec<Diagnostic>,
}

/// The shell before the file.
struct Both<'a>(&'a BTreeMap<String, String>, &'a IndexMap<String, Spanned<String>>);

impl Lookup for Both<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).or_else(|| self.1.get(name).map(|value| &value.value)).map(String::as_str)
    }
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn line(&mut self) {
        let line = self.rest().split('\n').next().unwrap_or("").to_owned();
        let (line_start, line_end) = (self.at, self.at + line.len());
        let next = (line_end + 1).min(self.text.len());
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            self.at = next;
            return;
        }
        let mut name_start = line_start + (line.len() - line.trim_start().len());
        let mut body = line.trim_start();
        if let Some(rest) = body.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
            name_start += body.len() - rest.trim_start().len();
            body = rest.trim_start();
        }
        let length = body
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')))
            .unwrap_or(body.len());
        let name = body[..length].to_owned();
        let span = Span::new(self.source, name_start..name_start + length);
        let after = body[length..].trim_start();
        self.at = next;
        if name.is_empty() {
            let span = Span::new(self.source, name_start..line_start + line.trim_end().len());
            return self.error(span, "expected NAME=value", "no name here");
        }
        let Some(value) = after.strip_prefix(['=', ':']) else {
            if after.is_empty() || after.starts_with('#') {
                if let Some(value) = self.shell.get(&name) {
                    self.values.insert(name, Spanned { value: value.clone(), span });
                }
                return;
            }
            let at = line_end - after.len();
            let span = Span::new(self.source, at..at + after.trim_end().len());
            return self.error(span, "expected `=` after the name", "not understood");
        };
        let value = value.trim_start_matches([' ', '\t']);
        self.value(name, line_end - value.len(), line_end);
    }

    fn value(&mut self, name: String, start: usize, line_end: usize) {
        let text = self.text;
        let rest = &text[start..];
        match rest.chars().next().filter(|_| start < line_end) {
            Some(quote @ ('\'' | '"')) => {
                let Some(length) = closing_quote(&rest[1..], quote) else {
                    let span = Span::new(self.source, start..line_end);
                    return self.error(span, "the quote is never closed", "opened here");
                };
                let inner = &rest[1..1 + length];
                let end = start + length + 2;
                self.at = text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1);
                let span = Span::new(self.source, start..end);
                if quote == '\'' {
                    self.values.insert(name, Spanned { value: inner.to_owned(), span });
                } else {
                    self.interpolated(name, &unescape(inner), span);
                }
            }
            _ => {
                let line = &text[start..line_end];
                let comment = line
                    .char_indices()
                    .find(|(at, c)| *c == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])));
                let value = line[..comment.map_or(line.len(), |(at, _)| at)].trim_end();
                self.interpolated(name, value, Span::new(self.source, start..start + value.len()));
            }
        }
    }

    fn interpolated(&mut self, name: String, value: &str, span: Span) {
        match interpolate(value, &Both(self.shell, &self.values)) {
            Ok(result) => {
                for (unset, _) in result.unset {
                    let message = format!("the variable `{unset}` is not set; it becomes the empty text");
                    self.diagnostics
                        .push(Diagnostic::warning("compose::unset-variable", message).at(span, "used here"));
                }
                self.values.insert(name, Spanned { value: result.text, span });
            }
            Err(failure) => {
                let mut diagnostic =
                    Diagnostic::error("compose::interpolation", failure.message).at(span, "in this value");
                diagnostic.help.extend(failure.help);
                self.diagnostics.push(diagnostic);
            }
        }
    }

    fn error(&mut self, span: Span, message: &str, label: &str) {
        self.diagnostics.push(Diagnostic::error("compose::dotenv", message).at(span, label));
    }
}

fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            result.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => result.push('\n'),
            Some('r') => result.push('\r'),
            Some('t') => result.push('\t'),
            Some('$') => result.push_str("$$"),
            Some(c @ ('"' | '\'' | '\\')) => result.push(c),
            Some(other) => result.extend(['\\', other]),
            None => result.push('\\'),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let mut sources = keel_diag::Sources::default();
        let id = sources.add(".env", text);
        let shell = BTreeMap::from([("HOME".to_owned(), "/ada".to_owned())]);
        let (values, diagnostics) = parse(id, text, &shell);
        for value in values.values() {
            assert!(text.get(value.span.start as usize..value.span.end as usize).is_some());
        }
        (
            values.into_iter().map(|(name, value)| (name, value.value)).collect(),
            diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect(),
        )
    }

    #[track_caller]
    fn check(text: &str, expect: &[(&str, &str)]) {
        let (values, messages) = read(text);
        assert_eq!(messages, Vec::<String>::new());
        let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(values, expect);
    }

    #[test]
    fn reads_what_people_write() {
        check("", &[]);
        check("# only a comment\n\n", &[]);
        check("A=1\nB = two words \nC=", &[("A", "1"), ("B", "two words"), ("C", "")]);
        check("export A=1\r\nB: 2\r\n", &[("A", "1"), ("B", "2")]);
        check("A=x # comment\nB=x#y\nC=#z", &[("A", "x"), ("B", "x#y"), ("C", "")]);
        check("A='$HOME # \\n'", &[("A", "$HOME # \\n")]);
        check("A=\"a\\nb \\\"q\\\" \\$HOME\" # c\nB=2", &[("A", "a\nb \"q\" $HOME"), ("B", "2")]);
        check("A=\"line 1\nline 2\"\nB=2", &[("A", "line 1\nline 2"), ("B", "2")]);
        check("A=1\nB=${A}2\nC=$HOME\nD=${NO:-d}", &[("A", "1"), ("B", "12"), ("C", "/ada"), ("D", "d")]);
        check("HOME\nNOT_SET", &[("HOME", "/ada")]);
        check("my.name-x=1", &[("my.name-x", "1")]);
        check("A=1\nA=2", &[("A", "2")]);
    }

    #[test]
    fn goes_on_after_a_mistake() {
        let (values, messages) = read("=1\nA B\nC=\"open\nD=4");
        assert_eq!(
            messages,
            ["expected NAME=value", "expected `=` after the name", "the quote is never closed"]
        );
        assert_eq!(values, [("D".to_owned(), "4".to_owned())]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\PC|[A-C='\"#$ {}\\\\\n\r:]){0,80}") {
            read(&text);
        }
    }
}
