//! The shell commands that stand before nginx in a `command`, an entrypoint or a RUN line: those that make, copy and remove
//! configuration files are followed on the container's files; nothing is run.
//!
//! What isn't understood is collected as it stands, so that somebody can be told that it has no effect.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keel_diag::Span;

use super::{
    envsubst::{Names, envsubst},
    files::{Layer, SeatFiles, matches_wildcard},
};
use crate::{Origin, decode::tidy, interpolate::name_length};

/// Programs that change nothing that counts for a balancer's configuration.
const HARMLESS: &[&str] = &[
    ":", "true", "set", "mkdir", "touch", "chmod", "chown", "sleep", "wait", "trap", "test", "[", "apk",
    "apt", "apt-get", "cd", "unset", "umask", "addgroup", "adduser", "useradd", "groupadd", "usermod", "ls",
    "date", "setcap", "yum", "dnf", "id", "env",
];
/// Programs that wait for another one and then start what follows.
const WAITING: [&str; 5] = ["wait-for-it.sh", "wait-for-it", "wait-for.sh", "wait-for", "dockerize"];
/// Programs that start what follows and do nothing else here.
const WRAPPERS: [&str; 6] = ["exec", "tini", "dumb-init", "sudo", "gosu", "su-exec"];
/// The names of the program in nginx's seat.
const BALANCERS: [&str; 6] = ["nginx", "nginx-debug", "openresty", "angie", "angie-debug", "evenkeel"];

/// What a script comes to.
#[derive(Debug)]
pub(super) struct Shell<'a> {
    pub(super) files: &'a mut SeatFiles,
    pub(super) environment: BTreeMap<String, String>,
    /// The line that has the script.
    pub(super) span: Span,
    /// How nginx is started, if it is.
    pub(super) start: Option<Vec<String>>,
    /// What waits for others or reloads now and then: of no use here.
    pub(super) waits: Vec<String>,
    /// What isn't understood.
    pub(super) not_run: Vec<String>,
}

/// A word and whether a command makes a part of it.
#[derive(Debug, Default)]
struct Word {
    text: String,
    dynamic: bool,
}

/// One command of a pipeline.
#[derive(Debug, Default)]
struct Command {
    words: Vec<Word>,
    input: Option<String>,
    output: Option<(String, Append)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Append {
    Yes,
    No,
}

impl<'a> Shell<'a> {
    pub(super) fn new(files: &'a mut SeatFiles, environment: BTreeMap<String, String>, span: Span) -> Self {
        Self { files, environment, span, start: None, waits: Vec::new(), not_run: Vec::new() }
    }

    /// Follows a script to the point where nginx starts.
    pub(super) fn run(&mut self, script: &str) {
        for statement in statements(script) {
            if self.start.is_none() {
                self.statement(&statement);
            }
        }
    }

    /// Follows one command given as words.
    pub(super) fn argv(&mut self, argv: &[String]) {
        let shown = argv.join(" ");
        let words = argv.iter().map(|text| Word { text: text.clone(), dynamic: false }).collect();
        self.command(&Command { words, ..Command::default() }, None, &shown);
    }

    fn statement(&mut self, text: &str) {
        let first = text.split_whitespace().next().unwrap_or_default();
        if matches!(first, "while" | "until" | "for" | "if" | "case") {
            let reloads = text.contains("-s reload") || text.contains("sleep");
            let list = if reloads && first != "if" { &mut self.waits } else { &mut self.not_run };
            list.push(shorten(text));
            return;
        }
        let mut piped = None;
        for part in split_at(text, "|") {
            // What nginx would write is nobody's configuration.
            if self.start.is_some() {
                return;
            }
            let command = self.parse(&part);
            piped = self.command(&command, piped, text);
        }
    }

