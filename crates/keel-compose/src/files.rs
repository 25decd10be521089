//! Finds, reads and joins the files of a project.
//!
//! Searched are Compose's names in Compose's order, in the folder and those above it, with the override file beside and
//! Evenkeel's own `compose.evenkeel.yaml` last. A file is read once, however many services name it.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use keel_diag::{Diagnostic, SourceId, Sources, Span};

use crate::{
    Options, Spanned,
    dotenv::{self, Format},
    interpolate::{Layers, Lookup, interpolate},
    merge,
    report::Report,
    yaml::{self, Node, Parsed, Value},
};

/// Bytes of one file at most.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];
const OWN: [&str; 2] = ["compose.evenkeel.yaml", "compose.evenkeel.yml"];

/// The files of a project.
pub(crate) struct Found {
    /// Absolute, in the order of merging.
    pub(crate) files: Vec<PathBuf>,
    /// What relative paths start from.
    pub(crate) folder: PathBuf,
}

/// Finds the files that make the project.
pub(crate) fn find(
    options: &Options,
    start: &Path,
    variables: &BTreeMap<String, String>,
    reader: &mut FileReader<'_>,
) -> Option<Found> {
    let listed = variables.get("COMPOSE_FILE").filter(|list| !list.is_empty());
    let given: Vec<PathBuf> = if !options.files.is_empty() {
        options.files.clone()
    } else if let Some(list) = listed {
        let separator = variables.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        list.split(separator).filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    } else {
        return search(start, reader);
    };
    let files: Vec<PathBuf> = given.iter().map(|path| crate::decode::tidy(&start.join(path))).collect();
    let folder = files.first()?.parent()?.to_owned();
    Some(Found { files, folder })
}

fn search(start: &Path, reader: &mut FileReader<'_>) -> Option<Found> {
    let there = |folder: &Path, names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
    };
    for folder in start.ancestors() {
        let found = there(folder, &NAMES);
        let Some(first) = found.first() else { continue };
        let mut files = vec![first.clone()];
        let overrides = there(folder, &OVERRIDES);
        for (several, what) in [(&found, "Compose"), (&overrides, "override")] {
            if let [used, ignored, ..] = several.as_slice() {
                let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let message = format!(
                    "several {what} files are here: {} is read, {} is not",
                    name(used),
                    name(ignored)
                );
                reader.report.push(Diagnostic::warning("compose::several-files", message));
            }
        }
        files.extend(overrides.into_iter().take(1));
        files.extend(there(folder, &OWN).into_iter().take(1));
        return Some(Found { files, folder: folder.to_owned() });
    }
    reader.report.push(
        Diagnostic::error("compose::no-file", format!("no Compose file in {} or above it", start.display()))
            .help(format!("looked for {}", NAMES.join(", "))),
    );
    None
}

/// Makes a project's name of a folder's, as Compose does.
pub(crate) fn normal_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let kept: String = name.chars().filter(|c| is_name_char(*c)).collect();
    let kept = kept.trim_start_matches(['-', '_']);
    if kept.is_empty() { "default".to_owned() } else { kept.to_owned() }
}

/// Whether a text is a project's name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_name_char) && !name.starts_with(['-', '_'])
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
}

/// Reads files, each once.
pub(crate) struct FileReader<'a> {
    pub(crate) sources: &'a mut Sources,
    pub(crate) report: &'a mut Report,
    /// Every Compose file that was read, in order.
    pub(crate) files: Vec<PathBuf>,
    /// How deep in `include` this is, and how many files were included in all.
    pub(crate) include_depth: usize,
    pub(crate) includes: usize,
    read: HashMap<PathBuf, Option<SourceId>>,
    /// Variables that were reported as not set.
    unset: Vec<String>,
}

impl<'a> FileReader<'a> {
    pub(crate) fn new(sources: &'a mut Sources, report: &'a mut Report) -> Self {
        Self {
            sources,
            report,
            files: Vec::new(),
            include_depth: 0,
            includes: 0,
            read: HashMap::new(),
            unset: Vec::new(),
        }
    }

    /// Takes a text for a file's, whatever is on disk.
    pub(crate) fn hold(&mut self, path: PathBuf, text: &str) {
        let id = self.sources.add(shown(&path), text);
        self.read.insert(path, Some(id));
    }

    /// Reads a file of text; what goes wrong is reported.
    pub(crate) fn read(&mut self, path: &Path) -> Option<SourceId> {
        if let Some(known) = self.read.get(path) {
            return *known;
        }
        let id = match read_text(path) {
            Ok(text) => Some(self.sources.add(shown(path), text)),
            Err(reason) => {
                let message = format!("{} can't be read: {reason}", shown(path).display());
                self.report.push(Diagnostic::error("compose::unreadable", message));
                None
            }
        };
        self.read.insert(path.to_owned(), id);
        id
    }

    /// Reads and joins the files of a project or of an `include`.
    pub(crate) fn project_tree(
        &mut self,
        files: &[PathBuf],
        folder: &Path,
        variables: &BTreeMap<String, String>,
    ) -> Option<Node> {
        let mut tree: Option<Node> = None;
        for path in files {
            for document in self.compose_file(path, variables) {
                let document = self.included(document, folder, variables);
                let document = self.extended(document, path, folder, variables);
                tree = Some(match tree {
                    Some(before) => merge::merge(before, document),
                    None => document,
                });
            }
        }
        tree.map(merge::without_resets)
    }

