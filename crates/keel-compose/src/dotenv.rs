//! `.env` files and those of `env_file`, by the rules of compose-go's `dotenv` package.
//!
//! - `NAME=value` or `NAME: value`, `export` before it if need be. Names hold letters, digits, `_`, `.`, `-` and brackets.
//!   A name alone takes its value from outside.
//! - A bare value goes to the end of its line or to ` #`; `#` without a space before it belongs to the value.
//! - A quoted value may span lines; a backslash protects its quote. Double quotes know `\n`, `\t`, `\0123` and the like;
//!   single quotes keep everything else. What follows the closing quote is a statement of its own.
//! - Variables are replaced in bare and double-quoted values: those from outside first, then the ones before.
//!
//! `format: raw` is docker's `--env-file`: each line as it stands, nothing replaced.
//!
//! Unlike compose-go this goes on after a mistake, takes a name alone as the last line without its end, and a comment
//! behind a name alone.

use indexmap::IndexMap;
use keel_diag::{Diagnostic, SourceId, Span};

use crate::{
    Spanned,
    interpolate::{Layers, Lookup, interpolate},
};

/// How a file is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Dotenv,
    Raw,
}

/// Reads a text. Variables in values are looked up in `outer` first, then among the names before.
pub(crate) fn parse(
    source: SourceId,
    text: &str,
    format: Format,
    outer: &dyn Lookup,
) -> (IndexMap<String, Spanned<String>>, Vec<Diagnostic>) {
    let mut reader = Scanner { source, text, at: 0, outer, values: IndexMap::new(), diagnostics: Vec::new() };
    while reader.at < text.len() {
        match format {
            Format::Dotenv => reader.statement(),
            Format::Raw => reader.raw_line(),
        }
    }
    (reader.values, reader.diagnostics)
}

struct Scanner<'a> {
    source: SourceId,
    text: &'a str,
    at: usize,
    outer: &'a dyn Lookup,
    values: IndexMap<String, Spanned<String>>,
    diagnostics: Vec<Diagnostic>,
}

