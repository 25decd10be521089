//! Regular expressions: from PCRE's syntax, which nginx.conf is written in, to that of the engines.
//!
//! What they read differently is rewritten. Looking around, back references, atomic groups and possessive quantifiers
//! need the engine that backtracks; recursion, conditions and control verbs are refused, never approximated. Matching
//! is on bytes, as nginx's is.

use std::iter::Peekable;

use keel_model::{Pattern, PatternEngine};
use keel_regex::Regex;

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
    pub(crate) pattern: Pattern,
    /// The names of its groups, in order.
    pub(crate) names: Vec<String>,
    /// How many groups it has, the whole match not counted.
    pub(crate) groups: usize,
}

/// Translates an expression and compiles it once, to know that it can be.
pub(crate) fn translate(pcre: &str, ignore_case: bool) -> Result<Translated, PatternError> {
    let (source, engine) = rewrite(pcre)?;
    let pattern = Pattern { source, ignore_case, engine };
    let compiled = Regex::new(&pattern).map_err(|error| PatternError::Invalid(error.to_string()))?;
    let (names, groups) = (compiled.names().map(str::to_owned).collect(), compiled.groups());
    Ok(Translated { pattern, names, groups })
}

struct Rewriter<'a> {
    chars: Peekable<std::str::Chars<'a>>,
    out: String,
    engine: PatternEngine,
}

fn rewrite(pcre: &str) -> Result<(String, PatternEngine), PatternError> {
    let mut rewriter = Rewriter {
        chars: pcre.chars().peekable(),
        out: String::with_capacity(pcre.len()),
        engine: PatternEngine::Linear,
    };
    while let Some(c) = rewriter.chars.next() {
        match c {
            '\\' => rewriter.escape()?,
            '[' => rewriter.class()?,
            '(' => rewriter.group()?,
            '{' => rewriter.brace(),
            '*' | '+' | '?' => rewriter.quantifier(c),
            other => rewriter.out.push(other),
        }
    }
    Ok((rewriter.out, rewriter.engine))
}

