//! ngx_http_core_module: the blocks, and how a server's connections and request heads are read.
//!
//! `listen` and `server_name` are in `http_listen.rs`, what locations inherit in `http_core_scope.rs`.

use keel_diag::{Diagnostic, Span};
use keel_model::{LocationMatcher, ServerName};

use crate::{
    arguments::{buffers, flag, msec, number32, size},
    ast::Directive,
    directives::{
        http_if,
        http_listen::{self, Listen},
        http_referer,
    },
    lowering,
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// What a server sets that no location can.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerSettings {
    pub(crate) listens: Vec<Listen>,
    /// Whether there is any `listen`, one that can't be honoured included.
    pub(crate) listen_seen: bool,
    /// The parameters for which a `listen` is skipped: what they ask for is not there yet.
    pub(crate) skipped: Vec<Span>,
    pub(crate) names: Vec<(ServerName, Span)>,
}

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "http",
        syntax: "{ ... }",
        contexts: Contexts::MAIN,
        arity: Arity::NONE,
        default: None,
        doc: "Holds everything about HTTP.",
        set: Setter::Block(http),
    },
    Row {
        name: "server",
        syntax: "{ ... }",
        contexts: Contexts::HTTP,
        arity: Arity::NONE,
        default: None,
        doc: "A virtual server. Which one answers is decided by the address a connection came in on and the \
              request's host.",
        set: Setter::Block(server),
    },
    Row {
        name: "location",
        syntax: "[= | ~ | ~* | ^~] uri { ... } | @name { ... }",
        contexts: Contexts::SERVER_LOCATION,
        arity: Arity::Take(1, 2),
        default: None,
        doc: "What holds for requests to these URIs: `=` exactly this one, without a sign those that begin so, `^~` \
              the same and no expression is tried, `~` and `~*` a regular expression with and without regard to case, \
              `@name` only for internal redirects. The longest prefix wins unless an expression matches.",
        set: Setter::Block(location),
    },
    Row {
        name: "listen",
        syntax: "address[:port] | port | unix:path [default_server] [backlog=number] [reuseport] [ipv6only=on|off] \
                 [rcvbuf=size] [sndbuf=size] [so_keepalive=on|off|idle:interval:count] [deferred] \
                 [fastopen=number] [bind] [proxy_protocol] [http2]",
        contexts: Contexts::SERVER,
        arity: Arity::AtLeast(1),
        default: Some("*:80 | *:8000"),
        doc: "Where the server listens. Without any, port 80 for root and 8000 otherwise. A port may be a range \
              `first-last`. `reuseport` is read without effect: the supervisor keeps one socket for all \
              workers, over reloads too, and each worker accepts from it. With `proxy_protocol` every connection \
              begins with a header of the PROXY protocol, version 1 or 2, within `client_header_timeout`. `http2` \
              is the older way to say `http2 on` of all servers of the address.",
        set: Setter::Simple(http_listen::listen),
    },
    Row {
        name: "server_name",
        syntax: "name ...",
        contexts: Contexts::SERVER,
        arity: Arity::AtLeast(1),
        default: Some("\"\""),
        doc: "The server's names: exact, with a `*.` in front or a `.*` behind, `.name` for both, or `~` and a \
              regular expression.",
        set: Setter::Simple(http_listen::server_name),
    },
    Row {
        name: "client_header_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long a request's head may take to arrive; then 408.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.header_timeout, msec);
        }),
    },
    Row {
        name: "client_header_buffer_size",
        syntax: "size",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("1k"),
        doc: "How much of a request's head is read before a large buffer is taken.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.header_buffer, size);
        }),
    },
    Row {
        name: "large_client_header_buffers",
        syntax: "number size",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::TWO,
        default: Some("4 8k"),
        doc: "Bounds a request's head: the request line and each field must fit one buffer, all of it so many.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.large_header_buffers, buffers);
        }),
    },
    Row {
        name: "max_headers",
        syntax: "number",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("1000"),
        doc: "How many fields a request's head may have.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.headers_max, number32);
        }),
    },
    Row {
        name: "ignore_invalid_headers",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether fields with unusual characters in their names are dropped rather than passed on.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.ignore_invalid_headers, flag);
        }),
    },
    Row {
        name: "underscores_in_headers",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether `_` is a usual character in a field's name.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.underscores_in_headers, flag);
        }),
    },
    Row {
        name: "merge_slashes",
        syntax: "on | off",
        contexts: Contexts::HTTP_SERVER,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether several slashes in a row in a URI count as one.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.client.merge_slashes, flag);
        }),
    },
];

fn http(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    if reader.frame.core.http.is_some() {
        return reader.duplicate(directive);
    }
    reader.frame.core.http = Some(directive.name.span);
    reader.http.names.note_blocks(block);
    let frame = reader.inside(Frame::new(Contexts::HTTP, Some(directive.name.span)), block);
    lowering::lower_http(reader, frame);
}

