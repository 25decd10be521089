//! Words of an instruction: quotes taken away, variables replaced, as Docker's own small shell does.

use crate::interpolate::name_length;

/// How deep defaults may be nested in each other.
const DEPTH_MAX: usize = 16;

/// What variables stand for, and what protects a `$`.
pub(crate) struct Scope<'a> {
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) escape: char,
}

impl Scope<'_> {
    /// Gives the words of a text.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c.is_whitespace() {
                words.extend(word.take());
                rest = &rest[c.len_utf8()..];
            } else {
                rest = self.piece(rest, word.get_or_insert_default())?;
            }
        }
        words.extend(word);
        Ok(words)
    }

    /// Gives the whole text as one word.
    pub(crate) fn word(&self, text: &str) -> Result<String, String> {
        let mut word = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            rest = self.piece(rest, &mut word)?;
        }
        Ok(word)
    }

    /// Reads one character, quoted part or variable; gives what follows.
    fn piece<'t>(&self, text: &'t str, word: &mut String) -> Result<&'t str, String> {
        let Some(c) = text.chars().next() else { return Ok(text) };
        let after = &text[c.len_utf8()..];
        match c {
            '\'' => {
                let end = after.find('\'').ok_or("a quote is never closed")?;
                word.push_str(&after[..end]);
                Ok(&after[end + 1..])
            }
            '"' => self.double_quoted(after, word),
            '$' => self.variable(after, word, 0),
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

    fn double_quoted<'t>(&self, mut rest: &'t str, word: &mut String) -> Result<&'t str, String> {
        loop {
            let c = rest.chars().next().ok_or("a quote is never closed")?;
            let after = &rest[c.len_utf8()..];
            match c {
                '"' => return Ok(after),
                '$' => rest = self.variable(after, word, 0)?,
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
            let length = name_length(text);
            if length == 0 {
                word.push('$');
            } else {
                word.push_str(&(self.lookup)(&text[..length]).unwrap_or_default());
            }
            return Ok(&text[length..]);
        };
        let end = closing_brace(inner).ok_or("`${` is never closed")?;
        let (body, after) = (&inner[..end], &inner[end + 1..]);
        let (name, operation) = body.split_at(name_length(body));
        if name.is_empty() {
            return Err(format!("`${{{body}}}` names no variable"));
        }
        let value = (self.lookup)(name);
        let colon = operation.strip_prefix(':');
        let value = if colon.is_some() { value.filter(|value| !value.is_empty()) } else { value };
        let operation = colon.unwrap_or(operation);
        let argument = operation.get(1..).unwrap_or("");
        match (operation.chars().next(), value) {
            (None, value) => word.push_str(&value.unwrap_or_default()),
            (Some('-' | '?'), Some(value)) => word.push_str(&value),
            (Some('-'), None) | (Some('+'), Some(_)) => self.nested(argument, word, depth)?,
            (Some('+'), None) => {}
            (Some('?'), None) => return Err(format!("`{name}` is not set: {argument}")),
            _ => return Err(format!("`${{{body}}}` is not understood")),
        }
        Ok(after)
    }

    fn nested(&self, text: &str, word: &mut String, depth: usize) -> Result<(), String> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = match c {
                '$' => self.variable(&rest[1..], word, depth + 1)?,
                _ => self.piece(rest, word)?,
            };
        }
        Ok(())
    }
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<&[&str], &str>) {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
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
        check("${A%x}", Err("`${A%x}` is not understood"));
        check("${NO:?must be}", Err("`NO` is not set: must be"));
        check(&format!("{}x{}", "${N:-".repeat(40), "}".repeat(40)), Err("defaults are nested too deep"));
    }
}
