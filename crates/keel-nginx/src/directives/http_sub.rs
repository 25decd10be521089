//! ngx_http_sub_module: replacing text in responses.

use keel_model::SubPair;

use crate::{
    arguments::{flag, media_types},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// How many texts one block looks for at most, as in nginx.
const PAIRS_MAX: usize = 255;

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "sub_filter",
        syntax: "string replacement",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: None,
        doc: "Replaces a text in responses, in any case of its letters, also where it is cut in pieces on its way. Both may hold \
              variables. Of several texts that begin at one place the first in the file is replaced. Peers must not compress: \
              `proxy_set_header Accept-Encoding \"\";` or `gunzip on;`.",
        set: Setter::Simple(pair),
    },
    Row {
        name: "sub_filter_once",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether each text is replaced once only.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.sub.once, flag);
        }),
    },
    Row {
        name: "sub_filter_last_modified",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether such responses keep `Last-Modified`, and their `ETag` as a weak one.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.sub.last_modified, flag);
        }),
    },
    Row {
        name: "sub_filter_types",
        syntax: "mime-type ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some("text/html"),
        doc: "The media types of the responses in which text is replaced, besides `text/html`; `*` for all.",
        set: Setter::Simple(|reader, directive| {
            media_types(reader, directive, |frame| &mut frame.scope.sub.types);
        }),
    },
];

fn pair(reader: &mut Reader<'_>, directive: &Directive) {
    let [text, replacement] = directive.args.as_slice() else { return };
    if text.text.is_empty() {
        let nginx = "empty search pattern".to_owned();
        return reader.invalid(directive, text, nginx, "a text");
    }
    if reader.frame.scope.sub.pairs.as_ref().is_some_and(|pairs| pairs.len() >= PAIRS_MAX) {
        let nginx = format!("number of search patterns exceeds {PAIRS_MAX}");
        return reader.invalid(directive, text, nginx, "fewer texts in one block");
    }
    let (Some(text), Some(replacement)) = (reader.template(text), reader.template(replacement)) else {
        return;
    };
    reader.frame.scope.sub.pairs.get_or_insert_default().push(SubPair { text, replacement });
}
