//! The words of one shell command: quotes taken away, variables replaced, values that no quotes protect split.
//!
//! What a variable's expression stands for is read by the one reader of them, [`Scope`]. A word of which a part isn't
//! known says so.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use super::script::{Heredoc, closing};
use crate::{dockerfile::Scope, interpolate::name_length};

/// Bytes that a word, a variable or a written text may have.
pub(super) const TEXT_BYTES_MAX: usize = 1 << 20;

/// Values that one command sets within its words.
const ASSIGNED_MAX: usize = 100;

/// Whether a variable that nothing sets is known to be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unset {
    Empty,
    /// A build's: an argument may set it.
    Unknown,
}

/// What a shell knows at one moment.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    /// Those that programs see.
    pub(super) exported: BTreeMap<String, String>,
    /// The shell's own.
    pub(super) own: BTreeMap<String, String>,
    /// Set, but to what isn't known.
    pub(super) unknown: BTreeSet<String>,
    /// `$1` and those after it.
    pub(super) positional: Vec<String>,
    /// `set -a`.
    pub(super) exports_all: bool,
    pub(super) unset: Unset,
}

/// A word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Whether it has a part that isn't known.
    pub(super) dynamic: bool,
    /// Whether it has `*` or `?` outside of quotes.
    pub(super) pattern: bool,
}

