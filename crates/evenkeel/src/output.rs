//! Lines of instances, each behind its instance's name.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, IsTerminal},
};

use crate::terminal::escape;

/// Colours that are readable on dark and on light.
const COLORS: &[&str] = &["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"];

/// Puts names before lines, in columns and colours.
#[derive(Debug)]
pub(crate) struct Prefixes {
    colored: bool,
    is_terminal: bool,
    width: usize,
    known: HashMap<String, &'static str>,
}

impl Prefixes {
    /// Colours if standard output is a terminal and `NO_COLOR` isn't set.
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_terminal = io::stdout().is_terminal();
        Self { colored: wanted && is_terminal, is_terminal, width: 0, known: HashMap::new() }
    }

    /// A line as it is shown without a name: harmless to a terminal, unchanged elsewhere.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.is_terminal {
            return Cow::Borrowed(text);
        }
        // A colour that a line leaves on would go on into the next one.
        let end = if text.contains('\x1b') { "\x1b[0m" } else { "" };
        Cow::Owned(format!("{}{end}", escape(text)))
    }

    /// A line as it is shown.
    pub(crate) fn line(&mut self, instance: &str, text: &str) -> String {
        self.width = self.width.max(instance.chars().count());
        let next = COLORS.get(self.known.len() % COLORS.len()).copied().unwrap_or("0");
        let color = *self.known.entry(instance.to_owned()).or_insert(next);
        let (width, text) = (self.width, self.text(text));
        if self.colored {
            format!("\x1b[{color}m{instance:width$} |\x1b[0m {text}")
        } else {
            format!("{instance:width$} | {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_up_as_they_become_known() {
        let mut prefixes = Prefixes { colored: false, is_terminal: false, width: 0, known: HashMap::new() };
        assert_eq!(prefixes.line("app-1", "one"), "app-1 | one");
        assert_eq!(prefixes.line("db", "\x1b[2J\x1b[31mtwo"), "db    | \x1b[2J\x1b[31mtwo");
        (prefixes.colored, prefixes.is_terminal) = (true, true);
        assert_eq!(prefixes.line("db", "x"), "\x1b[33mdb    |\x1b[0m x");
        let shown = "\x1b[33mdb    |\x1b[0m \\u{1b}[2J\x1b[31mx\x1b[0m";
        assert_eq!(prefixes.line("db", "\x1b[2J\x1b[31mx"), shown);
    }
}
