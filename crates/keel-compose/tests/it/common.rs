//! Projects in a folder of their own, and diagnostics as text.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use keel_compose::{Loaded, Options, Project, load};
use keel_diag::{Severity, Sources};

/// A folder with files, and what loading it gave.
pub(crate) struct Case {
    _folder: tempfile::TempDir,
    pub(crate) options: Options,
}

impl Case {
    /// Makes a folder `demo` with these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("demo");
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { _folder: folder, options: Options { folder: root, ..Options::default() } }
    }

    pub(crate) fn compose(text: &str) -> Self {
        Self::new(&[("compose.yaml", text)])
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.options.environment.insert(name.into(), value.into());
        self
    }

    pub(crate) fn load(&self) -> (Loaded, Sources) {
        let mut sources = Sources::default();
        let loaded = load(&self.options, &mut sources);
        (loaded, sources)
    }

    /// The project, which must have nothing to say.
    #[track_caller]
    pub(crate) fn project(&self) -> Project {
        let (loaded, sources) = self.load();
        assert_eq!(self.show(&loaded, &sources), "");
        loaded.project.unwrap()
    }

    /// The project and what there is to say.
    pub(crate) fn both(&self) -> (Project, String) {
        let (loaded, sources) = self.load();
        let shown = self.show(&loaded, &sources);
        (loaded.project.unwrap(), shown)
    }

    /// What there is to say.
    pub(crate) fn says(&self) -> String {
        let (loaded, sources) = self.load();
        self.show(&loaded, &sources)
    }

    fn show(&self, loaded: &Loaded, sources: &Sources) -> String {
        let mut text = String::new();
        for diagnostic in &loaded.diagnostics {
            let severity = if diagnostic.severity == Severity::Error { "error" } else { "warning" };
            writeln!(text, "{severity}[{}]: {}", diagnostic.code, diagnostic.message).unwrap();
            for label in &diagnostic.labels {
                let position = sources.position(label.span);
                let name = sources.path(label.span.source).file_name().unwrap_or_default().to_string_lossy();
                let slice = sources.slice(label.span).lines().next().unwrap_or("").to_owned();
                let place = format!("{name}:{}:{}", position.line, position.column);
                writeln!(text, "  {place} `{slice}` {}", label.text).unwrap();
            }
            diagnostic.help.iter().for_each(|help| writeln!(text, "  help: {help}").unwrap());
        }
        text.replace(&*self.options.folder.to_string_lossy(), "DEMO")
    }
}

/// A map as text.
pub(crate) fn pairs<'a>(
    map: impl IntoIterator<Item = (&'a String, &'a keel_compose::Spanned<String>)>,
) -> String {
    let map: BTreeMap<_, _> = map.into_iter().map(|(name, value)| (name, &value.value)).collect();
    map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// A path below the case's folder.
pub(crate) fn below(case: &Case, path: &Path) -> String {
    path.strip_prefix(&case.options.folder)
        .map_or_else(|_| path.display().to_string(), |p| p.display().to_string())
}
