//! ngx_http_mirror_module: copies of requests.

use crate::{
    arguments::flag,
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "mirror",
        syntax: "uri | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Sends a copy of each request to this path of the same server and ignores what is answered. Several may be \
              given. Nobody waits for a copy: neither the response nor the next request on the connection. A worker makes \
              1,024 at a time at most and leaves out, and logs, what is beyond it.",
        set: Setter::Simple(mirror),
    },
    Row {
        name: "mirror_request_body",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether copies have the request's body, which is then read whole before they are made, whatever \
              `proxy_request_buffering` says.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.mirror.request_body, flag)
        }),
    },
];

fn mirror(reader: &mut Reader<'_>, directive: &Directive) {
    let Some(word) = directive.args.first() else { return };
    let paths = &mut reader.frame.scope.mirror.paths;
    match (paths, word.text.as_str()) {
        (paths @ None, "off") => *paths = Some(Vec::new()),
        // `off` and a path exclude each other, whichever comes first.
        (Some(_), "off") => reader.duplicate(directive),
        (Some(paths), _) if paths.is_empty() => reader.duplicate(directive),
        (paths, path) => paths.get_or_insert_default().push(path.to_owned()),
    }
}
