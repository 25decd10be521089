//! A text in which lines within brackets and quotes are indented far enough for the scanner.
//!
//! YAML 1.2 wants them deeper than the block that they stand in, and with spaces, and saphyr-parser insists on it;
//! libyaml, go-yaml and so Compose don't, and people put a closing bracket under its key. A line that the scanner stumbles over is moved to
//! the right, where its indentation means nothing, and all places are given as those of the text that was written.

use std::borrow::Cow;

use saphyr_parser::Parser;

/// Bytes that may be scanned again and again, all tries together.
const SCANNED_BYTES_MAX: usize = 64 << 20;

/// A text and what the scanner gets in its place.
pub(crate) struct Indented<'a> {
    /// As it was written.
    pub(crate) text: &'a str,
    /// As it is scanned.
    pub(crate) scanned: Cow<'a, str>,
    /// Where lines that were moved begin in the text, in order.
    lines: Vec<usize>,
    /// By how many spaces each was moved.
    width: usize,
    scanned_bytes: usize,
}

impl<'a> Indented<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, scanned: Cow::Borrowed(text), lines: Vec::new(), width: 0, scanned_bytes: 0 }
    }

    /// The place in the text of a byte that is scanned.
    pub(crate) fn in_text(&self, scanned: usize) -> usize {
        // Of the lines before it, each stands `width` further to the right than the one before.
        let mut moved = 0;
        for (before, line) in self.lines.iter().enumerate() {
            let start = line + before * self.width;
            if scanned < start {
                break;
            }
            moved = before * self.width + (scanned - start).min(self.width);
        }
        scanned.saturating_sub(moved).min(self.text.len())
    }

    /// Moves the line that the scanner refused with this message at this place of the text; `false` if that doesn't help.
    pub(crate) fn mend(&mut self, message: &str, at: usize) -> bool {
        let found = match message {
            "invalid indentation" | "invalid indentation in flow construct" => self.line_of_token(at),
            "invalid indentation in quoted scalar" => self.lines_of_quote(at),
            "tab cannot be used as indentation" => self.line_of_token(at),
            "tabs disallowed within this context (block indentation)" => {
                self.in_brackets(self.line_of_token(at))
            }
            "while scanning a plain scalar, found a tab" => self.in_brackets(self.tabbed_line_after(at)),
            _ => Vec::new(),
        };
        let new: Vec<usize> = found.into_iter().filter(|line| !self.lines.contains(line)).collect();
        self.scanned_bytes = self.scanned_bytes.saturating_add(self.scanned.len());
        if new.is_empty() || self.scanned_bytes > SCANNED_BYTES_MAX {
            return false;
        }
        if self.width == 0 {
            let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
            self.width = self.text.lines().map(indentation).max().unwrap_or(0).min(1000) + 1;
        }
        self.lines.extend(new);
        self.lines.sort_unstable();
        let mut scanned = String::with_capacity(self.text.len() + self.lines.len() * self.width);
        let mut done = 0;
        for line in &self.lines {
            scanned.push_str(self.text.get(done..*line).unwrap_or_default());
            scanned.extend(std::iter::repeat_n(' ', self.width));
            done = *line;
        }
        scanned.push_str(self.text.get(done..).unwrap_or_default());
        self.scanned = Cow::Owned(scanned);
        true
    }

    /// The line that begins with the token at this place.
    fn line_of_token(&self, at: usize) -> Vec<usize> {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        let blank = before.get(line..).is_some_and(|before| before.chars().all(|c| matches!(c, ' ' | '\t')));
        if blank { vec![line] } else { Vec::new() }
    }

    /// The first line after this place that is indented with a tab and holds something.
    fn tabbed_line_after(&self, at: usize) -> Vec<usize> {
        let mut start = at;
        while let Some(newline) = self.text.get(start..).and_then(|rest| rest.find('\n')) {
            start += newline + 1;
            let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
            let content = line.trim_start_matches([' ', '\t']);
            let indentation = line.get(..line.len() - content.len()).unwrap_or_default();
            if !content.trim_end().is_empty() {
                let is_new = indentation.contains('\t') && !self.lines.contains(&start);
                return if is_new { vec![start] } else { Vec::new() };
            }
        }
        Vec::new()
    }

    /// Leaves a line out if no bracket is open before it: there tabs are no indentation for anybody.
    fn in_brackets(&mut self, mut lines: Vec<usize>) -> Vec<usize> {
        lines.retain(|line| {
            let moved = self.lines.iter().filter(|other| *other < line).count();
            let before = self.scanned.get(..line + moved * self.width).unwrap_or_default();
            self.scanned_bytes = self.scanned_bytes.saturating_add(before.len());
            // What ends within brackets isn't YAML.
            Parser::new_from_str(before).any(|event| event.is_err())
        });
        lines
    }

    /// The lines, but the first, of the quoted scalar that begins at this place.
    fn lines_of_quote(&self, at: usize) -> Vec<usize> {
        let mut lines = Vec::new();
        let mut characters = self.text.get(at..).unwrap_or_default().char_indices();
        let Some((_, quote)) = characters.next() else { return lines };
        while let Some((offset, c)) = characters.next() {
            match c {
                '\n' => lines.push(at + offset + 1),
                '\\' if quote == '"' => {
                    if let Some((offset, '\n')) = characters.next() {
                        lines.push(at + offset + 1);
                    }
                }
                // A doubled single quote ends and begins again: no harm.
                c if c == quote && quote == '"' => break,
                c if c == quote && !self.text[at + offset + 1..].starts_with(quote) => break,
                c if c == quote => drop(characters.next()),
                _ => {}
            }
        }
        lines
    }
}
