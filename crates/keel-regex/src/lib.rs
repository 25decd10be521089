//! Regular expressions on bytes, by one of two engines.
//!
//! The linear engine takes a time that grows with the text and nothing else. Looking around, back references, atomic
//! groups and possessive quantifiers need one that backtracks; its steps are counted, and a match that takes too many
//! is an error, as with PCRE's match limit. It is used only for expressions that say so.
//!
//! Both match bytes, as nginx does: a path needn't be UTF-8, `.` is any byte but a line feed, classes are those of ASCII.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::fmt;

use fancy_regex::BytesMode;
use keel_model::{Pattern, PatternEngine};

/// The size that a compiled expression has at most, in bytes, about.
const SIZE_MAX: usize = 4 << 20;

/// Steps back that one match takes at most: some tens of milliseconds.
const STEPS_BACK_MAX: usize = 1_000_000;

/// A match took too many steps, so that nobody knows whether there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the expression takes too many steps back")]
pub struct TooManySteps;

/// An expression that can't be compiled; the engine's own words, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRegex(String);

enum Compiled {
    Linear(regex::bytes::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

/// A compiled expression.
pub struct Regex {
    compiled: Compiled,
    /// Names of groups with their numbers.
    names: Vec<(usize, Box<str>)>,
}

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// It is no expression, or too large.
    pub fn new(pattern: &Pattern) -> Result<Self, InvalidRegex> {
        let Pattern { source, ignore_case, engine } = pattern;
        let compiled = match engine {
            PatternEngine::Linear => regex::bytes::RegexBuilder::new(source)
                .case_insensitive(*ignore_case)
                .unicode(false)
                .size_limit(SIZE_MAX)
                .build()
                .map(Compiled::Linear)
                .map_err(|error| last_line(&error.to_string()))?,
            PatternEngine::Backtracking => fancy_regex::RegexBuilder::new(source)
                .case_insensitive(*ignore_case)
                .bytes_mode(BytesMode::Ascii)
                .delegate_size_limit(SIZE_MAX)
                .max_prog_size(SIZE_MAX / 64)
                .backtrack_limit(STEPS_BACK_MAX)
                .build()
                .map(|regex| Compiled::Backtracking(Box::new(regex)))
                .map_err(|error| last_line(&error.to_string()))?,
        };
        let names: Vec<Option<&str>> = match &compiled {
            Compiled::Linear(regex) => regex.capture_names().collect(),
            Compiled::Backtracking(regex) => regex.capture_names().collect(),
        };
        let names = names.into_iter().enumerate();
        let names = names.filter_map(|(number, name)| Some((number, name?.into()))).collect();
        Ok(Self { compiled, names })
    }

    /// The expression as it was compiled.
    pub fn source(&self) -> &str {
        match &self.compiled {
            Compiled::Linear(regex) => regex.as_str(),
            Compiled::Backtracking(regex) => regex.as_str(),
        }
    }

    /// Whether the text has a match.
    ///
    /// # Errors
    ///
    /// That takes too many steps to know.
    pub fn is_match(&self, text: &[u8]) -> Result<bool, TooManySteps> {
        match &self.compiled {
            Compiled::Linear(regex) => Ok(regex.is_match(text)),
            Compiled::Backtracking(regex) => regex.is_match(text).map_err(|_| TooManySteps),
        }
    }

    /// Finds the first match and its groups.
    ///
    /// # Errors
    ///
    /// That takes too many steps to know.
    pub fn captures<'a>(&'a self, text: &'a [u8]) -> Result<Option<Captures<'a>>, TooManySteps> {
        let groups: Vec<Option<(usize, usize)>> = match &self.compiled {
            Compiled::Linear(regex) => {
                let mut found = regex.capture_locations();
                if regex.captures_read(&mut found, text).is_none() {
                    return Ok(None);
                }
                (0..found.len()).map(|number| found.get(number)).collect()
            }
            Compiled::Backtracking(regex) => match regex.captures(text).map_err(|_| TooManySteps)? {
                Some(found) => {
                    found.iter().map(|group| group.map(|group| (group.start(), group.end()))).collect()
                }
                None => return Ok(None),
            },
        };
        Ok(Some(Captures { regex: self, text, groups }))
    }

    /// The names of groups, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(_, name)| &**name)
    }

    /// Counts the groups, the whole match not among them.
    pub fn groups(&self) -> usize {
        let all = match &self.compiled {
            Compiled::Linear(regex) => regex.captures_len(),
            Compiled::Backtracking(regex) => regex.captures_len(),
        };
        all.saturating_sub(1)
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.source()).finish()
    }
}

/// A match and its groups.
pub struct Captures<'a> {
    regex: &'a Regex,
    text: &'a [u8],
    groups: Vec<Option<(usize, usize)>>,
}