/// Where a redirection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    File(Word),
    Text(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Append {
    Yes,
    No,
}

/// One command of a pipeline.
#[derive(Clone, Debug, Default)]
pub(super) struct Command {
    /// `A=b` before the program.
    pub(super) assignments: Vec<(String, Word)>,
    pub(super) words: Vec<Word>,
    pub(super) input: Option<Input>,
    /// The last one counts; those before it are made, too.
    pub(super) outputs: Vec<(Word, Append)>,
}

impl Variables {
    pub(super) fn set(&mut self, name: &str, word: &Word) {
        self.unknown.remove(name);
        if word.dynamic {
            self.unknown.insert(name.to_owned());
        }
        let known = if self.exports_all || self.exported.contains_key(name) {
            &mut self.exported
        } else {
            &mut self.own
        };
        known.insert(name.to_owned(), word.text.clone());
    }

    pub(super) fn export(&mut self, name: &str) {
        if let Some(value) = self.own.remove(name) {
            self.exported.insert(name.to_owned(), value);
        }
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.own.remove(name);
        self.exported.remove(name);
        self.unknown.remove(name);
    }

    /// Their length, which a copy costs.
    pub(super) fn bytes(&self) -> usize {
        let named = self.own.iter().chain(&self.exported).map(|(name, value)| name.len() + value.len());
        named.chain(self.positional.iter().map(String::len)).sum()
    }

    fn value(&self, name: &str) -> Option<&String> {
        self.own.get(name).or_else(|| self.exported.get(name))
    }

    /// Does what `${NAME:=value}` and `${NAME=value}` do besides: they set the variable.
    pub(super) fn assign_defaults(&mut self, text: &str) {
        let mut assigned = 0;
        for (at, _) in text.match_indices("${") {
            let inner = text.get(at + 2..).unwrap_or_default();
            let name = inner.get(..name_length(inner)).unwrap_or_default();
            if !inner.get(name.len()..).is_some_and(|rest| rest.starts_with(":=") || rest.starts_with('=')) {
                continue;
            }
            assigned += 1;
            if assigned > ASSIGNED_MAX {
                self.unknown.insert(name.to_owned());
                continue;
            }
            let inner = inner.get(..closing(inner, '{', '}')).unwrap_or_default();
            let inner = inner.strip_suffix('}').unwrap_or(inner);
            let (name, rest) = inner.split_at(name_length(inner));
            let (value, is_unset) = match (rest.strip_prefix(":="), rest.strip_prefix('=')) {
                (Some(value), _) => (value, self.value(name).is_none_or(String::is_empty)),
                (None, Some(value)) => (value, self.value(name).is_none()),
                (None, None) => continue,
            };
            // A build's argument may set it.
            let is_unknown =
                self.unknown.contains(name) || (self.unset == Unset::Unknown && self.value(name).is_none());
            if is_unknown {
                self.unknown.insert(name.to_owned());
            } else if is_unset && !name.is_empty() {
                let word = self.command(&format!("{name}={value}"), &[]).assignments.pop();
                let unread = Word { dynamic: true, ..Word::default() };
                self.set(name, &word.map_or(unread, |(_, word)| word));
            }
        }
    }

    /// Reads the words of one command and its redirections.
    pub(super) fn command(&self, text: &str, heredocs: &[Heredoc]) -> Command {
        let mut command = Command::default();
        let mut heredocs = heredocs.iter();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let Some((redirect, after)) = Redirect::read(rest) else {
                let declares = |word: &Word| matches!(word.text.as_str(), "export" | "readonly" | "local");
                let equals = match command.words.first() {
                    Some(first) if !declares(first) => Equals::IsText,
                    _ => Equals::Assigns,
                };
                let mut reader = WordReader { variables: self, words: Vec::new(), word: None, splits: true };
                let after = reader.read(rest, equals);
                let assigned =
                    (!reader.splits && command.words.is_empty()).then(|| reader.words.pop()).flatten();
                match assigned {
                    Some(word) => command.assignments.extend(assignment(&word)),
                    None => command.words.extend(reader.words),
                }
                // What no word takes is a parenthesis or the like.
                rest = if after.len() == rest.len() { "" } else { after.trim_start() };
                continue;
            };
            let mut reader = WordReader { variables: self, words: Vec::new(), word: None, splits: false };
            rest = reader.read(after.trim_start(), Equals::IsText).trim_start();
            let word = reader.words.pop().unwrap_or_default();
            match redirect {
                Redirect::In => command.input = Some(Input::File(word)),
                Redirect::Here => {
                    let text = Word { text: word.text + "\n", ..word };
                    command.input = Some(Input::Text(text));
                }
                Redirect::Document => {
                    let text = heredocs
                        .next()
                        .map_or(Word { dynamic: true, ..Word::default() }, |heredoc| self.document(heredoc));
                    command.input = Some(Input::Text(text));
                }
                Redirect::Out(append) => command.outputs.push((word, append)),
                Redirect::Other => {}
            }
        }
        command
    }

    /// Replaces the variables in a heredoc's text.
    fn document(&self, heredoc: &Heredoc) -> Word {
        if !heredoc.expands {
            return Word { text: heredoc.text.clone(), ..Word::default() };
        }
        let mut reader = WordReader { variables: self, words: Vec::new(), word: None, splits: false };
        reader.double_quoted(&heredoc.text, None);
        reader.word.unwrap_or_default()
    }
}

/// Takes `NAME=value` apart.
pub(super) fn assignment(word: &Word) -> Option<(String, Word)> {
    let length = name_length(&word.text);
    let value = word.text.get(length..)?.strip_prefix('=')?;
    let name = word.text.get(..length).filter(|name| !name.is_empty())?;
    Some((name.to_owned(), Word { text: value.to_owned(), dynamic: word.dynamic, pattern: false }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirect {
    In,
    Here,
    Document,
    Out(Append),
    /// Of another descriptor, or onto one.
    Other,
}

impl Redirect {
    /// Reads `[n]>` and the like; gives what follows.
    fn read(text: &str) -> Option<(Self, &str)> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = text.split_at(digits);
        const ALL: [(&str, Redirect); 11] = [
            ("&>>", Redirect::Out(Append::Yes)),
            ("&>", Redirect::Out(Append::No)),
            ("<<<", Redirect::Here),
            ("<<", Redirect::Document),
            ("<&", Redirect::Other),
            ("<>", Redirect::Out(Append::Yes)),
            ("<", Redirect::In),
            (">>", Redirect::Out(Append::Yes)),
            (">&", Redirect::Other),
            (">|", Redirect::Out(Append::No)),
            (">", Redirect::Out(Append::No)),
        ];
        let (redirect, after) =
            ALL.iter().find_map(|(sign, redirect)| Some((*redirect, rest.strip_prefix(sign)?)))?;
        let own = match redirect {
            Self::Out(_) => matches!(number, "" | "1"),
            Self::In | Self::Here => matches!(number, "" | "0"),
            Self::Document | Self::Other => true,
        };
        Some((if own { redirect } else { Self::Other }, after))
    }
}

/// What `=` behind a name means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Equals {
    Assigns,
    IsText,
}

struct WordReader<'v> {
    variables: &'v Variables,
    /// Finished ones.
    words: Vec<Word>,
    word: Option<Word>,
    /// Whether values that no quotes protect are split.
    splits: bool,
}