    /// Acts as one command of a pipeline does; gives its standard output where that is known.
    fn command(&mut self, command: &Command, piped: Option<String>, shown: &str) -> Option<String> {
        let mut words = command.words.as_slice();
        while let Some((name, value)) = words.first().and_then(|word| assignment(&word.text)) {
            self.environment.insert(name.to_owned(), value.to_owned());
            words = &words[1..];
        }
        let (program, arguments) = words.split_first()?;
        let name = program.text.rsplit('/').next().unwrap_or_default();
        let texts: Vec<&str> = arguments.iter().map(|word| word.text.as_str()).collect();
        let input = || match &command.input {
            Some(path) => self.files.text(&absolute(path)),
            None => piped.clone(),
        };
        let output = match name {
            _ if BALANCERS.contains(&name) => {
                self.balancer(name, &texts);
                return None;
            }
            _ if WRAPPERS.contains(&name) || WAITING.contains(&name) => {
                self.wrapped(name, &texts, shown);
                return None;
            }
            "sh" | "bash" | "ash" | "dash" => {
                self.inner(&texts, shown);
                return None;
            }
            "export" => {
                let set = texts.iter().filter_map(|text| assignment(text));
                self.environment.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
                return None;
            }
            "envsubst" => {
                let names = match arguments {
                    [] => Names::All,
                    [format, ..] if format.dynamic => Names::Defined,
                    [format, ..] => Names::Of(format.text.clone()),
                };
                input().map(|text| envsubst(&text, &self.environment, &names))
            }
            "cat" if texts.is_empty() => input(),
            "cat" => texts
                .iter()
                .map(|path| self.files.text(&absolute(path)))
                .collect::<Option<Vec<_>>>()
                .map(|all| all.concat()),
            "tee" => {
                let text = piped.clone();
                for path in texts.iter().filter(|path| !path.starts_with('-')) {
                    self.write(path, Append::No, text.clone(), shown);
                }
                return text;
            }
            "echo" | "printf" => echo(name, &texts),
            "rm" | "cp" | "mv" | "ln" => {
                self.change(name, &texts, shown);
                return None;
            }
            _ if HARMLESS.contains(&name) && command.output.is_none() => return None,
            _ => {
                self.unknown(shown);
                return None;
            }
        };
        match &command.output {
            Some((path, append)) => {
                self.write(path, *append, output, shown);
                None
            }
            None => output,
        }
    }

    /// nginx itself: its start, or one of its short errands.
    fn balancer(&mut self, name: &str, arguments: &[&str]) {
        let errand = |argument: &&str| matches!(*argument, "-t" | "-T" | "-s" | "-v" | "-V" | "-h" | "-?");
        if !arguments.iter().any(errand) {
            let argv = std::iter::once(name).chain(arguments.iter().copied());
            self.start = Some(argv.map(str::to_owned).collect());
        }
    }

    /// A program that starts what follows: options and what they take come first, up to `--` where there is one.
    fn wrapped(&mut self, name: &str, arguments: &[&str], shown: &str) {
        let plain = |argument: &&str| {
            let program = argument.rsplit('/').next().unwrap_or_default();
            BALANCERS.contains(&program) || matches!(program, "sh" | "bash" | "ash" | "docker-entrypoint.sh")
        };
        let after = match arguments.iter().position(|argument| *argument == "--") {
            Some(at) => arguments.get(at + 1..),
            None if name == "exec" => Some(arguments),
            None => arguments.iter().position(plain).and_then(|at| arguments.get(at..)),
        };
        if WAITING.contains(&name) && !arguments.is_empty() {
            self.waits.push(shorten(shown));
        }
        match after {
            Some(rest) if !rest.is_empty() => {
                let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
                self.argv(&rest);
            }
            _ if WAITING.contains(&name) => {}
            _ => self.unknown(shown),
        }
    }

    /// `sh -c SCRIPT` or `sh FILE`.
    fn inner(&mut self, arguments: &[&str], shown: &str) {
        let mut rest = arguments;
        while let Some((first, more)) = rest.split_first() {
            if !first.starts_with('-') {
                break;
            }
            if first.ends_with('c') && !first.starts_with("--") {
                return match more.first() {
                    Some(script) => self.run(script),
                    None => self.unknown(shown),
                };
            }
            rest = more;
        }
        match rest.first().and_then(|file| self.files.text(&absolute(file))) {
            Some(script) => self.run(&script),
            None => self.unknown(shown),
        }
    }

