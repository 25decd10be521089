//! Files: `root`, `alias`, `index` and `types`.

use std::{
    fs::{File, Metadata},
    io,
    os::{unix::ffi::OsStrExt, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use keel_model::{GzipStatic, LogLevel, Root};

use super::{
    autoindex,
    gzip_static::{self, Found},
    random_index, redirect,
};
use crate::{
    answer::{Answer, Fields, FileParts, Ranges, Source, Special},
    client,
    exchange::Method,
    files::Opened,
    filter,
    job::{Flow, Job},
    snapshot::PlaceKind,
    variables::Lookup,
};

/// Gives `$document_root`.
pub(crate) fn root_of(lookup: Lookup<'_>) -> Vec<u8> {
    let place = lookup.ex.place(lookup.view);
    let (Root::Root(template) | Root::Alias(template)) = &place.scope.core.root;
    let mut out = Vec::new();
    lookup.append_template(template, &mut out);
    out
}

/// Gives `$request_filename`.
pub(crate) fn file_name(lookup: Lookup<'_>) -> Vec<u8> {
    path_of(lookup, &lookup.ex.routed.uri).into_os_string().into_encoded_bytes()
}

/// Maps a URI to a path. The URI is normalised and so can't leave the root.
pub(crate) fn path_of(lookup: Lookup<'_>, uri: &[u8]) -> PathBuf {
    let rest = match mapping(lookup) {
        Mapping::Whole => uri,
        Mapping::After(prefix) => uri.get(prefix..).unwrap_or_default(),
        Mapping::Complete if lookup.ex.routed.uri_below_alias => uri,
        Mapping::Complete => b"",
    };
    join(root_of(lookup), rest)
}

/// What of a URI is appended to `root` or `alias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// All of it (`root`).
    Whole,
    /// What follows the location's name, of this length (`alias`).
    After(usize),
    /// Nothing (`alias` in a location with a regular expression, which says it all).
    Complete,
}

/// Gives what of a URI is appended in this place.
pub(crate) fn mapping(lookup: Lookup<'_>) -> Mapping {
    let place = lookup.ex.place(lookup.view);
    match (&place.scope.core.root, place.alias_prefix) {
        (Root::Root(_), _) => Mapping::Whole,
        (Root::Alias(_), Some(prefix)) => Mapping::After(prefix),
        (Root::Alias(_), None) => Mapping::Complete,
    }
}

/// Appends to the path of `root` or `alias`.
pub(crate) fn join(mut root: Vec<u8>, rest: &[u8]) -> PathBuf {
    root.extend_from_slice(rest);
    PathBuf::from(std::ffi::OsStr::from_bytes(&root))
}

/// Gives what a request ends with that `alias` can't serve: nothing stands for the location's prefix in a URI that was
/// rewritten within it.
pub(super) fn refuse_alias(job: &Job<'_>) -> Option<Flow> {
    if !job.ex.routed.prefix_is_gone || mapping(job.lookup()) == Mapping::Whole {
        return None;
    }
    let name = match &job.place().kind {
        PlaceKind::Prefix(name) => name.as_str(),
        PlaceKind::Server | PlaceKind::Regex | PlaceKind::Named => "",
    };
    let text = format!("\"alias\" cannot be used in location \"{name}\" where URI was rewritten");
    job.client.log(job.worker, job.ex, LogLevel::Alert, &text);
    Some(Flow::status(500))
}

/// Answers with a file.
pub(super) async fn serve(job: &mut Job<'_>) -> Flow {
    if let Some(failed) = refuse_alias(job) {
        return failed;
    }
    let readable = job.ex.routed.as_get || matches!(job.ex.routed.method, Method::Get | Method::Head);
    // What is there is looked for before a POST is refused, as in nginx: a missing page is 404 to it, too.
    if !readable && job.ex.routed.method != Method::Post {
        return Flow::status(405);
    }
    if job.ex.routed.uri.ends_with(b"/") {
        return Box::pin(index(job)).await;
    }
    let mut varies = false;
    if readable && job.place().scope.gzip_static != GzipStatic::Off {
        match gzip_static::find(job) {
            Found::Packed(file, meta) => return answer(job, file, &meta, Encoding::Gzip).await,
            Found::PackedForOthers => varies = true,
            Found::Nothing => {}
            Found::Odd => return Flow::status(404),
        }
    }
    let path = path_of(job.lookup(), &job.ex.routed.uri);
    let opened = match job.place().files.open(&path) {
        Ok(opened) => opened,
        Err(error) => return not_found(job, &path, &error),
    };
    let Opened::File(file, meta) = opened else {
        let mut target = Vec::new();
        keel_http::uri::escape(&job.ex.routed.uri, &mut target);
        target.push(b'/');
        if !job.ex.routed.args.is_empty() {
            target.push(b'?');
            target.extend_from_slice(&job.ex.routed.args);
        }
        let url = redirect::absolute_url(job.lookup(), &target);
        return Flow::Status(Box::new(Special::moved(301, url)));
    };
    if !meta.is_file() {
        let text = format!("\"{}\" is not a regular file", path.display());
        job.client.log_error(job.worker, job.ex, &text);
        return Flow::status(404);
    }
    if !readable {
        return Flow::status(405);
    }
    answer(job, file, &meta, if varies { Encoding::PlainOfTwo } else { Encoding::Plain }).await
}

/// How the bytes of a file that is sent stand for its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    /// As they are, but other clients get them compressed.
    PlainOfTwo,
    Gzip,
}

