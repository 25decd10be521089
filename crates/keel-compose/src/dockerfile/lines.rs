//! A Dockerfile's text as instructions: continuations joined, comments and heredocs taken out.

use keel_diag::{SourceId, Span};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In upper case.
    pub(crate) keyword: String,
    pub(crate) keyword_span: Span,
    /// What follows it, continuations joined.
    pub(crate) rest: String,
    /// All of it, heredocs excluded.
    pub(crate) span: Span,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// `<<NAME` and the lines up to NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) closed: bool,
}

impl Line {
    /// The instruction that stands in an ONBUILD.
    pub(crate) fn trigger(&self) -> Line {
        let (keyword, rest) = self.rest.split_once(char::is_whitespace).unwrap_or((&self.rest, ""));
        Line { keyword: keyword.to_ascii_uppercase(), rest: rest.trim().to_owned(), ..self.clone() }
    }
}

/// Splits a text. The second value is the escape character.
pub(crate) fn lines(source: SourceId, text: &str) -> (Vec<Line>, char) {
    let escape = escape_directive(text);
    let mut splitter = Splitter { source, text, at: 0, escape };
    let mut result = Vec::new();
    while let Some(line) = splitter.next_line() {
        if let Taken::Instruction(line) = line {
            result.push(line);
        }
    }
    (result, escape)
}

/// Reads `# escape=X`, which counts at the very top only.
fn escape_directive(text: &str) -> char {
    for line in text.lines() {
        let Some(comment) = line.trim().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" => return if value.trim() == "`" { '`' } else { '\\' },
            "syntax" | "check" => {}
            // Any other comment ends the directives.
            _ => break,
        }
    }
    '\\'
}

struct Splitter<'a> {
    source: SourceId,
    text: &'a str,
    at: usize,
    escape: char,
}

/// What was taken from a Dockerfile.
enum Taken {
    /// An empty line or a comment.
    Nothing,
    Instruction(Line),
}

impl<'a> Splitter<'a> {
    /// Takes one physical line: its start and its text without the line's end.
    fn physical(&mut self) -> Option<(usize, &'a str)> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = self.at;
        let length = rest.find('\n').unwrap_or(rest.len());
        self.at = (start + length + 1).min(self.text.len());
        Some((start, rest[..length].trim_end_matches('\r')))
    }

    /// Takes one instruction, or a line that holds none; `None` at the end.
    fn next_line(&mut self) -> Option<Taken> {
        let (start, first) = self.physical()?;
        if first.trim().is_empty() || first.trim_start().starts_with('#') {
            return Some(Taken::Nothing);
        }
        let begin = start + (first.len() - first.trim_start().len());
        let mut end = start + first.trim_end().len();
        let mut joined = String::new();
        let mut current = first;
        loop {
            // An escape that is escaped itself goes on with nothing.
            let body = current.trim_end_matches([' ', '\t']).strip_suffix(self.escape);
            let Some(body) = body.filter(|body| !body.ends_with(self.escape)) else {
                joined.push_str(current);
                break;
            };
            joined.push_str(body);
            let Some((at, next)) = self.continuation() else { break };
            end = at + next.trim_end().len();
            current = next;
        }
        let joined = joined.trim();
        let length = joined.find(char::is_whitespace).unwrap_or(joined.len());
        let (keyword, rest) = joined.split_at(length);
        // A keyword may be continued on the next line; its place is where it begins.
        let first_word = first.split_whitespace().next().map_or(0, str::len);
        let mut line = Line {
            keyword: keyword.to_ascii_uppercase(),
            keyword_span: Span::new(self.source, begin..begin + first_word),
            rest: rest.trim().to_owned(),
            span: Span::new(self.source, begin..end.max(begin)),
            heredocs: Vec::new(),
        };
        let keyword = match line.keyword.as_str() {
            "ONBUILD" => line.trigger().keyword,
            own => own.to_owned(),
        };
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            line.heredocs = heredocs(&line.rest).into_iter().map(|opened| self.heredoc(opened)).collect();
        }
        Some(Taken::Instruction(line))
    }

    /// Takes the line that goes on, past comments and empty ones.
    fn continuation(&mut self) -> Option<(usize, &'a str)> {
        loop {
            let (at, line) = self.physical()?;
            if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                return Some((at, line));
            }
        }
    }

    fn heredoc(&mut self, opened: Opened) -> Heredoc {
        let mut text = String::new();
        while let Some((_, line)) = self.physical() {
            let line = if opened.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == opened.name {
                return Heredoc { name: opened.name, text, closed: true };
            }
            text.push_str(line);
            text.push('\n');
        }
        Heredoc { name: opened.name, text, closed: false }
    }
}

struct Opened {
    name: String,
    strip_tabs: bool,
}

/// Finds `<<NAME`, `<<-NAME` and `<<"NAME"` at the beginning of words.
fn heredocs(rest: &str) -> Vec<Opened> {
    let mut result = Vec::new();
    for word in rest.split_whitespace() {
        // A file descriptor may stand before it: `3<<EOF`.
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(name) = word.strip_prefix("<<").filter(|name| !name.starts_with('<')) else { continue };
        let (strip_tabs, name) = match name.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let name = name.trim_matches(['"', '\'']);
        let length = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
        if length > 0 {
            result.push(Opened { name: name[..length].to_owned(), strip_tabs });
        }
    }
    result
}
