//! Regular expressions: from PCRE's syntax, which nginx.conf is written in, to that of the `regex` crate.
//!
//! What both read differently is rewritten; what only a backtracking engine can do — looking around, back
//! references, atomic groups, recursion — is refused, never approximated. Matching is on bytes, as nginx's is.

use std::iter::Peekable;

use regex::bytes::{Regex, RegexBuilder};

/// Why an expression can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// It is a feature that the engine lacks.
    Unsupported(&'static str),
    /// It is no expression at all; the engine's own words.
    Invalid(String),
}

/// An expression that compiles.
#[derive(Clone, Debug)]
pub(crate) struct Translated {
    /// In the syntax of the `regex` crate.
    pub(crate) source: String,
    /// The names of its groups, in order.
    pub(crate) names: Vec<String>,
    /// How many groups it has, the whole match not counted.
    pub(crate) groups: usize,
}

/// Translates an expression and compiles it once, to know that it can be.
pub(crate) fn translate(pcre: &str, ignore_case: bool) -> Result<Translated, PatternError> {
    let source = rewrite(pcre)?;
    let compiled = compile(&source, ignore_case).map_err(|error| PatternError::Invalid(last_line(&error)))?;
    let names = compiled.capture_names().flatten().map(str::to_owned).collect();
    Ok(Translated { source, names, groups: compiled.captures_len().saturating_sub(1) })
}

fn compile(source: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source).case_insensitive(ignore_case).unicode(false).size_limit(1 << 22).build()
}

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

struct Rewriter<'a> {
    chars: Peekable<std::str::Chars<'a>>,
    out: String,
}

fn rewrite(pcre: &str) -> Result<String, PatternError> {
    let mut rewriter = Rewriter { chars: pcre.chars().peekable(), out: String::with_capacity(pcre.len()) };
    while let Some(c) = rewriter.chars.next() {
        match c {
            '\\' => rewriter.escape()?,
            '[' => rewriter.class()?,
            '(' => rewriter.group()?,
            '{' => rewriter.brace(),
            '*' | '+' | '?' => rewriter.quantifier(c)?,
            other => rewriter.out.push(other),
        }
    }
    Ok(rewriter.out)
}