impl<'a> Captures<'a> {
    /// A group's bytes; number 0 is the whole match.
    pub fn get(&self, number: usize) -> Option<&'a [u8]> {
        let (start, end) = (*self.groups.get(number)?)?;
        self.text.get(start..end)
    }

    /// A named group's bytes.
    pub fn name(&self, name: &str) -> Option<&'a [u8]> {
        self.named().find(|(known, _)| *known == name).map(|(_, bytes)| bytes)
    }

    /// The named groups that took part.
    pub fn named(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.regex.names.iter().filter_map(|(number, name)| Some((&**name, self.get(*number)?)))
    }

    /// All named groups; one that took no part is empty.
    pub fn all_named(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.regex.names.iter().map(|(number, name)| (&**name, self.get(*number).unwrap_or_default()))
    }

    /// Where each group begins and ends.
    pub fn ranges(&self) -> &[Option<(usize, usize)>] {
        &self.groups
    }
}

fn last_line(text: &str) -> InvalidRegex {
    let line = text.lines().last().unwrap_or_default();
    InvalidRegex(line.strip_prefix("error: ").unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: [PatternEngine; 2] = [PatternEngine::Linear, PatternEngine::Backtracking];

    fn compile(source: &str, engine: PatternEngine) -> Result<Regex, InvalidRegex> {
        Regex::new(&Pattern { source: source.into(), ignore_case: true, engine })
    }

    fn backtracking(source: &str) -> Regex {
        compile(source, PatternEngine::Backtracking).expect("compiles")
    }

    #[test]
    fn looks_around() {
        for (source, matches, fails) in [
            (r"/\.(?!well-known).*", "/.git/config", "/.well-known/acme"),
            (r"^/(?=admin)", "/admin", "/user"),
            (r"(?<!/static)/x$", "/a/x", "/static/x"),
            (r"(?<=/static)/x$", "/static/x", "/a/x"),
            (r"^/(a|b)/\1$", "/a/a", "/a/b"),
            (r"^/(?P<n>a|b)/\k<n>$", "/b/b", "/a/b"),
            (r"^(?>a|ab)c$", "ac", "abc"),
            (r"^a++b$", "aab", "aac"),
        ] {
            let regex = backtracking(source);
            assert_eq!(regex.is_match(matches.as_bytes()), Ok(true), "{source} on {matches}");
            assert_eq!(regex.is_match(fails.as_bytes()), Ok(false), "{source} on {fails}");
        }
    }

    #[test]
    fn both_match_bytes_that_are_no_text() {
        for engine in ENGINES {
            let regex = compile(r"^/private/(?P<rest>.*)\.php$", engine).expect("compiles");
            let text = b"/PRIVATE/\xff\xc3x.php";
            let found = regex.captures(text).expect("few steps").expect("matches");
            assert_eq!(found.name("rest"), Some(b"\xff\xc3x".as_slice()), "{engine:?}");
            assert_eq!(found.get(1), found.name("rest"));
            assert_eq!(regex.is_match("/private/\n.php".as_bytes()), Ok(false));
            let class = compile(r"^[^/]\w\d$", engine).expect("compiles");
            assert_eq!(class.is_match(b"\xffa1"), Ok(true), "{engine:?}");
            assert_eq!(class.is_match("a\u{e4}1".as_bytes()), Ok(false), "{engine:?}");
        }
        assert_eq!(backtracking(r"/\.(?!well-known).*$").is_match(b"/.\xff\xfe"), Ok(true));
        assert_eq!(backtracking(r"^/(?!admin).\xff$").is_match(b"/\xc3\xff"), Ok(true));
    }

    #[test]
    fn groups_are_where_they_matched() {
        let regex = backtracking(r"^/(?!x)(?P<name>[^/]+)(/(b))?");
        let text = b"/\xffa/b";
        let found = regex.captures(text).expect("few steps").expect("matches");
        assert_eq!(found.ranges(), [Some((0, 5)), Some((1, 3)), Some((3, 5)), Some((4, 5))]);
        assert_eq!(found.named().collect::<Vec<_>>(), [("name", b"\xffa".as_slice())]);
    }

    #[test]
    fn a_match_that_runs_away_is_an_error() {
        let regex = backtracking(r"^(?=a)(?:a|a)*(?!b)\b$(?<=x)|^((a|a)*)*\2$");
        let text = [b'a'; 60].iter().chain(b"!").copied().collect::<Vec<u8>>();
        assert_eq!(regex.is_match(&text), Err(TooManySteps));
        assert!(regex.captures(&text).is_err());
    }

    #[test]
    fn says_what_is_wrong() {
        let error = compile("(a", PatternEngine::Linear).expect_err("isn't closed");
        assert_eq!(error.to_string(), "unclosed group");
        assert!(compile("(?=a", PatternEngine::Backtracking).is_err());
        assert!(compile(r"(?!x)(a)\2", PatternEngine::Backtracking).is_err());
    }
}
