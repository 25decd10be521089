//! `$VAR` and `${VAR:-default}` in values, as compose-go's `template` package has them.
//!
//! `$$` is a dollar. A `$` before anything but a name or a brace stays as it is (`$(date)`, `$2a$10`, `5$`); what begins
//! with `${` must be a whole expression. Keys are not interpolated, and nothing is executed. A variable that isn't set
//! becomes the empty text and is reported; the caller decides how loudly.

use std::{collections::BTreeMap, ops::Range};

use indexmap::IndexMap;

use crate::Spanned;

/// How deep defaults may be nested in each other.
const DEPTH_MAX: usize = 16;
/// Bytes that one value may grow to.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What became of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interpolated {
    pub(crate) text: String,
    /// Variables that are not set and have no default, with their places in the text.
    pub(crate) unset: Vec<(String, Range<usize>)>,
}

/// Why a text can't be interpolated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) range: Range<usize>,
    pub(crate) help: Option<String>,
}

/// A variable's value.
pub(crate) trait Lookup {
    fn get(&self, name: &str) -> Option<&str>;
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

impl Lookup for IndexMap<String, Spanned<String>> {
    fn get(&self, name: &str) -> Option<&str> {
        IndexMap::get(self, name).map(|value| value.value.as_str())
    }
}

/// Variables of several places; the first that knows a name counts.
pub(crate) struct Layers<'a>(pub(crate) &'a [&'a dyn Lookup]);

impl Lookup for Layers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|layer| layer.get(name))
    }
}

/// Replaces all variables of a text.
pub(crate) fn interpolate(text: &str, variables: &dyn Lookup) -> Result<Interpolated, Failure> {
    let mut result = Interpolated::default();
    expand(text, 0, 0, variables, &mut result)?;
    Ok(result)
}

fn expand(
    text: &str,
    base: usize,
    depth: usize,
    variables: &dyn Lookup,
    result: &mut Interpolated,
) -> Result<(), Failure> {
    let fail = |message: &str, range: Range<usize>| Failure {
        message: message.to_owned(),
        range: base + range.start..base + range.end,
        help: None,
    };
    if depth > DEPTH_MAX {
        return Err(fail("defaults are nested too deep", 0..text.len()));
    }
    let closing = closing_braces(text);
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.text.push_str(&rest[..dollar]);
        let at = text.len() - rest.len() + dollar;
        let after = &rest[dollar + 1..];
        if let Some(more) = after.strip_prefix('$') {
            result.text.push('$');
            rest = more;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some(length) = closing.get(&(at + 1)).and_then(|end| end.checked_sub(at + 2)) else {
                return Err(fail("`${` is never closed", at..text.len()));
            };
            let place = Braces { at: base + at + 2, whole: base + at..base + at + length + 3, depth };
            braced(&inner[..length], place, variables, result)?;
            rest = &inner[length + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                result.text.push('$');
                rest = after;
                continue;
            }
            match variables.get(&after[..length]) {
                Some(value) => result.text.push_str(value),
                None => result.unset.push((after[..length].to_owned(), base + at..base + at + 1 + length)),
            }
            rest = &after[length..];
        }
        if result.text.len() > TEXT_BYTES_MAX {
            return Err(fail("the value becomes longer than 1 MiB", at..text.len()));
        }
    }
    result.text.push_str(rest);
    Ok(())
}

/// Where a braced expression stands.
struct Braces {
    /// The first byte between the braces.
    at: usize,
    whole: Range<usize>,
    depth: usize,
}

fn braced(
    inner: &str,
    place: Braces,
    variables: &dyn Lookup,
    result: &mut Interpolated,
) -> Result<(), Failure> {
    let (name, rest) = inner.split_at(name_length(inner));
    let literal = || Some("a `$` that is meant as such is written `$$`".to_owned());
    let fail = |message: String| Failure { message, range: place.whole.clone(), help: literal() };
    if name.is_empty() {
        return Err(fail(format!("`${{{inner}}}` names no variable")));
    }
    let value = variables.get(name);
    let (operator, argument) = match (rest.get(..1), rest.get(..2)) {
        (None, _) => {
            match value {
                Some(value) => result.text.push_str(value),
                None => result.unset.push((name.to_owned(), place.whole)),
            }
            return Ok(());
        }
        (_, Some(operator @ (":-" | ":?" | ":+"))) => (operator, &rest[2..]),
        (Some(operator @ ("-" | "?" | "+")), _) => (operator, &rest[1..]),
        _ => return Err(fail(format!("`{rest}` is not understood after the name `{name}`"))),
    };
    // With the colon, an empty value counts as unset.
    let value = if operator.starts_with(':') { value.filter(|value| !value.is_empty()) } else { value };
    let base = place.at + inner.len() - argument.len();
    match (operator.trim_start_matches(':'), value) {
        ("-" | "?", Some(value)) => result.text.push_str(value),
        ("-", None) => expand(argument, base, place.depth + 1, variables, result)?,
        ("+", Some(_)) => expand(argument, base, place.depth + 1, variables, result)?,
        ("+", None) => {}
        _ => {
            let mut message = Interpolated::default();
            expand(argument, base, place.depth + 1, variables, &mut message)?;
            let reason = if message.text.is_empty() { String::new() } else { format!(": {}", message.text) };
            let state = if variables.get(name).is_some() { "empty" } else { "missing" };
            return Err(Failure {
                message: format!("the required variable `{name}` is {state}{reason}"),
                range: place.whole,
                help: Some(format!("set it in the environment or in .env: {name}=...")),
            });
        }
    }
    Ok(())
}

