//! A command line that is split into words as Compose does (go-shellwords): nothing is run and nothing is replaced.
//!
//! Quotes and `$(...)` keep words together; a backslash makes the next character an ordinary one, `\n` and `\t` those
//! that they name, and joins lines. An operator of a shell that isn't quoted ends the command: without a shell it means
//! nothing, and what follows it was never run by Compose.

use std::ops::Range;

/// A command line in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) words: Vec<String>,
    /// The operator that ends the command, where there is one.
    pub(crate) operator: Option<Range<usize>>,
}

/// What keeps words together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    Single,
    Double,
    Backticks,
    Parentheses,
}

/// Splits a command line; `None` if a quote is never closed.
pub(crate) fn split(line: &str) -> Option<Words> {
    let mut result = Words::default();
    let mut word: Option<String> = None;
    let mut within = Within::Nothing;
    let mut characters = line.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == '\\' && within != Within::Single {
            let (_, next) = characters.next()?;
            escaped(next, within, &mut word);
            continue;
        }
        within = match (within, c) {
            (Within::Nothing, ' ' | '\t' | '\r' | '\n') => {
                result.words.extend(word.take());
                continue;
            }
            (Within::Nothing, ';' | '&' | '|' | '<' | '>') => {
                let more = line[at..].chars().take_while(|next| ";&|<>".contains(*next)).count();
                result.operator = Some(at..at + more);
                // The number of a descriptor belongs to its operator.
                word = word.filter(|word| c != '>' || !word.bytes().all(|b| b.is_ascii_digit()));
                break;
            }
            (Within::Nothing, '\'') => Within::Single,
            (Within::Nothing, '"') => Within::Double,
            (Within::Single, '\'') | (Within::Double, '"') => Within::Nothing,
            (now, c) => {
                let text = word.get_or_insert_default();
                let next = match (now, c) {
                    (Within::Nothing, '`') => Within::Backticks,
                    (Within::Nothing, '(') if text.ends_with('$') => Within::Parentheses,
                    (Within::Backticks, '`') | (Within::Parentheses, ')') => Within::Nothing,
                    _ => now,
                };
                text.push(c);
                next
            }
        };
        // A quote alone makes a word, an empty one.
        word.get_or_insert_default();
    }
    result.words.extend(word);
    (within == Within::Nothing).then_some(result)
}

/// Takes the character after a backslash.
fn escaped(c: char, within: Within, word: &mut Option<String>) {
    match (within, c) {
        (Within::Backticks | Within::Parentheses, c) => word.get_or_insert_default().extend(['\\', c]),
        (_, '\n') => {}
        (_, 'n') => word.get_or_insert_default().push('\n'),
        (_, 't') => word.get_or_insert_default().push('\t'),
        (_, c) => word.get_or_insert_default().push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_compose_does() {
        let check = |line: &str, expect: &[&str]| {
            let words = split(line).map(|words| words.words);
            assert_eq!(words, Some(owned(expect)), "{line}");
        };
        check("", &[]);
        check("a  b\t c\n", &["a", "b", "c"]);
        check(r#"a "b c" d\ e 'f  g' --x="y z""#, &["a", "b c", "d e", "f  g", "--x=y z"]);
        check(r#"sh -c "echo \"$HOME\" 'x'""#, &["sh", "-c", "echo \"$HOME\" 'x'"]);
        check(
            r#"bash -c 'eval "echo \"$(cat ~/t)\"" > ~/k && x'"#,
            &["bash", "-c", r#"eval "echo \"$(cat ~/t)\"" > ~/k && x"#],
        );
        // Neither a comment nor the end of the command.
        check("redis-server --requirepass #1 --save", &["redis-server", "--requirepass", "#1", "--save"]);
        check("'' a \"\"", &["", "a", ""]);
        check("gunicorn \\\n  --bind x \\\n  app", &["gunicorn", "--bind", "x", "app"]);
        check(r#""a\nb\t" '\n' \\ "\d""#, &["a\nb\t", "\\n", "\\", "d"]);
        check("echo $(date +%s) `a b` x", &["echo", "$(date +%s)", "`a b`", "x"]);
        check("app:create()", &["app:create()"]);
        check("/data{1...2} a=*.b é", &["/data{1...2}", "a=*.b", "é"]);
    }

    #[test]
    fn an_operator_ends_the_command() {
        let check = |line: &str, expect: &[&str], operator: &str| {
            let found = split(line).unwrap();
            assert_eq!(found.words, owned(expect), "{line}");
            assert_eq!(found.operator.map(|range| &line[range]), Some(operator), "{line}");
        };
        check("npm ci && npm start", &["npm", "ci"], "&&");
        check("curl http://a/?x=1&y=2", &["curl", "http://a/?x=1"], "&");
        check("a 2>/dev/null", &["a"], ">");
        check("a b2>c", &["a", "b2"], ">");
        check("a; b", &["a"], ";");
        assert_eq!(split("a '&&' \"|\" \\;").unwrap().operator, None);
    }

    #[test]
    fn what_is_never_closed_is_refused() {
        for line in ["a 'b", "a \"b", "a\\", "`a", "$(a"] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}