impl WordReader<'_> {
    /// Reads one word as it is written, which may be none or several; gives what follows.
    fn read<'t>(&mut self, text: &'t str, equals: Equals) -> &'t str {
        let mut rest = text;
        let mut plain = true;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            match c {
                _ if c.is_whitespace() || matches!(c, '<' | '>') => break,
                '&' if after.starts_with('>') => break,
                '\'' => {
                    let word = self.word.get_or_insert_default();
                    match after.split_once('\'') {
                        Some((inner, next)) => {
                            word.text.push_str(inner);
                            rest = next;
                        }
                        None => {
                            word.dynamic = true;
                            rest = "";
                        }
                    }
                    plain = false;
                }
                '"' => {
                    rest = self.double_quoted(after, Some('"'));
                    plain = false;
                }
                '$' | '`' => {
                    rest = self.value(rest, Quotes::Without);
                    plain = false;
                }
                '\\' => {
                    let word = self.word.get_or_insert_default();
                    let next = after.chars().next();
                    word.text.extend(next);
                    rest = &after[next.map_or(0, char::len_utf8)..];
                    plain = false;
                }
                _ => {
                    let word = self.word.get_or_insert_default();
                    let name = word.text.len();
                    if c == '='
                        && equals == Equals::Assigns
                        && plain
                        && name > 0
                        && name_length(&word.text) == name
                    {
                        self.splits = false;
                    }
                    word.pattern |= matches!(c, '*' | '?' | '[') && self.splits;
                    // Bash makes several words of `{a,b}`, other shells don't; a folder of `~` isn't known.
                    let is_brace = c == '{' && after.starts_with(|c: char| !c.is_whitespace() && c != '}');
                    word.dynamic |= is_brace || (c == '~' && name == 0);
                    word.text.push(c);
                    rest = after;
                }
            }
        }
        self.words.extend(self.word.take());
        rest
    }

    /// Reads up to a quote, or to the end of a heredoc's text.
    fn double_quoted<'t>(&mut self, text: &'t str, quote: Option<char>) -> &'t str {
        self.word.get_or_insert_default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = after;
            match c {
                _ if Some(c) == quote => return after,
                '$' | '`' => {
                    rest = self.value(&text[text.len() - after.len() - 1..], Quotes::Within);
                }
                '\\' => {
                    let next = after.chars().next();
                    let protects = next
                        .is_some_and(|next| matches!(next, '$' | '`' | '\\' | '\n') || Some(next) == quote);
                    match next {
                        Some(next) if protects => {
                            if next != '\n' {
                                self.push(next.encode_utf8(&mut [0; 4]));
                            }
                            rest = &after[next.len_utf8()..];
                        }
                        _ => self.push("\\"),
                    }
                }
                _ => self.push(c.encode_utf8(&mut [0; 4])),
            }
        }
        if quote.is_some() {
            self.word.get_or_insert_default().dynamic = true;
        }
        rest
    }

    fn push(&mut self, text: &str) {
        let word = self.word.get_or_insert_default();
        if word.text.len() + text.len() > TEXT_BYTES_MAX {
            word.dynamic = true;
        } else {
            word.text.push_str(text);
        }
    }

    /// Reads what begins with `$` or a backquote.
    fn value<'t>(&mut self, text: &'t str, quotes: Quotes) -> &'t str {
        if let Some(after) = text.strip_prefix('`') {
            self.word.get_or_insert_default().dynamic = true;
            return after.split_once('`').map_or("", |(_, rest)| rest);
        }
        let after = text.get(1..).unwrap_or_default();
        if let Some(inner) = after.strip_prefix('(') {
            self.word.get_or_insert_default().dynamic = true;
            return inner.get(closing(inner, '(', ')')..).unwrap_or_default();
        }
        let length = match after.strip_prefix('{') {
            Some(inner) => 1 + closing(inner, '{', '}'),
            None => match after.chars().next() {
                Some('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
                _ => name_length(after),
            },
        };
        let (expression, rest) = after.split_at(length);
        match expression {
            // Shells differ on `$'...'`, `$"..."` and `$[...]`.
            "" if quotes == Quotes::Without && rest.starts_with(['\'', '"', '[']) => {
                self.push("$");
                self.word.get_or_insert_default().dynamic = true;
            }
            "" => self.push("$"),
            "@" | "{@}" => self.all(quotes),
            "*" | "{*}" if quotes == Quotes::Without => self.all(quotes),
            _ => self.expression(expression, quotes),
        }
        rest
    }

    /// `"$@"`: a word for each.
    fn all(&mut self, quotes: Quotes) {
        for (at, value) in self.variables.positional.iter().enumerate() {
            if at > 0 {
                self.words.extend(self.word.take());
            }
            match quotes {
                Quotes::Within => self.push(value),
                Quotes::Without => self.split(value),
            }
        }
        // No words at all, rather than an empty one.
        if self.variables.positional.is_empty() && self.word.as_ref().is_some_and(|word| word.text.is_empty())
        {
            self.word = None;
        }
    }

    fn expression(&mut self, expression: &str, quotes: Quotes) {
        let is_unknown = Cell::new(expression.contains(['`', '\n']) || expression.contains("$("));
        let variables = self.variables;
        let lookup = |name: &str| {
            let number = name.parse::<usize>().ok();
            match (name, number) {
                ("#", _) => return Some(variables.positional.len().to_string()),
                ("*" | "@", _) => return Some(variables.positional.join(" ")),
                (_, Some(number)) if number > 0 => return variables.positional.get(number - 1).cloned(),
                ("?" | "-" | "$" | "!", _) | (_, Some(_)) => {
                    is_unknown.set(true);
                    return None;
                }
                _ => {}
            }
            let value = variables.value(name);
            if variables.unknown.contains(name) || (value.is_none() && variables.unset == Unset::Unknown) {
                is_unknown.set(true);
            }
            value.cloned()
        };
        let value = Scope { lookup: &lookup, escape: '\\' }.word(&format!("${expression}"));
        match (value, is_unknown.get()) {
            (Ok(value), false) if quotes == Quotes::Without => self.split(&value),
            (Ok(value), false) => self.push(&value),
            _ => self.word.get_or_insert_default().dynamic = true,
        }
    }

    /// Takes a value that no quotes protect.
    fn split(&mut self, value: &str) {
        if !self.splits {
            return self.push(value);
        }
        // Another separator than white space.
        if self.variables.value("IFS").is_some() || self.variables.unknown.contains("IFS") {
            self.word.get_or_insert_default().dynamic = true;
        }
        let mut parts = value.split_whitespace().peekable();
        if value.starts_with(char::is_whitespace) {
            self.words.extend(self.word.take());
        }
        while let Some(part) = parts.next() {
            self.push(part);
            if let Some(word) = &mut self.word {
                word.pattern |= part.contains(['*', '?', '[']);
            }
            if parts.peek().is_some() || value.ends_with(char::is_whitespace) {
                self.words.extend(self.word.take());
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quotes {
    Within,
    Without,
}
