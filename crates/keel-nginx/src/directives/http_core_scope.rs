//! ngx_http_core_module: what locations inherit.

use keel_diag::Diagnostic;
use keel_model::{IfModifiedSince, KeepaliveDisable, LingeringClose, LocationMatcher, Root, ServerTokens};

use crate::{
    arguments::{flag, keyword, keywords, msec, number, number32, offset, size, size_value, temp_path, text},
    ast::Directive,
    directives::core::error_log,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value::{self, Resolution},
};

/// `root` or `alias`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Alias,
}

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "root",
        syntax: "path",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("html"),
        doc: "The folder of files; the URI is appended to it. Relative paths begin at the prefix.",
        set: Setter::Simple(|reader, directive| root(reader, directive, Kind::Root)),
    },
    Row {
        name: "alias",
        syntax: "path",
        contexts: Contexts::LOCATION,
        arity: Arity::ONE,
        default: None,
        doc: "The folder that the location's prefix stands for; what follows the prefix is appended.",
        set: Setter::Simple(|reader, directive| root(reader, directive, Kind::Alias)),
    },
    Row {
        name: "internal",
        syntax: "",
        contexts: Contexts::LOCATION,
        arity: Arity::NONE,
        default: None,
        doc: "Only internal redirects get here; others are answered with 404.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.internal, |_, _| Some(true))
        }),
    },
    Row {
        name: "default_type",
        syntax: "mime-type",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("text/plain"),
        doc: "The media type of files whose ending `types` doesn't name.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.default_type, text)
        }),
    },
    Row {
        name: "client_max_body_size",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1m"),
        doc: "How long a request's body may be, else 413; 0 for no limit.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.client_max_body_size, offset)
        }),
    },
    Row {
        name: "client_body_buffer_size",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("16k"),
        doc: "How much of a request's body is kept in memory before it goes to a file.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.client_body_buffer_size, size)
        }),
    },
    Row {
        name: "client_body_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long may pass between two reads of a request's body; then 408.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.client_body_timeout, msec)
        }),
    },
    Row {
        name: "client_body_temp_path",
        syntax: "path [level1 [level2 [level3]]]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 4),
        default: Some("client_body_temp"),
        doc: "The folder for request bodies that don't fit their buffer. Levels are not needed and ignored.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.client_body_temp_path, temp_path)
        }),
    },
    Row {
        name: "limit_rate",
        syntax: "rate",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "How many bytes of a response are sent in a second; 0 for as many as can be. Variables are allowed. `$limit_rate` that \
              `set` has given a value, and `X-Accel-Limit-Rate` of a peer, take its place.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.limit_rate, size_value)
        }),
    },
    Row {
        name: "limit_rate_after",
        syntax: "size",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "How much of a response is sent before `limit_rate` holds. Variables are allowed.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.limit_rate_after, size_value)
        }),
    },
    Row {
        name: "send_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long may pass between two writes to a client.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.send_timeout, msec)
        }),
    },
    Row {
        name: "keepalive_timeout",
        syntax: "time [header-time]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 2),
        default: Some("75s"),
        doc: "How long an idle client connection stays open; 0 closes after each response. The second time is what the `Keep-Alive` field says.",
        set: Setter::Simple(keepalive_timeout),
    },
    Row {
        name: "keepalive_requests",
        syntax: "number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1000"),
        doc: "How many requests a client connection serves.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.keepalive_requests, number)
        }),
    },
    Row {
        name: "keepalive_time",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1h"),
        doc: "How old a client connection may get.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.keepalive_time, msec)
        }),
    },
    Row {
        name: "keepalive_min_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "How long an idle client connection stays open at least while workers shut down; without it, a second. \
              `worker_shutdown_timeout` ends it earlier.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.keepalive_min_timeout, msec)
        }),
    },
    Row {
        name: "keepalive_disable",
        syntax: "none | browser ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 2),
        default: Some("msie6"),
        doc: "Browsers whose connections are not kept: `msie6`, old Internet Explorers after a POST, and `safari`, Safari \
              on a Mac.",
        set: Setter::Simple(|reader, directive| {
            let disable = keepalive_disable(reader, directive);
            reader.frame.scope.core.keepalive_disable = Some(disable);
        }),
    },
    Row {
        name: "msie_padding",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether Evenkeel's own pages of errors are made longer than 512 bytes for Internet Explorer and Chrome, which \
              replace shorter ones by pages of their own.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.msie_padding, flag)
        }),
    },
    Row {
        name: "msie_refresh",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether Internet Explorer is sent a page that refreshes itself instead of a redirect with 301 or 302.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.msie_refresh, flag)
        }),
    },
    Row {
        name: "lingering_close",
        syntax: "off | on | always",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether what a client still sends is read before its connection closes, so that it sees the response.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.lingering_close, lingering_close)
        }),
    },
    Row {
        name: "lingering_time",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("30s"),
        doc: "How long that goes on in all.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.lingering_time, msec)
        }),
    },
    Row {
        name: "lingering_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("5s"),
        doc: "How long it waits for more.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.lingering_timeout, msec)
        }),
    },
    Row {
        name: "reset_timedout_connection",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether connections that time out are reset rather than closed.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.reset_timedout_connection, flag)
        }),
    },
    Row {
        name: "sendfile",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Read for the sake of existing files; how bytes get from a file to a socket is Evenkeel's choice.",
        set: Setter::Checked(|reader, directive| {
            flag(reader, directive);
        }),
    },
    Row {
        name: "tcp_nopush",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Read for the sake of existing files; a response's head and beginning go out together where they fit.",
        set: Setter::Checked(|reader, directive| {
            flag(reader, directive);
        }),
    },
    Row {
        name: "tcp_nodelay",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether small writes leave at once on client connections that stay open, stream or are upgraded; \
              connections to peers always do.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.tcp_nodelay, flag)
        }),
    },
    Row {
        name: "server_tokens",
        syntax: "on | off | build",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether error pages and the `Server` field tell the version.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.server_tokens, server_tokens)
        }),
    },
    Row {
        name: "absolute_redirect",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether redirects name scheme and host.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.absolute_redirect, flag)
        }),
    },
    Row {
        name: "server_name_in_redirect",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether they name the first `server_name` rather than the request's host.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.server_name_in_redirect, flag)
        }),
    },
    Row {
        name: "port_in_redirect",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether they name the port.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.port_in_redirect, flag)
        }),
    },
    Row {
        name: "recursive_error_pages",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether an error in an `error_page` leads to another one.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.recursive_error_pages, flag)
        }),
    },
    Row {
        name: "chunked_transfer_encoding",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether a response of unknown length is sent in chunks to HTTP/1.1 clients. With `off` its end is the end of \
              the connection, as for older clients, and no response has trailers.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.chunked_transfer_encoding, flag)
        }),
    },
    Row {
        name: "etag",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether files are sent with an `ETag`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.etag, flag)
        }),
    },
    Row {
        name: "if_modified_since",
        syntax: "off | exact | before",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("exact"),
        doc: "When a file counts as not modified.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.if_modified_since, if_modified_since)
        }),
    },
    Row {
        name: "max_ranges",
        syntax: "number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "How many byte ranges of a file one response may hold; 0 for none.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.max_ranges, number32)
        }),
    },
    Row {
        name: "log_not_found",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether a missing file is logged as an error.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.log_not_found, flag)
        }),
    },
    Row {
        name: "satisfy",
        syntax: "all | any",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("all"),
        doc: "Whether `allow` and `deny`, `auth_basic` and `auth_request` must all let a request in, as far as they are \
              there, or one of them is enough.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.satisfy_any, satisfy)
        }),
    },
    Row {
        name: "auth_delay",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("0s"),
        doc: "How long an answer of 401 waits, so that passwords can't be guessed quickly.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.auth_delay, msec)
        }),
    },
    Row {
        name: "log_subrequest",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether requests of `auth_request` and `mirror` are written to the access log.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.core.log_subrequest, flag)
        }),
    },
    Row {
        name: "types",
        syntax: "{ mime-type ending ...; }",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::NONE,
        default: Some("{ text/html html; image/gif gif; image/jpeg jpg; }"),
        doc: "The media types of files by their endings. `include mime.types` works without that file too.",
        set: Setter::Block(types),
    },
    Row {
        name: "error_log",
        syntax: "file | stderr | syslog:server=address[,parameter=value] [level]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: None,
        doc: "Where errors of requests here are logged, instead of the process's log.",
        set: Setter::Simple(|reader, directive| {
            if let Some(log) = error_log(reader, directive) {
                reader.frame.scope.core.error_logs.get_or_insert_default().push(log);
            }
        }),
    },
];

