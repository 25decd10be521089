//! What each instruction does to the stage it stands in.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use keel_diag::{Diagnostic, SourceId, Span, suggest};
use keel_model::signal_number;

use super::{
    BuildInputs, Copy, CopySource, Dockerfile, Run, RunCommand, Stage, lines::Line, run, words::Scope,
};
use crate::{
    HealthTest, Healthcheck, Spanned,
    decode::{parse_duration, tidy},
    ports,
};

const KNOWN: [&str; 18] = [
    "FROM",
    "ARG",
    "ENV",
    "WORKDIR",
    "COPY",
    "ADD",
    "RUN",
    "CMD",
    "ENTRYPOINT",
    "EXPOSE",
    "USER",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "LABEL",
    "VOLUME",
    "SHELL",
    "ONBUILD",
    "MAINTAINER",
];

/// ONBUILD instructions in one stage at most.
const TRIGGERS_MAX: usize = 256;
/// Instructions that take variables.
const EXPANDED: [&str; 9] =
    ["FROM", "ENV", "WORKDIR", "COPY", "ADD", "EXPOSE", "USER", "STOPSIGNAL", "VOLUME"];

/// A stage while it is read.
#[derive(Clone, Default)]
struct Open {
    image: Dockerfile,
    args: BTreeMap<String, String>,
    /// Whether CMD stands in this very stage: an ENTRYPOINT clears one that is inherited.
    own_command: bool,
    /// ONBUILD: what a stage that begins with this one does first.
    triggers: Vec<Line>,
}

pub(super) struct Interpreter<'a> {
    source: SourceId,
    escape: char,
    build_args: &'a BTreeMap<String, String>,
    base_path: &'a str,
    /// ARGs before the first FROM.
    global_args: BTreeMap<String, String>,
    names: Vec<Stage>,
    stages: Vec<Open>,
    diagnostics: Vec<Diagnostic>,
}

