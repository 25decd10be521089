//! The build context: the folder as a tar that is sent while it is made, without what .dockerignore leaves out.
//!
//! .dockerignore as the engine's own client reads it: patterns start at the context's root, the last one that fits a
//! path or a folder above it counts, `!` takes back.

use std::{
    fs::{File, FileType},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use glob::{MatchOptions, Pattern};
use keel_model::{DockerfileSource, ImageBuild};
use tokio::sync::mpsc;
use tokio_stream::Stream;

/// The name under which a Dockerfile is sent that isn't in its context.
const DOCKERFILE: &str = ".evenkeel.Dockerfile";
/// Pieces that wait to be sent.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 64 << 10;
/// How patterns of the context are matched.
pub(in crate::driver) const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

type Piece = io::Result<Vec<u8>>;

/// A context on its way.
pub(super) struct Sent {
    /// The Dockerfile's path in it.
    pub(super) dockerfile: String,
    pub(super) body: Body,
}

/// The tar's bytes.
pub(super) struct Body(mpsc::Receiver<Piece>);

impl Stream for Body {
    type Item = io::Result<bytes::Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(bytes::Bytes::from)))
    }
}

/// Begins to send a context.
///
/// # Errors
/// When the folder, its .dockerignore or the Dockerfile can't be read.
pub(super) fn send(build: &ImageBuild) -> io::Result<Sent> {
    let root = build.context.clone();
    let at =
        |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::read_dir(&root).map_err(|error| at(&root, error))?;
    let ignored = Ignored::of(&root)?;
    let (dockerfile, outside) = match &build.dockerfile {
        DockerfileSource::Text(text) => (DOCKERFILE.to_owned(), Some(text.clone().into_bytes())),
        DockerfileSource::File(path) => match path.strip_prefix(&root) {
            Ok(inside) => (inside.to_string_lossy().into_owned(), None),
            Err(_) => {
                let text = std::fs::read(path).map_err(|error| at(path, error))?;
                (DOCKERFILE.to_owned(), Some(text))
            }
        },
    };
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let kept = PathBuf::from(&dockerfile);
    tokio::task::spawn_blocking(move || {
        let pieces = BufWriter::with_capacity(PIECE_BYTES, Pieces(sender.clone()));
        if let Err(error) = write(pieces, &root, &ignored, &kept, outside) {
            // The engine is told by the body's early end.
            drop(sender.blocking_send(Err(error)));
        }
    });
    Ok(Sent { dockerfile, body: Body(receiver) })
}

/// Where pieces of the tar go.
struct Pieces(mpsc::Sender<Piece>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(bytes.to_vec()));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(
    writer: impl Write,
    root: &Path,
    ignored: &Ignored,
    dockerfile: &Path,
    outside: Option<Vec<u8>>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(writer);
    tar.follow_symlinks(false);
    tar.sparse(false);
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(root.join(&folder))?.collect::<io::Result<_>>()?;
        // Sorted: file systems list in any order.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            // The engine needs both to build, and leaves out what it is told to.
            let needed = path == dockerfile || path == Path::new(".dockerignore");
            let out = ignored.covers(&path) && !needed;
            if kind.is_dir() {
                if !out {
                    tar.append_path_with_name(entry.path(), &path)?;
                }
                if !out || ignored.may_take_back(&path) || dockerfile.starts_with(&path) {
                    open.push(path);
                }
            } else if !out && (kind.is_file() || kind.is_symlink()) {
                append(&mut tar, &entry.path(), &path, kind)?;
            }
        }
    }
    if let Some(text) = outside {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(0));
        header.set_mode(0o644);
        tar.append_data(&mut header, DOCKERFILE, text.as_slice())?;
    }
    tar.into_inner()?.flush()
}

/// Adds a file. One that goes while it is looked at isn't there.
fn append(tar: &mut tar::Builder<impl Write>, file: &Path, path: &Path, kind: FileType) -> io::Result<()> {
    let appended =
        if kind.is_file() { append_file(tar, file, path) } else { tar.append_path_with_name(file, path) };
    match appended {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !file.exists() => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        Ok(()) => Ok(()),
    }
}

/// Adds what a regular file holds now: a log may grow, or be cut, while it is read, and the tar has said how long it is.
fn append_file(tar: &mut tar::Builder<impl Write>, file: &Path, path: &Path) -> io::Result<()> {
    let open = File::open(file)?;
    let metadata = open.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    tar.append_data(&mut header, path, open.chain(io::repeat(0)).take(metadata.len()))
}

/// The lines of a .dockerignore, in order.
#[derive(Debug, Default)]
pub(in crate::driver) struct Ignored(Vec<Line>);

#[derive(Debug)]
struct Line {
    pattern: Pattern,
    takes_back: bool,
}

