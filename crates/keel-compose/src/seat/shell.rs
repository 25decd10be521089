//! The shell commands that stand before nginx in a `command`, an entrypoint or a RUN line. Those that make, copy and remove
//! configuration files are followed on the container's files; no command is run.
//!
//! Commands that aren't understood are collected, so that a diagnostic can name them as without effect. So are commands
//! that depend on a condition: neither branch is followed. A script may be of any length and call itself: [`LIMITS`] end it.

mod effect;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use keel_diag::Span;

use super::{
    change::matching,
    envsubst::{Names, envsubst, is_used},
    expand::{Append, Command, Input, TEXT_BYTES_MAX, Unset, Variables, Word, assignment},
    files::SeatFiles,
    print::echo,
    script::{Kind, Operator, Part, Statement, bare, pieces, statements},
};
use crate::{decode::tidy, interpolate::name_length};
use effect::{Effect, HARMLESS, TESTS, effect, effect_inside};

/// Programs that wait for another one and then start what follows.
const WAITING: [&str; 5] = ["wait-for-it.sh", "wait-for-it", "wait-for.sh", "wait-for", "dockerize"];
/// Programs that start what follows and do nothing else here.
const WRAPPERS: [&str; 6] = ["exec", "tini", "dumb-init", "sudo", "gosu", "su-exec"];
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "dash"];
/// The names of the program in nginx's seat.
const BALANCERS: [&str; 6] = ["nginx", "nginx-debug", "openresty", "angie", "angie-debug", "evenkeel"];

/// How far a script is followed.
pub(super) struct Limits {
    /// Scripts that call each other.
    pub(super) depth: usize,
    /// Commands in all.
    pub(super) commands: usize,
    /// Bytes of all words and texts together.
    pub(super) bytes: usize,
}

pub(super) const LIMITS: Limits = Limits { depth: 16, commands: 10_000, bytes: 64 << 20 };

/// What a script comes to.
#[derive(Debug)]
pub(super) struct Shell<'a> {
    pub(super) files: &'a mut SeatFiles,
    pub(super) variables: Variables,
    /// The current folder; `None` where it isn't known.
    pub(super) folder: Option<PathBuf>,
    /// The line that has the script.
    pub(super) span: Span,
    /// How nginx is started, if it is.
    pub(super) start: Option<Vec<String>>,
    /// What waits for others or reloads now and then: of no use here.
    pub(super) waits: Vec<String>,
    /// What isn't understood.
    pub(super) not_run: Vec<NotRun>,
    /// Which limit has ended it.
    pub(super) cut: Option<&'static str>,
    /// Functions, and whether they change anything.
    functions: BTreeMap<String, Effect>,
    ended: bool,
    depth: usize,
    commands: usize,
    bytes: usize,
}

/// A command that isn't followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotRun {
    pub(super) shown: String,
    /// All of it, and its words as they are known.
    pub(super) text: String,
    /// Where it would run.
    pub(super) folder: Option<PathBuf>,
}

/// What is known of a command's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Success,
    /// It isn't followed.
    Unfollowed,
    /// It asks something.
    Question,
}

/// What a command gives.
#[derive(Debug)]
pub(super) struct Done {
    status: Status,
    output: Option<String>,
}

impl Done {
    pub(super) fn quietly() -> Self {
        Self { status: Status::Success, output: Some(String::new()) }
    }

    fn with(output: String) -> Self {
        Self { status: Status::Success, output: Some(output) }
    }

    fn question() -> Self {
        Self { status: Status::Question, output: None }
    }
}

impl<'a> Shell<'a> {
    pub(super) fn new(
        files: &'a mut SeatFiles,
        environment: BTreeMap<String, String>,
        unset: Unset,
        folder: PathBuf,
        span: Span,
    ) -> Self {
        // The base image sets these.
        let of_image = ["PATH", "HOME", "PWD", "NGINX_VERSION", "NJS_VERSION", "PKG_RELEASE"];
        let unknown: BTreeSet<String> = of_image.map(str::to_owned).into();
        let variables = Variables {
            unknown: unknown.into_iter().filter(|name| !environment.contains_key(name)).collect(),
            exported: environment,
            own: BTreeMap::new(),
            positional: Vec::new(),
            exports_all: false,
            unset,
        };
        Self {
            files,
            variables,
            folder: Some(folder),
            span,
            start: None,
            waits: Vec::new(),
            not_run: Vec::new(),
            cut: None,
            functions: BTreeMap::new(),
            ended: false,
            depth: 0,
            commands: 0,
            bytes: 0,
        }
    }