/// `--name=value` before the arguments proper.
struct Flags<'l> {
    flags: Vec<(&'l str, &'l str)>,
    rest: &'l str,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(source: SourceId, escape: char, inputs: &BuildInputs<'a>) -> Self {
        Self {
            source,
            escape,
            build_args: inputs.args,
            base_path: inputs.path,
            global_args: platform_args(),
            names: Vec::new(),
            stages: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, line: &Line) {
        for heredoc in line.heredocs.iter().filter(|heredoc| !heredoc.closed) {
            let message = format!("the text that ends with `{}` never ends", heredoc.name);
            self.error("dockerfile::heredoc", line.span, message, "begins here");
        }
        let keyword = line.keyword.as_str();
        if !KNOWN.contains(&keyword) {
            return self.unknown(line);
        }
        if keyword == "FROM" {
            return self.from(line);
        }
        if keyword == "ARG" {
            return self.arg(line);
        }
        if self.stages.is_empty() {
            let message = format!("{keyword} stands before the first FROM");
            return self.error("dockerfile::no-from", line.span, message, "belongs to no image");
        }
        if line.rest.is_empty() {
            let message = format!("{keyword} needs an argument");
            return self.error("dockerfile::argument", line.span, message, "says nothing");
        }
        if keyword == "ONBUILD" {
            let trigger = line.trigger();
            let Some(stage) = self.stages.last_mut() else { return };
            if stage.triggers.len() >= TRIGGERS_MAX {
                let message = format!("more than {TRIGGERS_MAX} ONBUILD instructions");
                return self.error("dockerfile::argument", line.span, message, "the limit is passed here");
            }
            return stage.triggers.push(trigger);
        }
        let expanded = if EXPANDED.contains(&keyword) { self.words(&line.rest) } else { Ok(Vec::new()) };
        match expanded {
            Ok(words) => self.instruction(line, words),
            Err(reason) => self.error("dockerfile::substitution", line.span, reason, "in this instruction"),
        }
    }

    fn instruction(&mut self, line: &Line, words: Vec<String>) {
        let text = self.word(&line.rest).unwrap_or_default();
        let span = line.span;
        let Some(stage) = self.stages.last_mut() else { return };
        let image = &mut stage.image;
        match line.keyword.as_str() {
            "ENV" => self.env(line, &words),
            "WORKDIR" => {
                let path = absolute(image, &text);
                image.working_dir = Some(Spanned::new(path, span));
            }
            // An empty one, of a variable that isn't set, says nothing.
            "USER" => image.user = Some(Spanned::new(text, span)).filter(|user| !user.value.is_empty()),
            "VOLUME" => {
                let listed = serde_json::from_str::<Vec<String>>(&line.rest).unwrap_or(words);
                let listed = listed.into_iter().filter(|path| !path.is_empty());
                image.volumes.extend(listed.map(|path| Spanned::new(path, span)));
            }
            "SHELL" => match serde_json::from_str::<Vec<String>>(&line.rest) {
                Ok(shell) if !shell.is_empty() => image.shell = shell,
                _ => {
                    let message = "SHELL takes a list in brackets";
                    self.error("dockerfile::argument", span, message, "such as [\"/bin/bash\", \"-c\"]");
                }
            },
            "CMD" => {
                let command = self.exec_or_shell(&line.rest, span);
                if let Some(stage) = self.stages.last_mut() {
                    stage.own_command = true;
                    stage.image.command = Some(command);
                }
            }
            "ENTRYPOINT" => {
                let entrypoint = self.exec_or_shell(&line.rest, span);
                if let Some(stage) = self.stages.last_mut() {
                    stage.image.entrypoint = Some(entrypoint);
                    if !stage.own_command {
                        stage.image.command = None;
                    }
                }
            }
            "LABEL" => match self.words(&line.rest) {
                Ok(words) => {
                    let labels = settings(&line.rest, &words, span);
                    if let Some(stage) = self.stages.last_mut() {
                        stage.image.labels.extend(labels);
                    }
                }
                Err(reason) => self.error("dockerfile::substitution", span, reason, "in this instruction"),
            },
            "EXPOSE" => self.expose(&words, span),
            "STOPSIGNAL" => match signal_number(&text) {
                Some(signal) => image.stop_signal = Some(Spanned::new(signal, span)),
                None => {
                    let message = format!("`{text}` is not a signal");
                    self.error("dockerfile::argument", span, message, "such as SIGTERM or 15");
                }
            },
            "HEALTHCHECK" => self.healthcheck(line),
            "COPY" | "ADD" => self.copy(line),
            "RUN" => self.run(line),
            // MAINTAINER concerns nobody. ONBUILD is dealt with before: it is another instruction for later.
            _ => {}
        }
    }

    /// `ENV A=1 B=2`, or in the old form `ENV A the rest`.
    fn env(&mut self, line: &Line, words: &[String]) {
        let old = line.rest.split_once(char::is_whitespace).filter(|(name, _)| !name.contains('='));
        let pairs = match old {
            Some((name, rest)) => match self.word(rest.trim_start()) {
                Ok(value) => Ok([(name.to_owned(), Spanned::new(value, line.span))].into()),
                Err(reason) => Err(reason),
            },
            None => match words.iter().find(|word| !word.contains('=')) {
                Some(word) => Err(format!("`{word}` isn't of the form NAME=value")),
                None => Ok(settings(&line.rest, words, line.span)),
            },
        };
        match pairs {
            Ok(pairs) => {
                if let Some(stage) = self.stages.last_mut() {
                    stage.image.environment.extend(pairs);
                }
            }
            Err(reason) => self.error("dockerfile::argument", line.span, reason, "in this ENV"),
        }
    }

    fn unknown(&mut self, line: &Line) {
        let message = format!("unknown instruction `{}`", line.keyword);
        let mut diagnostic = Diagnostic::error("dockerfile::unknown-instruction", message)
            .at(line.keyword_span, "not an instruction of a Dockerfile");
        if let Some(near) = suggest(&line.keyword, KNOWN) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        self.diagnostics.push(diagnostic);
    }

    /// `FROM [--platform=P] IMAGE [AS NAME]`.
    fn from(&mut self, line: &Line) {
        let global = |name: &str| self.global_args.get(name).cloned();
        let scope = Scope { lookup: &global, escape: self.escape };
        let words = match scope.words(flags(&line.rest).rest) {
            Ok(words) => words,
            Err(reason) => {
                return self.error("dockerfile::substitution", line.span, reason, "in this instruction");
            }
        };
        let (image, name) = match words.as_slice() {
            [image] => (image, None),
            [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => {
                (image, Some(name.to_ascii_lowercase()))
            }
            _ => (&String::new(), None),
        };
        if image.is_empty() {
            let message = "FROM takes an image and, if need be, AS and a name";
            self.error("dockerfile::argument", line.span, message, "not understood");
        }
        let earlier = self.position(image);
        let mut open = earlier.and_then(|at| self.stages.get(at)).cloned().unwrap_or_default();
        open.own_command = false;
        let from = Spanned::new(image.clone(), line.span);
        if earlier.is_none() && !image.is_empty() {
            open.image.base = Some(from.clone());
        }
        let triggers = std::mem::take(&mut open.triggers);
        self.names.push(Stage { name, from, copies: Vec::new() });
        self.stages.push(open);
        // Docker refuses these two as triggers, and ONBUILD in another one.
        for trigger in triggers.iter().filter(|line| !matches!(&*line.keyword, "FROM" | "ONBUILD")) {
            self.line(trigger);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        self.names.iter().rposition(|stage| stage.name.as_ref() == Some(&name))
    }

    /// `ARG NAME[=default] ...`.
    fn arg(&mut self, line: &Line) {
        let words = match self.words(&line.rest) {
            Ok(words) => words,
            Err(reason) => {
                return self.error("dockerfile::substitution", line.span, reason, "in this instruction");
            }
        };
        for word in words {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            let given = self.build_args.get(name).cloned();
            let value = match self.stages.last() {
                None => given.or(default),
                Some(_) => given.or(default).or_else(|| self.global_args.get(name).cloned()),
            };
            let Some(value) = value else { continue };
            let args = match self.stages.last_mut() {
                Some(stage) => &mut stage.args,
                None => &mut self.global_args,
            };
            args.insert(name.to_owned(), value);
        }
    }

    fn expose(&mut self, words: &[String], span: Span) {
        // A variable may hold several ports, or none.
        for word in words.iter().flat_map(|word| word.split_whitespace()) {
            // BuildKit takes what `ports` takes and keeps the container's part.
            let container = word.rsplit(':').next().unwrap_or(word);
            match ports::exposed(container) {
                Ok(ports) => {
                    if let Some(stage) = self.stages.last_mut() {
                        stage.image.expose.extend(ports.into_iter().map(|port| Spanned::new(port, span)));
                    }
                }
                Err(message) => self.error("dockerfile::argument", span, message, "such as 5000 or 53/udp"),
            }
        }
    }

    /// `COPY [--from=S] [--chown=...] SOURCE... DESTINATION`, also as a list in brackets.
    fn copy(&mut self, line: &Line) {
        let flags = flags(&line.rest);
        let words = match serde_json::from_str::<Vec<String>>(flags.rest) {
            Ok(words) => Ok(words),
            Err(_) => self.words(flags.rest),
        };
        let from = flags.get("from").map(|from| self.word(from).unwrap_or_else(|_| from.to_owned()));
        let mut words = match words {
            Ok(words) => words,
            Err(reason) => {
                return self.error("dockerfile::substitution", line.span, reason, "in this instruction");
            }
        };
        let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
            let message = format!("{} takes at least one source and a destination", line.keyword);
            return self.error("dockerfile::argument", line.span, message, "one is missing");
        };
        let mut heredocs = line.heredocs.iter();
        let sources = words
            .into_iter()
            .map(|word| match word.strip_prefix("<<").and_then(|_| heredocs.next()) {
                Some(heredoc) => {
                    CopySource::Inline { name: heredoc.name.clone(), text: heredoc.text.clone() }
                }
                None => CopySource::Path(word),
            })
            .collect();
        let Some(stage) = self.stages.last_mut() else { return };
        let folder = destination.ends_with('/') || destination == "." || destination.ends_with("/.");
        let mut destination = absolute(&stage.image, &destination);
        if folder && !destination.ends_with('/') {
            destination.push('/');
        }
        stage.image.copies.push(Copy { span: line.span, sources, destination, from });
    }

    fn run(&mut self, line: &Line) {
        let text = flags(&line.rest).rest.to_owned();
        let working_dir = match self.stages.last().and_then(|stage| stage.image.working_dir.as_ref()) {
            Some(folder) => folder.value.clone(),
            None => "/".to_owned(),
        };
        let (text, commands) = match (line.heredocs.first(), serde_json::from_str::<Vec<String>>(&text)) {
            (Some(heredoc), _) if text.starts_with("<<") => {
                (heredoc.text.clone(), self.commands(&heredoc.text))
            }
            (Some(_), _) => {
                let bodies = line.heredocs.iter().map(|one| format!("\n{}{}", one.text, one.name));
                (format!("{text}{}\n", bodies.collect::<String>()), vec![RunCommand::Other(text)])
            }
            (None, Ok(argv)) => (text, vec![run::command(&argv)]),
            (None, Err(_)) => {
                let commands = self.commands(&text);
                (text, commands)
            }
        };
        if let Some(stage) = self.stages.last_mut() {
            stage.image.runs.push(Run { span: line.span, text, working_dir, commands });
        }
    }

    fn commands(&self, text: &str) -> Vec<RunCommand> {
        run::commands(text, &|command| self.variables_only(command))
    }

    /// Replaces `$NAME` and `${NAME}` and leaves the rest, quotes included, to the shell.
    fn variables_only(&self, text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            result.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let bare = after.strip_prefix('{').unwrap_or(after);
            let length = crate::interpolate::name_length(bare);
            let braced = bare.len() != after.len();
            let closed = !braced || bare[length..].starts_with('}');
            match (length > 0 && closed).then(|| self.lookup(&bare[..length])).flatten() {
                Some(value) => {
                    result.push_str(&value);
                    rest = &bare[length + usize::from(braced)..];
                }
                None => {
                    result.push('$');
                    rest = after;
                }
            }
        }
        result.push_str(rest);
        result
    }

    /// `HEALTHCHECK [OPTIONS] CMD ...` or `HEALTHCHECK NONE`.
    fn healthcheck(&mut self, line: &Line) {
        let span = line.span;
        let flags = flags(&line.rest);
        let mut check = Healthcheck {
            span,
            test: None,
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: None,
        };
        for (name, value) in &flags.flags {
            let duration = parse_duration(value);
            let understood = match *name {
                "interval" => set(&mut check.interval, duration),
                "timeout" => set(&mut check.timeout, duration),
                "start-period" => set(&mut check.start_period, duration),
                "start-interval" => set(&mut check.start_interval, duration),
                "retries" => set(&mut check.retries, value.parse().ok()),
                _ => false,
            };
            if !understood {
                let message = format!("`--{name}={value}` is not understood");
                self.error("dockerfile::argument", span, message, "in this HEALTHCHECK");
            }
        }
        let (keyword, rest) = flags.rest.split_once(char::is_whitespace).unwrap_or((flags.rest, ""));
        check.test = match (keyword.to_ascii_uppercase().as_str(), rest.trim()) {
            ("NONE", "") => Some(HealthTest::Disabled),
            ("CMD", rest) if !rest.is_empty() => Some(match serde_json::from_str(rest) {
                Ok(argv) => HealthTest::Command(argv),
                Err(_) => HealthTest::Shell(rest.to_owned()),
            }),
            _ => {
                let message = "HEALTHCHECK takes NONE, or CMD and a command";
                return self.error("dockerfile::argument", span, message, "not understood");
            }
        };
        if let Some(stage) = self.stages.last_mut() {
            stage.image.healthcheck = Some(check);
        }
    }

    fn exec_or_shell(&mut self, rest: &str, span: Span) -> Spanned<Vec<String>> {
        match serde_json::from_str::<Vec<String>>(rest) {
            Ok(argv) => Spanned::new(argv, span),
            Err(_) => {
                if rest.starts_with('[') && rest.ends_with(']') {
                    let message =
                        "this is not a list of texts in double quotes, so a shell runs it as it stands";
                    self.diagnostics.push(
                        Diagnostic::warning("dockerfile::exec-form", message)
                            .at(span, "")
                            .help("write it like [\"python\", \"app.py\"]"),
                    );
                }
                let shell = self.stages.last().map(|stage| stage.image.shell.clone());
                let mut argv = shell.unwrap_or_default();
                argv.push(rest.to_owned());
                Spanned::new(argv, span)
            }
        }
    }

    fn lookup(&self, name: &str) -> Option<String> {
        match self.stages.last() {
            Some(stage) => {
                let own = stage.image.environment.get(name).map(|value| &value.value);
                let known = own.or_else(|| stage.args.get(name)).cloned();
                // Every image has a PATH; what else a base image sets isn't known here.
                known.or_else(|| (name == "PATH").then(|| self.base_path.to_owned()))
            }
            None => self.global_args.get(name).cloned(),
        }
    }

    fn words(&self, text: &str) -> Result<Vec<String>, String> {
        Scope { lookup: &|name| self.lookup(name), escape: self.escape }.words(text)
    }

    fn word(&self, text: &str) -> Result<String, String> {
        Scope { lookup: &|name| self.lookup(name), escape: self.escape }.word(text)
    }

    fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, label: &str) {
        self.diagnostics.push(Diagnostic::error(code, message).at(span, label));
    }

    pub(super) fn finish(mut self, target: Option<&str>) -> (Dockerfile, Vec<Diagnostic>) {
        let at = match target.filter(|target| !target.is_empty()) {
            None => self.stages.len().checked_sub(1),
            Some(target) => {
                let by_number = || target.parse::<usize>().ok().filter(|at| *at < self.stages.len());
                let found = self.position(target).or_else(by_number);
                if found.is_none() {
                    let start = Span::new(self.source, 0..0);
                    let message = format!("no stage is named `{target}`");
                    self.error("dockerfile::target", start, message, "");
                }
                found
            }
        };
        if self.stages.is_empty() {
            let start = Span::new(self.source, 0..0);
            self.error("dockerfile::no-from", start, "this Dockerfile has no FROM", "");
        }
        for (name, stage) in self.names.iter_mut().zip(&self.stages) {
            name.copies.clone_from(&stage.image.copies);
        }
        let chosen = at.and_then(|at| self.stages.get_mut(at)).map(std::mem::take);
        let image = Dockerfile { stages: self.names, ..chosen.unwrap_or_default().image };
        (image, self.diagnostics)
    }
}