impl Ignored {
    /// Reads the file of a context, if it has one.
    ///
    /// # Errors
    /// When it can't be read.
    pub(in crate::driver) fn of(context: &Path) -> io::Result<Self> {
        let path = context.join(".dockerignore");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.filter_map(|line| {
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
            let cleaned = parts.collect::<Vec<_>>().join("/");
            match Pattern::new(&cleaned) {
                Ok(pattern) => Some(Line { pattern, takes_back }),
                Err(error) => {
                    tracing::warn!("`{line}` in .dockerignore is no pattern: {error}");
                    None
                }
            }
        });
        Self(parsed.collect())
    }

    /// Whether a path is left out: the last line that fits it, or a folder that it is in, says so.
    pub(in crate::driver) fn covers(&self, path: &Path) -> bool {
        let fits = |line: &&Line| {
            path.ancestors()
                .any(|path| !path.as_os_str().is_empty() && line.pattern.matches_path_with(path, MATCH))
        };
        self.0.iter().rev().find(fits).is_some_and(|line| !line.takes_back)
    }

    /// Whether something in a folder that is left out may be taken back.
    pub(in crate::driver) fn may_take_back(&self, folder: &Path) -> bool {
        let mut taken = self.0.iter().filter(|line| line.takes_back);
        taken.any(|line| {
            let literal: PathBuf =
                line.pattern.as_str().split('/').take_while(|part| !part.contains(['*', '?', '['])).collect();
            literal.starts_with(folder) || folder.starts_with(&literal)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dockerignore() {
        let check = |lines: &str, path: &str, covered: bool| {
            assert_eq!(Ignored::parse(lines).covers(Path::new(path)), covered, "{lines:?} {path}");
        };
        check("target", "target", true);
        check("target", "target/debug/app", true);
        check("target", "app/target", false);
        check("/target/", "target/x", true);
        check("./target", "target/x", true);
        check("**/target", "app/target/x", true);
        check("**/target", "target/x", true);
        check("*.log", "a.log", true);
        check("*.log", "logs/a.log", false);
        check("**/*.log", "logs/deep/a.log", true);
        check(".git", ".gitignore", false);
        check("*\n!src", "src/main.rs", false);
        check("*\n!src", "README.md", true);
        check("*\n!src\nsrc/secret", "src/secret", true);
        check("docs/*\n!docs/README.md", "docs/README.md", false);
        check("# target\n\n", "target", false);
    }

    #[test]
    fn looks_into_folders_from_which_something_is_taken_back() {
        let check = |lines: &str, folder: &str, looks: bool| {
            assert_eq!(Ignored::parse(lines).may_take_back(Path::new(folder)), looks, "{lines:?} {folder}");
        };
        check("node_modules", "node_modules", false);
        check("*\n!src/app", "src", true);
        check("*\n!src/app", "src/app", true);
        check("*\n!src/app", "node_modules", false);
        check("*\n!**/*.py", "deep", true);
    }

    #[tokio::test]
    async fn sends_what_counts_and_a_dockerfile_from_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("app");
        for file in ["main.py", "target/big", "docs/secret", "docs/README.md"] {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), file).unwrap();
        }
        std::fs::write(root.join(".dockerignore"), "target\ndocs/*\n!docs/README.md\n").unwrap();
        std::os::unix::fs::symlink("main.py", root.join("link")).unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch").unwrap();
        let build = ImageBuild {
            context: root,
            dockerfile: DockerfileSource::File(folder.path().join("Dockerfile")),
            args: Default::default(),
            target: None,
        };
        let mut sent = send(&build).unwrap();
        assert_eq!(sent.dockerfile, DOCKERFILE);
        let mut bytes = Vec::new();
        while let Some(piece) = sent.body.0.recv().await {
            bytes.extend(piece.unwrap());
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [".dockerignore", DOCKERFILE, "docs", "docs/README.md", "link", "main.py"]
                .map(|name| name.to_owned())
        );
    }

    /// Takes the tar's bytes, and lets a file grow with each write.
    struct Growing<'a>(&'a Path, Vec<u8>);

    impl Write for Growing<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            File::options().append(true).open(self.0)?.write_all(b"and more")?;
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_grows_is_sent_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "begun").unwrap();
        let mut tar = tar::Builder::new(Growing(&log, Vec::new()));
        append_file(&mut tar, &log, Path::new("log")).unwrap();
        append_file(&mut tar, &log, Path::new("again")).unwrap();
        let bytes = tar.into_inner().unwrap().1;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let sizes: Vec<u64> =
            archive.entries().unwrap().map(|entry| entry.unwrap().header().size().unwrap()).collect();
        assert_eq!(sizes[0], 5);
        assert_eq!(sizes.len(), 2);
    }
}