    /// Follows a script to the point where nginx starts.
    pub(super) fn run(&mut self, script: &str) {
        if !self.descend() {
            return;
        }
        let statements = statements(script);
        // An image whose RUN line is one chain exists: each part of it has ended well.
        let is_chain = self.variables.unset == Unset::Unknown
            && statements.iter().skip(1).all(|statement| statement.operator == Operator::And);
        let mut status = Status::Success;
        for statement in &statements {
            if self.is_over() {
                break;
            }
            status = match (statement.operator, status) {
                _ if is_chain => self.statement(statement),
                (Operator::Then, _) | (Operator::And, Status::Success) => self.statement(statement),
                (Operator::Or, Status::Success) => Status::Success,
                // What isn't followed is named already; nginx is started all the same.
                (Operator::And, Status::Unfollowed) if starts(statement) => self.statement(statement),
                (Operator::And | Operator::Or, status) => {
                    self.leave(statement);
                    status
                }
            };
        }
        self.depth -= 1;
    }

    fn is_over(&self) -> bool {
        self.start.is_some() || self.ended || self.cut.is_some()
    }

    fn descend(&mut self) -> bool {
        if self.depth >= LIMITS.depth {
            self.cut = Some("its scripts call each other more than 16 deep");
            return false;
        }
        self.depth += 1;
        true
    }

    /// Follows one command given as words.
    pub(super) fn argv(&mut self, argv: &[String]) {
        if !self.descend() {
            return;
        }
        let shown = argv.join(" ");
        let words = argv.iter().map(|text| Word { text: text.clone(), ..Word::default() }).collect();
        self.command(&Command { words, ..Command::default() }, None, &shown);
        self.depth -= 1;
    }

    fn statement(&mut self, statement: &Statement) -> Status {
        let mut piped = None;
        let mut status = Status::Success;
        let shown = statement.shown();
        for part in &statement.parts {
            // What nginx would write is nobody's configuration.
            if self.start.is_some() {
                break;
            }
            self.commands += 1;
            if self.commands > LIMITS.commands {
                self.cut = Some("it has more than 10,000 commands");
            }
            if self.cut.is_some() {
                break;
            }
            let done = self.part(part, piped, &shown);
            (status, piped) = (done.status, done.output);
        }
        status
    }

    fn part(&mut self, part: &Part, piped: Option<String>, shown: &str) -> Done {
        match &part.kind {
            Kind::Simple => {
                self.variables.assign_defaults(&part.text);
                let command = self.variables.command(&part.text, &part.heredocs);
                let words = command.words.iter().chain(command.assignments.iter().map(|(_, word)| word));
                self.spend(words.map(|word| word.text.len()).sum());
                let heredocs = part.heredocs.iter().filter(|heredoc| heredoc.expands);
                let mut texts = heredocs.map(|heredoc| &heredoc.text).chain([&part.text]);
                if texts.any(|text| effect_inside(text, 0) == Effect::Changes) {
                    self.unknown(shown);
                }
                self.command(&command, piped, shown)
            }
            Kind::Function { name } => {
                self.functions.insert(name.clone(), effect(&part.text));
                Done::quietly()
            }
            Kind::Compound => {
                let is_loop = part.text.starts_with("while")
                    || part.text.starts_with("until")
                    || part.text.starts_with("for");
                if is_loop && (part.text.contains("-s reload") || part.text.contains("sleep")) {
                    self.waits.push(shorten(&part.text));
                    return Done::quietly();
                }
                self.forget(&part.text);
                match effect(&part.text) {
                    Effect::None => Done::question(),
                    Effect::Changes => self.unknown(&part.text),
                }
            }
        }
    }

    /// Names a statement that a condition decides on, if it would change anything.
    fn leave(&mut self, statement: &Statement) {
        for part in &statement.parts {
            self.forget(&part.text);
            if effect(&part.text) == Effect::Changes
                || self.functions.get(part.text.as_str()) == Some(&Effect::Changes)
            {
                self.unknown(&statement.shown());
                return;
            }
        }
    }

