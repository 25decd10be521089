//! Reads nodes as the types that fields take.
//!
//! Compose takes `"3"` for 3 and `3` for "3" wherever only one of them makes sense, so a scalar's quotes matter for null
//! alone. Every function reports what it can't read and gives `None`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use indexmap::IndexMap;
use keel_diag::{Diagnostic, Span};

use crate::{
    Spanned,
    report::Report,
    scalar, words,
    yaml::{Mapping, Node, Value},
};

/// What reading a node needs to know.
pub(crate) struct Decoder<'a> {
    pub(crate) report: &'a mut Report,
    /// Relative paths start here.
    pub(crate) folder: &'a Path,
    /// Where a name without a value gets one.
    pub(crate) variables: &'a BTreeMap<String, String>,
}

/// A name and what it is set to: nothing means "as in the shell".
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: Span,
    pub(crate) value: Option<Spanned<String>>,
}

impl Decoder<'_> {
    pub(crate) fn wrong_type(&mut self, node: &Node, expected: &str) {
        self.report.push(
            Diagnostic::error("compose::wrong-type", format!("expected {expected}, found {}", node.kind()))
                .at(node.span, format!("is {}", node.kind())),
        );
    }

    pub(crate) fn invalid(&mut self, span: Span, message: impl Into<String>, help: &str) {
        let mut diagnostic = Diagnostic::error("compose::invalid-value", message).at(span, "not understood");
        if !help.is_empty() {
            diagnostic = diagnostic.help(help);
        }
        self.report.push(diagnostic);
    }

    /// Reads a text; null is no text and no mistake.
    pub(crate) fn text(&mut self, node: &Node) -> Option<Spanned<String>> {
        match &node.value {
            Value::Scalar(scalar) if scalar.is_null() => None,
            Value::Scalar(scalar) => Some(Spanned::new(scalar.text.clone(), node.span)),
            _ => {
                self.wrong_type(node, "a text");
                None
            }
        }
    }

    /// Reads a text where Compose takes any scalar and prints it.
    fn printed(&mut self, node: &Node) -> Option<Spanned<String>> {
        let text = self.text(node)?;
        let is_plain = matches!(&node.value, Value::Scalar(scalar) if scalar.plain);
        let value = if is_plain { scalar::printed(&text.value).into_owned() } else { text.value };
        Some(Spanned::new(value, text.span))
    }

    /// Reads a text; an empty one is none, as where a variable that may be empty stands for it.
    pub(crate) fn name(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.text(node).filter(|text| !text.value.is_empty())
    }

    /// Reads a list of texts without the empty ones.
    pub(crate) fn names(&mut self, node: &Node) -> Vec<Spanned<String>> {
        let mut names = self.texts(node);
        names.retain(|name| !name.value.is_empty());
        names
    }

    /// Reads `true` or `false`, in the spellings that Compose takes.
    pub(crate) fn flag(&mut self, node: &Node) -> Option<Spanned<bool>> {
        let text = self.text(node)?;
        let value = match text.value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => true,
            "false" | "no" | "off" | "n" | "0" => false,
            _ => {
                self.invalid(text.span, format!("`{}` is neither true nor false", text.value), "");
                return None;
            }
        };
        Some(Spanned::new(value, text.span))
    }

    /// Reads a number.
    pub(crate) fn number<T: FromStr>(&mut self, node: &Node) -> Option<Spanned<T>> {
        let text = self.text(node)?;
        match text.value.trim().parse() {
            Ok(value) => Some(Spanned::new(value, text.span)),
            Err(_) => {
                self.invalid(text.span, format!("`{}` is not a number that fits here", text.value), "");
                None
            }
        }
    }

    /// Reads a duration such as `1m30s`.
    pub(crate) fn duration(&mut self, node: &Node) -> Option<Spanned<Duration>> {
        let text = self.text(node)?;
        match parse_duration(&text.value) {
            Some(value) => Some(Spanned::new(value, text.span)),
            None => {
                let message = format!("`{}` is not a duration", text.value);
                self.invalid(text.span, message, "write a number and a unit: 500ms, 10s, 1m30s, 2h");
                None
            }
        }
    }

    /// Reads a list of words, or one text split into words as a shell would (without running one).
    pub(crate) fn words(&mut self, node: &Node) -> Option<Spanned<Vec<String>>> {
        if let Value::Sequence(_) = &node.value {
            let words = self.texts(node).into_iter().map(|word| word.value).collect();
            return Some(Spanned::new(words, node.span));
        }
        let text = self.text(node)?;
        match words::split(&text.value) {
            Some(found) => {
                if let Some(operator) = found.operator {
                    self.report.push(ends_early(text.value.get(operator).unwrap_or_default(), text.span));
                }
                Some(Spanned::new(found.words, text.span))
            }
            None => {
                self.invalid(text.span, "a quote is never closed in this command line", "");
                None
            }
        }
    }

    /// Reads a list of texts, or one text as a list of one.
    pub(crate) fn texts(&mut self, node: &Node) -> Vec<Spanned<String>> {
        match &node.value {
            Value::Sequence(items) => items
                .iter()
                .filter_map(|item| {
                    if item.is_null() {
                        self.wrong_type(item, "a text");
                    }
                    self.text(item)
                })
                .collect(),
            _ => self.text(node).into_iter().collect(),
        }
    }

    /// Reads a mapping; null is an empty one.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node) -> Option<&'n Mapping> {
        if !node.is_null() && node.as_mapping().is_none() {
            self.wrong_type(node, "a mapping");
        }
        node.as_mapping()
    }

    /// Reads a list; null is an empty one.
    pub(crate) fn items<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::Sequence(items) => items,
            _ if node.is_null() => &[],
            _ => {
                self.wrong_type(node, "a list");
                &[]
            }
        }
    }

    /// Reads names and values, as a mapping or as a list of `NAME=value`.
    pub(crate) fn pairs(&mut self, node: &Node) -> IndexMap<String, Pair> {
        let mut pairs = IndexMap::new();
        match &node.value {
            Value::Mapping(entries) => {
                for (name, entry) in entries {
                    let value = self.printed(&entry.value);
                    pairs.insert(name.clone(), Pair { key: entry.key, value });
                }
            }
            Value::Sequence(_) => {
                for item in self.texts(node) {
                    let (name, value) = match item.value.split_once('=') {
                        Some((name, value)) => (name, Some(Spanned::new(value.to_owned(), item.span))),
                        None => (item.value.as_str(), None),
                    };
                    pairs.insert(name.to_owned(), Pair { key: item.span, value });
                }
            }
            Value::Scalar(scalar) if scalar.is_null() => {}
            Value::Scalar(_) => self.wrong_type(node, "a mapping or a list of NAME=value"),
        }
        pairs
    }

    /// Reads names and values; a name without a value takes the variable's, and is left out where that isn't set.
    pub(crate) fn settings(&mut self, node: &Node) -> IndexMap<String, Spanned<String>> {
        let variables = self.variables;
        let pairs = self.pairs(node).into_iter();
        pairs
            .filter_map(|(name, pair)| {
                let from_shell = || Some(Spanned::new(variables.get(&name)?.clone(), pair.key));
                let value = pair.value.or_else(from_shell)?;
                Some((name, value))
            })
            .collect()
    }

    /// Reads names and values where a name without a value has the empty one (labels).
    pub(crate) fn labels(&mut self, node: &Node) -> IndexMap<String, Spanned<String>> {
        let pairs = self.pairs(node).into_iter();
        let empty = |key| Spanned::new(String::new(), key);
        pairs.map(|(name, pair)| (name, pair.value.unwrap_or_else(|| empty(pair.key)))).collect()
    }

    /// Makes a path absolute: `~` is the user's home, what is relative starts at the folder.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        let home = || self.variables.get("HOME").map(PathBuf::from);
        let path = match text.strip_prefix('~') {
            Some("") => home().unwrap_or_else(|| PathBuf::from(text)),
            Some(rest) if rest.starts_with('/') => {
                home().map_or_else(|| PathBuf::from(text), |home| home.join(rest.trim_start_matches('/')))
            }
            _ => PathBuf::from(text),
        };
        tidy(&self.folder.join(path))
    }
}

fn ends_early(operator: &str, span: Span) -> Diagnostic {
    let message = format!("`{operator}` ends the command: no shell runs it");
    Diagnostic::warning("compose::shell-operator", message)
        .at(span, "what follows is left out, as Compose does")
        .help("quote it if it belongs to an argument, or let a shell run the line: sh -c '...'")
}

/// Resolves `.` and `..` in an absolute path by its text alone.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}

/// Reads a duration in Go's format: numbers, fractions too, each with its unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_length);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            // Not Go's, but what Compose's own parser takes.
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        let value: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(value * seconds).ok()?)?;
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        };
        check("10s", Some(10_000));
        check("1m30s", Some(90_000));
        check("1.5s", Some(1_500));
        check("500ms", Some(500));
        check("1h0m1s", Some(3_601_000));
        check("2d", Some(172_800_000));
        check("0", Some(0));
        for bad in ["", "10", "s", "1x", "-1s", "1.2.3s", "1s ", "99999999999999999999999999h"] {
            check(bad, if bad == "1s " { Some(1_000) } else { None });
        }
    }

    #[test]
    fn tidies_paths() {
        assert_eq!(tidy(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(tidy(Path::new("/../a/")), Path::new("/a"));
    }
}
