//! ngx_http_core_module: `error_page` and `try_files`, which lead a request elsewhere.

use keel_model::{ErrorPage, ErrorPageStatus, FileKind, TryFile, TryFiles, TryFilesFallback};

use crate::{
    arguments::text,
    ast::{Directive, Word},
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "error_page",
        syntax: "code ... [=[response]] uri",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::AtLeast(2),
        default: None,
        doc: "Answers these errors with another URI, named location or URL. `=code` sends that status, `=` alone the \
              page's own. A block with any `error_page` inherits none.",
        set: Setter::Simple(error_page),
    },
    Row {
        name: "post_action",
        syntax: "uri",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: None,
        doc: "Where a request goes once it has been answered: a path or named location. What comes of it is dropped; variables \
              tell of the response that was sent. The access log has the request as it was answered.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.post_action, text);
        }),
    },
    Row {
        name: "try_files",
        syntax: "file ... uri | file ... =code",
        contexts: Contexts::SERVER_LOCATION,
        arity: Arity::AtLeast(2),
        default: None,
        doc: "Serves the first of these files that exists; otherwise goes to the last argument, a URI, a named location \
              or a status. A `/` written at an argument's end asks for a folder; without it only files match, whatever \
              the variables' values end in.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.try_files.0, try_files);
        }),
    },
];

fn error_page(reader: &mut Reader<'_>, directive: &Directive) {
    let Some((page, before)) = directive.args.split_last() else {
        return;
    };
    let (response, statuses) = match before.split_last() {
        Some((word, statuses)) if word.text.starts_with('=') => {
            let Some(response) = overwrite(reader, directive, word, statuses) else {
                return;
            };
            (Some(response), statuses)
        }
        _ => (None, before),
    };
    let Some(uri) = reader.template(page) else {
        return;
    };
    for word in statuses {
        let number = value::number(&word.text).filter(|&status| status != 499);
        let Some(status) = number else {
            let nginx = format!("invalid value \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "a status between 300 and 599, and not 499");
            continue;
        };
        let Some(status) = u16::try_from(status).ok().filter(|status| (300..=599).contains(status)) else {
            let nginx = format!("value \"{}\" must be between 300 and 599", word.text);
            reader.invalid(directive, word, nginx, "a status between 300 and 599");
            continue;
        };
        let response = response.unwrap_or(match status {
            // nginx's own statuses, which a client must never see.
            494..=497 => ErrorPageStatus::Fixed(400),
            _ => ErrorPageStatus::Keep,
        });
        let page = ErrorPage { status, response, uri: uri.clone() };
        reader.frame.scope.core.error_pages.get_or_insert_default().push(page);
    }
}

fn overwrite(
    reader: &mut Reader<'_>,
    directive: &Directive,
    word: &Word,
    statuses: &[Word],
) -> Option<ErrorPageStatus> {
    let text = word.text.strip_prefix('=').unwrap_or_default();
    let status = value::number(text).and_then(|status| u16::try_from(status).ok());
    match status {
        _ if statuses.is_empty() => {}
        _ if text.is_empty() => return Some(ErrorPageStatus::FromPage),
        Some(0) => return Some(ErrorPageStatus::FromPage),
        Some(status) => return Some(ErrorPageStatus::Fixed(status)),
        None => {}
    }
    let nginx = format!("invalid value \"{}\"", word.text);
    reader.invalid(directive, word, nginx, "statuses, then `=` or `=200`, then a URI");
    None
}

fn try_files(reader: &mut Reader<'_>, directive: &Directive) -> Option<TryFiles> {
    let (last, files) = directive.args.split_last()?;
    let candidates = files.iter().map(|word| candidate(reader, word)).collect::<Vec<_>>();
    let fallback = match last.text.strip_prefix('=') {
        Some(code) => match value::number(code).and_then(|code| u16::try_from(code).ok()) {
            Some(code) if code <= 999 => TryFilesFallback::Status(code),
            _ => {
                let nginx = format!("invalid code \"{}\"", last.text);
                reader.invalid(directive, last, nginx, "a status such as `=404`");
                return None;
            }
        },
        None => TryFilesFallback::Uri(reader.template(last)?),
    };
    Some(TryFiles { candidates: candidates.into_iter().collect::<Option<_>>()?, fallback })
}

fn candidate(reader: &mut Reader<'_>, word: &Word) -> Option<TryFile> {
    let (text, kind) = match word.text.strip_suffix('/') {
        Some(text) => (text, FileKind::Folder),
        None => (word.text.as_str(), FileKind::File),
    };
    Some(TryFile { path: reader.template_text(text, word)?, kind })
}
