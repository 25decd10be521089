//! What `echo` and `printf` write, as far as all shells write the same.

use super::expand::TEXT_BYTES_MAX;

/// What `echo` or `printf` writes; `None` where shells differ.
pub(super) fn echo(name: &str, arguments: &[&str]) -> Option<String> {
    if name == "printf" {
        let arguments = arguments.strip_prefix(&["--"]).unwrap_or(arguments);
        let (format, arguments) = arguments.split_first()?;
        return (!format.starts_with('-')).then(|| printf(format, arguments)).flatten();
    }
    let is_flag = |word: &&&str| {
        word.strip_prefix('-').is_some_and(|flags| {
            !flags.is_empty() && flags.chars().all(|flag| matches!(flag, 'n' | 'e' | 'E'))
        })
    };
    let flags = arguments.iter().take_while(is_flag).count();
    let (flags, words) = arguments.split_at(flags);
    let text = words.join(" ");
    // Without `-e` shells differ on escapes, and on `-E` itself.
    let text = match () {
        () if flags.iter().any(|flag| flag.contains('E')) => return None,
        () if flags.iter().any(|flag| flag.contains('e')) => unescaped(&text)?,
        () if has_escape(&text) => return None,
        () => text,
    };
    let ends = !flags.iter().any(|flag| flag.contains('n'));
    Some(if ends { text + "\n" } else { text })
}

fn has_escape(text: &str) -> bool {
    text.match_indices('\\').any(|(at, _)| {
        text.get(at + 1..).unwrap_or_default().starts_with(|c: char| "abcefnrtv0123456789x\\".contains(c))
    })
}

/// Replaces the escapes that all shells know; `None` where there are others.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('\\') => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

/// Writes a format with `%s`, `%d` and `%%` for its arguments, again as long as there are some. `None` for anything else.
fn printf(format: &str, arguments: &[&str]) -> Option<String> {
    let format = unescaped(format)?;
    let mut arguments = arguments.iter();
    let mut out = String::new();
    loop {
        let before = arguments.len();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            match (c, (c == '%').then(|| chars.next()).flatten()) {
                ('%', Some('%')) => out.push('%'),
                ('%', Some('s')) => out.push_str(arguments.next().copied().unwrap_or_default()),
                ('%', Some('d' | 'i')) => {
                    let number: i64 = arguments.next().map_or(Ok(0), |word| word.parse()).ok()?;
                    out.push_str(&number.to_string());
                }
                ('%', _) => return None,
                (c, _) => out.push(c),
            }
            if out.len() > TEXT_BYTES_MAX {
                return None;
            }
        }
        if arguments.len() == 0 {
            return Some(out);
        }
        // Arguments that the format doesn't ask for are left out.
        if arguments.len() == before {
            return Some(out);
        }
    }
}
