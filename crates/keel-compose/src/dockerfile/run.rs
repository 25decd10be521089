//! RUN lines: which of their commands install Python packages.

use super::{Run, RunCommand};

/// Splits a shell's line at `&&`, `;` and line ends, outside of quotes. `expand` replaces a command's variables.
pub(crate) fn commands(text: &str, expand: &dyn Fn(&str) -> String) -> Vec<RunCommand> {
    split(text)
        .into_iter()
        .map(|command| match pip_install(&expand(command)) {
            Some(arguments) => RunCommand::Pip(arguments),
            None => RunCommand::Other(command.to_owned()),
        })
        .collect()
}

/// Tells what an exec form runs.
pub(crate) fn command(argv: &[String]) -> RunCommand {
    match pip_arguments(argv) {
        Some(arguments) => RunCommand::Pip(arguments),
        None => RunCommand::Other(argv.join(" ")),
    }
}

impl Run {
    /// The commands that are not `pip install`.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().filter_map(|command| match command {
            RunCommand::Pip(_) => None,
            RunCommand::Other(text) => Some(text.as_str()),
        })
    }
}

fn split(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let (mut start, mut quote, mut escaped) = (0, None, false);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), '\\') => escaped = true,
            (None, ';' | '\n') => {
                commands.push(&text[start..at]);
                start = at + 1;
            }
            (None, '&') if chars.peek().is_some_and(|(_, next)| *next == '&') => {
                chars.next();
                commands.push(&text[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    commands.push(text.get(start..).unwrap_or(""));
    commands
        .into_iter()
        .map(str::trim)
        .filter(|command| !command.is_empty() && !command.starts_with('#'))
        .collect()
}

/// The arguments of `pip install`; anything that needs a real shell is not one.
fn pip_install(command: &str) -> Option<Vec<String>> {
    let words = shlex::split(command)?;
    let shell = |word: &String| {
        matches!(word.as_str(), "|" | "||" | "&" | ">" | ">>" | "<")
            || word.contains("$(")
            || word.contains('`')
    };
    if words.iter().any(shell) {
        return None;
    }
    pip_arguments(&words)
}

fn pip_arguments(words: &[String]) -> Option<Vec<String>> {
    let assigns = |word: &&String| {
        word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && !name.contains('-'))
    };
    let at = words.iter().take_while(assigns).count();
    let words = words.get(at..)?;
    let program = words.first()?.rsplit('/').next()?;
    let rest = if is_versioned(program, "pip") {
        words.get(1..)?
    } else if is_versioned(program, "python") {
        match words.get(1..3)? {
            [m, pip] if m == "-m" && pip == "pip" => words.get(3..)?,
            _ => return None,
        }
    } else {
        return None;
    };
    let (install, arguments) = rest.split_first()?;
    (install == "install").then(|| arguments.to_vec())
}

/// Whether a program is `name`, `name3` or `name3.11`.
fn is_versioned(program: &str, name: &str) -> bool {
    program.strip_prefix(name).is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let shown: Vec<String> = commands(text, &|text| text.replace("$V", "2.0"))
            .iter()
            .map(|command| match command {
                RunCommand::Pip(arguments) => format!("pip {arguments:?}"),
                RunCommand::Other(text) => text.clone(),
            })
            .collect();
        assert_eq!(shown, expect);
    }

    #[test]
    fn finds_pip_install() {
        check("pip install flask", &[r#"pip ["flask"]"#]);
        check(
            "pip3 install --no-cache-dir -r requirements.txt",
            &[r#"pip ["--no-cache-dir", "-r", "requirements.txt"]"#],
        );
        check("python3.11 -m pip install 'flask>=2'", &[r#"pip ["flask>=2"]"#]);
        check("/usr/local/bin/pip install flask==$V", &[r#"pip ["flask==2.0"]"#]);
        check("PIP_NO_CACHE_DIR=1 pip install a b", &[r#"pip ["a", "b"]"#]);
    }

    #[test]
    fn splits_chains() {
        check(
            "apt-get update && pip install -U pip && pip install x; rm -rf /tmp/*",
            &["apt-get update", r#"pip ["-U", "pip"]"#, r#"pip ["x"]"#, "rm -rf /tmp/*"],
        );
        check("echo 'a && b' && true", &["echo 'a && b'", "true"]);
        check("set -e\npip install x\n# no\n", &["set -e", r#"pip ["x"]"#]);
    }

    #[test]
    fn leaves_what_needs_a_shell() {
        check("pip install x | tee log", &["pip install x | tee log"]);
        check("pip install $(cat list)", &["pip install $(cat list)"]);
        check("pip freeze", &["pip freeze"]);
        check("pipenv install", &["pipenv install"]);
        check("python setup.py install", &["python setup.py install"]);
    }
}
