//! Files: `root`, `alias`, `index`, `types`, validators and ranges.

use std::{
    fs::{File, Metadata},
    future::poll_fn,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    task::{Poll, ready},
};

use keel_http::{Lines, Message, Name, Status, date};
use keel_model::{IfModifiedSince, Root};

use crate::{
    error::ClientGone,
    exchange::Method,
    files::Opened,
    job::{Flow, Job},
    phase::error_page,
    respond::{self, Own},
    variables::Lookup,
};

mod ranges;

use ranges::{Selection, select};

/// The most that one call copies from a file to a socket: others have their turn after it.
const SEND_BYTES_MAX: usize = 512 << 10;

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
    path_of(lookup, &lookup.ex.uri).into_os_string().into_encoded_bytes()
}

/// Maps a URI to a path. The URI is normalised and so can't leave the root.
pub(crate) fn path_of(lookup: Lookup<'_>, uri: &[u8]) -> PathBuf {
    let rest = match mapping(lookup) {
        Mapping::Whole => uri,
        Mapping::After(prefix) => uri.get(prefix..).unwrap_or_default(),
        Mapping::Complete if lookup.ex.uri_below_alias => uri,
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

/// Answers with a file.
pub(super) async fn serve(job: &mut Job<'_>) -> Flow {
    let readable = job.ex.as_get || matches!(job.ex.method, Method::Get | Method::Head);
    // What is there is looked for before a POST is refused, as in nginx: a missing page is 404 to it, too.
    if !readable && job.ex.method != Method::Post {
        return Flow::Status(405);
    }
    if job.ex.uri.ends_with(b"/") {
        return index(job);
    }
    let path = path_of(job.lookup(), &job.ex.uri);
    let opened = match job.place().files.open(&path) {
        Ok(opened) => opened,
        Err(error) => return not_found(job, &path, &error),
    };
    let Opened::File(file, meta) = opened else {
        let mut target = Vec::new();
        keel_http::uri::escape(&job.ex.uri, &mut target);
        target.push(b'/');
        if !job.ex.args.is_empty() {
            target.push(b'?');
            target.extend_from_slice(&job.ex.args);
        }
        let url = respond::absolute_url(job, &target);
        return error_page::finish_with(job, 301, Some(url)).await;
    };
    if !meta.is_file() {
        let text = format!("\"{}\" is not a regular file", path.display());
        job.client.log_error(job.worker, job.ex, &text);
        return Flow::Status(404);
    }
    if !readable {
        return Flow::Status(405);
    }
    send_file(job, &file, &meta).await
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
    Flow::Status(status)
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
fn index(job: &mut Job<'_>) -> Flow {
    let view = job.view.clone();
    for name in &job.ex.place(&view).scope.index.names {
        let name = job.text(name);
        if name.starts_with(b"/") {
            return error_page::go_to(job, &name);
        }
        let folder = path_of(job.lookup(), &job.ex.uri).into_os_string().into_encoded_bytes();
        let path = join(folder, &name);
        match job.place().files.kind(&path) {
            Ok(_) => {
                let mut uri = job.ex.uri.clone();
                uri.extend_from_slice(&name);
                let args = std::mem::take(&mut job.ex.args);
                job.ex.redirect(b"");
                job.ex.uri = uri;
                job.ex.args = args;
                return Flow::Redirect;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return not_found(job, &path, &error);
            }
            _ => {}
        }
    }
    let folder = path_of(job.lookup(), &job.ex.uri);
    match job.place().files.kind(&folder) {
        Ok(_) => {
            let text = format!("directory index of \"{}\" is forbidden", folder.display());
            job.client.log_error(job.worker, job.ex, &text);
            Flow::Status(403)
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
    let ending = ending_of(&job.ex.uri).map(str::to_ascii_lowercase);
    let known = ending.and_then(|ending| place.types.get(&ending));
    known.map_or(place.scope.core.default_type.as_str(), String::as_str)
}

/// Gives what follows the last dot of a URI's last segment, unless the segment begins with that dot.
fn ending_of(uri: &[u8]) -> Option<&str> {
    let name = uri.rsplit(|byte| *byte == b'/').next()?;
    let dot = memchr::memrchr(b'.', name).filter(|at| *at > 0)?;
    std::str::from_utf8(name.get(dot + 1..)?).ok()
}

async fn send_file(job: &mut Job<'_>, file: &File, meta: &Metadata) -> Flow {
    let modified = meta.mtime();
    let etag = job.place().scope.core.etag.then(|| format!("\"{:x}-{:x}\"", modified, meta.len()));
    let mut fields = Lines::default();
    // Of an error page the date says nothing.
    if matches!(job.ex.forced_status, None | Some(200 | 206 | 304)) {
        fields.field("Last-Modified", date::http(modified).as_bytes());
    }
    if let Some(etag) = &etag {
        fields.field("ETag", etag.as_bytes());
    }
    // An error page is sent whatever the client has.
    if job.ex.forced_status.is_none() {
        match validate(job, modified, etag.as_deref()) {
            Validity::Send => {}
            Validity::NotModified => {
                let own = Own { fields, modified: Some(modified), ..Own::status(304) };
                return respond::send_own(job, own).await;
            }
            Validity::Failed => return Flow::Status(412),
        }
    }
    let content_type = content_type(job).to_owned();
    let selection = select(job, meta.len(), modified, etag.as_deref());
    let status = match &selection {
        Selection::All => 200,
        Selection::One(..) | Selection::Many(_) => 206,
        Selection::Unsatisfiable => {
            let range = format!("bytes */{}", meta.len());
            let mut fields = Lines::default();
            fields.field("Content-Range", range.as_bytes());
            return respond::send_special(job, 416, None, fields).await;
        }
    };
    job.settle_keep_alive();
    let status = job.ex.forced_status.take().unwrap_or(status);
    job.ex.status = status;
    let plan = selection.plan(meta.len(), &content_type);
    let mut head = Lines::in_buffer(std::mem::take(&mut job.ex.sent_head));
    respond::begin_head(job, Status::Own(status), true, true, &mut head);
    head.field("Content-Type", plan.content_type.as_bytes());
    head.number("Content-Length", plan.length);
    head.append(&fields);
    if let Some(range) = &plan.content_range {
        head.field("Content-Range", range.as_bytes());
    }
    if status == 200 && job.place().scope.core.max_ranges != Some(0) {
        head.fixed("Accept-Ranges: bytes\r\n");
    }
    respond::finish_head(job, status, Some(modified), &mut head);
    let head = match head.end() {
        Ok(head) => head,
        Err(unwritable) => {
            respond::note_unwritable(job, &unwritable);
            return Flow::Status(500);
        }
    };
    let result = send_parts(job, &head, file, &plan).await;
    job.ex.sent_head = head.into_head();
    job.ex.head_sent = true;
    match result {
        Ok(()) => {
            job.ex.complete = true;
            Flow::Done
        }
        Err(ClientGone) => Flow::Close,
    }
}

async fn send_parts(
    job: &mut Job<'_>,
    head: &Message,
    file: &File,
    plan: &ranges::SendPlan,
) -> Result<(), ClientGone> {
    if job.ex.is_head() || plan.length == 0 {
        return respond::send_message(job, head, b"").await;
    }
    // What is small goes out with the head, in one packet.
    if plan.length <= crate::io::buffer::BUFFER_BYTES as u64 && plan.parts.len() == 1 {
        let mut body = job.worker.buffers.take();
        let part = &plan.parts[0];
        let read = ranges::read_part(file, part, &mut body);
        let sent = match read {
            Ok(()) => respond::send_message(job, head, &body).await,
            Err(_) => Err(ClientGone),
        };
        job.ex.body_bytes_sent = body.len() as u64;
        job.worker.buffers.give(body);
        return sent;
    }
    respond::send_message(job, head, b"").await?;
    job.ex.head_sent = true;
    for part in &plan.parts {
        respond::send_body(job, &part.before).await?;
        job.ex.body_bytes_sent += part.before.len() as u64;
        stream(job, file, part.start, part.end).await?;
    }
    respond::send_body(job, &plan.after).await?;
    job.ex.body_bytes_sent += plan.after.len() as u64;
    Ok(())
}

/// Sends a range of a file without copying it through this process.
async fn stream(job: &mut Job<'_>, file: &File, start: u64, end: u64) -> Result<(), ClientGone> {
    let timeout = respond::send_timeout(job);
    let (worker, client) = (job.worker, &mut *job.client);
    let mut offset = start;
    let mut waiting = false;
    let result = poll_fn(|cx| {
        let mut sent_now = 0;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX).min(SEND_BYTES_MAX);
            match client.socket.poll_send_file(cx, file.as_fd(), &mut offset, left) {
                // The file has become shorter: the length that was promised can't be kept.
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(ClientGone)),
                Poll::Ready(Ok(sent)) => {
                    waiting = false;
                    sent_now += sent;
                    if sent_now >= SEND_BYTES_MAX {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Pending => {
                    if !std::mem::replace(&mut waiting, true) {
                        client.timer.set(&worker.clock, timeout);
                    }
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    client.timed_out = true;
                    return Poll::Ready(Err(ClientGone));
                }
            }
        }
        Poll::Ready(Ok(()))
    });
    let result = result.await;
    job.ex.bytes_sent += offset - start;
    job.ex.body_bytes_sent += offset - start;
    result
}

enum Validity {
    Send,
    NotModified,
    Failed,
}

/// Compares what the client has with the file (RFC 9110 §13.2.2).
fn validate(job: &Job<'_>, modified: i64, etag: Option<&str>) -> Validity {
    let ex = &job.ex;
    if let Some(since) = ex.field(Name::IfUnmodifiedSince)
        && ex.field(Name::IfMatch).is_none()
        && date::parse_http(since).is_some_and(|since| modified > since)
    {
        return Validity::Failed;
    }
    if let Some(wanted) = ex.field(Name::IfMatch)
        && !matches_etag(wanted, etag, Strength::Strong)
    {
        return Validity::Failed;
    }
    let none_match = ex.field(Name::IfNoneMatch);
    if let Some(known) = none_match {
        return if matches_etag(known, etag, Strength::Weak) {
            Validity::NotModified
        } else {
            Validity::Send
        };
    }
    let Some(since) = ex.field(Name::IfModifiedSince) else { return Validity::Send };
    let since = date::parse_http(since);
    let same = match job.place().scope.core.if_modified_since {
        IfModifiedSince::Off => false,
        IfModifiedSince::Exact => since == Some(modified),
        IfModifiedSince::Before => since.is_some_and(|since| modified <= since),
    };
    if same { Validity::NotModified } else { Validity::Send }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
}

fn matches_etag(list: &[u8], etag: Option<&str>, strength: Strength) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    keel_http::connection::tokens(list).any(|candidate| {
        let weak = candidate.strip_prefix(b"W/");
        match (weak, strength) {
            (Some(_), Strength::Strong) => false,
            (Some(opaque), Strength::Weak) => opaque == etag.as_bytes(),
            (None, _) => candidate == etag.as_bytes(),
        }
    })
}