    fn change(&mut self, name: &str, arguments: &[&str], shown: &str) {
        let paths: Vec<&str> =
            arguments.iter().copied().filter(|argument| !argument.starts_with('-')).collect();
        if name == "rm" {
            for pattern in paths {
                for path in self.matching(pattern) {
                    self.files.add(&path, Layer::Removed, self.span);
                }
            }
            return;
        }
        let Some((target, sources)) = paths.split_last().filter(|(_, sources)| !sources.is_empty()) else {
            return self.unknown(shown);
        };
        let is_folder = target.ends_with('/');
        let target = absolute(target);
        let is_folder = is_folder || !self.files.list(&target).is_empty();
        // A link's target counts from the link's own folder.
        let beside = if is_folder { Some(target.as_path()) } else { target.parent() };
        let from = |source: &&str| match beside.filter(|_| name == "ln" && !source.starts_with('/')) {
            Some(folder) => vec![tidy(&folder.join(source))],
            None => self.matching(source),
        };
        let sources: Vec<PathBuf> = sources.iter().flat_map(from).collect();
        let into = sources.len() > 1 || is_folder;
        for source in sources {
            let Some(origin) = self.files.find(&source) else { return self.unknown(shown) };
            let target = match source.file_name() {
                Some(file) if into => target.join(file),
                _ => target.clone(),
            };
            self.files.add(&target, Layer::Copied(origin), self.span);
            if name == "mv" {
                self.files.add(&source, Layer::Removed, self.span);
            }
        }
    }

    /// Gives the paths that a word of a command names.
    fn matching(&self, pattern: &str) -> Vec<PathBuf> {
        let path = absolute(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return vec![path];
        }
        self.files.matching(&path, &|pattern, name| matches_wildcard(pattern.as_bytes(), name.as_bytes()))
    }

    fn write(&mut self, path: &str, append: Append, text: Option<String>, shown: &str) {
        if path.starts_with("/dev/") || path.starts_with('&') {
            return;
        }
        let Some(text) = text else { return self.unknown(shown) };
        let path = absolute(path);
        let before = match append {
            Append::Yes => self.files.text(&path).unwrap_or_default(),
            Append::No => String::new(),
        };
        self.files.add(&path, Layer::Copied(Origin::Text(before + &text)), self.span);
    }

    fn unknown(&mut self, shown: &str) {
        let shown = shorten(shown);
        if !self.not_run.contains(&shown) {
            self.not_run.push(shown);
        }
    }

    /// Reads the words of one command: quotes taken away, variables replaced.
    fn parse(&self, text: &str) -> Command {
        let mut command = Command::default();
        let mut redirect: Option<&str> = None;
        let mut rest = text.trim();
        while !rest.is_empty() {
            let numbered = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let operator = [">>", ">", "<"].into_iter().find(|operator| numbered.starts_with(operator));
            if let Some(operator) = operator
                && rest.len() - numbered.len() <= 1
            {
                redirect = Some(if rest.starts_with('2') { "2>" } else { operator });
                rest = numbered[operator.len()..].trim_start();
                continue;
            }
            let (word, after) = self.word(rest);
            rest = after.trim_start();
            match redirect.take() {
                None => command.words.push(word),
                Some("<") => command.input = Some(word.text),
                Some(">>") => command.output = Some((word.text, Append::Yes)),
                Some(">") => command.output = Some((word.text, Append::No)),
                Some(_) => {}
            }
        }
        command
    }

