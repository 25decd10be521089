//! `autoindex`: lists of folders, as a page, JSON or XML.

use std::{fmt::Write as _, str};

use keel_http::date::{self, Civil};
use keel_model::{AutoindexFormat, AutoindexScope, LogLevel};

use super::files;
use crate::{
    answer::{Answer, Fields, Source},
    client,
    files::Entry,
    job::{Flow, Job},
};

/// How many characters of a name the page shows.
const NAME_CHARACTERS_MAX: usize = 50;

/// The longest name of a function around a list.
const CALLBACK_BYTES_MAX: usize = 128;

/// Answers with a list of the folder.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    if client::expect_continue(job).await.is_err() {
        return Flow::Close;
    }
    let mut folder = files::path_of(job.lookup(), &job.ex.routed.uri).into_os_string().into_encoded_bytes();
    if folder.len() > 1 && folder.ends_with(b"/") {
        folder.pop();
    }
    let folder = files::join(folder, b"");
    let scope = job.place().scope.autoindex.clone();
    let callback = match scope.format {
        AutoindexFormat::Jsonp => match callback(job) {
            Ok(callback) => callback,
            Err(flow) => return flow,
        },
        _ => None,
    };
    let mut entries = match job.place().files.list(&folder) {
        Ok(entries) => entries,
        Err(error) => return files::no_folder(job, &folder, &error),
    };
    entries.sort_unstable_by(|one, other| {
        other.is_folder.cmp(&one.is_folder).then_with(|| one.name.cmp(&other.name))
    });
    let (content_type, body) = match (scope.format, callback) {
        (AutoindexFormat::Html, _) => ("text/html", html(job, &scope, &entries)),
        (AutoindexFormat::Xml, _) => ("text/xml; charset=utf-8", xml(&entries)),
        (AutoindexFormat::Json, _) | (AutoindexFormat::Jsonp, None) => ("application/json", json(&entries)),
        (AutoindexFormat::Jsonp, Some(callback)) => {
            let list = json(&entries);
            let call = [b"/* callback */\r\n", callback.as_slice(), b"(", &list, b");"].concat();
            ("application/javascript", call)
        }
    };
    let fields = Fields {
        content_type: Some(content_type.as_bytes().to_vec()),
        // As in nginx, which begins to answer before it has looked.
        resized: true,
        ..Fields::default()
    };
    Flow::Answer(Answer::with(200, fields, Source::Bytes(body)))
}

/// The function that the request names for the list; an error is what to answer where that is no name.
fn callback(job: &mut Job<'_>) -> Result<Option<Vec<u8>>, Flow> {
    let mut name = Vec::new();
    job.lookup().append(&keel_model::Variable::Arg("callback".to_owned()), &mut name);
    if name.is_empty() {
        return Ok(None);
    }
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let what = match name.len() {
        ..=CALLBACK_BYTES_MAX if name.iter().all(is_letter) => return Ok(Some(name)),
        ..=CALLBACK_BYTES_MAX => "invalid",
        _ => "too long",
    };
    let text = format!("client sent {what} callback name: \"{}\"", String::from_utf8_lossy(&name));
    job.client.log(job.worker, job.ex, LogLevel::Info, &text);
    Err(Flow::status(400))
}

/// Appends text with what means something in HTML escaped.
fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            byte => out.push(*byte),
        }
    }
}

/// Appends text as a part of a URI (RFC 3986 §2.3).
fn escape_uri(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(*byte);
            continue;
        }
        out.push(b'%');
        for half in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(half)));
        }
    }
}

/// Appends text within quotes of JSON.
fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => out.push(*byte),
        }
    }
}

fn html(job: &Job<'_>, scope: &AutoindexScope, entries: &[Entry]) -> Vec<u8> {
    let mut uri = Vec::new();
    escape_html(&job.ex.routed.uri, &mut uri);
    let mut out = Vec::new();
    out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
    out.extend_from_slice(&uri);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    out.extend_from_slice(&uri);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    let offset = if scope.localtime { local_offset(job) } else { 0 };
    let is_utf8 = is_utf8(job);
    for entry in entries {
        line(entry, is_utf8, &mut out);
        let at = Civil::from_seconds(entry.modified.saturating_add(offset));
        let mut tail = format!(
            " {:02}-{}-{} {:02}:{:02} ",
            at.day,
            date::month_name(at.month),
            at.year,
            at.hour,
            at.minute
        );
        let width = if scope.exact_size { 19 } else { 7 };
        let size = match (entry.is_folder, scope.exact_size) {
            (true, _) => "-".to_owned(),
            (false, true) => entry.length.to_string(),
            (false, false) => rounded(entry.length),
        };
        let written = write!(tail, "{size:>width$}\r\n");
        debug_assert!(written.is_ok(), "writing to memory doesn't fail");
        out.extend_from_slice(tail.as_bytes());
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
    out
}

/// Appends the link to an entry, and what fills its column up.
fn line(entry: &Entry, is_utf8: bool, out: &mut Vec<u8>) {
    let name = entry.name.as_slice();
    out.extend_from_slice(b"<a href=\"");
    escape_uri(name, out);
    if entry.is_folder {
        out.push(b'/');
    }
    out.extend_from_slice(b"\">");
    let text = str::from_utf8(name).ok().filter(|_| is_utf8);
    let length = text.map_or(name.len(), |text| text.chars().count());
    if length > NAME_CHARACTERS_MAX {
        let kept = NAME_CHARACTERS_MAX - 3;
        let end = text.map_or(kept, |text| text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at));
        escape_html(name.get(..end).unwrap_or_default(), out);
        out.extend_from_slice(b"..&gt;</a>");
        return;
    }
    escape_html(name, out);
    let mut column = length;
    if entry.is_folder && column < NAME_CHARACTERS_MAX {
        out.push(b'/');
        column += 1;
    }
    out.extend_from_slice(b"</a>");
    out.extend(std::iter::repeat_n(b' ', NAME_CHARACTERS_MAX - column));
}

