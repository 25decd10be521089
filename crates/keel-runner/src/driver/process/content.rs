//! What a build would contain now, as one digest: that of the image which the engine would make.
//!
//! A local process runs the files of this host, so there is no image whose id tells a new version from the old one.
//! Instead everything is digested that the Dockerfile takes from its context, with the Dockerfile and its arguments, and
//! the program that `x-process.build` makes. What programs write themselves into their folders when they run
//! (`__pycache__`) doesn't count.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use glob::Pattern;
use keel_model::{BuildStep, DockerfileSource, ImageBuild, ProcessSpec};
use sha2::{Digest, Sha256};

use crate::driver::docker::{Ignored, MATCH};

/// Bytes of the digest that count.
const DIGEST_BYTES: usize = 16;
const READ_BYTES: usize = 64 << 10;

/// Digests what a build of a process would contain. `None` where nothing of it is built.
///
/// # Errors
/// An error with the path that it is about.
pub(super) fn digest(process: &ProcessSpec) -> io::Result<Option<String>> {
    let mut hash = Hash(Sha256::new());
    let mut counts = false;
    for step in &process.build {
        match step {
            BuildStep::Context { build, patterns } => {
                counts = true;
                add_build(&mut hash, build, patterns)?;
            }
            BuildStep::Shell { .. } => {
                let program = process.argv.first().filter(|program| program.contains('/'));
                let file = program.map(|program| process.working_dir.join(program));
                if let Some(file) = file.filter(|file| file.is_file()) {
                    counts = true;
                    hash.file(&file)?;
                }
            }
            BuildStep::Pip { .. } => {}
        }
    }
    let bytes = hash.0.finalize();
    let text = bytes.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    Ok(counts.then_some(text))
}

fn add_build(hash: &mut Hash, build: &ImageBuild, patterns: &[String]) -> io::Result<()> {
    match &build.dockerfile {
        DockerfileSource::Text(text) => hash.bytes(text.as_bytes()),
        DockerfileSource::File(path) => hash.file(path)?,
    }
    for (name, value) in &build.args {
        hash.bytes(name.as_bytes());
        hash.bytes(value.as_bytes());
    }
    hash.bytes(build.target.as_deref().unwrap_or_default().as_bytes());
    let used: Vec<Used> = patterns.iter().filter_map(|pattern| Used::parse(pattern)).collect();
    if used.is_empty() {
        return Ok(());
    }
    let ignored = Ignored::of(&build.context)?;
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let at = build.context.join(&folder);
        let entries = fs::read_dir(&at).map_err(|error| named(&at, error))?;
        let mut entries: Vec<_> = entries.collect::<io::Result<_>>()?;
        // Sorted: file systems list in any order.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.into_iter().filter(|entry| entry.file_name() != "__pycache__") {
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            let out = ignored.covers(&path) || !used.iter().any(|used| used.covers(&path));
            if kind.is_dir() {
                let may_hold = used.iter().any(|used| used.may_hold(&path));
                if may_hold && (!ignored.covers(&path) || ignored.may_take_back(&path)) {
                    open.push(path);
                }
            } else if !out && kind.is_symlink() {
                hash.bytes(path.as_os_str().as_encoded_bytes());
                hash.bytes(fs::read_link(entry.path())?.as_os_str().as_encoded_bytes());
            } else if !out && kind.is_file() {
                hash.bytes(path.as_os_str().as_encoded_bytes());
                hash.file(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// What a COPY takes.
enum Used {
    Everything,
    These(Pattern),
}

impl Used {
    fn parse(pattern: &str) -> Option<Self> {
        match pattern {
            "." => Some(Self::Everything),
            // What is no pattern fits no file either.
            pattern => Some(Self::These(Pattern::new(pattern).ok()?)),
        }
    }

    /// Whether it takes a path, or a folder that it is in.
    fn covers(&self, path: &Path) -> bool {
        match self {
            Self::Everything => true,
            Self::These(pattern) => path
                .ancestors()
                .any(|path| !path.as_os_str().is_empty() && pattern.matches_path_with(path, MATCH)),
        }
    }

    /// Whether a folder may have something in it that it takes.
    fn may_hold(&self, folder: &Path) -> bool {
        match self {
            Self::Everything => true,
            Self::These(pattern) => {
                let parts = pattern.as_str().split('/');
                let literal: PathBuf = parts.take_while(|part| !part.contains(['*', '?', '['])).collect();
                literal.starts_with(folder) || folder.starts_with(&literal)
            }
        }
    }
}

struct Hash(Sha256);

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a file: its content, and whether it is a program.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        use io::Read;
        let mut file = fs::File::open(path).map_err(|error| named(path, error))?;
        let metadata = file.metadata()?;
        self.0.update([u8::from(metadata.permissions().mode() & 0o111 != 0)]);
        let mut buffer = vec![0; READ_BYTES];
        let mut length = 0_u64;
        loop {
            let read = file.read(&mut buffer).map_err(|error| named(path, error))?;
            if read == 0 {
                break;
            }
            self.0.update(buffer.get(..read).unwrap_or_default());
            length += read as u64;
        }
        self.0.update(length.to_le_bytes());
        Ok(())
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Source(tempfile::TempDir);

    impl Source {
        fn new() -> Self {
            let source = Self(tempfile::tempdir().unwrap());
            source.write("app.py", "1");
            source.write("lib/a.py", "1");
            source.write("README.md", "1");
            source.write("lib/secret.key", "1");
            source.write(".dockerignore", "**/*.key\n");
            source
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn digest(&self, patterns: &[&str], dockerfile: &str) -> String {
            let build = ImageBuild {
                context: self.0.path().to_owned(),
                dockerfile: DockerfileSource::Text(dockerfile.into()),
                args: Default::default(),
                target: None,
            };
            let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let process = ProcessSpec {
                argv: vec!["app".into()],
                environment: Default::default(),
                working_dir: "/".into(),
                build: vec![BuildStep::Context { build, patterns }],
                path_map: Vec::new(),
                path_prefix: Vec::new(),
                hostname: None,
                user: None,
            };
            digest(&process).unwrap().unwrap()
        }
    }

    #[test]
    fn changes_with_what_the_dockerfile_uses_and_with_nothing_else() {
        let check = |patterns: &[&str], path: &str, changes: bool| {
            let source = Source::new();
            let before = source.digest(patterns, "FROM x");
            source.write(path, "2");
            assert_eq!(source.digest(patterns, "FROM x") != before, changes, "{patterns:?} {path}");
        };
        check(&["app.py"], "app.py", true);
        check(&["app.py"], "README.md", false);
        check(&["app.py"], "lib/a.py", false);
        check(&["lib"], "lib/a.py", true);
        check(&["lib"], "lib/deep/new.py", true);
        check(&["*.py"], "app.py", true);
        check(&["*.py"], "lib/a.py", false);
        check(&["."], "README.md", true);
        check(&["."], "lib/secret.key", false);
        check(&["."], "lib/__pycache__/a.pyc", false);
        check(&[], "app.py", false);
    }

    #[test]
    fn changes_with_the_dockerfile_and_with_what_may_be_run() {
        let source = Source::new();
        let before = source.digest(&["."], "FROM x");
        assert_eq!(source.digest(&["."], "FROM x"), before);
        assert_ne!(source.digest(&["."], "FROM y"), before);
        let app = source.0.path().join("app.py");
        fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(source.digest(&["."], "FROM x"), before);
    }
}