impl Rewriter<'_> {
    fn escape(&mut self) -> Result<(), PatternError> {
        let Some(c) = self.chars.next() else {
            self.out.push('\\');
            return Ok(());
        };
        match c {
            '1'..='9' | 'k' | 'g' => return Err(PatternError::Unsupported("a back reference")),
            'G' | 'K' | 'X' | 'C' => return Err(PatternError::Unsupported("this escape")),
            '<' | '>' => self.out.push(c),
            'h' => self.out.push_str("[\\t ]"),
            'R' => self.out.push_str("(?:\\r\\n|\\n|\\r|\\x0b|\\f)"),
            'N' => self.out.push_str("[^\\n]"),
            'Z' => self.out.push_str("(?:\\n?\\z)"),
            'e' => self.out.push_str("\\x1b"),
            'Q' => self.literal_run(),
            'E' => {}
            other if other.is_ascii_alphanumeric() => self.out.extend(['\\', other]),
            other => self.out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
        Ok(())
    }

    /// `\Q...\E`.
    fn literal_run(&mut self) {
        let mut literal = String::new();
        while let Some(c) = self.chars.next() {
            if c == '\\' && self.chars.next_if_eq(&'E').is_some() {
                break;
            }
            literal.push(c);
        }
        self.out.push_str(&regex::escape(&literal));
    }

    /// `[...]`: PCRE has no nested classes and no set operations, so `[`, `&&`, `--` and `~~` stand for themselves.
    fn class(&mut self) -> Result<(), PatternError> {
        self.out.push('[');
        if self.chars.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        if self.chars.next_if_eq(&']').is_some() {
            self.out.push_str("\\]");
        }
        while let Some(c) = self.chars.next() {
            match c {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => match self.chars.next() {
                    Some('h') => self.out.push_str("\\t "),
                    Some('b') => self.out.push_str("\\x08"),
                    Some(other @ ('<' | '>')) => self.out.push(other),
                    Some(other) => self.out.extend(['\\', other]),
                    None => self.out.push('\\'),
                },
                '[' if self.chars.peek() == Some(&':') => {
                    self.out.push('[');
                    for inner in self.chars.by_ref() {
                        self.out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                }
                '[' | '&' | '~' => self.out.extend(['\\', c]),
                '-' if self.chars.peek() == Some(&'-') => self.out.push_str("\\-"),
                other => self.out.push(other),
            }
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), PatternError> {
        self.out.push('(');
        if self.chars.peek() == Some(&'*') {
            return Err(PatternError::Unsupported("a control verb"));
        }
        if self.chars.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        let Some(&next) = self.chars.peek() else {
            self.out.push('?');
            return Ok(());
        };
        match next {
            '=' | '!' => return Err(PatternError::Unsupported("a lookahead")),
            '>' => return Err(PatternError::Unsupported("an atomic group")),
            '|' => return Err(PatternError::Unsupported("a branch reset")),
            '(' => return Err(PatternError::Unsupported("a conditional group")),
            'R' | '0'..='9' | '&' | '+' => return Err(PatternError::Unsupported("recursion")),
            '#' => {
                self.chars.by_ref().find(|&c| c == ')');
                self.out.pop();
                return Ok(());
            }
            '\'' => {
                self.chars.next();
                let name: String = self.chars.by_ref().take_while(|&c| c != '\'').collect();
                let name = name.to_ascii_lowercase();
                self.out.push_str(&format!("?P<{name}>"));
                return Ok(());
            }
            _ => self.out.push('?'),
        }
        if self.chars.next_if_eq(&'<').is_some() {
            if matches!(self.chars.peek(), Some('=' | '!')) {
                return Err(PatternError::Unsupported("a lookbehind"));
            }
            self.out.push_str("P<");
            self.group_name();
        } else if self.chars.next_if_eq(&'P').is_some() {
            if matches!(self.chars.peek(), Some('=' | '>')) {
                return Err(PatternError::Unsupported("a back reference"));
            }
            self.out.push('P');
            if self.chars.next_if_eq(&'<').is_some() {
                self.out.push('<');
                self.group_name();
            }
        }
        Ok(())
    }

    /// Group names become variables, which nginx compares without regard to case.
    fn group_name(&mut self) {
        for c in self.chars.by_ref() {
            self.out.push(c.to_ascii_lowercase());
            if c == '>' {
                break;
            }
        }
    }

    /// `{` that begins no `{n}`, `{n,}` or `{n,m}` is itself.
    fn brace(&mut self) {
        let rest: String = self.chars.clone().take_while(|&c| c != '}').collect();
        let (from, to) = rest.split_once(',').unwrap_or((&rest, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let closes = self.chars.clone().any(|c| c == '}');
        if closes && !from.is_empty() && is_number(from) && is_number(to) {
            self.out.push('{');
        } else {
            self.out.push_str("\\{");
        }
    }

    fn quantifier(&mut self, c: char) -> Result<(), PatternError> {
        self.out.push(c);
        if self.chars.next_if_eq(&'+').is_some() {
            return Err(PatternError::Unsupported("a possessive quantifier"));
        }
        if self.chars.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pcre: &str, expect: &str) {
        let got = translate(pcre, false).map(|translated| translated.source);
        assert_eq!(got.as_deref(), Ok(expect), "for {pcre:?}");
    }

    fn refuses(pcre: &str, expect: &'static str) {
        match translate(pcre, false) {
            Err(error) => assert_eq!(error, PatternError::Unsupported(expect), "for {pcre:?}"),
            Ok(translated) => panic!("{pcre:?} became {translated:?}"),
        }
    }

    #[test]
    fn rewrites_what_differs() {
        check(r"\.php$", r"\.php$");
        check(r"^/(?<id>\d+)/(?P<x>a)$", r"^/(?P<id>\d+)/(?P<x>a)$");
        check(r"(?'n'a)", r"(?P<n>a)");
        check(r"\/a\-b\_c", r"/a\-b_c");
        check(r"[[a&&b--c]", r"[\[a\&\&b\--c]");
        check(r"[]a]", r"[\]a]");
        check(r"[[:alpha:]_]", r"[[:alpha:]_]");
        check(r"a{2,3}b{x}c{,2}", r"a{2,3}b\{x}c{,2}".replace("c{,2}", r"c\{,2}").as_str());
        check(r"\Qa.b\Ec", r"a\.bc");
        check(r"a(?#note)b", "ab");
        check(r"(?i)a(?:b)??", r"(?i)a(?:b)??");
    }

    #[test]
    fn refuses_what_only_backtracking_can_do() {
        refuses(r"^/(?!admin)", "a lookahead");
        refuses(r"(?<=a)b", "a lookbehind");
        refuses(r"(a)\1", "a back reference");
        refuses(r"(?>a)", "an atomic group");
        refuses(r"a++", "a possessive quantifier");
    }

    #[test]
    fn says_what_is_wrong() {
        match translate("(a", false) {
            Err(PatternError::Invalid(text)) => assert_eq!(text, "unclosed group"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_its_groups() {
        let translated = translate(r"^(?<a>x)(y)(?<b>z)$", false).expect("compiles");
        assert_eq!(translated.names, ["a", "b"]);
        assert_eq!(translated.groups, 3);
    }
}