    /// What isn't run might set a variable or the folder: neither is known then.
    fn forget(&mut self, text: &str) {
        for piece in pieces(text) {
            let piece = bare(&piece).trim_start_matches("export ");
            if piece.starts_with("cd ") {
                self.folder = None;
            }
            let name = piece.get(..name_length(piece)).filter(|name| !name.is_empty());
            if let Some(name) =
                name.filter(|name| piece.get(name.len()..).is_some_and(|rest| rest.starts_with('=')))
            {
                self.variables.unknown.insert(name.to_owned());
            }
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > LIMITS.bytes {
            self.cut = Some("its texts are longer than 64 MiB");
        }
    }

    /// Acts as one command of a pipeline does.
    fn command(&mut self, command: &Command, piped: Option<String>, shown: &str) -> Done {
        if command.words.is_empty() && command.outputs.is_empty() {
            for (name, word) in &command.assignments {
                self.variables.set(name, word);
            }
            return Done::quietly();
        }
        let done = if command.assignments.is_empty() {
            self.program(command, piped, shown)
        } else {
            self.spend(self.variables.bytes());
            let before = self.variables.clone();
            for (name, word) in &command.assignments {
                self.variables.set(name, word);
                self.variables.export(name);
            }
            let done = self.program(command, piped, shown);
            self.variables = before;
            done
        };
        if done.status == Status::Unfollowed {
            return done;
        }
        let mut output = done.output;
        self.spend(output.as_ref().map_or(0, String::len));
        for (path, append) in &command.outputs {
            if path.text.starts_with("/dev/") && !path.dynamic {
                output = Some(String::new());
                continue;
            }
            if self.write(path, *append, output.take()).is_none() {
                return self.unknown(shown);
            }
            output = Some(String::new());
        }
        Done { status: done.status, output }
    }

    fn program(&mut self, command: &Command, piped: Option<String>, shown: &str) -> Done {
        let Some((program, arguments)) = command.words.split_first() else { return Done::quietly() };
        if program.dynamic {
            return self.unknown(shown);
        }
        let name = program.text.rsplit('/').next().unwrap_or_default();
        let dynamic = arguments.iter().any(|word| word.dynamic);
        match self.functions.get(name) {
            Some(Effect::None) => return Done::question(),
            Some(Effect::Changes) => return self.unknown(shown),
            None => {}
        }
        let texts: Vec<&str> = arguments.iter().map(|word| word.text.as_str()).collect();
        match name {
            ":" | "true" => Done::quietly(),
            "!" => match effect(&texts.join(" ")) {
                Effect::None => Done::question(),
                Effect::Changes => self.unknown(shown),
            },
            "env" | "printenv" if texts.is_empty() => Done::question(),
            "command" if matches!(texts.first(), Some(&"-v" | &"-V")) => Done::question(),
            "exit" => {
                self.ended = true;
                Done::quietly()
            }
            // What is shown to somebody changes nothing.
            "echo" | "printf" if dynamic => Done { status: Status::Success, output: None },
            "echo" | "printf" => Done { status: Status::Success, output: echo(name, &texts) },
            "envsubst" => self.substitute(command, piped, shown),
            "export" | "readonly" | "local" | "declare" | "typeset" => self.declare(name, arguments, shown),
            "cd" => {
                self.folder = match texts.as_slice() {
                    [path] if *path != "-" && !dynamic => self.absolute(path),
                    _ => None,
                };
                Done::quietly()
            }
            "unset" => {
                texts.iter().for_each(|name| self.variables.unset(name));
                Done::quietly()
            }
            _ if TESTS.contains(&name) => Done::question(),
            _ if HARMLESS.contains(&name) => Done { status: Status::Success, output: None },
            _ if dynamic => self.unknown(shown),
            _ if BALANCERS.contains(&name) => self.balancer(name, &texts),
            _ if WRAPPERS.contains(&name) || WAITING.contains(&name) => self.wrapped(name, &texts, shown),
            _ if SHELLS.contains(&name) => self.inner(&texts, shown),
            "." | "source" => self.source(&texts, shown),
            "set" => self.set(&texts),
            "shift" if texts.is_empty() && !self.variables.positional.is_empty() => {
                self.variables.positional.remove(0);
                Done::quietly()
            }
            "cat" | "tee" => {
                let done = match name {
                    "cat" => self.cat(command, arguments, piped),
                    _ => self.tee(arguments, self.input(command, piped)),
                };
                done.map_or_else(|| self.unknown(shown), Done::with)
            }
            "rm" | "cp" | "mv" | "ln" | "mkdir" | "touch" => {
                self.change(name, arguments).map_or_else(|| self.unknown(shown), |()| Done::quietly())
            }
            _ => self.called(&program.text, &texts, shown),
        }
    }

    /// A script whose commands are read as this one's.
    fn source(&mut self, arguments: &[&str], shown: &str) -> Done {
        match arguments.first().and_then(|path| self.script(path)) {
            Some(script) => {
                self.run(&script);
                Done::question()
            }
            None => self.unknown(shown),
        }
    }

    /// A script that is called by its path.
    fn called(&mut self, program: &str, arguments: &[&str], shown: &str) -> Done {
        let script = Some(program).filter(|program| program.contains('/')).and_then(|path| self.script(path));
        match script.filter(|script| is_for_a_shell(script)) {
            Some(script) => self.apart(&script, arguments),
            None => self.unknown(shown),
        }
    }

    /// Follows a script that a shell of its own runs: what it sets stays there.
    fn apart(&mut self, script: &str, arguments: &[&str]) -> Done {
        self.spend(self.variables.bytes());
        let inner = Variables {
            own: BTreeMap::new(),
            exports_all: false,
            positional: arguments.iter().map(|word| (*word).to_owned()).collect(),
            ..self.variables.clone()
        };
        let before = std::mem::replace(&mut self.variables, inner);
        let functions = std::mem::take(&mut self.functions);
        let (folder, not_run) = (self.folder.clone(), self.not_run.len());
        self.run(script);
        self.ended = false;
        (self.variables, self.functions, self.folder) = (before, functions, folder);
        let status = if self.not_run.len() == not_run { Status::Success } else { Status::Unfollowed };
        Done { status, output: None }
    }

    fn script(&self, path: &str) -> Option<String> {
        self.files.text(&self.absolute(path)?)
    }

    pub(super) fn absolute(&self, path: &str) -> Option<PathBuf> {
        match &self.folder {
            _ if path.starts_with('/') => Some(tidy(Path::new(path))),
            Some(folder) if !path.is_empty() => Some(tidy(&Path::new("/").join(folder).join(path))),
            _ => None,
        }
    }

    fn set(&mut self, arguments: &[&str]) -> Done {
        if let Some(at) = arguments.iter().position(|argument| *argument == "--") {
            let rest = arguments.get(at + 1..).unwrap_or_default();
            self.variables.positional = rest.iter().map(|word| (*word).to_owned()).collect();
        } else if let Some(first) = arguments.first()
            && !first.starts_with(['-', '+'])
        {
            self.variables.positional = arguments.iter().map(|word| (*word).to_owned()).collect();
        }
        let exports = |word: &&str| *word == "allexport" || (word.starts_with('-') && word.contains('a'));
        if arguments.iter().any(exports) {
            let own = std::mem::take(&mut self.variables.own);
            self.variables.exported.extend(own);
            self.variables.exports_all = true;
        }
        Done::quietly()
    }

    fn declare(&mut self, name: &str, arguments: &[Word], shown: &str) -> Done {
        for word in arguments {
            let declared = match assignment(word) {
                Some((declared, value)) => {
                    self.variables.set(&declared, &value);
                    declared
                }
                None if word.dynamic || word.text.starts_with('-') => return self.unknown(shown),
                None => word.text.clone(),
            };
            if name == "export" {
                self.variables.export(&declared);
            }
        }
        Done::quietly()
    }

    fn input(&self, command: &Command, piped: Option<String>) -> Option<String> {
        match &command.input {
            Some(Input::File(word)) if !word.dynamic => self.files.text(&self.absolute(&word.text)?),
            Some(Input::Text(word)) if !word.dynamic => Some(word.text.clone()),
            Some(_) => None,
            None => piped,
        }
    }

    fn substitute(&mut self, command: &Command, piped: Option<String>, shown: &str) -> Done {
        let names = match command.words.get(1) {
            None => Names::All,
            Some(format) if format.dynamic => Names::Defined,
            Some(format) => Names::Of(format.text.clone()),
        };
        let Some(text) = self.input(command, piped) else { return self.unknown(shown) };
        let variables = &self.variables;
        let is_unknown = |name: &str| {
            variables.unknown.contains(name)
                || (variables.unset == Unset::Unknown && !variables.exported.contains_key(name))
        };
        if is_used(&text, &names, &is_unknown) {
            return self.unknown(shown);
        }
        let text = envsubst(&text, &variables.exported, &names);
        self.spend(text.len());
        Done::with(text)
    }

    fn cat(&self, command: &Command, arguments: &[Word], piped: Option<String>) -> Option<String> {
        if arguments.is_empty() {
            return self.input(command, piped);
        }
        let mut all = String::new();
        for word in arguments {
            if word.text.starts_with('-') {
                return None;
            }
            for path in matching(self, word)? {
                all.push_str(&self.files.text(&path)?);
                if all.len() > TEXT_BYTES_MAX {
                    return None;
                }
            }
        }
        Some(all)
    }

    fn tee(&mut self, arguments: &[Word], text: Option<String>) -> Option<String> {
        let mut append = Append::No;
        for word in arguments {
            match word.text.as_str() {
                "-a" | "--append" => append = Append::Yes,
                option if option.starts_with('-') => return None,
                path if path.starts_with("/dev/") => {}
                _ => self.write(word, append, text.clone())?,
            }
        }
        text
    }

    fn write(&mut self, path: &Word, append: Append, text: Option<String>) -> Option<()> {
        let text = text.filter(|_| !path.dynamic && !path.pattern)?;
        let path = self.absolute(&path.text)?;
        let before = match append {
            Append::Yes if self.files.find(&path).is_some() => self.files.text(&path)?,
            _ => String::new(),
        };
        let text = before + &text;
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        self.spend(text.len());
        self.files.write(&path, text, self.span);
        Some(())
    }

    /// nginx itself: its start, or one of its short errands.
    fn balancer(&mut self, name: &str, arguments: &[&str]) -> Done {
        let errand = |argument: &&str| matches!(*argument, "-t" | "-T" | "-s" | "-v" | "-V" | "-h" | "-?");
        if !arguments.iter().any(errand) {
            let argv = std::iter::once(name).chain(arguments.iter().copied());
            self.start = Some(argv.map(str::to_owned).collect());
        }
        Done { status: Status::Success, output: None }
    }

    /// A program that starts what follows: options and what they take come first, up to `--` where there is one.
    fn wrapped(&mut self, name: &str, arguments: &[&str], shown: &str) -> Done {
        let plain = |argument: &&str| {
            let program = argument.rsplit('/').next().unwrap_or_default();
            BALANCERS.contains(&program) || matches!(program, "sh" | "bash" | "ash" | "docker-entrypoint.sh")
        };
        let after = match arguments.iter().position(|argument| *argument == "--") {
            Some(at) => arguments.get(at + 1..),
            None if name == "exec" => Some(arguments),
            None if matches!(name, "gosu" | "su-exec") => arguments.get(1..),
            None => arguments.iter().position(plain).and_then(|at| arguments.get(at..)),
        };
        let makes_files =
            arguments.iter().any(|argument| argument.trim_start_matches('-').starts_with("template"));
        if WAITING.contains(&name) && makes_files {
            self.unknown(shown);
        } else if WAITING.contains(&name) && !arguments.is_empty() {
            self.waits.push(shorten(shown));
        }
        match after {
            Some(rest) if !rest.is_empty() => {
                let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
                self.argv(&rest);
                self.ended |= name == "exec";
            }
            _ if WAITING.contains(&name) => {}
            _ => return self.unknown(shown),
        }
        Done { status: Status::Success, output: None }
    }

    /// `sh -c SCRIPT` or `sh FILE`.
    fn inner(&mut self, arguments: &[&str], shown: &str) -> Done {
        let mut rest = arguments;
        while let Some((first, more)) = rest.split_first() {
            if !first.starts_with('-') {
                break;
            }
            if first.ends_with('c') && !first.starts_with("--") {
                return match more.split_first() {
                    Some((script, arguments)) => self.apart(script, arguments.get(1..).unwrap_or_default()),
                    None => self.unknown(shown),
                };
            }
            rest = more;
        }
        let script = rest.split_first().and_then(|(file, arguments)| Some((self.script(file)?, arguments)));
        match script {
            Some((script, arguments)) => self.apart(&script, arguments),
            None => self.unknown(shown),
        }
    }

    pub(super) fn unknown(&mut self, shown: &str) -> Done {
        let words = self.variables.command(shown, &[]).words;
        let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let text = format!("{shown} {}", words.join(" "));
        self.spend(text.len());
        let one = NotRun { shown: shorten(shown), text, folder: self.folder.clone() };
        if !self.not_run.iter().any(|other| other.shown == one.shown && other.folder == one.folder) {
            self.not_run.push(one);
        }
        Done { status: Status::Unfollowed, output: None }
    }
}

/// Whether a statement starts nginx.
fn starts(statement: &Statement) -> bool {
    let mut words = statement.parts.first().map_or("", |part| part.text.as_str()).split_whitespace();
    let program = words.find(|word| !WRAPPERS.contains(word)).unwrap_or_default();
    BALANCERS.contains(&program.rsplit('/').next().unwrap_or_default())
}

/// Whether a script's first line names a shell.
fn is_for_a_shell(script: &str) -> bool {
    let first = script.lines().next().unwrap_or_default();
    let mut words = first.strip_prefix("#!").unwrap_or_default().split_whitespace();
    let program = words.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let program = if program == "env" {
        words.find(|word| !word.starts_with('-')).unwrap_or_default()
    } else {
        program
    };
    SHELLS.contains(&program)
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
mod tests;