/// Writes a size in bytes, K, M or G, whichever is short.
fn rounded(length: u64) -> String {
    let (unit, letter) = match length {
        0..=9_999 => return length.to_string(),
        10_000..1_048_576 => (1 << 10, 'K'),
        1_048_576..1_073_741_824 => (1 << 20, 'M'),
        _ => (1 << 30, 'G'),
    };
    format!("{}{letter}", length / unit + u64::from(length % unit >= unit / 2))
}

/// How far this host's time is ahead of UTC now, in seconds.
fn local_offset(job: &Job<'_>) -> i64 {
    let mut time_text = job.worker.time_text.borrow_mut();
    let text = time_text.local(job.worker.system_time());
    let zone = text.rsplit(' ').next().unwrap_or_default();
    let number: i64 = zone.parse().unwrap_or(0);
    (number / 100 * 60 + number % 100) * 60
}

/// Whether the page will say that it is in UTF-8.
fn is_utf8(job: &Job<'_>) -> bool {
    let charset = &job.place().scope.charset;
    let named = charset.charset.as_ref().map(|name| job.text(name));
    named.is_some_and(|name| name.eq_ignore_ascii_case(b"utf-8"))
}

fn json(entries: &[Entry]) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for (at, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",\r\n{ \"name\":\"" } else { b"\r\n{ \"name\":\"" });
        escape_json(&entry.name, &mut out);
        let modified = date::http(entry.modified);
        let mut tail = format!("\", \"type\":\"{}\", \"mtime\":\"{modified}\"", kind(entry));
        if entry.is_file {
            let written = write!(tail, ", \"size\":{}", entry.length);
            debug_assert!(written.is_ok(), "writing to memory doesn't fail");
        }
        out.extend_from_slice(tail.as_bytes());
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    out
}

fn xml(entries: &[Entry]) -> Vec<u8> {
    let mut out = b"<?xml version=\"1.0\"?>\r\n<list>\r\n".to_vec();
    for entry in entries {
        let at = Civil::from_seconds(entry.modified);
        let mut head = format!(
            "<{} mtime=\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z\"",
            kind(entry),
            at.year,
            at.month,
            at.day,
            at.hour,
            at.minute,
            at.second
        );
        if entry.is_file {
            let written = write!(head, " size=\"{}\"", entry.length);
            debug_assert!(written.is_ok(), "writing to memory doesn't fail");
        }
        out.extend_from_slice(head.as_bytes());
        out.push(b'>');
        escape_html(&entry.name, &mut out);
        out.extend_from_slice(format!("</{}>\r\n", kind(entry)).as_bytes());
    }
    out.extend_from_slice(b"</list>\r\n");
    out
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry { is_folder: true, .. } => "directory",
        Entry { is_file: true, .. } => "file",
        Entry { .. } => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_nginx_rounds_them() {
        for (length, expect) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10K"),
            (10_752, "11K"),
            (1_048_575, "1024K"),
            (1_048_576, "1M"),
            (1_572_864, "2M"),
            (1 << 31, "2G"),
        ] {
            assert_eq!(rounded(length), expect, "{length}");
        }
    }

    #[test]
    fn long_names_are_cut_and_short_ones_fill_their_column() {
        let entry = |name: &str, is_folder: bool| Entry {
            name: name.into(),
            is_folder,
            is_file: !is_folder,
            modified: 0,
            length: 1,
        };
        let check = |name: &str, is_folder, is_utf8, expect: &str| {
            let mut out = Vec::new();
            line(&entry(name, is_folder), is_utf8, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect, "{name}");
        };
        let spaces = |count| " ".repeat(count);
        check("a b", false, true, &format!("<a href=\"a%20b\">a b</a>{}", spaces(47)));
        check("d", true, true, &format!("<a href=\"d/\">d/</a>{}", spaces(48)));
        check("<", false, true, &format!("<a href=\"%3C\">&lt;</a>{}", spaces(49)));
        let long = "x".repeat(51);
        check(&long, true, true, &format!("<a href=\"{long}/\">{}..&gt;</a>", "x".repeat(47)));
        check("é", false, true, &format!("<a href=\"%C3%A9\">é</a>{}", spaces(49)));
        check("é", false, false, &format!("<a href=\"%C3%A9\">é</a>{}", spaces(48)));
    }

    #[test]
    fn lists_name_what_is_there() {
        let entries = [
            Entry { name: b"d".to_vec(), is_folder: true, is_file: false, modified: 0, length: 0 },
            Entry { name: b"a\"\n".to_vec(), is_folder: false, is_file: true, modified: 10, length: 5 },
        ];
        assert_eq!(
            String::from_utf8(json(&entries)).unwrap(),
            "[\r\n{ \"name\":\"d\", \"type\":\"directory\", \"mtime\":\"Thu, 01 Jan 1970 00:00:00 GMT\" },\r\n\
             { \"name\":\"a\\\"\\n\", \"type\":\"file\", \"mtime\":\"Thu, 01 Jan 1970 00:00:10 GMT\", \"size\":5 }\r\n]"
        );
        assert_eq!(
            String::from_utf8(xml(&entries)).unwrap(),
            "<?xml version=\"1.0\"?>\r\n<list>\r\n<directory mtime=\"1970-01-01T00:00:00Z\">d</directory>\r\n\
             <file mtime=\"1970-01-01T00:00:10Z\" size=\"5\">a&quot;\n</file>\r\n</list>\r\n"
        );
    }
}