    /// Reads one Compose file: its documents, interpolated.
    pub(crate) fn compose_file(&mut self, path: &Path, variables: &BTreeMap<String, String>) -> Vec<Node> {
        let Some(id) = self.read(path) else { return Vec::new() };
        if !self.files.iter().any(|known| known == path) {
            self.files.push(path.to_owned());
        }
        let Parsed { documents, diagnostics, is_whole } = yaml::parse(id, self.sources.text(id));
        let empty = diagnostics.is_empty() && documents.iter().all(Node::is_null);
        self.report.extend(diagnostics);
        if !is_whole {
            self.report.expect_gaps();
        }
        if empty {
            let message = format!("{} is empty", shown(path).display());
            self.report.push(Diagnostic::error("compose::empty", message));
        }
        let mut trees = Vec::new();
        for mut document in documents.into_iter().filter(|document| !document.is_null()) {
            let Value::Mapping(_) = &document.value else {
                if !is_whole {
                    continue;
                }
                let message = format!("a Compose file is a mapping, this is {}", document.kind());
                self.report.push(Diagnostic::error("compose::wrong-type", message).at(document.span, ""));
                continue;
            };
            self.interpolate_file(&mut document, variables);
            trees.push(document);
        }
        trees
    }

    /// Replaces variables in all values, errors in a service being that service's.
    fn interpolate_file(&mut self, document: &mut Node, variables: &BTreeMap<String, String>) {
        let Value::Mapping(entries) = &mut document.value else { return };
        for (key, entry) in entries {
            match &mut entry.value.value {
                Value::Mapping(services) if key == "services" => {
                    for (name, service) in services {
                        let name = name.clone();
                        self.within(&name, |reader| reader.interpolate_node(&mut service.value, variables));
                    }
                }
                _ => self.interpolate_node(&mut entry.value, variables),
            }
        }
    }

    /// Runs `work`; errors met in it concern `service`.
    pub(crate) fn within<T>(&mut self, service: &str, work: impl FnOnce(&mut FileReader<'_>) -> T) -> T {
        let Self { sources, report, files, include_depth, includes, read, unset } = self;
        report.within(service, |report| {
            let mut inner = FileReader {
                sources,
                report,
                files: std::mem::take(files),
                include_depth: *include_depth,
                includes: *includes,
                read: std::mem::take(read),
                unset: std::mem::take(unset),
            };
            let result = work(&mut inner);
            (*files, *read, *unset) = (inner.files, inner.read, inner.unset);
            *includes = inner.includes;
            result
        })
    }

    fn interpolate_node(&mut self, node: &mut Node, variables: &BTreeMap<String, String>) {
        match &mut node.value {
            Value::Mapping(entries) => {
                entries.values_mut().for_each(|entry| self.interpolate_node(&mut entry.value, variables));
            }
            Value::Sequence(items) => {
                items.iter_mut().for_each(|item| self.interpolate_node(item, variables));
            }
            Value::Scalar(scalar) if scalar.text.contains('$') => {
                let place = |range: std::ops::Range<usize>, sources: &Sources| {
                    place_within(node.span, &scalar.text, range, sources)
                };
                match interpolate(&scalar.text, variables) {
                    Ok(result) => {
                        for (name, range) in result.unset {
                            let span = place(range, self.sources);
                            self.report_unset(name, span);
                        }
                        scalar.text = result.text;
                        // Compose types scalars before it replaces variables: what comes of one is text, never null.
                        scalar.plain = false;
                    }
                    Err(failure) => {
                        let span = place(failure.range, self.sources);
                        let mut diagnostic = Diagnostic::error("compose::interpolation", failure.message)
                            .at(span, "in this value");
                        diagnostic.help.extend(failure.help);
                        self.report.push(diagnostic);
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }

    /// Says once for each variable that it isn't set.
    fn report_unset(&mut self, name: String, span: Span) {
        if self.unset.contains(&name) {
            return;
        }
        let message = format!("the variable `{name}` is not set; it becomes the empty text");
        self.report.push(
            Diagnostic::warning("compose::unset-variable", message)
                .at(span, "used here")
                .help(format!("set it, or give a default: ${{{name}:-...}}")),
        );
        self.unset.push(name);
    }

    /// Reads an env file; one that is not there is empty.
    pub(crate) fn env_file(
        &mut self,
        path: &Path,
        format: Format,
        outer: &dyn Lookup,
    ) -> IndexMap<String, Spanned<String>> {
        if !is_readable(path) {
            return IndexMap::new();
        }
        let Some(id) = self.read(path) else { return IndexMap::new() };
        let (values, diagnostics) = dotenv::parse(id, self.sources.text(id), format, outer);
        self.report.extend(diagnostics);
        values
    }

    /// Reads env files below the given variables; a later one overrides the earlier ones.
    pub(crate) fn variables_of(
        &mut self,
        paths: &[PathBuf],
        variables: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for path in paths {
            let values = self.env_file(path, Format::Dotenv, &Layers(&[variables, &all]));
            all.extend(values.into_iter().map(|(name, value)| (name, value.value)));
        }
        all.extend(variables.clone());
        all
    }
}

/// The span of a part of a scalar; of all of it where its text isn't in the file as it is.
fn place_within(span: Span, text: &str, range: std::ops::Range<usize>, sources: &Sources) -> Span {
    let written = sources.slice(span);
    match written.find(text) {
        Some(offset) => {
            let start = span.start as usize + offset;
            Span::new(span.source, start + range.start..start + range.end)
        }
        None => span,
    }
}

/// Shortens a path to what the user would write: relative to where he is.
fn shown(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}

/// Whether there is a file, `/dev/null` included. A named pipe isn't one: nobody may ever write to it.
pub(crate) fn is_readable(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() || meta.file_type().is_char_device())
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a folder".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
        format!("line {} is not UTF-8", line + 1)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
