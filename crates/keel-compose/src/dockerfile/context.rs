//! Which files of its build context a Dockerfile uses.

use keel_diag::Sources;

use super::{lines, words::Scope};

/// The patterns of all that COPY and ADD take from the build context, in every stage. `.` where all of it may be used: a
/// variable decides, or a RUN mounts it.
pub fn context_patterns(dockerfile: &str) -> Vec<String> {
    let source = Sources::default().add("Dockerfile", "");
    let (lines, escape) = lines::lines(source, dockerfile);
    let mut patterns = Vec::new();
    for line in &lines {
        match line.keyword.as_str() {
            "COPY" | "ADD" => patterns.extend(sources(&line.rest, escape)),
            "RUN" if mounts_context(&line.rest) => patterns.push(".".to_owned()),
            "ONBUILD" => patterns.push(".".to_owned()),
            _ => {}
        }
    }
    patterns.sort();
    patterns.dedup();
    patterns
}

fn mounts_context(rest: &str) -> bool {
    rest.split_whitespace()
        .take_while(|word| word.starts_with("--"))
        .filter_map(|word| word.strip_prefix("--mount="))
        .any(|mount| mount.split(',').all(|part| !part.starts_with("from=") && part != "type=cache"))
}

fn sources(rest: &str, escape: char) -> Vec<String> {
    let all = || vec![".".to_owned()];
    let mut rest = rest.trim_start();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        if flag.starts_with("from=") {
            return Vec::new();
        }
        rest = after.trim_start();
    }
    if rest.contains('$') {
        return all();
    }
    let scope = Scope { lookup: &|_| None, escape };
    let words = match exec_form(rest) {
        Some(words) => words,
        None => scope.words(rest).unwrap_or_else(|_| all()),
    };
    let Some((_, sources)) = words.split_last() else { return Vec::new() };
    let in_context = sources.iter().filter(|word| !word.starts_with("<<") && !word.contains("://"));
    in_context.map(|word| clean(word)).collect()
}

/// Reads the form `["a", "b"]`. What holds anything but plain strings isn't that form.
fn exec_form(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let quoted = |word: &str| Some(word.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned());
    inner.split(',').map(quoted).collect()
}

/// Paths start at the context's root, however they are written.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_taken_from_the_context() {
        let check = |text: &str, expect: &[&str]| assert_eq!(context_patterns(text), expect, "{text}");
        check("FROM x\nCOPY app.py ./lib/ /srv/\n", &["app.py", "lib"]);
        check("FROM x\nCOPY . .\n", &["."]);
        check("FROM x AS build\nADD src src\nFROM y\nCOPY --from=build /src /\n", &["src"]);
        check("FROM x\nCOPY --chown=1:1 [\"a b\", \"c\", \"/d/\"]\n", &["a b", "c"]);
        check("FROM x\nCOPY a \\\n  # a comment\n  b /d/\n", &["a", "b"]);
        check("FROM x\nARG D\nCOPY $D /d\n", &["."]);
        check("FROM x\nADD https://example.org/a /a\n", &[]);
        check("FROM x\nCOPY <<EOF /a\nCOPY b /c\nEOF\n", &[]);
        check("FROM x\nCOPY *.py /a/\n", &["*.py"]);
        check("FROM x\nCOPY ../x /a\n", &["."]);
        check("FROM x\nRUN --mount=type=bind,source=.,target=/src make\n", &["."]);
        check("FROM x\nRUN --mount=type=cache,target=/root/.cache pip install x\n", &[]);
        check("FROM x\nRUN --mount=type=bind,from=build,target=/src make\n", &[]);
        check("FROM x\nCMD app\n", &[]);
    }
}