fn server(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let frame = reader.inside(Frame::new(Contexts::SERVER, Some(directive.name.span)), block);
    http_referer::check(reader, &frame);
    reader.http.servers.push(frame);
}

fn location(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let matcher = matcher(reader, directive);
    if let Some(matcher) = &matcher {
        check_nesting(reader, directive, matcher);
        check_duplicate(reader, directive, matcher);
    }
    let mut frame = Frame::new(Contexts::LOCATION, Some(directive.span()));
    frame.matcher = matcher;
    let frame = reader.inside(frame, block);
    reader.diagnostics.extend(http_if::traps(&frame));
    http_referer::check(reader, &frame);
    if frame.matcher.is_some() {
        reader.frame.locations.push(frame);
    }
}

fn matcher(reader: &mut Reader<'_>, directive: &Directive) -> Option<LocationMatcher> {
    let (modifier, name, word) = match directive.args.as_slice() {
        [modifier, name] => (modifier.text.as_str(), name.text.as_str(), name),
        [name] => {
            let modifier =
                ["=", "^~", "~*", "~"].into_iter().find(|modifier| name.text.starts_with(modifier));
            let modifier = modifier.unwrap_or_default();
            (modifier, name.text.get(modifier.len()..).unwrap_or_default(), name)
        }
        _ => return None,
    };
    match modifier {
        "" if name.starts_with('@') => Some(LocationMatcher::Named(name.to_owned())),
        "" => Some(LocationMatcher::Prefix(name.to_owned())),
        "=" => Some(LocationMatcher::Exact(name.to_owned())),
        "^~" => Some(LocationMatcher::PrefixFinal(name.to_owned())),
        "~" => reader.pattern(name, word.span, false).map(LocationMatcher::Regex),
        "~*" => reader.pattern(name, word.span, true).map(LocationMatcher::Regex),
        _ => {
            let nginx = format!("invalid location modifier \"{modifier}\"");
            let word = directive.args.first()?;
            reader.invalid(directive, word, nginx, "`=`, `^~`, `~` or `~*`");
            None
        }
    }
}

/// Gives a location's name as nginx's messages show it.
pub(crate) fn location_name(matcher: &LocationMatcher) -> &str {
    match matcher {
        LocationMatcher::Exact(name)
        | LocationMatcher::Prefix(name)
        | LocationMatcher::PrefixFinal(name)
        | LocationMatcher::Named(name) => name,
        LocationMatcher::Regex(pattern) => &pattern.source,
    }
}

fn check_nesting(reader: &mut Reader<'_>, directive: &Directive, matcher: &LocationMatcher) {
    let Some(outer) = &reader.frame.matcher else {
        return;
    };
    let (name, outer_name) = (location_name(matcher), location_name(outer));
    let inside =
        |what: &str| format!("location \"{name}\" cannot be inside the {what} location \"{outer_name}\"");
    let (nginx, message) = match (outer, matcher) {
        (LocationMatcher::Exact(_), _) => (inside("exact"), "no location can be inside an exact one"),
        (LocationMatcher::Named(_), _) => (inside("named"), "no location can be inside a named one"),
        (_, LocationMatcher::Named(_)) => (
            format!("named location \"{name}\" can be on the server level only"),
            "a named location can only stand directly in `server`",
        ),
        (_, LocationMatcher::Regex(_)) => return,
        (LocationMatcher::Regex(_), _) => (
            format!("location \"{name}\" is outside location \"{outer_name}\""),
            "only regular expressions can be inside a location that is one",
        ),
        _ if name.starts_with(outer_name) => return,
        _ => (
            format!("location \"{name}\" is outside location \"{outer_name}\""),
            "a location inside another must begin with its prefix",
        ),
    };
    reader.error("nginx::location-nesting", message, directive.span(), nginx);
}

fn check_duplicate(reader: &mut Reader<'_>, directive: &Directive, matcher: &LocationMatcher) {
    // A prefix and a final prefix of one name clash; an exact one and a prefix live side by side.
    let key = |matcher: &LocationMatcher| match matcher {
        LocationMatcher::Exact(name) => Some((0, name.clone())),
        LocationMatcher::Prefix(name) | LocationMatcher::PrefixFinal(name) => Some((1, name.clone())),
        // Of several expressions or named ones the first holds, as in nginx.
        LocationMatcher::Named(_) | LocationMatcher::Regex(_) => None,
    };
    let Some(wanted) = key(matcher) else {
        return;
    };
    let same = reader
        .frame
        .locations
        .iter()
        .find(|other| other.matcher.as_ref().and_then(key).as_ref() == Some(&wanted));
    if let Some(first) = same.and_then(|other| other.opened) {
        let name = &wanted.1;
        reader.diagnostics.push(
            Diagnostic::error("nginx::duplicate-location", format!("a second location `{name}`"))
                .at(directive.span(), "again here")
                .at(first, "first here")
                .nginx(format!("duplicate location \"{name}\"")),
        );
    }
}