impl Rewriter<'_> {
    fn escape(&mut self) -> Result<(), PatternError> {
        let Some(c) = self.chars.next() else {
            self.out.push('\\');
            return Ok(());
        };
        match c {
            '1'..='9' => self.back_reference(c)?,
            'k' | 'g' => self.named_back_reference()?,
            'p' | 'P' => {
                let bytes = self.property(c)?;
                self.out.push_str(&format!("[{bytes}]"));
            }
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

    /// `\p{name}`, `\pN`, and the complements `\P` and `\p{^name}`: gives the bytes that have the property, as the inside
    /// of a class. A byte is a character of Latin-1 here, as for PCRE where it doesn't read UTF-8.
    fn property(&mut self, escape: char) -> Result<String, PatternError> {
        let name: String = match self.chars.next() {
            Some('{') => self.chars.by_ref().take_while(|&c| c != '}').collect(),
            Some(letter) => letter.into(),
            None => return Err(PatternError::Invalid("unfinished escape".into())),
        };
        let (name, is_complement) = match name.strip_prefix('^') {
            Some(name) => (name, escape == 'p'),
            None => (name.as_str(), escape == 'P'),
        };
        let has = regex::Regex::new(&format!("^\\p{{{name}}}$"))
            .map_err(|_| PatternError::Invalid(format!("unknown property `{name}`")))?;
        let bytes = (0..=u8::MAX)
            .filter(|byte| has.is_match(char::from(*byte).encode_utf8(&mut [0; 4])) != is_complement);
        Ok(bytes.map(|byte| format!("\\x{byte:02x}")).collect())
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
                    Some(c @ ('p' | 'P')) => {
                        let bytes = self.property(c)?;
                        self.out.push_str(&bytes);
                    }
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
            '=' | '!' | '>' => {
                self.chars.next();
                self.engine = PatternEngine::Backtracking;
                self.out.extend(['?', next]);
                return Ok(());
            }
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
            if let Some(kind) = self.chars.next_if(|c| matches!(c, '=' | '!')) {
                self.engine = PatternEngine::Backtracking;
                self.out.extend(['<', kind]);
                return Ok(());
            }
            self.out.push_str("P<");
            self.group_name();
        } else if self.chars.next_if_eq(&'P').is_some() {
            if self.chars.next_if_eq(&'=').is_some() {
                // `(?P=name)`.
                self.out.truncate(self.out.len() - "(?".len());
                self.reference_to(')');
                return Ok(());
            }
            if self.chars.peek() == Some(&'>') {
                return Err(PatternError::Unsupported("recursion"));
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
            self.out.extend(self.chars.by_ref().take_while(|&c| c != '}'));
            self.quantifier('}');
        } else {
            self.out.push_str("\\{");
        }
    }

    /// The end of a quantifier, and whether it takes as little as it can, or all or nothing.
    fn quantifier(&mut self, end: char) {
        self.out.push(end);
        if self.chars.next_if_eq(&'+').is_some() {
            self.engine = PatternEngine::Backtracking;
            self.out.push('+');
        } else if self.chars.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
    }

    /// `\1` to `\9`.
    fn back_reference(&mut self, digit: char) -> Result<(), PatternError> {
        if self.chars.peek().is_some_and(char::is_ascii_digit) {
            return Err(PatternError::Unsupported("a back reference with two digits"));
        }
        self.engine = PatternEngine::Backtracking;
        self.out.extend(['\\', digit]);
        Ok(())
    }

    /// `\k<name>`, `\k'name'`, `\k{name}`, `\g{name}`, `\g1`, `\g{1}`.
    fn named_back_reference(&mut self) -> Result<(), PatternError> {
        let unsupported = Err(PatternError::Unsupported("this back reference"));
        let close = match self.chars.next() {
            Some('<') => '>',
            Some('\'') => '\'',
            Some('{') => '}',
            Some(digit @ '1'..='9') => return self.back_reference(digit),
            _ => return unsupported,
        };
        match self.chars.peek() {
            Some(&digit @ '1'..='9') => {
                self.chars.next();
                if self.chars.next() != Some(close) {
                    return unsupported;
                }
                self.back_reference(digit)
            }
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
                self.reference_to(close);
                Ok(())
            }
            _ => unsupported,
        }
    }

    /// A reference to the group whose name ends at `close`.
    fn reference_to(&mut self, close: char) {
        self.engine = PatternEngine::Backtracking;
        let name: String = self.chars.by_ref().take_while(|&c| c != close).collect();
        self.out.push_str(&format!("\\k<{}>", name.to_ascii_lowercase()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pcre: &str, expect: &str) {
        let got = translate(pcre, false).map(|translated| translated.pattern.source);
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
        let digits: String = (b'0'..=b'9').map(|digit| format!("\\x{digit:02x}")).collect();
        check(r"\p{Nd}+[a\p{Nd}]", &format!("[{digits}]+[a{digits}]"));
    }

    #[test]
    fn backtracks_only_for_what_needs_it() {
        for (pcre, expect) in [
            (r"/\.(?!well-known).*", r"/\.(?!well-known).*"),
            (r"^/(?=a)", r"^/(?=a)"),
            (r"(?<=a)b(?<!c)", r"(?<=a)b(?<!c)"),
            (r"(a)\1", r"(a)\1"),
            (r"(?<N>a)\k<N>\k'N'\k{N}\g{N}(?P=N)\g1\g{1}", r"(?P<n>a)\k<n>\k<n>\k<n>\k<n>\k<n>\1\1"),
            (r"(?>a)", r"(?>a)"),
            (r"a++b*+c?+", r"a++b*+c?+"),
            (r"a{2,3}+", r"a{2,3}+"),
        ] {
            let translated = translate(pcre, false).expect(pcre);
            let expect =
                Pattern { source: expect.into(), ignore_case: false, engine: PatternEngine::Backtracking };
            assert_eq!(translated.pattern, expect);
        }
        let linear = translate(r"^/(?<a>x)?y{2}?\.php$", true).expect("compiles");
        assert_eq!(linear.pattern.engine, PatternEngine::Linear);
    }

    #[test]
    fn refuses_what_no_engine_can_do() {
        refuses(r"(a)(?R)", "recursion");
        refuses(r"(?P>a)", "recursion");
        refuses(r"(a)?(?(1)b|c)", "a conditional group");
        refuses(r"(?|(a)|(b))", "a branch reset");
        refuses(r"(*SKIP)a", "a control verb");
        refuses(r"(a)\10", "a back reference with two digits");
        refuses(r"(a)\g{-1}", "this back reference");
    }

    #[test]
    fn properties_are_those_of_latin_1() {
        let is_match = |pcre: &str, text: &[u8]| {
            let translated = translate(pcre, false).expect(pcre);
            Regex::new(&translated.pattern).expect(pcre).is_match(text).expect("few steps")
        };
        assert!(
            is_match(r"^\p{N}\pL$", b"1a") && is_match(r"^\p{N}$", b"\xb2") && is_match(r"^\pL$", b"\xe9")
        );
        assert!(!is_match(r"^\p{N}$", b"a") && is_match(r"^\P{N}\p{^N}$", b"a-") && !is_match(r"\PN", b"1"));
        assert!(matches!(translate(r"\p{Nothing}", false), Err(PatternError::Invalid(_))));
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