impl<'l> Flags<'l> {
    fn get(&self, name: &str) -> Option<&'l str> {
        self.flags.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

fn flags(rest: &str) -> Flags<'_> {
    let mut flags = Flags { flags: Vec::new(), rest: rest.trim() };
    while let Some(flag) = flags.rest.strip_prefix("--") {
        let length = flag.find(char::is_whitespace).unwrap_or(flag.len());
        flags.flags.push(flag[..length].split_once('=').unwrap_or((&flag[..length], "")));
        flags.rest = flag[length..].trim_start();
    }
    flags
}

/// Reads `A=1 B=2`, or in the old form `A the rest`.
fn settings(rest: &str, words: &[String], span: Span) -> IndexMap<String, Spanned<String>> {
    let first = rest.split_whitespace().next().unwrap_or("");
    if !first.contains('=') {
        let value = words.get(1..).unwrap_or_default().join(" ");
        return words.first().map(|name| (name.clone(), Spanned::new(value, span))).into_iter().collect();
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), Spanned::new(value.to_owned(), span))
    };
    words.iter().map(pair).collect()
}

fn absolute(image: &Dockerfile, path: &str) -> String {
    let base = image.working_dir.as_ref().map_or("/", |folder| folder.value.as_str());
    let joined = tidy(&std::path::Path::new(base).join(path)).to_string_lossy().into_owned();
    if path.ends_with('/') && joined != "/" { format!("{joined}/") } else { joined }
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

/// What BuildKit sets by itself.
fn platform_args() -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut args = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        args.insert(format!("{side}PLATFORM"), format!("linux/{arch}"));
        args.insert(format!("{side}OS"), "linux".to_owned());
        args.insert(format!("{side}ARCH"), arch.to_owned());
    }
    args
}