fn lingering_close(reader: &mut Reader<'_>, directive: &Directive) -> Option<LingeringClose> {
    let choices =
        [("off", LingeringClose::Off), ("on", LingeringClose::On), ("always", LingeringClose::Always)];
    keyword(reader, directive, &choices)
}

fn server_tokens(reader: &mut Reader<'_>, directive: &Directive) -> Option<ServerTokens> {
    let choices = [("off", ServerTokens::Off), ("on", ServerTokens::On), ("build", ServerTokens::Build)];
    keyword(reader, directive, &choices)
}

fn if_modified_since(reader: &mut Reader<'_>, directive: &Directive) -> Option<IfModifiedSince> {
    let choices = [
        ("off", IfModifiedSince::Off),
        ("exact", IfModifiedSince::Exact),
        ("before", IfModifiedSince::Before),
    ];
    keyword(reader, directive, &choices)
}

fn satisfy(reader: &mut Reader<'_>, directive: &Directive) -> Option<bool> {
    keyword(reader, directive, &[("all", false), ("any", true)])
}

fn keepalive_disable(reader: &mut Reader<'_>, directive: &Directive) -> KeepaliveDisable {
    let browsers = keywords(reader, directive, &[("none", 0), ("msie6", 1), ("safari", 2)]);
    KeepaliveDisable { msie6: browsers.contains(&1), safari: browsers.contains(&2) }
}