    fn word<'t>(&self, text: &'t str) -> (Word, &'t str) {
        let mut word = Word::default();
        let mut quote = None;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (Some('\''), _) => word.text.push(c),
                (None, '\'' | '"') => quote = Some(c),
                (None, _) if c.is_whitespace() || matches!(c, '<' | '>') => break,
                (_, '\\') => {
                    let mut characters = after.chars();
                    match characters.next() {
                        Some('\n') | None => {}
                        Some(next) => {
                            if quote.is_some() && !matches!(next, '$' | '"' | '\\' | '`') {
                                word.text.push('\\');
                            }
                            word.text.push(next);
                        }
                    }
                    rest = characters.as_str();
                    continue;
                }
                (_, '`') => {
                    word.dynamic = true;
                    rest = after.split_once('`').map_or("", |(_, rest)| rest);
                    continue;
                }
                (_, '$') => {
                    rest = self.variable(after, &mut word);
                    continue;
                }
                _ => word.text.push(c),
            }
            rest = after;
        }
        (word, rest)
    }

    /// Reads what follows a `$`.
    fn variable<'t>(&self, text: &'t str, word: &mut Word) -> &'t str {
        if let Some(inner) = text.strip_prefix('(') {
            word.dynamic = true;
            return inner.get(closing(inner)..).unwrap_or_default();
        }
        let (bare, braced) = match text.strip_prefix('{') {
            Some(bare) => (bare, true),
            None => (text, false),
        };
        let length = name_length(bare);
        if length == 0 {
            word.text.push('$');
            return text;
        }
        let (name, after) = bare.split_at(length);
        let value = self.environment.get(name).cloned();
        if !braced {
            word.text.push_str(&value.unwrap_or_default());
            return after;
        }
        let (default, rest) = after.split_once('}').unwrap_or((after, ""));
        let default = default.trim_start_matches(':').trim_start_matches(['-', '=']);
        word.text.push_str(&value.filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned()));
        rest
    }
}

/// Gives the length of a text up to and with the parenthesis that closes it.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

fn assignment(word: &str) -> Option<(&str, &str)> {
    let length = name_length(word);
    let value = word.get(length..)?.strip_prefix('=')?;
    (length > 0).then(|| (word.get(..length).unwrap_or_default(), value))
}

fn absolute(path: &str) -> PathBuf {
    tidy(&Path::new("/").join(path))
}

/// Gives what `echo` writes, as far as that is plain; `printf` only where nothing is to be formatted.
fn echo(name: &str, arguments: &[&str]) -> Option<String> {
    let is_flag = |word: &&&str| matches!(**word, "-n" | "-e" | "-en" | "-ne");
    let flags = arguments.iter().take_while(is_flag).count();
    let (flags, words) = arguments.split_at(flags);
    let text = words.join(" ");
    let escaped = name == "printf" || flags.iter().any(|flag| flag.contains('e'));
    let text = if escaped { text.replace("\\n", "\n").replace("\\t", "\t") } else { text };
    let ends = name == "echo" && !flags.iter().any(|flag| flag.contains('n'));
    (name == "echo" || !text.contains('%')).then(|| if ends { text + "\n" } else { text })
}

/// Splits a script into statements; a loop or condition is one, up to its end.
fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for part in split_at(script, ";\n&") {
        let first = part.split_whitespace().next().unwrap_or_default();
        let opens = matches!(first, "while" | "until" | "for" | "if" | "case");
        let closes = matches!(first, "done" | "fi" | "esac");
        let inner =
            part.split_whitespace().skip(1).filter(|word| matches!(*word, "while" | "until" | "if")).count();
        match &mut open {
            None if opens => open = Some((part, 1)),
            None => found.push(part),
            Some((text, depth)) => {
                text.push_str("; ");
                text.push_str(&part);
                *depth += usize::from(opens) + if first == "do" || first == "then" { inner } else { 0 };
                *depth -= usize::from(closes);
                if *depth == 0 {
                    found.extend(open.take().map(|(text, _)| text));
                }
            }
        }
    }
    found.extend(open.map(|(text, _)| text));
    found
}

