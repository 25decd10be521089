//! Words of an instruction: quotes taken away, variables replaced, as BuildKit's own small shell does
//! (frontend/dockerfile/shell).

use crate::interpolate::name_length;

/// How deep defaults may be nested in each other.
const DEPTH_MAX: usize = 16;
/// Bytes that one word may grow to, about.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What variables stand for, and what protects a `$`.
pub(crate) struct Scope<'a> {
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) escape: char,
}

impl Scope<'_> {
    /// The words of a text.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c.is_whitespace() {
                words.extend(word.take());
                rest = &rest[c.len_utf8()..];
            } else {
                rest = self.piece(rest, word.get_or_insert_default(), 0)?;
            }
        }
        words.extend(word);
        Ok(words)
    }

    /// The whole text as one word.
    pub(crate) fn word(&self, text: &str) -> Result<String, String> {
        let mut word = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            rest = self.piece(rest, &mut word, 0)?;
        }
        Ok(word)
    }

    /// Reads one character, quoted part or variable; gives what follows.
    fn piece<'t>(&self, text: &'t str, word: &mut String, depth: usize) -> Result<&'t str, String> {
        let Some(c) = text.chars().next() else { return Ok(text) };
        let after = &text[c.len_utf8()..];
        if word.len() > TEXT_BYTES_MAX {
            return Err("the value becomes longer than 1 MiB".to_owned());
        }
        match c {
            '\'' => {
                let end = after.find('\'').ok_or("a quote is never closed")?;
                word.push_str(&after[..end]);
                Ok(&after[end + 1..])
            }
            '"' => self.double_quoted(after, word, depth),
            '$' => self.variable(after, word, depth),
            _ if c == self.escape => {
                let Some(next) = after.chars().next() else {
                    word.push(c);
                    return Ok(after);
                };
                word.push(next);
                Ok(&after[next.len_utf8()..])
            }
            _ => {
                word.push(c);
                Ok(after)
            }
        }
    }

    fn double_quoted<'t>(
        &self,
        mut rest: &'t str,
        word: &mut String,
        depth: usize,
    ) -> Result<&'t str, String> {
        loop {
            let c = rest.chars().next().ok_or("a quote is never closed")?;
            let after = &rest[c.len_utf8()..];
            match c {
                '"' => return Ok(after),
                '$' => rest = self.variable(after, word, depth)?,
                _ if c == self.escape => match after.chars().next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        word.push(next);
                        rest = &after[next.len_utf8()..];
                    }
                    _ => {
                        word.push(c);
                        rest = after;
                    }
                },
                _ => {
                    word.push(c);
                    rest = after;
                }
            }
        }
    }

    /// Reads what follows a `$`.
    fn variable<'t>(&self, text: &'t str, word: &mut String, depth: usize) -> Result<&'t str, String> {
        if depth > DEPTH_MAX {
            return Err("defaults are nested too deep".to_owned());
        }
        let Some(inner) = text.strip_prefix('{') else {
            let length = parameter_length(text);
            match length {
                0 => word.push('$'),
                _ => word.push_str(&(self.lookup)(&text[..length]).unwrap_or_default()),
            }
            return Ok(&text[length..]);
        };
        let (name, rest) = inner.split_at(parameter_length(inner));
        let colon = rest.strip_prefix(':');
        let rest = colon.unwrap_or(rest);
        let operator = rest.chars().next().ok_or("`${` is never closed")?;
        let after = &rest[operator.len_utf8()..];
        if name.is_empty() {
            return Err("`${` is not followed by the name of a variable".to_owned());
        }
        let value = (self.lookup)(name);
        let value = if colon.is_some() { value.filter(|value| !value.is_empty()) } else { value };
        let mut argument = String::new();
        match (operator, colon) {
            ('}', None) => {
                word.push_str(&value.unwrap_or_default());
                Ok(after)
            }
            ('-' | '+' | '?', _) => {
                let after = self.until(after, '}', &mut argument, depth + 1)?;
                match (operator, value) {
                    ('-' | '?', Some(value)) => word.push_str(&value),
                    ('-', None) | ('+', Some(_)) => word.push_str(&argument),
                    ('+', None) => {}
                    _ => return Err(format!("`{name}` is not set: {argument}")),
                }
                Ok(after)
            }
            ('#' | '%', None) => {
                let (longest, after) = match after.strip_prefix(operator) {
                    Some(after) => (Length::Longest, after),
                    None => (Length::Shortest, after),
                };
                let after = self.raw_until(after, '}', &mut argument, depth + 1)?;
                let end = if operator == '#' { End::Start } else { End::Back };
                word.push_str(&trimmed(&value.unwrap_or_default(), &argument, end, longest)?);
                Ok(after)
            }
            ('/', None) => {
                // For the library, no limit is 0.
                let (limit, after) = match after.strip_prefix('/') {
                    Some(after) => (0, after),
                    None => (1, after),
                };
                let after = self.raw_until(after, '/', &mut argument, depth + 1)?;
                let mut replacement = String::new();
                let after = self.raw_until(after, '}', &mut replacement, depth + 1)?;
                let pattern = pattern(&argument, Length::Longest, "")?;
                let value = value.unwrap_or_default();
                word.push_str(&pattern.replacen(&value, limit, regex::NoExpand(&replacement)));
                Ok(after)
            }
            _ => Err(format!("`{operator}` is not understood after the name `{name}`")),
        }
    }

    /// Reads up to a character that is neither quoted nor in a variable; gives what follows it.
    fn until<'t>(
        &self,
        text: &'t str,
        stop: char,
        word: &mut String,
        depth: usize,
    ) -> Result<&'t str, String> {
        let mut rest = text;
        loop {
            if let Some(after) = rest.strip_prefix(stop) {
                return Ok(after);
            }
            if rest.is_empty() {
                return Err("`${` is never closed".to_owned());
            }
            rest = self.piece(rest, word, depth)?;
        }
    }

    /// The same for a pattern, in which escapes stay.
    fn raw_until<'t>(
        &self,
        text: &'t str,
        stop: char,
        word: &mut String,
        depth: usize,
    ) -> Result<&'t str, String> {
        let mut rest = text;
        loop {
            if let Some(after) = rest.strip_prefix(stop) {
                return Ok(after);
            }
            let c = rest.chars().next().ok_or("`${` is never closed")?;
            if c == self.escape {
                word.push('\\');
                rest = &rest[c.len_utf8()..];
                if let Some(next) = rest.chars().next() {
                    word.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            } else {
                rest = self.piece(rest, word, depth)?;
            }
        }
    }
}

