//! Reads the configuration file, the files it includes and the directives of the command line into one tree.
//!
//! An `include` is replaced by what it names, wherever it stands. How deep files include each other and how many are
//! read is bounded.

use std::{
    io,
    path::{Path, PathBuf},
};

use keel_diag::{COMMAND_LINE, Diagnostic, Severity, SourceId, Sources, Span};

use crate::{
    ast::{Directive, Word},
    builtin,
    configuration::Options,
    files::Files,
    parser::parse,
};

/// How deep files may include each other.
const INCLUDE_DEPTH_MAX: usize = 32;
/// How many times files are read at most.
const FILES_MAX: usize = 16_384;
/// How many bytes that may be in all, a file counted each time it is included.
const BYTES_MAX: usize = 64 << 20;

/// Everything that was read.
pub(crate) struct Text {
    pub(crate) directives: Vec<Directive>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) dump: Vec<(PathBuf, String)>,
}

/// Reads the whole configuration.
pub(crate) fn read_all(options: &Options, files: &dyn Files, sources: &mut Sources) -> Text {
    let conf_path = options.prefix.join(&options.conf_path);
    let conf_dir = conf_path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut includer = Includer {
        conf_dir,
        files,
        sources,
        reads: 0,
        bytes: 0,
        loop_reported: false,
        known: Vec::new(),
        open: Vec::new(),
        text: Text { directives: Vec::new(), diagnostics: Vec::new(), dump: Vec::new() },
    };
    let mut directives = includer.globals(&options.globals);
    directives.extend(includer.file(&conf_path, None, 0));
    let mut text = includer.text;
    text.directives = directives;
    text
}

struct Includer<'a> {
    conf_dir: PathBuf,
    files: &'a dyn Files,
    sources: &'a mut Sources,
    reads: usize,
    bytes: usize,
    loop_reported: bool,
    /// Files read already: one that is included twice is read and shown once.
    known: Vec<(PathBuf, SourceId)>,
    /// Files within which reading goes on: none of them can be included again.
    open: Vec<PathBuf>,
    text: Text,
}

impl Includer<'_> {
    fn globals(&mut self, globals: &[String]) -> Vec<Directive> {
        let mut directives = Vec::new();
        for text in globals {
            let source = self.sources.add(COMMAND_LINE, text.clone());
            let (parsed, mut diagnostics) = parse(self.sources, source);
            for found in &mut diagnostics {
                if found.code == "nginx::unexpected-end" {
                    found.nginx_text = Some("unexpected end of parameter, expecting \";\"".into());
                }
            }
            self.text.diagnostics.append(&mut diagnostics);
            for directive in parsed {
                if directive.block.is_some() {
                    let found = Diagnostic::error("nginx::block-in-globals", "no block is allowed in `-g`")
                        .at(directive.span(), "")
                        .nginx("block directives are not supported in -g option");
                    self.text.diagnostics.push(found);
                } else {
                    directives.push(directive);
                }
            }
        }
        self.expand(directives, 0)
    }

    /// Reads one file; `included` is the argument of the `include` that asks for it.
    fn file(&mut self, path: &Path, included: Option<&Word>, depth: usize) -> Vec<Directive> {
        if let Some(word) = included
            && self.open.iter().any(|open| open == path)
        {
            self.report_loop(word);
            return Vec::new();
        }
        let source = match self.known.iter().find(|(known, _)| known == path) {
            Some((_, source)) => *source,
            None => match self.read(path) {
                Ok(text) => {
                    let source = self.sources.add(self.files.shown(path), text.clone());
                    self.known.push((path.to_owned(), source));
                    self.text.dump.push((path.to_owned(), text));
                    source
                }
                Err(error) => {
                    self.unreadable(path, included.map(|word| word.span), &error);
                    return Vec::new();
                }
            },
        };
        self.reads += 1;
        self.bytes += self.sources.text(source).len();
        let (directives, mut diagnostics) = parse(self.sources, source);
        diagnostics.retain(|found| !self.text.diagnostics.contains(found));
        self.text.diagnostics.append(&mut diagnostics);
        self.open.push(path.to_owned());
        let expanded = self.expand(directives, depth);
        self.open.pop();
        expanded
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match self.files.read(path) {
            // What is not UTF-8 is noticed by the lexer, unless a comment holds it.
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let builtin = path.file_name().and_then(|name| builtin::file(&name.to_string_lossy()));
                builtin.map(str::to_owned).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    fn unreadable(&mut self, path: &Path, span: Option<Span>, error: &io::Error) {
        let shown = path.display();
        let mut found = Diagnostic {
            severity: Severity::Error,
            ..Diagnostic::error("nginx::unreadable-file", format!("can't read {shown}"))
        };
        let reason = plain(error);
        found = match span {
            Some(span) => found.at(span, reason.clone()),
            None => found.help(format!("{reason}; name another file with `-c`")),
        };
        let number = error.raw_os_error().map(|number| format!("{number}: ")).unwrap_or_default();
        self.text.diagnostics.push(found.nginx(format!("open() \"{shown}\" failed ({number}{reason})")));
    }

    fn expand(&mut self, directives: Vec<Directive>, depth: usize) -> Vec<Directive> {
        let mut out = Vec::with_capacity(directives.len());
        for mut directive in directives {
            match (directive.name.text.as_str(), directive.args.as_slice(), &directive.block) {
                ("include", [pattern], None) => {
                    let pattern = pattern.clone();
                    out.extend(self.include(&pattern, depth));
                }
                ("include", _, _) => self.faulty_include(&directive),
                _ => {
                    directive.block = directive.block.take().map(|block| self.expand(block, depth));
                    out.push(directive);
                }
            }
        }
        out
    }

    fn include(&mut self, pattern: &Word, depth: usize) -> Vec<Directive> {
        if depth >= INCLUDE_DEPTH_MAX || self.reads >= FILES_MAX || self.bytes >= BYTES_MAX {
            self.report_loop(pattern);
            return Vec::new();
        }
        let path = self.conf_dir.join(&pattern.text);
        if !pattern.text.contains(['*', '?', '[']) {
            return self.file(&path, Some(pattern), depth + 1);
        }
        let paths = self.files.glob(&path);
        paths.iter().flat_map(|path| self.file(path, Some(pattern), depth + 1)).collect()
    }

    fn report_loop(&mut self, pattern: &Word) {
        if !std::mem::replace(&mut self.loop_reported, true) {
            self.text.diagnostics.push(
                Diagnostic::error("nginx::include-loop", "files include each other without end")
                    .at(pattern.span, "not read any more")
                    .nginx("too many nested includes"),
            );
        }
    }

    fn faulty_include(&mut self, directive: &Directive) {
        let (message, nginx) = match directive.block {
            Some(_) => ("`include` takes no block", "directive \"include\" is not terminated by \";\""),
            None => (
                "`include` takes one file or pattern",
                "invalid number of arguments in \"include\" directive",
            ),
        };
        self.text.diagnostics.push(
            Diagnostic::error("nginx::invalid-number-of-arguments", message)
                .at(directive.span(), "")
                .help("it is written `include file;`")
                .nginx(nginx),
        );
    }
}

/// The system's words for an error, without the number that Rust puts behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