/// Splits at any of these characters, doubled ones too, outside of quotes, substitutions and redirections.
fn split_at(text: &str, separators: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quote, mut escaped, mut depth, mut before) = (None, false, 0usize, ' ');
    let mut comment = false;
    for c in text.chars() {
        if comment && c != '\n' {
            continue;
        }
        comment = false;
        let ends = quote.is_none() && !escaped && depth == 0 && separators.contains(c);
        let redirects = c == '&' && matches!(before, '>' | '<');
        if !escaped && quote.is_none() && c == '#' && before.is_whitespace() {
            comment = true;
            continue;
        }
        if ends && !redirects {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), '\\') => escaped = true,
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = c;
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Shows a command on one line of bounded length.
fn shorten(text: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH_MAX) {
        Some((at, _)) => format!("{} ...", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use keel_diag::Sources;

    use super::*;

    /// Follows a script and gives what it says: the file, the start, what waits, what isn't run.
    fn follow(script: &str) -> String {
        let span = Span::new(Sources::default().add("x", String::new()), 0..0);
        let mut files = SeatFiles::default();
        for (path, text) in [("/t/site.tmpl", "to $UP $host\n"), ("/etc/nginx/conf.d/default.conf", "own\n")]
        {
            files.add(Path::new(path), Layer::Copied(Origin::Text(text.into())), span);
        }
        let environment = BTreeMap::from([("UP".to_owned(), "app:5000".to_owned())]);
        let mut shell = Shell::new(&mut files, environment, span);
        shell.run(script);
        let (start, waits, not_run) = (shell.start.unwrap_or_default(), shell.waits, shell.not_run);
        let made = files
            .below(Path::new("/etc"))
            .into_iter()
            .map(|path| format!("{}={}", path.display(), files.text(&path).unwrap_or_default().trim_end()));
        format!("{} | {start:?} | {waits:?} | {not_run:?}", made.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn follows_what_people_write_before_nginx() {
        let check = |script: &str, expect: &str| assert_eq!(follow(script), expect, "{script}");
        let own = "/etc/nginx/conf.d/default.conf=own";
        let made = "/etc/nginx/conf.d/default.conf=to app:5000 $host";
        let start = r#"["nginx", "-g", "daemon off;"]"#;
        check(
            "envsubst '$UP' < /t/site.tmpl > /etc/nginx/conf.d/default.conf && nginx -g 'daemon off;'",
            &format!("{made} | {start} | [] | []"),
        );
        check(
            "cat /t/site.tmpl | envsubst \"\\$UP\" | tee /etc/nginx/conf.d/default.conf; exec nginx -g \"daemon off;\"",
            &format!("{made} | {start} | [] | []"),
        );
        check(
            "envsubst \"`env | awk -F = '{printf \" \\$$%s\", $1}'`\" </t/site.tmpl >/etc/nginx/conf.d/default.conf\nnginx -g 'daemon off;'",
            &format!("{made} | {start} | [] | []"),
        );
        check(
            "while :; do sleep 6h & wait $!; nginx -s reload; done & nginx -g \"daemon off;\"",
            &format!("{own} | {start} | [\"while :; do sleep 6h; wait $!; nginx -s reload; done\"] | []"),
        );
        check(
            "rm -f /etc/nginx/conf.d/*; echo 'a;' > /etc/nginx/conf.d/a.conf; echo b >> /etc/nginx/conf.d/a.conf; nginx -t",
            "/etc/nginx/conf.d/a.conf=a;\nb | [] | [] | []",
        );
        check(
            "./wait-for-it.sh app:5000 -t 30 -- nginx -g 'daemon off;'",
            &format!(
                "{own} | {start} | [\"./wait-for-it.sh app:5000 -t 30 -- nginx -g 'daemon off;'\"] | []"
            ),
        );
        check(
            "sed -i s/a/b/ /etc/nginx/nginx.conf # why\n",
            &format!("{own} | [] | [] | [\"sed -i s/a/b/ /etc/nginx/nginx.conf\"]"),
        );
        check("mv /etc/nginx/conf.d/default.conf /etc/x", "/etc/x=own | [] | [] | []");
        check(
            "if [ ! -f /x ]; then if a; then b; fi; openssl req; fi; nginx",
            &format!(
                "{own} | [\"nginx\"] | [] | [\"if [ ! -f /x ]; then if a; then b; fi; openssl req; fi\"]"
            ),
        );
        check(
            "E=1 nginx -c /srv/a.conf 2>&1 | tee log",
            &format!("{own} | [\"nginx\", \"-c\", \"/srv/a.conf\"] | [] | []"),
        );
    }
}