/// The length of the name that a text begins with: a variable's, or one of the shell's own (`$1`, `$@`), which
/// nothing sets in a Dockerfile.
fn parameter_length(text: &str) -> usize {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match text.as_bytes().first() {
        Some(b'@' | b'*' | b'#' | b'?' | b'-' | b'$' | b'!') => 1,
        Some(b'0'..=b'9') => digits,
        _ => name_length(text),
    }
}

/// How much a `*` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Shortest,
    Longest,
}

/// Where something is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Start,
    Back,
}

/// Takes away what matches at one end: `${A#pattern}`, `${A%pattern}`.
fn trimmed(value: &str, glob: &str, end: End, length: Length) -> Result<String, String> {
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    match end {
        End::Start => {
            let matched = pattern(glob, length, "^")?.find(value).map_or(0, |found| found.end());
            Ok(value.get(matched..).unwrap_or_default().to_owned())
        }
        // The shortest match at the back is only found by looking from there.
        End::Back => {
            let rest = trimmed(&reversed(value), &reversed_pattern(glob), End::Start, length)?;
            Ok(reversed(&rest))
        }
    }
}

/// Turns a pattern around, escapes staying before what they protect.
fn reversed_pattern(glob: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut chars = glob.chars();
    while let Some(c) = chars.next() {
        let mut part = String::from(c);
        if c == '\\' {
            part.extend(chars.next());
        }
        parts.push(part);
    }
    parts.into_iter().rev().collect()
}

/// Makes a regular expression of a pattern with `*` and `?`.
fn pattern(glob: &str, length: Length, before: &str) -> Result<regex::Regex, String> {
    let mut expression = String::from(before);
    let mut chars = glob.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' if length == Length::Longest => expression.push_str(".*"),
            '*' => expression.push_str(".*?"),
            '?' => expression.push('.'),
            '\\' => expression.push_str(&regex::escape(&chars.next().map(String::from).unwrap_or_default())),
            c => expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex::Regex::new(&expression).map_err(|_| format!("the pattern `{glob}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_patterns() {
        check("${F#*.} ${F##*.} ${F%.*} ${F%%.*}", Ok(&["b.c", "c", "a.b", "a"]));
        check("${F#?} ${F%?.c} ${F#x} ${F%\\*}", Ok(&[".b.c", "a.", "a.b.c", "a.b.c"]));
        check("${F/./-} ${F//./-} ${F/\\//x} ${NO#x}", Ok(&["a-b.c", "a-b-c", "a.b.c", ""]));
        check("${F//[.]/-} ${F/.*/}", Ok(&["a.b.c", "a"]));
    }

    #[test]
    fn takes_quotes_and_names_of_the_shell() {
        check(r#"${NO:-"}"} ${NO:-'a b'} ${NO:-\}}"#, Ok(&["}", "a b", "}"]));
        check("a$ $1x $$x", Ok(&["a$", "x", "x"]));
        check("\"${NO:-\"a b\"}\"", Ok(&["a b"]));
    }

    #[track_caller]
    fn check(text: &str, expect: Result<&[&str], &str>) {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "F" => Some("a.b.c".to_owned()),
            _ => None,
        };
        let words = Scope { lookup: &lookup, escape: '\\' }.words(text);
        let words = words.as_deref().map_err(String::as_str);
        assert_eq!(
            words.map(|words| words.iter().map(String::as_str).collect()),
            expect.map(<[&str]>::to_vec)
        );
    }

    #[test]
    fn splits_and_replaces() {
        check("a  b", Ok(&["a", "b"]));
        check("$A-x ${A}y", Ok(&["one-x", "oney"]));
        check("'$A b' \"$A b\"", Ok(&["$A b", "one b"]));
        check(r#"\$A "\$A" a\ b"#, Ok(&["$A", "$A", "a b"]));
        check("${NO:-d} ${NO-d} ${EMPTY:-d} ${EMPTY-d} ${A:+x}", Ok(&["d", "d", "d", "", "x"]));
        check("${NO:-${A}}", Ok(&["one"]));
        check("a=\"\"", Ok(&["a="]));
        check("'open", Err("a quote is never closed"));
        check("${A", Err("`${` is never closed"));
        check("${A^x}", Err("`^` is not understood after the name `A`"));
        check("${A:%x}", Err("`%` is not understood after the name `A`"));
        check("${}", Err("`${` is not followed by the name of a variable"));
        check("${A%x", Err("`${` is never closed"));
        check("${NO:?must be}", Err("`NO` is not set: must be"));
        check(&format!("{}x{}", "${N:-".repeat(40), "}".repeat(40)), Err("defaults are nested too deep"));
    }
}