/// White space within a line.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.source, start..end.max(start))
    }

    /// Where the current line ends: at its line feed or at the end of the text.
    fn line_end(&self) -> usize {
        self.at + self.rest().find('\n').unwrap_or(self.rest().len())
    }

    fn go_to(&mut self, at: usize) {
        self.at = at.min(self.text.len());
    }

    fn statement(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let (rest, line_end) = (self.rest(), self.line_end());
        if rest.is_empty() || rest.starts_with('#') {
            return self.go_to(line_end + 1);
        }
        let mut start = self.at;
        let mut line = &self.text[start..line_end];
        if let Some(after) = line.strip_prefix("export").filter(|after| after.starts_with(is_space)) {
            line = after.trim_start_matches(is_space);
            start = line_end - line.len();
        }
        let length = line.find(|c: char| !is_name_char(c) && !is_space(c)).unwrap_or(line.len());
        let name = line[..length].trim_end_matches(is_space);
        let span = self.span(start, start + name.len());
        let follows = line[length..].chars().next();
        self.go_to(line_end + 1);
        if name.is_empty() {
            let span = self.span(start, start + line.trim_end().len());
            return self.error(span, "expected NAME=value", "no name here");
        }
        if let Some(c) = follows.filter(|c| !matches!(c, '=' | ':' | '#')) {
            let span = self.span(start + length, start + length + c.len_utf8());
            let message = format!("`{}` can't be in a variable's name", c.escape_debug());
            return self.error(span, message, "expected `=` or a letter");
        }
        if name.contains(is_space) {
            return self.error(span, "white space can't be in a variable's name", "expected NAME=value");
        }
        match follows {
            None | Some('#') => self.inherit(name, span),
            Some(_) => {
                let value = line[length + 1..].trim_start_matches(is_space);
                self.value(name, line_end - value.len(), line_end);
            }
        }
    }

    /// Takes a name without a value from outside, or from the lines before.
    fn inherit(&mut self, name: &str, span: Span) {
        let value = Layers(&[self.outer, &self.values]).get(name).map(str::to_owned);
        if let Some(value) = value {
            self.values.insert(name.to_owned(), Spanned { value, span });
        }
    }

    fn value(&mut self, name: &str, start: usize, line_end: usize) {
        let rest = &self.text[start..];
        let Some(quote @ ('\'' | '"')) = rest.chars().next().filter(|_| start < line_end) else {
            let line = &self.text[start..line_end];
            let value = line.split_once(" #").map_or(line, |(value, _)| value).trim_end();
            return self.interpolated(name, value, self.span(start, start + value.len()));
        };
        let Some(quoted) = quoted(&rest[1..], quote) else {
            let span = self.span(start, line_end);
            return self.error(span, "the quote is never closed", "opened here");
        };
        let end = start + quoted.length + 2;
        self.go_to(end);
        let span = self.span(start, end);
        if quote == '\'' {
            self.values.insert(name.to_owned(), Spanned { value: quoted.text, span });
        } else {
            self.interpolated(name, &expand_escapes(&quoted.text), span);
        }
        self.name_rest_of_line(name, end);
    }

    /// Warns of text behind a closing quote, which looks as if it belonged to the value.
    fn name_rest_of_line(&mut self, name: &str, end: usize) {
        let rest = self.text[end..self.line_end()].trim_end();
        let text = rest.trim_start_matches(is_space);
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        let span = self.span(end + (rest.len() - text.len()), end + rest.len());
        let message = format!("what follows the closing quote doesn't belong to `{name}`");
        self.diagnostics.push(
            Diagnostic::warning("compose::dotenv", message)
                .at(span, "read as a line of its own")
                .help("put all of the value into the quotes"),
        );
    }

    fn interpolated(&mut self, name: &str, value: &str, span: Span) {
        match interpolate(value, &Layers(&[self.outer, &self.values])) {
            Ok(result) => {
                for (unset, _) in result.unset {
                    let message = format!("the variable `{unset}` is not set; it becomes the empty text");
                    self.diagnostics
                        .push(Diagnostic::warning("compose::unset-variable", message).at(span, "used here"));
                }
                self.values.insert(name.to_owned(), Spanned { value: result.text, span });
            }
            Err(failure) => {
                let mut diagnostic =
                    Diagnostic::error("compose::interpolation", failure.message).at(span, "in this value");
                diagnostic.help.extend(failure.help);
                self.diagnostics.push(diagnostic);
            }
        }
    }

    /// Reads a line of docker's own format: white space before the name is dropped, the value is kept as it is.
    fn raw_line(&mut self) {
        let (start, line_end) = (self.at, self.line_end());
        let line = &self.text[start..line_end];
        let line = line.strip_suffix('\r').unwrap_or(line);
        let body = line.trim_start();
        let start = start + (line.len() - body.len());
        let end = start + body.len();
        self.go_to(line_end + 1);
        if body.is_empty() || body.starts_with('#') {
            return;
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let span = self.span(start, start + name.len());
        if name.is_empty() {
            self.error(self.span(start, end), "expected NAME=value", "no name here");
        } else if name.contains(char::is_whitespace) {
            self.error(span, "white space can't be in a variable's name", "expected NAME=value");
        } else if let Some(value) = value {
            let span = self.span(end - value.len(), end);
            self.values.insert(name.to_owned(), Spanned { value: value.to_owned(), span });
        } else {
            self.inherit(name, span);
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>, label: &str) {
        self.diagnostics.push(Diagnostic::error("compose::dotenv", message).at(span, label));
    }
}

/// What stands between two quotes.
struct Quoted {
    /// Backslashes before the quote removed.
    text: String,
    /// In the file, without the quotes.
    length: usize,
}

fn quoted(text: &str, quote: char) -> Option<Quoted> {
    let mut result = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(Quoted { text: result, length: at });
        }
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        if escaped && c != quote {
            result.push('\\');
        }
        escaped = false;
        result.push(c);
    }
    None
}

