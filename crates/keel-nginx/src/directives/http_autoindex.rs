//! ngx_http_autoindex_module: lists of folders.

use keel_model::AutoindexFormat;

use crate::{
    arguments::{flag, keyword},
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "autoindex",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether a folder without an index file is answered with a list of what is in it. Not in the files of a container \
              that isn't there.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.autoindex.enabled, flag);
        }),
    },
    Row {
        name: "autoindex_format",
        syntax: "html | xml | json | jsonp",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("html"),
        doc: "What the list is written in; with `jsonp` the argument `callback` names a function around it.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.autoindex.format,
                |reader, directive| {
                    let choices = [
                        ("html", AutoindexFormat::Html),
                        ("json", AutoindexFormat::Json),
                        ("jsonp", AutoindexFormat::Jsonp),
                        ("xml", AutoindexFormat::Xml),
                    ];
                    keyword(reader, directive, &choices)
                },
            );
        }),
    },
    Row {
        name: "autoindex_exact_size",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether the page has sizes in bytes, or rounded to K, M and G.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.autoindex.exact_size, flag);
        }),
    },
    Row {
        name: "autoindex_localtime",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether the page has this host's time, or UTC.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.autoindex.localtime, flag);
        }),
    },
];