fn keepalive_timeout(reader: &mut Reader<'_>, directive: &Directive) {
    reader.once(directive, |frame| &mut frame.scope.core.keepalive_timeout, msec);
    let Some(word) = directive.args.get(1) else {
        return;
    };
    match value::time(&word.text, Resolution::Seconds) {
        Some(time) => reader.frame.scope.core.keepalive_header = Some(Some(time)),
        None => {
            let nginx = "\"keepalive_timeout\" directive invalid value".to_owned();
            reader.invalid(directive, word, nginx, "a time in whole seconds");
        }
    }
}

fn root(reader: &mut Reader<'_>, directive: &Directive, kind: Kind) {
    let Some(word) = directive.args.first() else {
        return;
    };
    match &reader.frame.scope.core.root {
        Some(Root::Root(_)) if kind == Kind::Root => return reader.duplicate(directive),
        Some(Root::Alias(_)) if kind == Kind::Alias => return reader.duplicate(directive),
        Some(earlier) => return both(reader, directive, matches!(earlier, Root::Alias(_))),
        None => {}
    }
    let name = &directive.name.text;
    if kind == Kind::Alias && matches!(reader.frame.matcher, Some(LocationMatcher::Named(_))) {
        let nginx = "the \"alias\" directive cannot be used inside the named location";
        return reader.error(
            "nginx::misplaced-directive",
            "`alias` needs a location with a path",
            word.span,
            nginx,
        );
    }
    for variable in ["document_root", "realpath_root"] {
        if word.text.contains(&format!("${variable}")) || word.text.contains(&format!("${{{variable}}}")) {
            let nginx = format!("the ${variable} variable cannot be used in the \"{name}\" directive");
            let message = format!("`${variable}` comes from `{name}` itself");
            return reader.error("nginx::circular-variable", message, word.span, nginx);
        }
    }
    let text = match kind {
        Kind::Root => word.text.strip_suffix('/').unwrap_or(&word.text),
        Kind::Alias => &word.text,
    };
    let absolute = if text.starts_with('$') || text.is_empty() && word.text == "/" {
        text.to_owned()
    } else {
        reader.absolute(text).to_string_lossy().into_owned()
    };
    if let Some(template) = reader.template_text(&absolute, word) {
        reader.frame.scope.core.root = Some(match kind {
            Kind::Root => Root::Root(template),
            Kind::Alias => Root::Alias(template),
        });
    }
}

fn both(reader: &mut Reader<'_>, directive: &Directive, alias_first: bool) {
    let (name, earlier) = (&directive.name.text, if alias_first { "alias" } else { "root" });
    let mut found = Diagnostic::error("nginx::duplicate", format!("`{name}` and `{earlier}` in one block"))
        .at(directive.span(), "");
    if let Some(first) = reader.frame.seen.get(earlier) {
        found = found.at(*first, "set here already");
    }
    let nginx = format!("\"{name}\" directive is duplicate, \"{earlier}\" directive was specified earlier");
    reader.diagnostics.push(found.nginx(nginx));
}

fn types(reader: &mut Reader<'_>, _: &Directive, block: &[Directive]) {
    let mut types = reader.frame.scope.core.types.take().unwrap_or_default();
    for line in block {
        if line.block.is_some() {
            let message = "no block is allowed in `types`";
            reader.error("nginx::unexpected-block", message, line.span(), "unexpected \"{\"");
            continue;
        }
        for ending in &line.args {
            let ending = ending.text.to_ascii_lowercase();
            types.retain(|(known, _)| *known != ending);
            types.push((ending, line.name.text.clone()));
        }
    }
    reader.frame.scope.core.types = Some(types);
}