/// Replaces the escapes of double quotes; `\$` becomes `$$`, which stands for a dollar.
fn expand_escapes(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let simple = match after.chars().next() {
            Some('a') => Some("\x07"),
            Some('b') => Some("\x08"),
            Some('f') => Some("\x0c"),
            Some('n') => Some("\n"),
            Some('r') => Some("\r"),
            Some('t') => Some("\t"),
            Some('v') => Some("\x0b"),
            Some('$') => Some("$$"),
            Some('"') => Some("\""),
            Some('\\') => Some("\\"),
            _ => None,
        };
        if let Some(simple) = simple {
            result.push_str(simple);
            rest = &after[1..];
        } else if let Some((c, length)) = octal(after) {
            result.push(c);
            rest = &after[length..];
        } else {
            result.push('\\');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// Reads `0` and three octal digits, a character up to 255.
fn octal(text: &str) -> Option<(char, usize)> {
    let digits = text.strip_prefix('0')?.get(..3)?;
    let digits = Some(digits).filter(|digits| digits.bytes().all(|c| matches!(c, b'0'..=b'7')))?;
    Some((char::from(u8::from_str_radix(digits, 8).ok()?), 4))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(text: &str, format: Format) -> (Vec<(String, String)>, Vec<String>) {
        let mut sources = keel_diag::Sources::default();
        let id = sources.add(".env", text);
        let outer = BTreeMap::from([("HOME".to_owned(), "/ada".to_owned())]);
        let (values, diagnostics) = parse(id, text, format, &outer);
        let labels = diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels).map(|label| label.span);
        for span in values.values().map(|value| value.span).chain(labels) {
            assert!(text.get(span.start as usize..span.end as usize).is_some());
        }
        (
            values.into_iter().map(|(name, value)| (name, value.value)).collect(),
            diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect(),
        )
    }

    #[track_caller]
    fn check_as(text: &str, format: Format, expect: &[(&str, &str)], says: &[&str]) {
        let (values, messages) = read(text, format);
        let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!((values.as_slice(), messages), (expect, says.iter().map(|m| (*m).to_owned()).collect()));
    }

    #[track_caller]
    fn check(text: &str, expect: &[(&str, &str)]) {
        check_as(text, Format::Dotenv, expect, &[]);
    }

    #[test]
    fn lines() {
        check("", &[]);
        check("# only a comment\n\n  # another\n", &[]);
        check("A=1\nB = two words \nC=", &[("A", "1"), ("B", "two words"), ("C", "")]);
        check("A=1\r\nB: 2\r\n\r\nC='3'\r\n", &[("A", "1"), ("B", "2"), ("C", "3")]);
        check("  A=1\n\tB=2", &[("A", "1"), ("B", "2")]);
        check("A=\nB=2", &[("A", ""), ("B", "2")]);
        check("A=1\nA=2", &[("A", "2")]);
    }

    #[test]
    fn names() {
        check(
            "my.name-x=1\na[0]=2\n9=x\nÜBER=y",
            &[("my.name-x", "1"), ("a[0]", "2"), ("9", "x"), ("ÜBER", "y")],
        );
        check("A: 1\nB:2\nC : 3", &[("A", "1"), ("B", "2"), ("C", "3")]);
        check("URL=http://x:80/?a=b", &[("URL", "http://x:80/?a=b")]);
        check(
            "export A=1\nexport\tB=2\nexported=3\nexport=4",
            &[("A", "1"), ("B", "2"), ("exported", "3"), ("export", "4")],
        );
        check("HOME\nNOT_SET\nexport HOME", &[("HOME", "/ada")]);
        check("NOT_SET=x\nNOT_SET", &[("NOT_SET", "x")]);
        check("HOME # from the shell", &[("HOME", "/ada")]);
    }

    #[test]
    fn comments_need_a_space_and_a_value_before() {
        check(
            "A=x # comment\nB=x#y\nC=#z\nD=x\t# no comment",
            &[("A", "x"), ("B", "x#y"), ("C", "#z"), ("D", "x\t# no comment")],
        );
        // compose-go drops the white space after `=` first, so that no space is left before this `#`.
        check("A=  # kept", &[("A", "# kept")]);
        check("A='x' # comment\nB=\"y\"# comment\nC='#z # z'", &[("A", "x"), ("B", "y"), ("C", "#z # z")]);
    }

    #[test]
    fn quotes() {
        check("A='$HOME # \\n'", &[("A", "$HOME # \\n")]);
        check(r"A='it\'s' # \'", &[("A", "it's")]);
        check(r"A='C:\\dir\x'", &[("A", r"C:\\dir\x")]);
        check("A=''\nB=\"\"\nC= 'x' ", &[("A", ""), ("B", ""), ("C", "x")]);
        check("A=it's\nB=say \"x\"", &[("A", "it's"), ("B", "say \"x\"")]);
    }

    #[test]
    fn escapes_in_double_quotes() {
        check("A=\"a\\nb \\\"q\\\" \\$HOME\" # c\nB=2", &[("A", "a\nb \"q\" $HOME"), ("B", "2")]);
        check(r#"A="\a\b\f\r\t\v\\""#, &[("A", "\x07\x08\x0c\r\t\x0b\\")]);
        check(r#"A="\0123 \012 \0 \x41 \u00e9 \' \c \q""#, &[("A", r"S \012 \0 \x41 \u00e9 \' \c \q")]);
        check(r#"A="C:\\dir\\new""#, &[("A", r"C:\dir\new")]);
        check(r"A=a\nb", &[("A", r"a\nb")]);
        check("A=\"$$HOME\"\nB=$$HOME", &[("A", "$HOME"), ("B", "$HOME")]);
    }

    #[test]
    fn quoted_values_may_span_lines() {
        check("A=\"line 1\nline 2\"\nB=2", &[("A", "line 1\nline 2"), ("B", "2")]);
        check(
            "KEY='-----BEGIN\n#no comment\n-----END'\nB=2",
            &[("KEY", "-----BEGIN\n#no comment\n-----END"), ("B", "2")],
        );
        check("A=\"one\r\ntwo\"", &[("A", "one\r\ntwo")]);
    }

    #[test]
    fn variables_see_what_is_outside_and_the_lines_before() {
        check("A=1\nB=${A}2\nC=$HOME\nD=${NO:-d}", &[("A", "1"), ("B", "12"), ("C", "/ada"), ("D", "d")]);
        check("HOME=/mine\nB=$HOME", &[("HOME", "/mine"), ("B", "/ada")]);
        check("A=$(pwd)$2b$12$", &[("A", "$(pwd)$2b$12$")]);
        check_as(
            "A=$LATER\nLATER=1",
            Format::Dotenv,
            &[("A", ""), ("LATER", "1")],
            &["the variable `LATER` is not set; it becomes the empty text"],
        );
    }

    #[test]
    fn what_follows_a_quote_is_a_statement_of_its_own() {
        let says = "what follows the closing quote doesn't belong to `A`";
        check_as("A='x'B=y\nC=z", Format::Dotenv, &[("A", "x"), ("B", "y"), ("C", "z")], &[says]);
        check_as("A=\"x\" HOME\n", Format::Dotenv, &[("A", "x"), ("HOME", "/ada")], &[says]);
    }

    #[test]
    fn goes_on_after_a_mistake() {
        check_as(
            "=1\nA B\nC D=2\nE!=3\nF=\"open\nG=4",
            Format::Dotenv,
            &[("G", "4")],
            &[
                "expected NAME=value",
                "white space can't be in a variable's name",
                "white space can't be in a variable's name",
                "`!` can't be in a variable's name",
                "the quote is never closed",
            ],
        );
    }

    #[test]
    fn raw_lines_are_as_they_stand() {
        let raw = |text, expect: &[_], says: &[_]| check_as(text, Format::Raw, expect, says);
        raw(
            "# comment\nA=$2b$12$x \n  B=\"kept\" # too\r\nC=\nexport=1\nHOME\nNOT_SET\n",
            &[("A", "$2b$12$x "), ("B", "\"kept\" # too"), ("C", ""), ("export", "1"), ("HOME", "/ada")],
            &[],
        );
        raw(
            "=1\nexport A=1\nB=2",
            &[("B", "2")],
            &["expected NAME=value", "white space can't be in a variable's name"],
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\PC|[A-C='\"#$ {}\\\\\n\r:0-7]){0,80}") {
            read(&text, Format::Dotenv);
            read(&text, Format::Raw);
        }
    }
}