/// Gives for each opening brace where it is closed: by the brace that makes pairs of all braces (`${A:-{"b": 1}}`), and
/// where there is none by the one that makes pairs of those of variables (`${A:-a{b}`).
fn closing_braces(text: &str) -> BTreeMap<usize, usize> {
    let mut closing = BTreeMap::new();
    if !text.contains("${") {
        return closing;
    }
    let bytes = text.as_bytes();
    let (mut all, mut of_variables) = (Vec::new(), Vec::new());
    let mut second = BTreeMap::new();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' => {
                all.push(at);
                if at > 0 && bytes.get(at - 1) == Some(&b'$') {
                    of_variables.push(at);
                }
            }
            b'}' => {
                closing.extend(all.pop().map(|from| (from, at)));
                second.extend(of_variables.pop().map(|from| (from, at)));
            }
            _ => {}
        }
    }
    for (from, at) in second {
        closing.entry(from).or_insert(at);
    }
    closing
}

/// The length of the variable's name that a text begins with.
pub(crate) fn name_length(text: &str) -> usize {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(letter) {
        return 0;
    }
    text.find(|c: char| !letter(c) && !c.is_ascii_digit()).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> std::collections::BTreeMap<String, String> {
        [("SET", "set"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[track_caller]
    fn check(input: &str, expect: &str, unset: &[&str]) {
        let result = interpolate(input, &variables()).unwrap();
        assert_eq!(result.text, expect);
        assert_eq!(result.unset.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), unset);
    }

    #[track_caller]
    fn check_failure(input: &str, message: &str, range: Range<usize>) {
        let failure = interpolate(input, &variables()).unwrap_err();
        assert_eq!((failure.message.as_str(), failure.range), (message, range));
    }

    #[test]
    fn replaces_variables() {
        check("no variable", "no variable", &[]);
        check("a $SET b", "a set b", &[]);
        check("${SET}${SET}", "setset", &[]);
        check("$SET-x", "set-x", &[]);
        check("$UNSET and ${OTHER}", " and ", &["UNSET", "OTHER"]);
        check("$$SET $${SET} $$$SET", "$SET ${SET} $set", &[]);
    }

    #[test]
    fn takes_defaults_and_alternatives() {
        check("${SET:-d} ${EMPTY:-d} ${UNSET:-d}", "set d d", &[]);
        check("${SET-d} ${EMPTY-d} ${UNSET-d}", "set  d", &[]);
        check("${SET:+a} ${EMPTY:+a} ${UNSET:+a}", "a  ", &[]);
        check("${SET+a} ${EMPTY+a} ${UNSET+a}", "a a ", &[]);
        check("${UNSET:-${EMPTY:-${SET}}}", "set", &[]);
        check("${UNSET:-http://host:80/$SET}", "http://host:80/set", &[]);
        check("${UNSET-a{b}", "a{b", &[]);
        check("${UNSET-a{b} ${SET}", "a{b set", &[]);
        check("${UNSET:-{\"a\": {}}}", "{\"a\": {}}", &[]);
        check("${SET:-{\"a\": {}}}!", "set!", &[]);
        check("${SET:-a}${UNSET:-b}", "setb", &[]);
        check("${UNSET:-${OTHER}}", "", &["OTHER"]);
        check("${UNSET:-$$x}", "$x", &[]);
        check("${UNSET+${SET}}${SET:+[${SET}]}", "[set]", &[]);
        check("${SET?x} ${SET:?x} ${EMPTY?x}", "set set ", &[]);
    }

    /// compose-go, template/template.go: only names, braces and a second `$` mean something after a `$`.
    #[test]
    fn a_dollar_before_anything_else_stays() {
        check("for i in $(seq 1 3)", "for i in $(seq 1 3)", &[]);
        check("${UNSET:-$2a$14$SET}", "$2a$14set", &[]);
        check("^.+$", "^.+$", &[]);
        check("\"$\" '$' $\" $1 $@ $é $ x", "\"$\" '$' $\" $1 $@ $é $ x", &[]);
        check("cost: 5$", "cost: 5$", &[]);
        check("$((1 + ${SET}))", "$((1 + set))", &[]);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        check_failure(
            "a ${UNSET:?set $SET first}",
            "the required variable `UNSET` is missing: set set first",
            2..26,
        );
        check_failure("${EMPTY:?}", "the required variable `EMPTY` is empty", 0..10);
        check_failure("x ${SET", "`${` is never closed", 2..7);
        check_failure("${1}", "`${1}` names no variable", 0..4);
        check_failure("${SET!x}", "`!x` is not understood after the name `SET`", 0..8);
        check_failure("${UNSET:-${SET}", "`${` is never closed", 0..15);
        check_failure("${UNSET:-${1}}", "`${1}` names no variable", 9..13);
        check_failure("${}", "`${}` names no variable", 0..3);
        check_failure("${{ SET }}", "`${{ SET }}` names no variable", 0..10);
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}x{}", "${U:-".repeat(DEPTH_MAX + 2), "}".repeat(DEPTH_MAX + 2));
        assert_eq!(interpolate(&deep, &variables()).unwrap_err().message, "defaults are nested too deep");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\PC|[${}:?+A-C-]){0,60}") {
            if let Err(failure) = interpolate(&text, &variables()) {
                proptest::prop_assert!(text.get(failure.range).is_some());
            }
        }
    }
}