fn not_found(job: &mut Job<'_>, path: &Path, error: &io::Error) -> Flow {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    let status = match error.kind() {
        NotFound | NotADirectory | InvalidFilename => 404,
        PermissionDenied => 403,
        _ => 500,
    };
    if status != 404 || job.place().scope.core.log_not_found {
        let text = format!("open() \"{}\" failed ({})", path.display(), errno_text(error));
        job.client.log_error(job.worker, job.ex, &text);
    }
    Flow::status(status)
}

/// Answers for a folder that can't be listed.
pub(super) fn no_folder(job: &mut Job<'_>, path: &Path, error: &io::Error) -> Flow {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    let status = match error.kind() {
        NotFound | NotADirectory | InvalidFilename => 404,
        PermissionDenied => 403,
        _ => 500,
    };
    let level = if status == 500 { LogLevel::Crit } else { LogLevel::Error };
    let text = format!("opendir() \"{}\" failed ({})", path.display(), errno_text(error));
    job.client.log(job.worker, job.ex, level, &text);
    Flow::status(status)
}

/// Writes an error as nginx does: `2: No such file or directory`.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match error.raw_os_error() {
        Some(number) => format!("{number}: {text}"),
        None => text.to_owned(),
    }
}

/// Looks for an index file in a folder.
async fn index(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    if job.ex.place(&view).scope.random_index
        && let Some(flow) = random_index::run(job)
    {
        return flow;
    }
    for name in &job.ex.place(&view).scope.index.names {
        let name = job.text(name);
        if name.starts_with(b"/") {
            return Flow::restart(name, job.ex.routed.args.clone());
        }
        let folder = path_of(job.lookup(), &job.ex.routed.uri).into_os_string().into_encoded_bytes();
        let path = join(folder, &name);
        match job.place().files.kind(&path) {
            Ok(_) => {
                let mut path = job.ex.routed.uri.clone();
                path.extend_from_slice(&name);
                return Flow::restart(path, job.ex.routed.args.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return not_found(job, &path, &error);
            }
            _ => {}
        }
    }
    let readable = job.ex.routed.as_get || matches!(job.ex.routed.method, Method::Get | Method::Head);
    if readable && job.place().scope.autoindex.enabled {
        return autoindex::run(job).await;
    }
    let folder = path_of(job.lookup(), &job.ex.routed.uri);
    match job.place().files.kind(&folder) {
        Ok(_) => {
            let text = format!("directory index of \"{}\" is forbidden", folder.display());
            job.client.log_error(job.worker, job.ex, &text);
            Flow::status(403)
        }
        Err(error) => {
            let index = folder.join("index.html");
            not_found(job, &index, &error)
        }
    }
}

/// Gives the media type that `types` has for the URI's ending, else `default_type`. A file's own name doesn't matter
/// where an `alias` gives it another one.
pub(crate) fn content_type<'a>(job: &'a Job<'_>) -> &'a str {
    let place = job.place();
    let ending = ending_of(&job.ex.routed.uri).map(str::to_ascii_lowercase);
    let known = ending.and_then(|ending| place.types.get(&ending));
    known.map_or(place.scope.core.default_type.as_str(), String::as_str)
}

/// Gives what follows the last dot of a URI's last segment, unless the segment begins with that dot.
fn ending_of(uri: &[u8]) -> Option<&str> {
    let name = uri.rsplit(|byte| *byte == b'/').next()?;
    let dot = memchr::memrchr(b'.', name).filter(|at| *at > 0)?;
    std::str::from_utf8(name.get(dot + 1..)?).ok()
}

/// Makes the answer of a file that has been opened.
async fn answer(job: &mut Job<'_>, file: File, meta: &Metadata, encoding: Encoding) -> Flow {
    if client::expect_continue(job).await.is_err() {
        return Flow::Close;
    }
    let modified = meta.mtime();
    let etag = job.place().scope.core.etag;
    let fields = Fields {
        content_type: Some(
            job.ex.sent.content_type.clone().unwrap_or_else(|| content_type(job).as_bytes().to_vec()),
        ),
        modified: Some(modified),
        etag: etag.then(|| format!("\"{:x}-{:x}\"", modified, meta.len()).into_bytes()),
        encoding: (encoding == Encoding::Gzip).then_some("gzip"),
        ranges: Ranges::Many,
        ..Fields::default()
    };
    let parts = FileParts::whole(file, meta.len());
    let mut answer = Answer::with(200, fields, Source::File(parts));
    let is_always = job.place().scope.gzip_static == GzipStatic::Always;
    if encoding != Encoding::Plain && !is_always {
        filter::say_vary(job, &mut answer);
    }
    Flow::Answer(answer)
}
