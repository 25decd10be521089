//! From options to a project: which files, in which order, under which name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Sources};

use crate::{
    Options, Project,
    dotenv::Format,
    files::{self, FileReader, is_readable},
    interpolate::Layers,
    lower,
    report::Report,
    yaml::{Node, Value},
};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project; `None` where the files don't hold one at all.
    pub project: Option<Project>,
    /// The project's name as far as it is known without the files' content: what `-p` or the environment says, else the
    /// folder's. `None` where there is no file.
    pub likely_name: Option<String>,
    /// The project's folder. `None` where there is no file.
    pub likely_folder: Option<PathBuf>,
    /// Everything there is to say, by file and place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a project.
///
/// Texts that are read go into `sources`, so that diagnostics can be shown.
pub fn load(options: &Options, sources: &mut Sources) -> Loaded {
    let mut report = Report::default();
    let mut likely = None;
    let project = load_into(options, FileReader::new(sources, &mut report), &mut likely);
    loaded(project, likely, report)
}

/// Reads a project from a text, as if it were the compose.yaml of the options' folder. Files that it names are read as
/// ever. For editors, and for tests that make up many.
pub fn load_text(text: &str, options: &Options, sources: &mut Sources) -> Loaded {
    let mut report = Report::default();
    let path = start(options).join("compose.yaml");
    let options = Options { files: vec![path.clone()], ..options.clone() };
    let mut reader = FileReader::new(sources, &mut report);
    reader.hold(path, text);
    let mut likely = None;
    let project = load_into(&options, reader, &mut likely);
    loaded(project, likely, report)
}

/// Name and folder, as far as they are known without the files' content.
type Likely = Option<(String, PathBuf)>;

fn loaded(project: Option<Project>, likely: Likely, report: Report) -> Loaded {
    let (likely_name, likely_folder) = likely.unzip();
    Loaded { project, likely_name, likely_folder, diagnostics: report.into_diagnostics() }
}

fn start(options: &Options) -> PathBuf {
    crate::decode::tidy(&std::path::absolute(&options.folder).unwrap_or_default())
}

fn load_into(options: &Options, mut reader: FileReader<'_>, likely: &mut Likely) -> Option<Project> {
    let start = start(options);
    let mut variables = environment(options, &start, &mut reader);
    let found = files::find(options, &start, &variables, &mut reader)?;
    if found.folder != start && options.env_files.is_empty() {
        let path = found.folder.join(".env");
        for (name, value) in reader.env_file(&path, Format::Dotenv, &options.environment) {
            variables.entry(name).or_insert(value.value);
        }
    }
    const NAME: &str = "COMPOSE_PROJECT_NAME";
    let from_env = variables.get(NAME).filter(|name| !name.is_empty());
    let given = options.project_name.as_ref().or(from_env).cloned();
    let seen = given.clone().unwrap_or_else(|| files::normal_name(&found.folder));
    *likely = Some((seen.clone(), found.folder.clone()));
    variables.insert(NAME.to_owned(), seen);

    let tree = reader.project_tree(&found.files, &found.folder, &variables)?;
    let name = project_name(given, &found.folder, &tree, &mut reader);
    let profiles = profiles(options, &variables);
    let context = lower::LoadContext {
        name,
        folder: found.folder,
        variables,
        profiles,
        driver: options.driver,
        place: options.place,
    };
    Some(lower::lower(tree, context, &mut reader))
}

/// Joins the shell's environment with the .env files; the shell wins.
fn environment(options: &Options, start: &Path, reader: &mut FileReader<'_>) -> BTreeMap<String, String> {
    let shell = &options.environment;
    let listed = shell.get("COMPOSE_ENV_FILES").filter(|list| !list.is_empty());
    let paths: Vec<PathBuf> = if !options.env_files.is_empty() {
        options.env_files.iter().map(|path| start.join(path)).collect()
    } else if let Some(list) = listed {
        list.split(',').map(|path| start.join(path)).collect()
    } else {
        Vec::new()
    };
    let mut variables = BTreeMap::new();
    for path in &paths {
        if !is_readable(path) {
            let message = format!("the env file {} is not there", path.display());
            reader.report.push(Diagnostic::error("compose::env-file", message));
        }
    }
    let default = start.join(".env");
    let disabled = shell.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|value| value == "1" || value == "true");
    let chosen = if paths.is_empty() && !disabled { std::slice::from_ref(&default) } else { &paths[..] };
    for path in chosen {
        // A later file sees what the earlier ones say, and overrides it.
        let values = reader.env_file(path, Format::Dotenv, &Layers(&[shell, &variables]));
        variables.extend(values.into_iter().map(|(name, value)| (name, value.value)));
    }
    variables.extend(shell.clone());
    variables
}

/// The name from `-p` or the environment, else the file's, else the folder's.
fn project_name(given: Option<String>, folder: &Path, tree: &Node, reader: &mut FileReader<'_>) -> String {
    let named = tree.get("name").filter(|node| !node.is_null());
    let (name, span) = match (given, named.map(|node| (&node.value, node.span))) {
        (Some(name), _) => (name, None),
        (None, Some((Value::Scalar(name), span))) => (name.text.clone(), Some(span)),
        _ => return files::normal_name(folder),
    };
    if files::is_name(&name) {
        return name;
    }
    let mut diagnostic =
        Diagnostic::error("compose::project-name", format!("`{name}` is not a project name"))
            .help("lower-case letters, digits, `-` and `_`, beginning with a letter or digit");
    if let Some(span) = span {
        diagnostic = diagnostic.at(span, "");
    }
    reader.report.push(diagnostic);
    files::normal_name(folder)
}

fn profiles(options: &Options, variables: &BTreeMap<String, String>) -> Vec<String> {
    let listed = variables.get("COMPOSE_PROFILES").map_or("", String::as_str);
    let listed = listed.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
    let mut profiles = options.profiles.clone();
    profiles.extend(listed);
    profiles.dedup();
    profiles
}
